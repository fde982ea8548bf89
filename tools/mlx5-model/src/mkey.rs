// SPDX-License-Identifier: GPL-2.0

//! Memory keys: what part of the driver's memory an object may use, at which addresses.

use std::sync::Arc;

use virtio::memory::{
    Fault,
    Memory, //
};

use crate::memory::DmaSpace;

/// The memory keys of a function.
pub struct Mkeys {
    memory: Arc<DmaSpace>,
}

impl Mkeys {
    /// Makes a function's memory keys, none yet, for `memory`.
    pub fn new(memory: Arc<DmaSpace>) -> Self {
        Self { memory }
    }

    /// Opens a key for an object of protection domain `pd` that reads and writes through it, as an
    /// address space.
    ///
    /// The key is looked up by its number at each use: one that was destroyed faults, and so does
    /// what it refers to.
    pub fn open(self: &Arc<Self>, key: u32, pd: u32) -> Space {
        let _ = (key, pd, &self.memory);
        todo!()
    }

    /// Takes every key away, used or not. Nothing is read or written through one when this
    /// returns.
    pub fn clear(&self) {}
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
