// SPDX-License-Identifier: GPL-2.0

//! The guest's memory as the monitor describes it, and what has to change when it does.
//!
//! The device reaches guest memory at the guest's own addresses. A region that stays is left
//! alone, whatever becomes of the others: the pages of a running guest stay where they are.

use thiserror::Error;

/// The unit of what can be mapped, in bytes.
pub const PAGE: u64 = 4096;

/// A file, whatever descriptor it came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    /// The device that it is on.
    pub device: u64,
    /// Its inode there.
    pub inode: u64,
}

/// A part of the guest's memory. Nothing of it exceeds 64 bits, and its ends are those of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    /// Where the guest has it.
    pub guest: u64,
    /// Its length in bytes, which is not 0.
    pub size: u64,
    /// Where the monitor has it. The addresses of rings are given so.
    pub user: u64,
    /// The file that it is a part of.
    pub file: FileId,
    /// Where in that file it begins, in bytes.
    pub offset: u64,
}

impl Region {
    /// Returns whether the device would see no difference between this and `other`.
    pub fn is_same_memory(&self, other: &Self) -> bool {
        (self.guest, self.size, self.file, self.offset)
            == (other.guest, other.size, other.file, other.offset)
    }

    fn end(&self) -> u64 {
        self.guest + self.size
    }

    /// Checks what [`Region`] promises.
    fn check(&self) -> Result<(), Invalid> {
        let (guest, size) = (self.guest, self.size);
        if size == 0
            || [guest, self.user, self.offset]
                .iter()
                .any(|start| start.checked_add(size).is_none())
        {
            return Err(Invalid::Length { guest, size });
        }
        if [guest, size, self.offset].iter().any(|n| n % PAGE != 0) {
            return Err(Invalid::Alignment { guest, size });
        }
        Ok(())
    }
}

/// Why regions are no memory of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Invalid {
    /// A region is empty, or does not end below 2^64.
    #[error("memory at {guest:#x} cannot be {size:#x} bytes long")]
    Length {
        /// Where the guest has it.
        guest: u64,
        /// Its length.
        size: u64,
    },
    /// A region does not consist of whole pages.
    #[error("memory at {guest:#x}, {size:#x} bytes long, is not whole pages of 4096 bytes")]
    Alignment {
        /// Where the guest has it.
        guest: u64,
        /// Its length.
        size: u64,
    },
    /// Two regions have an address in common.
    #[error("two parts of memory are at {guest:#x}")]
    Overlap {
        /// The first address that they share.
        guest: u64,
    },
    /// A region that is to go is not there.
    #[error("there is no memory at {guest:#x} that is {size:#x} bytes long")]
    Unknown {
        /// Where the guest is said to have it.
        guest: u64,
        /// Its length.
        size: u64,
    },
}

/// All regions of a guest: valid, without overlap, sorted by where the guest has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    regions: Vec<Region>,
}

impl Table {
    /// Makes a table of `regions`, in any order.
    ///
    /// # Errors
    ///
    /// If one is not valid or two overlap.
    pub fn new(mut regions: Vec<Region>) -> Result<Self, Invalid> {
        for region in &regions {
            region.check()?;
        }
        regions.sort_by_key(|region| region.guest);
        for pair in regions.windows(2) {
            if pair[0].end() > pair[1].guest {
                let guest = pair[1].guest;
                return Err(Invalid::Overlap { guest });
            }
        }
        Ok(Self { regions })
    }

    /// Returns this table and `region`.
    ///
    /// # Errors
    ///
    /// As those of [`Table::new`].
    pub fn with(&self, region: Region) -> Result<Self, Invalid> {
        let mut regions = self.regions.clone();
        regions.push(region);
        Self::new(regions)
    }

    /// Returns this table without the region that the guest has at `guest`, `size` bytes long,
    /// and the monitor at `user`.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn without(&self, guest: u64, size: u64, user: u64) -> Result<Self, Invalid> {
        let mut regions = self.regions.clone();
        let before = regions.len();
        regions.retain(|r| (r.guest, r.size, r.user) != (guest, size, user));
        if regions.len() == before {
            return Err(Invalid::Unknown { guest, size });
        }
        Ok(Self { regions })
    }

    /// The regions, sorted by where the guest has them.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Returns where the guest has what the monitor has at `user`, if all of it, `size` bytes, is
    /// in one region.
    pub fn to_guest(&self, user: u64, size: u64) -> Option<u64> {
        self.regions.iter().find_map(|region| {
            let offset = user.checked_sub(region.user)?;
            (offset.checked_add(size)? <= region.size).then(|| region.guest + offset)
        })
    }

    /// Returns what makes this table of `installed`.
    pub fn since(&self, installed: &Self) -> Difference {
        let missing = |from: &Self, region: &Region| {
            !from
                .regions
                .binary_search_by_key(&region.guest, |r| r.guest)
                .is_ok_and(|at| from.regions[at].is_same_memory(region))
        };
        let of = |these: &Self, those: &Self| {
            let regions = these.regions.iter();
            regions.filter(|r| missing(those, r)).copied().collect()
        };
        Difference {
            unmap: of(installed, self),
            map: of(self, installed),
        }
    }
}

