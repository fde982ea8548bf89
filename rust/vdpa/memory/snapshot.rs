// SPDX-License-Identifier: GPL-2.0

//! What is mapped in an address space, for a device that reaches it by itself.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use crate::ops::Extent;

use super::{
    pages::Pages,
    table::{
        Entry,
        Map,
        Table, //
    }, //
};

/// What was mapped in an address space at some time. Holds the pages.
///
/// Nobody waits for it: a device that reaches memory by itself decides when it has forgotten what
/// is not mapped any more. Dropping the last one may sleep.
#[derive(Clone)]
pub struct Snapshot(Option<Arc<Table>>);

impl Snapshot {
    /// Nothing.
    pub const EMPTY: Self = Self(None);

    /// What `map` says.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(map: &Map) -> Result<Self> {
        if map.is_empty() {
            return Ok(Self::EMPTY);
        }
        let table = Table::new(map, None)?;
        Ok(Self(Some(Arc::new(table, GFP_KERNEL)?)))
    }

    /// What is mapped where, in order of IO virtual address. No two overlap, and none is empty or
    /// wraps around.
    pub fn extents(&self) -> impl ExactSizeIterator<Item = Extent> + '_ {
        self.entries().iter().map(Entry::extent)
    }

    /// The pages of the extent with number `index`.
    pub fn held(&self, index: usize) -> Option<Held> {
        self.entries().get(index).map(|entry| Held {
            _pages: entry.pages().clone(),
            extent: entry.extent(),
        })
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    fn entries(&self) -> &[Entry] {
        self.0.as_deref().map_or(&[], Table::entries)
    }
}

/// References to the pages of an extent, which stay where they are as long as this value lives.
///
/// Dropping the last one may sleep.
///
/// # Invariants
///
/// The memory of `extent` is some of that of `_pages`.
#[derive(Clone)]
pub struct Held {
    _pages: Arc<Pages>,
    extent: Extent,
}

impl Held {
    /// The physical address of the first byte.
    pub fn pa(&self) -> u64 {
        self.extent.pa
    }

    /// How many bytes there are. Not 0.
    pub fn size(&self) -> u64 {
        self.extent.size
    }
}
