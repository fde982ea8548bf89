// SPDX-License-Identifier: GPL-2.0

//! One virtual function, from its BAR inwards.

use std::sync::{
    Arc,
    Mutex, //
};

use crate::{
    eswitch::Eswitch,
    hca::Hca,
    memory::DmaSpace,
    platform::{
        Interrupts,
        Platform, //
    },
    profile::Profile,
    trace::Trace,
    virtq::Workers, //
};

/// The size of BAR 0 in bytes.
pub const BAR_SIZE: u64 = 2 << 20;

/// The doorbell page of virtqueues: a 16-bit little-endian queue index is a kick.
pub const DOORBELL_PAGE: u64 = 0x18_0000;

/// What tells one function from another.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name in messages, traces and on the control socket.
    pub name: String,
    /// What the firmware can do.
    pub profile: Arc<Profile>,
    /// The permanent address of the port.
    pub mac: [u8; 6],
    /// The largest frame of the port without its Ethernet header, in bytes.
    pub mtu: u16,
    /// The number of the function among the virtual functions of the board, from 0.
    pub number: u16,
}

/// What functions of one process share, or are given from outside.
pub struct Surroundings {
    /// The switch they hang on.
    pub eswitch: Arc<Eswitch>,
    /// The threads that move their traffic.
    pub workers: Arc<Workers>,
    /// Where commands and events are written down.
    pub trace: Arc<Trace>,
    /// The driver's memory.
    pub memory: Arc<DmaSpace>,
    /// The interrupt vectors of this function.
    pub interrupts: Arc<dyn Interrupts>,
}

/// One virtual function.
pub struct Function {
    /// What everything inside stands on.
    pub platform: Arc<Platform>,
    /// What commands act on.
    pub hca: Mutex<Option<Hca>>,
}

impl Function {
    /// Makes a function that no driver has touched yet, and hangs it on the switch.
    pub fn new(settings: Settings, surroundings: Surroundings) -> Arc<Self> {
        let _ = (settings, surroundings);
        todo!()
    }

    /// The driver reads `to.len()` bytes of BAR 0 at `offset`. What is not there reads as 0; a
    /// function that is gone reads as all ones.
    pub fn bar_read(&self, offset: u64, to: &mut [u8]) {
        let _ = (offset, to);
        todo!()
    }

    /// The driver writes to BAR 0 at `offset`. Never waits: what takes time goes to a thread.
    pub fn bar_write(&self, offset: u64, from: &[u8]) {
        let _ = (offset, from);
        todo!()
    }

    /// The function is reset: every object goes, nothing touches the driver's memory afterwards.
    pub fn reset(&self) {
        todo!()
    }
}
