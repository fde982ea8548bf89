// SPDX-License-Identifier: GPL-2.0

//! Memory keys: what part of the driver's memory an object may use, at which addresses.

use std::sync::Arc;

use virtio::memory::{
    Fault,
    Memory, //
};

/// The memory keys of a function.
#[derive(Default)]
pub struct Mkeys {}

impl Mkeys {
    /// Opens a key for a device that reads and writes through it, as an address space.
    ///
    /// The key is looked up by its number at each use: one that was destroyed faults, and so does
    /// what it refers to.
    pub fn open(self: &Arc<Self>, key: u32) -> Space {
        let _ = key;
        todo!()
    }
}

/// The address space of one memory key.
pub struct Space {}

impl Memory for Space {
    fn read(&self, _addr: u64, _to: &mut [u8]) -> Result<(), Fault> {
        todo!()
    }

    fn write(&self, _addr: u64, _from: &[u8]) -> Result<(), Fault> {
        todo!()
    }

    fn load_u16(&self, _addr: u64) -> Result<u16, Fault> {
        todo!()
    }

    fn store_u16(&self, _addr: u64, _value: u16) -> Result<(), Fault> {
        todo!()
    }
}
