// SPDX-License-Identifier: GPL-2.0

//! Access to an address space.

use core::{
    cell::Cell,
    ptr::NonNull, //
};

use kernel::{
    bindings,
    device,
    page::PAGE_SIZE,
    sync::{
        aref::ARef,
        atomic::{
            atomic_load,
            atomic_store,
            Acquire,
            Release, //
        },
        barrier,
        Arc, //
    }, //
};

use virtio::{
    memory::{
        Access,
        Fault,
        Memory, //
    },
    ring::Segment, //
};

use super::table::Table;

/// What is reached beside what is mapped. Nothing keeps that memory: the kernel's own driver frees
/// it after a reset, which waits for the view.
pub(super) enum Everything {
    /// Nothing is.
    Nothing,
    /// An address is the physical address of the same number.
    Physical,
    /// An address is one that the DMA API made for this device.
    Dma(ARef<device::Device>),
}

/// A snapshot of an address space, and the way to the memory in it.
///
/// The other side of the memory changes it at the same time, so nothing here makes a reference to
/// it; bytes are copied, 16-bit values loaded and stored.
///
/// A view is for one task. Memory is accessed in atomic context too, but dropping a view may sleep.
pub struct View {
    table: Arc<Table>,
    everything: Everything,
    /// Where a map was found lately, by a few bits of the address.
    cache: [Cell<u32>; Self::CACHE],
}

/// Some bytes of memory, in one piece.
///
/// # Invariants
///
/// `host` points to `len` bytes, for as long as the view it came from lives. `len` is not 0.
#[derive(Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) host: NonNull<u8>,
    pub(crate) len: usize,
}

impl Piece {
    /// What is copied word by word: descriptors, ring entries, packet headers. For these the
    /// string instructions behind `memcpy` take longer to start than to run.
    const SMALL: usize = 32;

    /// Whether the bytes are few, and words of four.
    fn is_small(self) -> bool {
        self.len <= Self::SMALL && self.len % 4 == 0 && self.host.cast::<u32>().is_aligned()
    }

    /// Copies the bytes to `to`.
    ///
    /// # Safety
    ///
    /// There must be `len` bytes at `to`, which nobody else accesses.
    unsafe fn read(self, to: *mut u8) {
        if self.is_small() {
            let from = self.host.cast::<u32>().as_ptr();
            for word in 0..self.len / 4 {
                // SAFETY: By the type invariant and the function requirements, both words are
                // there. The one that others may write to is read once, and aligned.
                unsafe {
                    to.cast::<u32>()
                        .add(word)
                        .write_unaligned(from.add(word).read_volatile());
                }
            }
        } else {
            // SAFETY: As above. `memcpy` is C's, for which it is nothing new that the source
            // changes under it.
            unsafe { bindings::memcpy(to.cast(), self.host.as_ptr().cast(), self.len) };
        }
    }

    /// Copies the bytes from `from`.
    ///
    /// # Safety
    ///
    /// There must be `len` bytes at `from`, which nobody writes to.
    unsafe fn write(self, from: *const u8) {
        if self.is_small() {
            let to = self.host.cast::<u32>().as_ptr();
            for word in 0..self.len / 4 {
                // SAFETY: As in `Self::read`.
                unsafe {
                    to.add(word)
                        .write_volatile(from.cast::<u32>().add(word).read_unaligned());
                }
            }
        } else {
            // SAFETY: As in `Self::read`.
            unsafe { bindings::memcpy(self.host.as_ptr().cast(), from.cast(), self.len) };
        }
    }
}

/// Where address `addr` of the DMA API for `device` leads, and for how many bytes it goes on from
/// there, at most `max`: what follows the end of a page is asked for again.
fn dma_to_phys(device: &device::Device, addr: u64, max: usize) -> Option<(u64, usize)> {
    let device: *const device::Device = device;
    // SAFETY: `device::Device` is transparent, and the device is valid. It is the parent of one
    // that a driver uses, so that it is bound, and its domain does not change. Any address may be
    // asked about.
    let pa = unsafe { vdpa_bindings::rust_vdpa_dma_to_phys(device.cast_mut().cast(), addr) };
    if pa == 0 {
        return None;
    }
    // CAST: Less than a page.
    let offset = (pa % PAGE_SIZE as u64) as usize;
    Some((pa, max.min(PAGE_SIZE - offset)))
}

