// SPDX-License-Identifier: GPL-2.0

//! Ranges of an address space, and where they lead.

/// The logarithm of the size that addresses and lengths are multiples of: the smallest page of a
/// key.
pub(crate) const PAGE_SHIFT: u32 = 12;

/// What the device may do to memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rights {
    /// The device may read.
    pub(crate) read: bool,
    /// The device may write.
    pub(crate) write: bool,
}

/// Bytes that follow each other for the driver and on the bus, all with the same rights.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    /// The first IO virtual address.
    pub(crate) iova: u64,
    /// The number of bytes.
    pub(crate) size: u64,
    /// The bus address of the first one.
    pub(crate) bus: u64,
    /// What may be done to them.
    pub(crate) rights: Rights,
}

impl Run {
    /// No bytes at all.
    pub(crate) const NONE: Self = Self {
        iova: 0,
        size: 0,
        bus: 0,
        rights: Rights {
            read: false,
            write: false,
        },
    };

    /// The IO virtual address behind the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.iova + self.size
    }

    /// Whether an address leads the same way by both, if it is in both.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        self.rights == other.rights && self.distance() == other.distance()
    }

    /// The part of the run between two addresses that are in it.
    pub(crate) fn part(&self, iova: u64, end: u64) -> Self {
        Self {
            iova,
            size: end - iova,
            bus: self.bus + (iova - self.iova),
            ..*self
        }
    }

    /// The logarithm of the largest page that could be at any address of the run.
    pub(crate) fn log_page(&self) -> u32 {
        self.distance().trailing_zeros()
    }

    /// From an IO virtual address to a bus address.
    pub(crate) fn distance(&self) -> u64 {
        self.bus.wrapping_sub(self.iova)
    }

    /// Whether it is what this file says.
    fn is_good(&self) -> bool {
        let mask = (1 << PAGE_SHIFT) - 1;
        (self.iova | self.size | self.bus) & mask == 0
            && self.size != 0
            && self.iova.checked_add(self.size).is_some()
            && self.bus.checked_add(self.size).is_some()
            && (self.rights.read || self.rights.write)
    }
}

/// Runs in order of address, none of which overlap.
///
/// Each begins and ends at pages, is not empty, does not wrap around and may be used for something.
#[derive(Clone, Copy)]
pub(crate) struct Runs<'a>(&'a [Run]);

impl<'a> Runs<'a> {
    /// Makes sure that `runs` are such. Returns `None` if they are not.
    pub(crate) fn check(runs: &'a [Run]) -> Option<Self> {
        let mut end = 0;
        for run in runs {
            if !run.is_good() || run.iova < end {
                return None;
            }
            end = run.end();
        }
        Some(Self(runs))
    }

    /// The runs.
    pub(crate) fn get(&self) -> &'a [Run] {
        self.0
    }

    /// How many of the bytes of `run` are among them, and lead where that says.
    pub(crate) fn of(&self, run: &Run) -> u64 {
        let first = self.0.partition_point(|other| other.end() <= run.iova);
        let those = self.0.iter().skip(first);
        those
            .take_while(|other| other.iova < run.end())
            .filter(|other| other.agrees(run))
            .map(|other| other.end().min(run.end()) - other.iova.max(run.iova))
            .sum()
    }
}

/// An address where there are `size` bytes without any of `ranges`, first addresses and numbers of
/// bytes, which are in order and do not overlap: behind all of them, or before the last one where
/// there is room.
pub(crate) fn room(ranges: impl Iterator<Item = (u64, u64)>, size: u64) -> Option<u64> {
    let mut end = 0;
    let mut found = None;
    for (first, count) in ranges {
        if first.checked_sub(end)? >= size {
            found = Some(first - size);
        }
        // What there is ends with the address space at the latest.
        end = first.saturating_add(count);
    }
    end.checked_add(size).map(|_| end).or(found)
}

#[cfg(test)]
mod tests {
    use super::room;

    const TOP: u64 = u64::MAX - 0xfff;

    #[test]
    fn room_is_where_nothing_is() {
        for (ranges, size, found) in [
            (&[][..], 0x1000, Some(0)),
            (&[(0, 0x1000)], 0x1000, Some(0x1000)),
            (&[(0x4000, 0x1000), (0x8000, 0x2000)], 0x3000, Some(0xa000)),
            // Up to the end of the address space, so far as that has a number.
            (&[(0, TOP - 0x1000)], 0x1000, Some(TOP - 0x1000)),
            (&[(0, TOP - 0x1000)], 0x2000, None),
            // Before what is last, but where there is enough room.
            (
                &[(0x4000, 0x1000), (0x8000, TOP - 0x8000)],
                0x3000,
                Some(0x5000),
            ),
            (&[(0x4000, 0x1000), (0x8000, TOP - 0x8000)], 0x4000, Some(0)),
            (&[(0x4000, 0x1000), (0x8000, TOP - 0x8000)], 0x5000, None),
            (
                &[(0x1000, 0x1000), (TOP, 0xfff)],
                0x1000,
                Some(TOP - 0x1000),
            ),
        ] {
            assert_eq!(room(ranges.iter().copied(), size), found, "{ranges:x?}");
        }
    }

    #[test]
    fn what_is_out_of_order_has_no_room() {
        assert_eq!(room([(0x2000, 0x1000), (0x1000, 1)].into_iter(), 1), None);
    }
}
