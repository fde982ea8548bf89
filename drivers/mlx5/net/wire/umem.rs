// SPDX-License-Identifier: GPL-2.0

//! The memory in which the firmware keeps the state of virtqueues.
//!
//! Each virtqueue has three areas. Those of all virtqueues of a device lie in one umem, one after
//! the other, each from a page of its own on.

use prm::umem::CreateUmemIn;

/// The logarithm of the size of the pages of a umem.
pub(crate) const PAGE_SHIFT: u32 = 12;

/// A part of a umem.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Area {
    /// The number of the umem.
    pub(crate) umem: u32,
    /// The length of the area in bytes.
    pub(crate) size: u32,
    /// Where in the umem it begins, in bytes.
    pub(crate) offset: u64,
}

/// Fills in CREATE_UMEM of `pages` pages, the addresses of which follow; see [`page`].
pub(crate) fn create(input: &mut CreateUmemIn, pages: u64) {
    input.umem_mut().set_num_of_mtt(pages);
}

/// The entry of a page at `addr` on the bus, which the firmware may read and write.
pub(crate) fn page(addr: u64) -> [u8; 8] {
    (addr | 3).to_be_bytes()
}

/// Where the areas of virtqueues lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    sizes: [u32; 3],
}

impl Layout {
    /// For virtqueues that need areas of these sizes in bytes; `None` if one is too large for a
    /// virtqueue object to name.
    pub(crate) fn new([first, second, third]: [u64; 3]) -> Option<Self> {
        let size = |bytes| u32::try_from(bytes).ok();
        Some(Self {
            sizes: [size(first)?, size(second)?, size(third)?],
        })
    }

    /// The bytes of one virtqueue: whole pages.
    pub(crate) fn bytes(&self) -> u64 {
        self.sizes.iter().map(|size| round(*size)).sum()
    }

    /// The areas of the virtqueue that is the `at`th in umem `umem`.
    pub(crate) fn areas(&self, umem: u32, at: u16) -> [Area; 3] {
        let mut offset = self.bytes() * u64::from(at);
        self.sizes.map(|size| {
            let area = Area { umem, size, offset };
            offset += round(size);
            area
        })
    }
}

/// Rounds up to whole pages.
fn round(size: u32) -> u64 {
    u64::from(size).next_multiple_of(1 << PAGE_SHIFT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_apart_and_of_whole_pages() {
        let layout = Layout::new([1, 4096, 4097]).unwrap();
        assert_eq!(layout.bytes(), 4 * 4096);
        let mut end = 0;
        for queue in 0..64 {
            for (area, size) in layout.areas(5, queue).into_iter().zip([1, 4096, 4097]) {
                assert_eq!((area.umem, area.size), (5, size));
                assert_eq!(area.offset, end);
                end = (area.offset + u64::from(size)).next_multiple_of(4096);
            }
            assert_eq!(end, layout.bytes() * (u64::from(queue) + 1));
        }
    }

    #[test]
    fn the_largest_areas_do_not_overflow() {
        let most = u64::from(u32::MAX);
        let layout = Layout::new([most; 3]).unwrap();
        assert_eq!(layout.areas(0, u16::MAX)[2].size, u32::MAX);
        assert_eq!(Layout::new([0, 0, most + 1]), None);
    }
}
