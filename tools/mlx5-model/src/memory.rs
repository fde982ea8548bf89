// SPDX-License-Identifier: GPL-2.0

//! The driver's memory, as a function reaches it by DMA.
//!
//! An address is a bus address. Which ranges of them are memory is told by the client of the
//! vfio-user socket, which maps and unmaps them while it runs (firmware of a machine does so many
//! times while it starts). Nothing may therefore be kept of an address but its number:
//!
//! ```text
//!   DmaSpace ── snapshot() ──> Dma ── read, write, load, store, slices
//!      ▲                        └─ for one turn of work, then dropped
//!      └ map, unmap, clear: replace the ranges as a whole
//! ```
//!
//! An access that began before a range went away may still reach it: its memory stays mapped here
//! until the last [`Dma`] of that moment is dropped.

use std::{
    fs::File,
    io, iter,
    mem::size_of,
    sync::{
        atomic::{
            AtomicBool,
            Ordering, //
        },
        Arc,
        PoisonError, //
    },
};

use virtio::memory::{
    Access,
    Fault,
    Memory, //
};
use vm_memory::{
    atomic::GuestMemoryLoadGuard,
    guest_memory::FileOffset,
    mmap::MmapRegionBuilder,
    Address,
    AtomicAccess,
    Bytes,
    GuestAddress,
    GuestAddressSpace,
    GuestMemoryAtomic,
    GuestMemoryBackend,
    GuestMemoryMmap,
    GuestMemoryRegion,
    GuestRegionMmap,
    MemoryRegionAddress,
    Permissions,
    VolatileSlice, //
};

/// The driver's memory: ranges of bus addresses that come and go.
pub struct DmaSpace {
    /// Replaced as a whole when a range comes or goes; who is in the middle of an access keeps
    /// what it began with.
    maps: GuestMemoryAtomic<GuestMemoryMmap>,
    /// Whether nothing is reached any more.
    unreachable: AtomicBool,
    /// Whether the device may be master of the bus.
    master: AtomicBool,
}

impl Default for DmaSpace {
    fn default() -> Self {
        Self::of(GuestMemoryMmap::new())
    }
}

impl DmaSpace {
    fn of(maps: GuestMemoryMmap) -> Self {
        Self {
            maps: GuestMemoryAtomic::new(maps),
            unreachable: AtomicBool::new(false),
            master: AtomicBool::new(true),
        }
    }

    /// Makes a space of `size` bytes from bus address 0 on, all zeroes, that belong to this
    /// process: for tests and benchmarks, where there is no client.
    ///
    /// # Errors
    ///
    /// If there is not that much memory.
    pub fn anonymous(size: usize) -> io::Result<Self> {
        let maps = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)]);
        maps.map(Self::of).map_err(io::Error::other)
    }

    /// Adds `size` bytes of `file` from `offset` at bus address `addr`, for what `permissions` say.
    ///
    /// # Errors
    ///
    /// If the range is empty, ends behind the file or the address space, overlaps another, or
    /// cannot be mapped: its place in the file must begin with a page.
    pub fn map(
        &self,
        addr: u64,
        size: u64,
        file: File,
        offset: u64,
        permissions: Permissions,
    ) -> io::Result<()> {
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
        let end = offset.checked_add(size);
        // A place behind the end of a file can be mapped, but the process dies when it goes there.
        let metadata = file.metadata()?;
        if metadata.is_file() && end.is_none_or(|end| end > metadata.len()) {
            return Err(invalid("the range ends behind its file"));
        }
        let size = usize::try_from(size).map_err(|_| invalid("the range is too large"))?;
        let mut protection = libc::PROT_NONE;
        if permissions.allow(Permissions::Read) {
            protection |= libc::PROT_READ;
        }
        if permissions.has_write() {
            protection |= libc::PROT_WRITE;
        }
        let mapping = MmapRegionBuilder::new(size)
            .with_mmap_prot(protection)
            .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE)
            .with_file_offset(FileOffset::new(file, offset))
            .build()
            .map_err(io::Error::other)?;
        let range = GuestRegionMmap::new(mapping, GuestAddress(addr))
            .ok_or_else(|| invalid("the range ends behind the address space"))?;

        let changing = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        let more = self.maps.memory().insert_region(Arc::new(range));
        changing.replace(more.map_err(|e| io::Error::new(io::ErrorKind::AlreadyExists, e))?);
        Ok(())
    }

    /// Takes away every range that lies in the `size` bytes at bus address `addr`, and returns how
    /// many. A range that sticks out stays: it was mapped as a whole and goes as a whole.
    pub fn unmap(&self, addr: u64, size: u64) -> usize {
        let last = addr.saturating_add(size.saturating_sub(1));
        self.retain(|range| {
            size == 0 || range.start_addr().0 < addr || range.last_addr().raw_value() > last
        })
    }

    /// Takes every range away.
    pub fn clear(&self) {
        self.retain(|_| false);
    }

    /// Has a device that is gone reach nothing, or one that came back everything that is there.
    pub fn set_reachable(&self, reachable: bool) {
        self.unreachable.store(!reachable, Ordering::Relaxed);
    }

    /// Has a device that may not be master of the bus reach nothing, or one that may what is there.
    pub fn set_master(&self, master: bool) {
        self.master.store(master, Ordering::Relaxed);
    }

    /// Keeps the ranges that `keep` chooses and returns how many went.
    fn retain(&self, keep: impl Fn(&GuestRegionMmap) -> bool) -> usize {
        let changing = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        let mut maps = GuestMemoryMmap::clone(&self.maps.memory());
        let going: Vec<_> = maps
            .iter()
            .filter(|range| !keep(range))
            .map(|range| (range.start_addr(), range.len()))
            .collect();
        for &(start, len) in &going {
            if let Ok((fewer, _)) = maps.remove_region(start, len) {
                maps = fewer;
            }
        }
        changing.replace(maps);
        going.len()
    }

    /// The memory of this moment. To be dropped after one turn of work.
    pub fn snapshot(&self) -> Dma {
        let none = self.unreachable.load(Ordering::Relaxed) || !self.master.load(Ordering::Relaxed);
        let maps = if none {
            GuestMemoryAtomic::new(GuestMemoryMmap::new()).memory()
        } else {
            self.maps.memory()
        };
        Dma { maps }
    }
}

