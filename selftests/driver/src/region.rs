// SPDX-License-Identifier: GPL-2.0
//! Memory shared with a device.

use std::{
    fmt,
    fs::File,
    io,
    sync::{
        atomic::{
            fence,
            AtomicU16,
            Ordering, //
        },
        Arc, //
    },
};

use vm_memory::{
    FileOffset,
    MmapRegion,
    VolatileMemory, //
};

/// The bytes of a page.
const PAGE: usize = 4096;

/// A page of memory. The smallest thing that rings need in one access is 16 bits.
#[repr(C, align(4096))]
struct Page([AtomicU16; PAGE / 2]);

/// Where the memory of a region is.
#[derive(Clone)]
enum Pages {
    Own(Arc<[Page]>),
    Mapped(Arc<MmapRegion>),
}

/// Page-aligned memory of this process, at an IO virtual address.
///
/// Clones are the same memory. A device may access it at any time, so all accesses are atomic in
/// units of 16 bits, and none of them is ordered unless its name says so. Accesses outside the
/// region panic; the addresses are those of the driver, which knows what it does.
#[derive(Clone)]
pub struct Region {
    base: u64,
    len: usize,
    pages: Pages,
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Region({:#x}..{:#x})", self.base, self.end())
    }
}

impl Region {
    /// Makes a region of zeroes at the address `base`, of `len` bytes rounded up to whole pages.
    pub fn new(base: u64, len: usize) -> Self {
        assert_eq!(base % PAGE as u64, 0, "the region is not page aligned");
        let page = || Page([const { AtomicU16::new(0) }; PAGE / 2]);
        Self {
            base,
            len: len.next_multiple_of(PAGE),
            pages: Pages::Own((0..len.div_ceil(PAGE)).map(|_| page()).collect()),
        }
    }

    /// Makes a region of the first `len` bytes of `file`, for a device that maps the same file:
    /// what one of them writes the other one sees.
    ///
    /// # Errors
    ///
    /// If the file cannot be mapped, or is shorter.
    pub fn of_file(base: u64, len: usize, file: File) -> io::Result<Self> {
        assert_eq!(base % PAGE as u64, 0, "the region is not page aligned");
        assert_eq!(len % PAGE, 0, "the region is not whole pages");
        let mapped =
            MmapRegion::from_file(FileOffset::new(file, 0), len).map_err(io::Error::other)?;
        Ok(Self {
            base,
            len,
            pages: Pages::Mapped(Arc::new(mapped)),
        })
    }

    /// The address of the first byte.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether the region has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first address behind the region.
    pub fn end(&self) -> u64 {
        self.base + self.len() as u64
    }

    /// Where the memory is in this process. It stays there until the last clone is dropped; a
    /// device must have given it back by then.
    pub fn as_ptr(&self) -> *const u8 {
        match &self.pages {
            Pages::Own(pages) => pages.as_ptr().cast(),
            Pages::Mapped(mapped) => mapped.as_ptr(),
        }
    }

    /// Returns whether all of `len` bytes at `addr` are in the region.
    pub fn contains(&self, addr: u64, len: u64) -> bool {
        addr >= self.base && addr.checked_add(len).is_some_and(|end| end <= self.end())
    }

    /// The 16 bits that hold the byte at `offset`.
    fn cell(&self, offset: usize) -> &AtomicU16 {
        match &self.pages {
            Pages::Own(pages) => &pages[offset / PAGE].0[offset % PAGE / 2],
            Pages::Mapped(mapped) => mapped
                .get_atomic_ref(offset & !1)
                .expect("callers stay inside the region"),
        }
    }

    fn offset(&self, addr: u64, len: usize) -> usize {
        assert!(
            self.contains(addr, len as u64),
            "no {len} bytes at {addr:#x} in {self:?}"
        );
        (addr - self.base) as usize
    }

    /// Copies bytes out of the region.
    pub fn read(&self, addr: u64, to: &mut [u8]) {
        let start = self.offset(addr, to.len());
        let (mut n, len) = (0, to.len());
        while n < len {
            let at = start + n;
            let pair = self.cell(at).load(Ordering::Relaxed).to_ne_bytes();
            let count = (2 - at % 2).min(len - n);
            to[n..n + count].copy_from_slice(&pair[at % 2..at % 2 + count]);
            n += count;
        }
    }

