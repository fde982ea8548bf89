// SPDX-License-Identifier: GPL-2.0

//! What is mapped in an address space.

use core::ptr::NonNull;

use kernel::{
    prelude::*,
    sync::Arc, //
};

use crate::{
    count::{
        Count,
        Counted, //
    },
    ops::Extent, //
};

use super::pages::Pages;

/// One map.
///
/// # Invariants
///
/// `host` points to `last - first + 1` bytes of memory that `pages` keeps.
#[derive(Clone)]
pub(super) struct Entry {
    first: u64,
    last: u64,
    host: NonNull<u8>,
    readable: bool,
    writable: bool,
    pages: Arc<Pages>,
}

// SAFETY: `host` is good for as long as `pages` is, which may be used by any task.
unsafe impl Send for Entry {}
// SAFETY: As above.
unsafe impl Sync for Entry {}

impl Entry {
    /// A map of all of `pages` from address `first` on.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it wraps around.
    pub(super) fn new(
        first: u64,
        readable: bool,
        writable: bool,
        pages: Arc<Pages>,
    ) -> Result<Self> {
        // INVARIANT: The range is as long as the memory.
        Ok(Self {
            first,
            last: first.checked_add(pages.size() - 1).ok_or(EINVAL)?,
            host: pages.host(),
            readable,
            writable,
            pages,
        })
    }

    /// What of the memory is mapped where.
    pub(super) fn extent(&self) -> Extent {
        // CAST: The same number of bytes into the memory, whoever counts.
        let offset = (self.host.addr().get() - self.pages.host().addr().get()) as u64;
        Extent {
            iova: self.first,
            size: self.last - self.first + 1,
            pa: self.pages.pa() + offset,
            readable: self.readable,
            writable: self.writable,
        }
    }

    /// The pages of this map, and of what it was cut from.
    pub(super) fn pages(&self) -> &Arc<Pages> {
        &self.pages
    }

    /// Whether `addr` is in this map.
    pub(super) fn contains(&self, addr: u64) -> bool {
        self.first <= addr && addr <= self.last
    }

    /// Whether the device may read or write.
    pub(super) fn permits(&self, write: bool) -> bool {
        if write {
            self.writable
        } else {
            self.readable
        }
    }

    /// Where the kernel sees `addr`, if it is in this map, and how many bytes there are from there
    /// on.
    pub(super) fn host(&self, addr: u64) -> Option<(NonNull<u8>, u64)> {
        if !self.contains(addr) {
            return None;
        }
        // CAST: A map is not larger than the memory of the machine.
        let offset = (addr - self.first) as usize;
        // A length that is 64 bits long does not wrap around; see `Self::new`.
        let length = self.last - addr + 1;
        // SAFETY: By the type invariant the result is within the memory `host` points to.
        Some((unsafe { self.host.add(offset) }, length))
    }

    /// What of this map lies before `first`, if anything.
    fn before(&self, first: u64) -> Option<Self> {
        if self.first >= first {
            return None;
        }
        // INVARIANT: The memory is a part of what it was.
        Some(Self {
            last: self.last.min(first - 1),
            ..self.clone()
        })
    }

    /// What of this map lies behind `last`, if anything.
    fn behind(&self, last: u64) -> Option<Self> {
        if self.last <= last {
            return None;
        }
        let first = self.first.max(last + 1);
        // INVARIANT: The memory is a part of what it was.
        Some(Self {
            first,
            host: self.host(first)?.0,
            ..self.clone()
        })
    }
}

/// The maps of an address space, in order of address. They do not overlap.
///
/// There may be thousands, more than fit in pages that must be next to each other.
pub(super) struct Map(KVVec<Entry>);

impl Map {
    pub(super) const fn new() -> Self {
        Self(KVVec::new())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0 = KVVec::new();
    }

    /// The maps.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// Adds a map behind all others.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it does not lie there, `ENOMEM`.
    pub(super) fn push(&mut self, entry: Entry) -> Result {
        if self.0.last().is_some_and(|last| entry.first <= last.last) {
            return Err(EINVAL);
        }
        Ok(self.0.push(entry, GFP_KERNEL)?)
    }

    /// Adds a map.
    ///
    /// # Errors
    ///
    /// `EEXIST` if it overlaps one that is there, `ENOMEM`.
    pub(super) fn insert(&mut self, entry: Entry) -> Result {
        let at = self.0.partition_point(|other| other.last < entry.first);
        if self.0.get(at).is_some_and(|next| next.first <= entry.last) {
            return Err(EEXIST);
        }
        self.0.reserve(1, GFP_KERNEL)?;
        self.0
            .insert_within_capacity(at, entry)
            .map_err(|_| ENOMEM)?;
        Ok(())
    }

    /// Removes what lies in `first..=last`. Never fails: if there is no memory to keep the rest of
    /// a map that is cut in two, the rest behind the range goes as well.
    pub(super) fn remove(&mut self, first: u64, last: u64) {
        let mut at = self.0.partition_point(|entry| entry.last < first);
        while let Some(entry) = self.0.get_mut(at) {
            if entry.first > last {
                break;
            }
            match (entry.before(first), entry.behind(last)) {
                (Some(before), behind) => {
                    *entry = before;
                    at += 1;
                    if let Some(behind) = behind {
                        if self.0.reserve(1, GFP_KERNEL).is_ok() {
                            // There is room for it now.
                            let _ = self.0.insert_within_capacity(at, behind);
                        }
                    }
                }
                (None, Some(behind)) => {
                    *entry = behind;
                    at += 1;
                }
                (None, None) => {
                    let _ = self.0.remove(at);
                }
            }
        }
    }
}

/// A snapshot of a [`Map`]. Dropping the last reference may sleep.
pub(super) struct Table {
    entries: KVVec<Entry>,
    _alive: Option<Counted>,
}

impl Table {
    /// A snapshot of `map`, counted by `count` if it is to be waited for.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(map: &Map, count: Option<Arc<Count>>) -> Result<Self> {
        let mut entries = KVVec::with_capacity(map.0.len(), GFP_KERNEL)?;
        for entry in &map.0 {
            entries.push(entry.clone(), GFP_KERNEL)?;
        }
        Ok(Self {
            entries,
            _alive: count.map(Counted::new),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The maps, in order of address.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The map with number `index`.
    pub(super) fn get(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)
    }

    /// The number of the map `addr` is in.
    pub(super) fn find(&self, addr: u64) -> Option<usize> {
        let at = self.entries.partition_point(|entry| entry.last < addr);
        self.entries.get(at).filter(|entry| entry.contains(addr))?;
        Some(at)
    }
}
