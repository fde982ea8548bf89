// SPDX-License-Identifier: GPL-2.0

//! Event queues, from the driver's side.

use crate::memory::Buffer;

/// The bytes of an entry, and where in it the owner bit is.
const ENTRY: u64 = 64;
const OWNER: u64 = 63;

/// Registers of a page of doorbells: update the consumer counter with arming and without.
const ARM: u64 = 0x40;
const UPDATE: u64 = 0x48;

/// An event: what an entry of an event queue says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(pub [u8; ENTRY as usize]);

impl Entry {
    /// Its type.
    pub fn kind(&self) -> u8 {
        self.0[1]
    }

    /// Its sub-type.
    pub fn sub_kind(&self) -> u8 {
        self.0[3]
    }

    /// A 32-bit number at a byte offset of its data.
    pub fn number(&self, offset: usize) -> u32 {
        let at = 32 + offset;
        u32::from_be_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }
}

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

    pub(crate) fn log_size(&self) -> u8 {
        self.log_size
    }

    /// Takes the next event, if there is one.
    pub fn next(&mut self) -> Option<Entry> {
        let place = u64::from(self.consumed & ((1 << self.log_size) - 1));
        let expected = (self.consumed >> self.log_size & 1) as u8;
        if self.buffer.get(place * ENTRY + OWNER, 1)[0] & 1 != expected {
            return None;
        }
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        let bytes = self.buffer.get(place * ENTRY, ENTRY as usize);
        self.consumed = self.consumed.wrapping_add(1);
        bytes.try_into().ok().map(Entry)
    }

    /// What to write to a page of doorbells, and where, to tell the firmware how far the queue was
    /// read; with `arm`, to be interrupted for the next event.
    pub fn doorbell(&self, arm: bool) -> (u64, [u8; 4]) {
        let value = u32::from(self.eqn) << 24 | self.consumed & 0xff_ffff;
        (if arm { ARM } else { UPDATE }, value.to_be_bytes())
    }
}
