// SPDX-License-Identifier: GPL-2.0

//! The memory of the host: what the function reaches by DMA, and who has which part of it.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    sync::{
        Arc,
        Mutex,
        MutexGuard,
        PoisonError, //
    },
};

use driver::Region;
use vmm_sys_util::tempfile::TempFile;

/// The bytes of a page.
pub const PAGE: u64 = 4096;

/// Where the memory begins on the bus: far enough up that an address cut to 32 bits is noticed.
pub const BASE: u64 = 0x12_3400_0000;

/// Memory that a function can reach, given out in pages. Clones are the same memory.
#[derive(Clone)]
pub struct Memory {
    region: Region,
    /// Free ranges: length in bytes by address.
    free: Arc<Mutex<BTreeMap<u64, u64>>>,
}

impl Memory {
    /// Makes memory of `bytes` bytes, and the file through which a device sees it.
    ///
    /// # Errors
    ///
    /// If this machine has not got so much.
    pub fn new(bytes: u64) -> io::Result<(Self, File)> {
        let file = TempFile::new().map_err(io::Error::from)?.into_file();
        file.set_len(bytes)?;
        let region = Region::of_file(BASE, bytes as usize, file.try_clone()?)?;
        let free = BTreeMap::from([(BASE, bytes)]);
        let memory = Self {
            region,
            free: Arc::new(Mutex::new(free)),
        };
        Ok((memory, file))
    }

    /// All of it.
    pub fn region(&self) -> &Region {
        &self.region
    }

    fn ranges(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes that nobody has.
    pub fn available(&self) -> u64 {
        self.ranges().values().sum()
    }

    /// Gives out `bytes` bytes of zeroes, rounded up to whole pages.
    ///
    /// # Panics
    ///
    /// If there is not so much in one piece: a test that needs more makes more.
    pub fn alloc(&self, bytes: u64) -> Buffer {
        let len = bytes.max(1).next_multiple_of(PAGE);
        let mut free = self.ranges();
        let (&addr, &size) = free
            .iter()
            .find(|(_, size)| **size >= len)
            .expect("the host has too little memory");
        free.remove(&addr);
        if size > len {
            free.insert(addr + len, size - len);
        }
        drop(free);
        self.region.fill(addr, len);
        Buffer {
            addr,
            len,
            memory: self.clone(),
        }
    }

    fn give_back(&self, mut addr: u64, mut len: u64) {
        let mut free = self.ranges();
        if let Some(after) = free.remove(&(addr + len)) {
            len += after;
        }
        let before = free.range(..addr).next_back().map(|(at, len)| (*at, *len));
        if let Some((at, size)) = before.filter(|(at, size)| at + size == addr) {
            addr = at;
            len += size;
        }
        free.insert(addr, len);
    }
}

/// A part of the memory, given back when it is dropped.
pub struct Buffer {
    addr: u64,
    len: u64,
    memory: Memory,
}

impl Buffer {
    /// Its first address on the bus.
    pub fn addr(&self) -> u64 {
        self.addr
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.len
    }

    /// The addresses of its pages.
    pub fn pages(&self) -> impl Iterator<Item = u64> {
        (self.addr..self.addr + self.len).step_by(PAGE as usize)
    }

    /// Copies `len` bytes from `offset` on.
    pub fn get(&self, offset: u64, len: usize) -> Vec<u8> {
        self.memory.region.get(self.addr + offset, len)
    }

    /// Copies bytes to `offset`.
    pub fn set(&self, offset: u64, bytes: &[u8]) {
        self.memory.region.write(self.addr + offset, bytes);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.memory.give_back(self.addr, self.len);
    }
}

/// The addresses of pages as they follow the input of a command.
pub fn addresses(pages: impl Iterator<Item = u64>) -> Vec<u8> {
    pages.flat_map(u64::to_be_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_whole_again() {
        let (memory, _file) = Memory::new(8 * PAGE).unwrap();
        let parts: Vec<_> = (0..8).map(|_| memory.alloc(1)).collect();
        assert_eq!(memory.available(), 0);
        let (odd, even): (Vec<_>, Vec<_>) =
            parts.into_iter().partition(|part| part.addr() & PAGE != 0);
        drop(odd);
        drop(even);
        assert_eq!(memory.alloc(8 * PAGE).pages().count(), 8);
    }
}
