// SPDX-License-Identifier: GPL-2.0

//! Memory keys as objects in the firmware, and what they keep.

use hardware::Mapping;
use kernel::{
    alloc::AllocError,
    prelude::*,
    sync::Arc, //
};
use prm::mkey::CreateMkey;
use zerocopy::IntoBytes;

use super::{
    extent::{
        Rights,
        Runs, //
    },
    plan::{
        self,
        Entry,
        NewPiece, //
    }, //
};
use crate::{
    hca::{
        end_all,
        Batch,
        Era,
        Failure,
        Object,
        Remains,
        Ticket, //
    },
    net::wire::key::{
        self,
        PAGE_ENTRY,
        PART_ENTRY, //
    }, //
};

/// The memory that a key leads to.
struct Leads {
    _to: KVVec<Arc<Mapping>>,
}

impl Remains for Leads {}

/// The most bytes of lists that go to the firmware at once.
const LISTS: usize = 1 << 20;

/// Keys that go together. They end with this value: the root first, as it names the others.
pub(super) struct Keys {
    /// The key of a list of parts of others.
    pub(super) root: Option<Object>,
    /// Keys of lists of pages.
    pub(super) pieces: KVVec<Object>,
}

impl Keys {
    /// None.
    pub(super) const NONE: Self = Self {
        root: None,
        pieces: KVVec::new(),
    };

    /// Destroys them.
    ///
    /// # Errors
    ///
    /// The first [`Failure`]. What cannot be destroyed is in the log, and keeps its memory.
    pub(super) fn end(&mut self) -> Result<(), Failure> {
        let root = end_all(self.root.take());
        let pieces = end_all(core::mem::take(&mut self.pieces));
        root.and(pieces)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // Nobody asked whether it fails.
        let _ = self.end();
    }
}

fn no_memory(error: AllocError) -> Failure {
    Failure::not_sent::<CreateMkey>(error.into())
}

/// Makes keys of pages, one after the other.
pub(super) struct Pieces<'a> {
    era: &'a Era,
    pd: u32,
    batch: Batch,
    tickets: KVVec<Ticket<CreateMkey>>,
    /// The bytes of the lists in the batch.
    bytes: usize,
    /// Those that were made.
    made: KVVec<Object>,
}

impl<'a> Pieces<'a> {
    /// Begins to make keys of protection domain `pd`.
    pub(super) fn new(era: &'a Era, pd: u32) -> Self {
        Self {
            era,
            pd,
            batch: era.batch(),
            tickets: KVVec::new(),
            bytes: 0,
            made: KVVec::new(),
        }
    }

    /// Has `piece` made, which was planned for `wanted`, of which `mappings` are what it leads to.
    ///
    /// # Errors
    ///
    /// A [`Failure`] without memory, or of a piece before.
    pub(super) fn make(
        &mut self,
        piece: &NewPiece,
        rights: Rights,
        wanted: Runs<'_>,
        mappings: impl Iterator<Item = Arc<Mapping>>,
    ) -> Result<(), Failure> {
        // Not more than a plan allows.
        let entries = piece.entries as usize;
        let mut list = KVVec::with_capacity(key::list_bytes(entries, PAGE_ENTRY), GFP_KERNEL)
            .map_err(no_memory)?;
        for page in plan::pages(piece, wanted) {
            list.extend_from_slice(&key::page(page), GFP_KERNEL)
                .map_err(no_memory)?;
        }
        let bytes = key::list_bytes(entries, PAGE_ENTRY);
        list.resize(bytes, 0, GFP_KERNEL).map_err(no_memory)?;

        let mut to = KVVec::with_capacity(piece.count, GFP_KERNEL).map_err(no_memory)?;
        for mapping in mappings {
            to.push(mapping, GFP_KERNEL).map_err(no_memory)?;
        }
        let leads = Arc::new(Leads { _to: to }, GFP_KERNEL).map_err(no_memory)?;
        let mut uses: KVec<Arc<dyn Remains>> = KVec::new();
        uses.push(leads, GFP_KERNEL).map_err(no_memory)?;

        self.tickets.reserve(1, GFP_KERNEL).map_err(no_memory)?;
        // No more than 31.
        let log_page = piece.log_page as u8;
        let pd = self.pd;
        let ticket = self.batch.create_with::<CreateMkey>(
            |input| {
                let range = (piece.iova, piece.size);
                key::of_pages(input, pd, range, rights, log_page, bytes);
            },
            &list,
            uses,
            |_| {},
        )?;
        // There is room now.
        let _ = self.tickets.push_within_capacity(ticket);
        self.bytes += bytes;
        if self.bytes >= LISTS {
            self.run()?;
        }
        Ok(())
    }

