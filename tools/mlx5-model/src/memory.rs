// SPDX-License-Identifier: GPL-2.0

//! The driver's memory, as a function reaches it by DMA.

use std::fs::File;

use virtio::memory::Fault;
use vm_memory::{
    GuestMemoryAtomic,
    GuestMemoryMmap, //
};

/// The driver's memory: ranges of bus addresses that come and go.
#[derive(Clone)]
pub struct DmaSpace {
    /// Replaced as a whole when a range comes or goes; who is in the middle of an access keeps
    /// what it began with.
    maps: GuestMemoryAtomic<GuestMemoryMmap>,
}

impl Default for DmaSpace {
    fn default() -> Self {
        Self {
            maps: GuestMemoryAtomic::new(GuestMemoryMmap::new()),
        }
    }
}

impl DmaSpace {
    /// Adds `size` bytes of `file` from `offset` at bus address `addr`.
    ///
    /// # Errors
    ///
    /// If the file cannot be mapped, or the range overlaps another.
    pub fn map(&self, addr: u64, size: u64, file: File, offset: u64) -> std::io::Result<()> {
        let _ = (addr, size, file, offset);
        todo!()
    }

    /// Takes a range away. One that is not there is no error.
    pub fn unmap(&self, addr: u64, size: u64) {
        let _ = (addr, size);
        todo!()
    }

    /// The memory of this moment.
    pub fn snapshot(&self) -> Dma {
        Dma {
            maps: vm_memory::GuestAddressSpace::memory(&self.maps),
        }
    }
}

/// The memory of one moment. Accesses may cross ranges that adjoin.
pub struct Dma {
    maps: vm_memory::atomic::GuestMemoryLoadGuard<GuestMemoryMmap>,
}

impl Dma {
    /// Copies `to.len()` bytes at `addr`.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if a byte is not there.
    pub fn read(&self, addr: u64, to: &mut [u8]) -> Result<(), Fault> {
        let _ = (&self.maps, addr, to);
        todo!()
    }

    /// Copies `from` to `addr`.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if a byte is not there.
    pub fn write(&self, addr: u64, from: &[u8]) -> Result<(), Fault> {
        let _ = (addr, from);
        todo!()
    }
}