impl View {
    const CACHE: usize = 8;

    /// How many bits of an address do not count for the cache. 2 MiB: what different rings and
    /// buffers are likely not to share.
    const CACHE_SHIFT: u32 = 21;

    /// As much physical memory as is looked at in one go. What follows is asked for again.
    const PHYSICAL: usize = 64 << 10;

    pub(super) fn new(table: Arc<Table>, everything: Everything) -> Self {
        Self {
            table,
            everything,
            cache: Default::default(),
        }
    }

    /// The memory from `addr` on, up to `max` bytes, which are not 0.
    pub(crate) fn piece(&self, addr: u64, max: usize, access: Access) -> Result<Piece, Fault> {
        let fault = Fault { addr, access };
        match &self.everything {
            Everything::Nothing => {}
            Everything::Physical => return Self::physical(addr, max).ok_or(fault),
            Everything::Dma(device) => {
                let found = dma_to_phys(device, addr, max);
                return found
                    .and_then(|(pa, max)| Self::physical(pa, max))
                    .ok_or(fault);
            }
        }
        // CAST: Only the lower bits matter.
        let slot = (addr >> Self::CACHE_SHIFT) as usize % Self::CACHE;
        let cached = self.cache.get(slot).ok_or(fault)?;
        let entry = match self.table.get(cached.get() as usize) {
            Some(entry) if entry.contains(addr) => entry,
            _ => {
                let index = self.table.find(addr).ok_or(fault)?;
                // CAST: A number that does not fit just makes the cache miss.
                cached.set(index as u32);
                self.table.get(index).ok_or(fault)?
            }
        };
        if !entry.permits(access == Access::Write) {
            return Err(fault);
        }
        let (host, len) = entry.host(addr).ok_or(fault)?;
        // INVARIANT: The map says that there are `len` bytes.
        Ok(Piece {
            host,
            len: usize::try_from(len).unwrap_or(usize::MAX).min(max),
        })
    }

    /// As [`Self::piece`], if an address is that of physical memory.
    fn physical(addr: u64, max: usize) -> Option<Piece> {
        // SAFETY: Any number may be asked about.
        let len = unsafe { vdpa_bindings::rust_vdpa_ram(addr, max.min(Self::PHYSICAL)) };
        if len == 0 {
            return None;
        }
        // SAFETY: As above.
        let host = unsafe { vdpa_bindings::rust_vdpa_phys_to_virt(addr) };
        // INVARIANT: These are pages of the page allocator, which are in the direct map one after
        // the other. Whose they are, the driver knows that named them.
        Some(Piece {
            host: NonNull::new(host.cast())?,
            len,
        })
    }

    /// Calls `f` with the pieces of `len` bytes at `addr`, one after the other, but only if all of
    /// them can be accessed.
    pub(super) fn pieces(
        &self,
        addr: u64,
        len: usize,
        access: Access,
        mut f: impl FnMut(Piece),
    ) -> Result<(), Fault> {
        if len == 0 {
            return Ok(());
        }
        let piece = self.piece(addr, len, access)?;
        if piece.len == len {
            f(piece);
            return Ok(());
        }
        self.walk(addr, len, access, |_| ())?;
        self.walk(addr, len, access, f)
    }

    /// Calls `f` with the pieces of `len` bytes at `addr`, one after the other.
    fn walk(
        &self,
        mut addr: u64,
        mut len: usize,
        access: Access,
        mut f: impl FnMut(Piece),
    ) -> Result<(), Fault> {
        while len > 0 {
            let piece = self.piece(addr, len, access)?;
            f(piece);
            len -= piece.len;
            if len > 0 {
                addr = addr
                    .checked_add(piece.len as u64)
                    .ok_or(Fault { addr, access })?;
            }
        }
        Ok(())
    }