    fn run(&mut self) -> Result<(), Failure> {
        let batch = core::mem::replace(&mut self.batch, self.era.batch());
        let tickets = core::mem::take(&mut self.tickets);
        self.bytes = 0;
        self.made
            .reserve(tickets.len(), GFP_KERNEL)
            .map_err(no_memory)?;
        let mut replies = batch.run()?;
        for ticket in tickets {
            let object = replies.object(ticket)?;
            // There is room for all.
            let _ = self.made.push_within_capacity(object);
        }
        Ok(())
    }

    /// The keys, in the order they were asked for.
    ///
    /// # Errors
    ///
    /// A [`Failure`] without memory, or of a piece.
    pub(super) fn finish(mut self) -> Result<KVVec<Object>, Failure> {
        self.run()?;
        Ok(core::mem::take(&mut self.made))
    }
}

impl Drop for Pieces<'_> {
    fn drop(&mut self) {
        // Together: each may wait for firmware that does not answer. Failures are in the log.
        let _ = end_all(core::mem::take(&mut self.made));
    }
}

/// The list of a root.
pub(super) struct Root {
    list: KVVec<u8>,
    iova: u64,
    end: u64,
}

impl Root {
    /// A list without anything.
    pub(super) fn new() -> Self {
        Self {
            list: KVVec::new(),
            iova: 0,
            end: 0,
        }
    }

    /// How many entries it has.
    pub(super) fn entries(&self) -> usize {
        self.list.len() / PART_ENTRY
    }

    /// From which address on it is, and up to which.
    pub(super) fn range(&self) -> (u64, u64) {
        (self.iova, self.end)
    }

    /// Adds an entry, which is a part of the key with number `key`.
    ///
    /// # Errors
    ///
    /// Without memory.
    pub(super) fn add(&mut self, entry: &Entry, key: u32) -> Result<(), AllocError> {
        if self.list.is_empty() {
            self.iova = entry.iova;
        }
        // It is in the address space.
        self.end = entry.iova.saturating_add(entry.size.into());
        let part = key::part(key, entry.iova, entry.size);
        self.list.extend_from_slice(part.as_bytes(), GFP_KERNEL)
    }

    /// Makes the key, of protection domain `pd`.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the command.
    pub(super) fn make(mut self, era: &Era, pd: u32) -> Result<Object, Failure> {
        let bytes = key::list_bytes(self.entries(), PART_ENTRY);
        self.list.resize(bytes, 0, GFP_KERNEL).map_err(no_memory)?;
        let mut batch = era.batch();
        let range = (self.iova, self.end - self.iova);
        let ticket = batch.create_with::<CreateMkey>(
            |input| key::of_parts(input, pd, range, bytes),
            &self.list,
            KVec::new(),
            |_| {},
        )?;
        batch.run()?.object(ticket)
    }
}

/// Makes a key of all bus addresses, of protection domain `pd`.
///
/// # Errors
///
/// The [`Failure`] of the command.
pub(super) fn everything(era: &Era, pd: u32) -> Result<Object, Failure> {
    let mut batch = era.batch();
    let ticket = batch.create::<CreateMkey>(|input| key::of_everything(input, pd))?;
    batch.run()?.object(ticket)
}
