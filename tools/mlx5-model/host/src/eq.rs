// SPDX-License-Identifier: GPL-2.0

//! Event queues, from the driver's side.

use std::sync::atomic::{
    fence,
    Ordering, //
};

use prm::{
    eq::Eqe,
    uar::{
        EqDoorbell,
        EQ_ARM,
        EQ_UPDATE, //
    },
    Layout, //
};
use zerocopy::{
    FromBytes,
    IntoBytes, //
};

use crate::memory::Buffer;

/// The bytes of an entry, and where in it the owner bit is.
const ENTRY: u64 = 64;
const OWNER: u64 = 63;

/// An event queue.
pub struct EventQueue {
    /// Its number.
    pub eqn: u8,
    /// Its vector.
    pub vector: u16,
    buffer: Buffer,
    log_size: u8,
    consumed: u32,
}

impl EventQueue {
    /// Memory for a queue of `1 << log_size` entries: every entry is the firmware's.
    pub(crate) fn prepare(buffer: Buffer, log_size: u8, vector: u16) -> Self {
        for at in 0..1u64 << log_size {
            buffer.set(at * ENTRY + OWNER, &[1]);
        }
        Self {
            eqn: 0,
            vector,
            buffer,
            log_size,
            consumed: 0,
        }
    }

    pub(crate) fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Takes the next event, if there is one.
    pub fn take(&mut self) -> Option<Eqe> {
        let place = u64::from(self.consumed & ((1 << self.log_size) - 1));
        let expected = ((self.consumed >> self.log_size) & 1) as u8;
        if self.buffer.get(place * ENTRY + OWNER, 1)[0] & 1 != expected {
            return None;
        }
        // The owner is read before the rest of the entry is.
        fence(Ordering::Acquire);
        let bytes = self.buffer.get(place * ENTRY, ENTRY as usize);
        self.consumed = self.consumed.wrapping_add(1);
        Eqe::read_from_bytes(&bytes).ok()
    }

    /// What to write to a page of doorbells, and where, to tell the firmware how far the queue was
    /// read; with `arm`, to be interrupted for the next event.
    pub fn doorbell(&self, arm: bool) -> (u64, Vec<u8>) {
        let mut doorbell = EqDoorbell::new();
        doorbell
            .set_eqn(self.eqn)
            .set_consumer_counter(self.consumed & 0xff_ffff);
        (
            if arm { EQ_ARM } else { EQ_UPDATE },
            doorbell.as_bytes().to_vec(),
        )
    }
}