/// What has to be done to go from one table to another: first what is to go, then what is to come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Regions that are to go.
    pub unmap: Vec<Region>,
    /// Regions that are to come.
    pub map: Vec<Region>,
}

impl Difference {
    /// Returns whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.unmap.is_empty() && self.map.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn region(page: u64, pages: u64, user: u64, inode: u64, offset: u64) -> Region {
        Region {
            guest: page * PAGE,
            size: pages * PAGE,
            user: user * PAGE,
            file: FileId { device: 1, inode },
            offset: offset * PAGE,
        }
    }

    /// Tables of regions that may touch each other, of few files, so that some are alike.
    fn table() -> impl Strategy<Value = Table> {
        let one = (0u64..3, 1u64..4, 0u64..2, 0u64..2, 0u64..3);
        proptest::collection::vec(one, 0..8).prop_map(|list| {
            let mut page = 0;
            let regions = list
                .into_iter()
                .map(|(gap, pages, inode, offset, user)| {
                    let start = page + gap;
                    page = start + pages;
                    // What the monitor has is somewhere else, and each region at a place of its own.
                    region(start, pages, 1000 * (user + 1) + start, inode, offset)
                })
                .collect();
            Table::new(regions).unwrap()
        })
    }

    /// What the guest has at each page: the page of a file.
    fn pages(table: &Table) -> BTreeMap<u64, (FileId, u64)> {
        let mut pages = BTreeMap::new();
        for region in table.regions() {
            for at in (0..region.size).step_by(PAGE as usize) {
                let old = pages.insert(region.guest + at, (region.file, region.offset + at));
                assert!(old.is_none());
            }
        }
        pages
    }

    proptest! {
        #[test]
        fn a_difference_leads_from_one_to_the_other(old in table(), new in table()) {
            let difference = new.since(&old);
            let mut mapped = pages(&old);
            for gone in &difference.unmap {
                for at in (0..gone.size).step_by(PAGE as usize) {
                    prop_assert!(mapped.remove(&(gone.guest + at)).is_some());
                }
            }
            for come in &difference.map {
                for at in (0..come.size).step_by(PAGE as usize) {
                    // Nothing is mapped over what is still there.
                    prop_assert!(mapped
                        .insert(come.guest + at, (come.file, come.offset + at))
                        .is_none());
                }
            }
            prop_assert_eq!(mapped, pages(&new));
        }

        #[test]
        fn what_stays_is_not_touched(old in table(), new in table()) {
            let difference = new.since(&old);
            for region in old.regions() {
                let stays = new.regions().iter().any(|r| r.is_same_memory(region));
                prop_assert_eq!(stays, !difference.unmap.contains(region));
            }
            prop_assert!(new.since(&new).is_empty());
        }

        #[test]
        fn one_more_and_one_less(table in table(), page in 0u64..40, pages in 1u64..4) {
            let added = region(page, pages, 9000, 7, 0);
            let free = table.regions().iter().all(|r| r.end() <= added.guest || added.end() <= r.guest);
            match table.with(added) {
                Ok(more) => {
                    prop_assert!(free);
                    prop_assert_eq!(more.since(&table).map, vec![added]);
                    let less = more.without(added.guest, added.size, added.user).unwrap();
                    prop_assert_eq!(less, table);
                }
                Err(error) => {
                    prop_assert!(!free);
                    prop_assert!(matches!(error, Invalid::Overlap { .. }), "{}", error);
                }
            }
        }

        #[test]
        fn addresses_of_the_monitor_become_the_guests(table in table(), user in 0u64..5000, size in 1u64..9000) {
            let user = user * PAGE / 3;
            let inside = table
                .regions()
                .iter()
                .find(|r| r.user <= user && user + size <= r.user + r.size);
            prop_assert_eq!(
                table.to_guest(user, size),
                inside.map(|r| user - r.user + r.guest)
            );
        }
    }

    #[test]
    fn what_is_no_memory() {
        let good = region(1, 1, 1, 1, 0);
        let bad = |change: fn(&mut Region)| {
            let mut region = good;
            change(&mut region);
            Table::new(vec![region]).unwrap_err()
        };
        for change in [
            (|r| r.size = 0) as fn(&mut Region),
            |r| r.guest = u64::MAX & !(PAGE - 1),
            |r| r.user = u64::MAX,
            |r| r.offset = u64::MAX & !(PAGE - 1),
        ] {
            assert!(matches!(bad(change), Invalid::Length { .. }));
        }
        for change in [
            (|r| r.size = 1) as fn(&mut Region),
            |r| r.guest += 512,
            |r| r.offset += 512,
        ] {
            assert!(matches!(bad(change), Invalid::Alignment { .. }));
        }
        let table = Table::new(vec![good]).unwrap();
        assert_eq!(
            table.with(good).unwrap_err(),
            Invalid::Overlap { guest: PAGE }
        );
        assert!(matches!(
            table.without(PAGE, PAGE, 0).unwrap_err(),
            Invalid::Unknown { .. }
        ));
        assert_eq!(table.to_guest(u64::MAX, 2), None);
    }
}