/// The memory of one moment. Accesses may cross ranges that adjoin.
///
/// No access moves a byte if one of its bytes is not there or not permitted.
pub struct Dma {
    maps: GuestMemoryLoadGuard<GuestMemoryMmap>,
}

impl Dma {
    /// Copies `to.len()` bytes at `addr`. Neither atomic nor ordered against other accesses.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if a byte is not there or not readable.
    pub fn read(&self, addr: u64, to: &mut [u8]) -> Result<(), Fault> {
        let mut rest = to;
        for piece in self.slices(addr, rest.len(), Access::Read)? {
            let (now, later) = rest.split_at_mut(piece.len());
            piece.copy_to(now);
            rest = later;
        }
        Ok(())
    }

    /// Copies `from` to `addr`. Neither atomic nor ordered against other accesses: who tells the
    /// driver of it with a [`store`](Self::store) afterwards has the order.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if a byte is not there or not writable.
    pub fn write(&self, addr: u64, from: &[u8]) -> Result<(), Fault> {
        let mut rest = from;
        for piece in self.slices(addr, rest.len(), Access::Write)? {
            let (now, later) = rest.split_at(piece.len());
            piece.copy_from(now);
            rest = later;
        }
        Ok(())
    }

    /// Reads the integer at `addr` in one access, as the processor stores it, with acquire
    /// ordering: what the driver wrote before this value is seen by accesses after the load.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if `addr` is not a multiple of the integer's size, or not there or not readable.
    pub fn load<T: AtomicAccess>(&self, addr: u64) -> Result<T, Fault> {
        let slice = self.aligned::<T>(addr, Access::Read)?;
        slice
            .load(0, Ordering::Acquire)
            .map_err(|_| Fault::read(addr))
    }

    /// Writes the integer `value` at `addr` in one access, as the processor stores it, with release
    /// ordering: a driver that sees this value sees what was written before it. A byte will do: the
    /// last byte of an event queue's entry is written so.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if `addr` is not a multiple of the integer's size, or not there or not writable.
    pub fn store<T: AtomicAccess>(&self, addr: u64, value: T) -> Result<(), Fault> {
        let slice = self.aligned::<T>(addr, Access::Write)?;
        slice
            .store(value, 0, Ordering::Release)
            .map_err(|_| Fault::write(addr))
    }