    /// Copies `to.len()` bytes out of `segments`, beginning at byte `at` of them taken together.
    ///
    /// # Errors
    ///
    /// A [`Fault`] as [`Memory::read`], or if the segments are too short. Some bytes may have been
    /// copied.
    pub fn read_at(&self, segments: &[Segment], at: usize, mut to: &mut [u8]) -> Result<(), Fault> {
        let mut cursor = Cursor::new(segments, at);
        while !to.is_empty() {
            let (addr, len) = cursor.next(to.len()).ok_or(Fault::read(0))?;
            let (head, tail) = to.split_at_mut(len);
            self.read(addr, head)?;
            to = tail;
        }
        Ok(())
    }

    /// Copies `from` into `segments`, beginning at byte `at` of them taken together.
    ///
    /// # Errors
    ///
    /// A [`Fault`] as [`Memory::write`], or if the segments are too short. Some bytes may have been
    /// copied.
    pub fn write_at(&self, segments: &[Segment], at: usize, mut from: &[u8]) -> Result<(), Fault> {
        let mut cursor = Cursor::new(segments, at);
        while !from.is_empty() {
            let (addr, len) = cursor.next(from.len()).ok_or(Fault::write(0))?;
            let (head, tail) = from.split_at(len);
            self.write(addr, head)?;
            from = tail;
        }
        Ok(())
    }

    /// Where the 16-bit value at `addr` is.
    fn word(&self, addr: u64, access: Access) -> Result<*mut i16, Fault> {
        let fault = Fault { addr, access };
        let piece = self.piece(addr, 2, access)?;
        let host = piece.host.as_ptr().cast::<i16>();
        // A map may put an even address at an odd place, too.
        if piece.len < 2 || addr % 2 != 0 || !host.is_aligned() {
            return Err(fault);
        }
        Ok(host)
    }
}

impl Memory for View {
    fn read(&self, addr: u64, to: &mut [u8]) -> Result<(), Fault> {
        let mut at = to.as_mut_ptr();
        self.pieces(addr, to.len(), Access::Read, |piece| {
            // SAFETY: The pieces are together as long as `to`, so `at` stays within it.
            unsafe {
                piece.read(at);
                at = at.add(piece.len);
            }
        })
    }

    fn write(&self, addr: u64, from: &[u8]) -> Result<(), Fault> {
        let mut at = from.as_ptr();
        self.pieces(addr, from.len(), Access::Write, |piece| {
            // SAFETY: The pieces are together as long as `from`, so `at` stays within it.
            unsafe {
                piece.write(at);
                at = at.add(piece.len);
            }
        })
    }

    fn load_u16(&self, addr: u64) -> Result<u16, Fault> {
        let word = self.word(addr, Access::Read)?;
        // SAFETY: There are two bytes at `word`, which is aligned. Everybody else accesses them by
        // the processor's loads and stores.
        let value: i16 = unsafe { atomic_load(word, Acquire) };
        // CAST: The same 16 bits.
        Ok(value as u16)
    }

    fn store_u16(&self, addr: u64, value: u16) -> Result<(), Fault> {
        let word = self.word(addr, Access::Write)?;
        // SAFETY: As for loading.
        // CAST: The same 16 bits.
        unsafe { atomic_store(word, value as i16, Release) };
        Ok(())
    }

    fn fence(&self) {
        barrier::smp_mb(barrier::Full);
    }
}

/// A place in a list of segments.
pub(crate) struct Cursor<'a> {
    segments: &'a [Segment],
    /// Byte in the first of `segments`.
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Byte `at` of `segments`.
    pub(crate) fn new(segments: &'a [Segment], at: usize) -> Self {
        Self { segments, at }
    }

    /// The next address, and for how many bytes it goes on from there: at most `max`, which is not
    /// 0. Moves behind them.
    pub(crate) fn next(&mut self, max: usize) -> Option<(u64, usize)> {
        loop {
            let (segment, rest) = self.segments.split_first()?;
            let len = segment.len as usize;
            if self.at < len {
                let addr = segment.addr.checked_add(self.at as u64)?;
                let len = max.min(len - self.at);
                self.at += len;
                return Some((addr, len));
            }
            self.at -= len;
            self.segments = rest;
        }
    }

    /// Moves back by `len` bytes that the last call of [`Self::next`] moved over.
    pub(crate) fn back(&mut self, len: usize) {
        self.at -= len;
    }
}
