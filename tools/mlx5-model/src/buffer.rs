// SPDX-License-Identifier: GPL-2.0

//! Where a queue lies in the driver's memory: a list of pages.

use std::sync::Arc;

use crate::refusal::Refusal;

/// The logarithm of the smallest page in bytes.
pub const PAGE_SHIFT: u32 = 12;

/// The memory of a queue: pages of one size, put together.
#[derive(Clone, Debug)]
pub struct Buffer {
    pages: Arc<[u64]>,
    /// The logarithm of the page size in bytes.
    shift: u32,
    /// Where in the first page it begins.
    start: u64,
    size: u64,
}

impl Buffer {
    /// Makes a buffer of `size` bytes that begins `start` bytes into the first page of `list`:
    /// addresses of 64 bits each, as they follow a command. Pages have `4096 << log_page_size`
    /// bytes.
    ///
    /// # Errors
    ///
    /// [`Refusal::ListTooShort`] if the pages are not enough, [`Refusal::PageNotAligned`] if one
    /// does not begin where a page can.
    pub fn new(list: &[u8], log_page_size: u8, start: u64, size: u64) -> Result<Self, Refusal> {
        let shift = PAGE_SHIFT + u32::from(log_page_size);
        let count = start
            .checked_add(size)
            .map(|end| end.div_ceil(1 << shift))
            .and_then(|count| usize::try_from(count).ok())
            .ok_or(Refusal::ListTooShort)?;
        let pages: Arc<[u64]> = addresses(list).take(count).collect();
        if pages.len() < count {
            return Err(Refusal::ListTooShort);
        }
        if pages.iter().any(|page| page % (1 << PAGE_SHIFT) != 0) {
            return Err(Refusal::PageNotAligned);
        }
        Ok(Self {
            pages,
            shift,
            start,
            size,
        })
    }

    /// The bus address of the entry of `len` bytes at `offset`; nothing if it is not wholly
    /// inside one page of the buffer.
    pub fn addr(&self, offset: u64, len: u64) -> Option<u64> {
        if offset.checked_add(len)? > self.size {
            return None;
        }
        let at = self.start.checked_add(offset)?;
        let within = at & ((1 << self.shift) - 1);
        if within + len > 1 << self.shift {
            return None;
        }
        let page = self.pages.get(usize::try_from(at >> self.shift).ok()?)?;
        page.checked_add(within)
    }

    /// The `size` bytes at `offset` of it.
    ///
    /// # Errors
    ///
    /// [`Refusal::BadBounds`] if they are not all inside.
    pub fn part(&self, offset: u64, size: u64) -> Result<Self, Refusal> {
        if offset.checked_add(size).is_none_or(|end| end > self.size) {
            return Err(Refusal::BadBounds);
        }
        Ok(Self {
            start: self.start + offset,
            size,
            ..self.clone()
        })
    }

    /// The list of its pages, as it follows a reply.
    pub fn list(&self) -> Vec<u8> {
        self.pages
            .iter()
            .flat_map(|page| page.to_be_bytes())
            .collect()
    }
}

/// The 64-bit numbers of a list that follows a command; a last one that is cut short is dropped.
pub fn addresses(list: &[u8]) -> impl Iterator<Item = u64> + '_ {
    list.chunks_exact(8).map(|bytes| {
        bytes
            .iter()
            .fold(0, |value, byte| (value << 8) | u64::from(*byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(pages: &[u64]) -> Vec<u8> {
        pages.iter().flat_map(|page| page.to_be_bytes()).collect()
    }

    #[test]
    fn entries_are_found_in_their_pages() {
        let buffer = Buffer::new(&list(&[0x7000, 0x3000]), 0, 63 * 64, 0x1000).unwrap();
        assert_eq!(buffer.addr(0, 64), Some(0x7fc0));
        assert_eq!(buffer.addr(0x40, 64), Some(0x3000));
        assert_eq!(buffer.addr(0xfc0, 64), Some(0x3f80));
        assert_eq!(buffer.addr(0x20, 64), None);
        assert_eq!(buffer.addr(0x1000, 64), None);
        assert_eq!(buffer.addr(u64::MAX, 64), None);
    }

    #[test]
    fn a_list_must_suffice_and_be_aligned() {
        assert_eq!(
            Buffer::new(&list(&[0x1000]), 0, 64, 0x1000).unwrap_err(),
            Refusal::ListTooShort
        );
        assert_eq!(
            Buffer::new(&list(&[0x1008]), 0, 0, 0x1000).unwrap_err(),
            Refusal::PageNotAligned
        );
        assert_eq!(
            Buffer::new(&[], 31, 0, u64::MAX).unwrap_err(),
            Refusal::ListTooShort
        );
    }
}