    /// The pieces of this process' memory that the `len` bytes at `addr` are, in order: for copies
    /// from and to files and other memory without a copy in between. They are exactly `len` bytes
    /// together.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if a byte is not there or `access` to it is not permitted.
    pub fn slices(
        &self,
        addr: u64,
        len: usize,
        access: Access,
    ) -> Result<impl Iterator<Item = VolatileSlice<'_>>, Fault> {
        // Nearly always one range has it all, and is looked up once.
        let mut first = None;
        let mut checked = 0;
        while checked < len {
            let piece = self
                .piece(addr + checked as u64, len - checked, access)
                .ok_or(Fault { addr, access })?;
            checked += piece.len();
            first.get_or_insert(piece);
        }
        let mut given = first.as_ref().map_or(len, VolatileSlice::len);
        let rest = iter::from_fn(move || {
            (given < len).then_some(())?;
            let piece = self.piece(addr + given as u64, len - given, access)?;
            given += piece.len();
            Some(piece)
        });
        Ok(first.into_iter().chain(rest))
    }

    /// What one range has of the `len` bytes at `addr`: its end is at most the range's, so that
    /// the address after it is one.
    fn piece(&self, addr: u64, len: usize, access: Access) -> Option<VolatileSlice<'_>> {
        let range = self.maps.find_region(GuestAddress(addr))?;
        let needed = match access {
            Access::Read => libc::PROT_READ,
            Access::Write => libc::PROT_WRITE,
        };
        if range.prot() & needed == 0 {
            return None;
        }
        let offset = addr.checked_sub(range.start_addr().0)?;
        let there = range.len().checked_sub(offset)?;
        let count = usize::try_from(there).map_or(len, |there| len.min(there));
        range.get_slice(MemoryRegionAddress(offset), count).ok()
    }

    fn aligned<T>(&self, addr: u64, access: Access) -> Result<VolatileSlice<'_>, Fault> {
        self.piece(addr, size_of::<T>(), access)
            .filter(|piece| addr % size_of::<T>() as u64 == 0 && piece.len() == size_of::<T>())
            .ok_or(Fault { addr, access })
    }
}

impl Memory for Dma {
    fn read(&self, addr: u64, to: &mut [u8]) -> Result<(), Fault> {
        self.read(addr, to)
    }

    fn write(&self, addr: u64, from: &[u8]) -> Result<(), Fault> {
        self.write(addr, from)
    }

    fn load_u16(&self, addr: u64) -> Result<u16, Fault> {
        self.load(addr)
    }