    /// Copies `len` bytes out of the region.
    pub fn get(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.read(addr, &mut bytes);
        bytes
    }

    /// Copies bytes into the region.
    pub fn write(&self, addr: u64, from: &[u8]) {
        let start = self.offset(addr, from.len());
        let (mut n, len) = (0, from.len());
        while n < len {
            let at = start + n;
            let cell = self.cell(at);
            if at % 2 == 0 && n + 1 < len {
                let pair = u16::from_ne_bytes([from[n], from[n + 1]]);
                cell.store(pair, Ordering::Relaxed);
                n += 2;
                continue;
            }
            // The other byte may be somebody else's.
            let change = |old: u16| {
                let mut pair = old.to_ne_bytes();
                pair[at % 2] = from[n];
                Some(u16::from_ne_bytes(pair))
            };
            cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change)
                .expect("the change is never refused");
            n += 1;
        }
    }

    /// Fills `len` bytes at `addr` with zeroes.
    pub fn fill(&self, addr: u64, len: u64) {
        let zeroes = vec![0; len as usize];
        match &self.pages {
            Pages::Own(_) => self.write(addr, &zeroes),
            // What is cleared is nobody's, so that it need not be done in certain units.
            Pages::Mapped(mapped) => mapped
                .get_slice(self.offset(addr, zeroes.len()), zeroes.len())
                .expect("the offset is inside the region")
                .copy_from(&zeroes),
        }
    }

    /// Reads 16 bits at an even address, before everything that follows.
    pub fn load_u16(&self, addr: u64) -> u16 {
        assert_eq!(addr % 2, 0, "odd address {addr:#x}");
        self.cell(self.offset(addr, 2)).load(Ordering::Acquire)
    }

    /// Writes 16 bits at an even address, after everything that went before.
    pub fn store_u16(&self, addr: u64, value: u16) {
        assert_eq!(addr % 2, 0, "odd address {addr:#x}");
        self.cell(self.offset(addr, 2))
            .store(value, Ordering::Release);
    }

    /// Orders what went before against what follows, stores against loads included.
    pub fn fence(&self) {
        fence(Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use vmm_sys_util::tempfile::TempFile;

    fn mapped() -> Region {
        let file = TempFile::new().unwrap().into_file();
        file.set_len(2 * PAGE as u64).unwrap();
        Region::of_file(0x4000, 2 * PAGE, file).unwrap()
    }

    #[test]
    fn bytes_come_back_at_any_alignment() {
        bytes_come_back(&Region::new(0x4000, 2 * PAGE));
        bytes_come_back(&mapped());
    }

    #[test]
    fn a_mapped_file_is_shared() {
        let region = mapped();
        let Pages::Mapped(pages) = &region.pages else {
            panic!("not mapped");
        };
        let file = pages.file_offset().unwrap().file().try_clone().unwrap();
        let other = Region::of_file(0x4000, 2 * PAGE, file).unwrap();
        region.store_u16(0x5ffe, 0x1234);
        assert_eq!(other.load_u16(0x5ffe), 0x1234);
    }

    fn bytes_come_back(region: &Region) {
        for at in PAGE - 5..PAGE + 2 {
            for len in 0..9 {
                let bytes: Vec<u8> = (0..len).map(|n| n as u8 + 1).collect();
                region.fill(0x4000, region.len() as u64);
                region.write(0x4000 + at as u64, &bytes);
                let mut all = vec![0; 2 * PAGE];
                all[at..at + len].copy_from_slice(&bytes);
                assert_eq!(region.get(0x4000, 2 * PAGE), all);
                assert_eq!(region.get(0x4000 + at as u64, len), bytes);
            }
        }
    }

    #[test]
    #[should_panic(expected = "no 2 bytes at 0x4fff")]
    fn nothing_is_accessed_outside() {
        Region::new(0x4000, PAGE).get(0x4fff, 2);
    }
}