    fn store_u16(&self, addr: u64, value: u16) -> Result<(), Fault> {
        self.store(addr, value)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use proptest::prelude::*;
    use vmm_sys_util::tempfile::TempFile;

    use super::*;

    const PAGE: u64 = 4096;

    fn file(pages: u64) -> File {
        let file = TempFile::new().unwrap().into_file();
        file.set_len(pages * PAGE).unwrap();
        file
    }

    #[test]
    fn a_file_seen_from_both_sides() {
        let space = DmaSpace::default();
        let file = file(4);
        space
            .map(
                0x10_0000,
                2 * PAGE,
                file.try_clone().unwrap(),
                PAGE,
                Permissions::ReadWrite,
            )
            .unwrap();
        space.snapshot().write(0x10_0ffe, &[1, 2, 3, 4]).unwrap();
        let mut seen = [0; 4];
        file.read_exact_at(&mut seen, 2 * PAGE - 2).unwrap();
        assert_eq!(seen, [1, 2, 3, 4]);
        file.write_all_at(&[7, 0], PAGE).unwrap();
        assert_eq!(space.snapshot().load::<u16>(0x10_0000), Ok(7u16.to_le()));
    }

    #[test]
    fn what_cannot_be_mapped() {
        let space = DmaSpace::default();
        let map = |addr, size, offset| {
            space
                .map(addr, size, file(4), offset, Permissions::ReadWrite)
                .map_err(|e| e.kind())
        };
        assert_eq!(map(0, 5 * PAGE, 0), Err(io::ErrorKind::InvalidInput));
        assert_eq!(map(0, PAGE, u64::MAX), Err(io::ErrorKind::InvalidInput));
        assert_eq!(
            map(u64::MAX - PAGE + 1, PAGE, 0),
            Err(io::ErrorKind::InvalidInput)
        );
        assert!(map(0, 0, 0).is_err());
        assert!(map(0, PAGE, 1).is_err());
        assert_eq!(map(0, 2 * PAGE, 0), Ok(()));
        assert_eq!(map(PAGE, 2 * PAGE, 0), Err(io::ErrorKind::AlreadyExists));
        assert_eq!(map(2 * PAGE, PAGE, 0), Ok(()));
    }

    #[test]
    fn ranges_go_as_a_whole() {
        let space = DmaSpace::default();
        for at in [0, 2, 4] {
            space
                .map(at * PAGE, 2 * PAGE, file(2), 0, Permissions::ReadWrite)
                .unwrap();
        }
        let before = space.snapshot();
        assert_eq!(space.unmap(PAGE, 3 * PAGE), 1);
        assert_eq!(space.unmap(0, 0), 0);
        let after = space.snapshot();
        assert_eq!(after.load::<u8>(2 * PAGE), Err(Fault::read(2 * PAGE)));
        assert_eq!(after.load::<u8>(2 * PAGE - 1), Ok(0));
        // Who was in the middle is not torn out of it.
        assert_eq!(before.load::<u8>(2 * PAGE), Ok(0));
        assert_eq!(space.unmap(0, u64::MAX), 2);
        space
            .map(0, PAGE, file(1), 0, Permissions::ReadWrite)
            .unwrap();
        space.clear();
        assert_eq!(space.snapshot().load::<u8>(0), Err(Fault::read(0)));
    }

    #[test]
    fn integers_are_aligned_and_whole() {
        let space = DmaSpace::anonymous(4096).unwrap();
        let dma = space.snapshot();
        dma.store(8, 0x0102_0304_0506_0708u64.to_be()).unwrap();
        assert_eq!(dma.load::<u32>(12), Ok(0x0506_0708u32.to_be()));
        assert_eq!(dma.load::<u32>(10), Err(Fault::read(10)));
        assert_eq!(dma.store(4095, 1u16), Err(Fault::write(4095)));
        assert_eq!(dma.store(4096, 1u8), Err(Fault::write(4096)));
        assert_eq!(dma.store(4095, 1u8), Ok(()));
        assert_eq!(dma.read(u64::MAX, &mut []), Ok(()));
        assert_eq!(dma.read(u64::MAX, &mut [0]), Err(Fault::read(u64::MAX)));
    }

    /// What pages 0 to 9 are: a hole, or memory for some purpose.
    fn layout() -> impl Strategy<Value = Vec<Option<Permissions>>> {
        let page = prop_oneof![
            1 => Just(None),
            6 => Just(Some(Permissions::ReadWrite)),
            1 => Just(Some(Permissions::Read)),
        ];
        prop::collection::vec(page, 10)
    }

    #[derive(Clone, Debug)]
    enum Op {
        Read(u64, usize),
        Write(u64, Vec<u8>),
    }

    fn op() -> impl Strategy<Value = Op> {
        let addr = 0..11 * PAGE;
        let len = prop_oneof![0..20usize, 0..3 * PAGE as usize];
        prop_oneof![
            (addr.clone(), len.clone()).prop_map(|(addr, len)| Op::Read(addr, len)),
            (addr, len, any::<u8>()).prop_map(|(addr, len, byte)| Op::Write(addr, vec![byte; len])),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// The space is as flat memory with holes, however many ranges it is made of.
        #[test]
        fn as_flat_memory(layout in layout(), ops in prop::collection::vec(op(), 1..40)) {
            let space = DmaSpace::default();
            for (page, permissions) in layout.iter().enumerate() {
                if let Some(permissions) = permissions {
                    space.map(page as u64 * PAGE, PAGE, file(1), 0, *permissions).unwrap();
                }
            }
            let mut flat = vec![0; 10 * PAGE as usize];
            let may = |addr: u64, len: usize, access| (addr..addr + len as u64).all(|byte| {
                layout
                    .get((byte / PAGE) as usize)
                    .is_some_and(|page| page.is_some_and(|page| page.allow(access)))
            });
            let dma = space.snapshot();
            for op in ops {
                match op {
                    Op::Read(addr, len) => {
                        let mut got = vec![0xa5; len];
                        let result = dma.read(addr, &mut got);
                        if may(addr, len, Permissions::Read) {
                            prop_assert_eq!(result, Ok(()));
                            let at = addr as usize;
                            prop_assert!(len == 0 || got == flat[at..at + len]);
                        } else {
                            prop_assert_eq!(result, Err(Fault::read(addr)));
                            prop_assert!(got.iter().all(|byte| *byte == 0xa5));
                        }
                    }
                    Op::Write(addr, from) => {
                        let result = dma.write(addr, &from);
                        if may(addr, from.len(), Permissions::Write) {
                            prop_assert_eq!(result, Ok(()));
                            if !from.is_empty() {
                                let at = addr as usize;
                                flat[at..at + from.len()].copy_from_slice(&from);
                            }
                        } else {
                            prop_assert_eq!(result, Err(Fault::write(addr)));
                        }
                    }
                }
            }
            for (page, permissions) in layout.iter().enumerate() {
                if permissions.is_some() {
                    let mut got = vec![0; PAGE as usize];
                    dma.read(page as u64 * PAGE, &mut got).unwrap();
                    let at = page * PAGE as usize;
                    prop_assert!(got == flat[at..at + PAGE as usize]);
                }
            }
        }
    }
}
