// SPDX-License-Identifier: GPL-2.0

//! Shadow rings: memory of our own that virtqueues reach beside the driver's, by the same key.
//!
//! They are where the driver has mapped nothing, one behind the other, each of the size that
//! virtqueues are made with. A driver may name addresses in there, or map memory there later: the
//! first is for [`Relay`](virtio::net::relay::Relay)s to refuse, for the second they are moved.

use hardware::Memory;
use kernel::{
    prelude::*,
    sync::Arc, //
};
use prm::mkey::CreateMkey;
use vdpa::memory::Snapshot;
use virtio::net::relay::Layout;

use super::{
    extent::{
        self,
        Rights,
        Run,
        PAGE_SHIFT, //
    },
    MapError, //
};
use crate::{
    hca::{
        Era,
        Failure,
        Object,
        Remains, //
    },
    net::{
        objects::SIZE,
        wire::key::{
            self,
            PAGE_ENTRY, //
        }, //
    },
};

/// What the device may do to shadow rings: it is the device of them.
const RIGHTS: Rights = Rights {
    read: true,
    write: true,
};

/// What shadow rings are apart, in bytes.
fn stride() -> u64 {
    Layout::bytes(SIZE).next_multiple_of(1 << PAGE_SHIFT)
}

/// Where shadow rings are, and by which key the hardware reaches them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// The first IO virtual address.
    pub(super) iova: u64,
    /// The number of bytes.
    pub(super) size: u64,
    /// The number of the key.
    pub(super) key: u32,
}

impl Window {
    /// It as a run, for who looks at addresses.
    pub(super) fn run(&self) -> Run {
        Run {
            iova: self.iova,
            size: self.size,
            bus: 0,
            rights: RIGHTS,
        }
    }
}

/// A shadow ring, for who drives it.
pub(crate) struct Shadow {
    /// Where it is for the hardware.
    pub(crate) layout: Layout,
    /// Where all shadow rings are for the hardware: from here on, and up to there.
    pub(crate) window: core::ops::Range<u64>,
    /// What it is in.
    pub(crate) memory: Arc<Memory>,
}

/// The shadow rings of a device. Field order is the order of teardown.
pub(super) struct Shadows {
    key: Object,
    iova: u64,
    memory: KVec<Arc<Memory>>,
}

impl Shadows {
    /// Makes shadow rings for `queues` virtqueues, where nothing of `wanted` is, and a key for them of
    /// protection domain `pd`.
    ///
    /// # Errors
    ///
    /// A [`MapError`].
    pub(super) fn new(
        era: &Era,
        pd: u32,
        wanted: &Snapshot,
        queues: u16,
    ) -> Result<Self, MapError> {
        let size = stride() * u64::from(queues);
        let ranges = wanted.extents().map(|extent| (extent.iova, extent.size));
        let iova = extent::room(ranges, size).ok_or(MapError::Full(size))?;
        let no_memory = |error: Error| Failure::not_sent::<CreateMkey>(error);
        let refused = |failure| MapError::Refused(iova, iova + size, failure);

        let mut memory = KVec::with_capacity(queues.into(), GFP_KERNEL)?;
        let mut uses: KVec<Arc<dyn Remains>> = KVec::with_capacity(queues.into(), GFP_KERNEL)?;
        let mut list: KVVec<u8> = KVVec::new();
        let pages = stride() >> PAGE_SHIFT;
        for _ in 0..queues {
            // CAST: A few pages.
            let ring = Memory::new(era.device(), stride() as usize)
                .map_err(no_memory)
                .map_err(refused)?;
            for page in 0..pages {
                let bus = ring.addr() + (page << PAGE_SHIFT);
                list.extend_from_slice(&key::page(bus), GFP_KERNEL)?;
            }
            let ring = Arc::new(ring, GFP_KERNEL)?;
            uses.push(ring.clone(), GFP_KERNEL)?;
            memory.push(ring, GFP_KERNEL)?;
        }
        let bytes = key::list_bytes(list.len() / PAGE_ENTRY, PAGE_ENTRY);
        list.resize(bytes, 0, GFP_KERNEL)?;
        let mut batch = era.batch();
        // CAST: Less than 64.
        let log_page = PAGE_SHIFT as u8;
        let ticket = batch
            .create_with::<CreateMkey>(
                |input| key::of_pages(input, pd, (iova, size), RIGHTS, log_page, bytes),
                &list,
                uses,
                |_| {},
            )
            .map_err(refused)?;
        let made = batch.run().and_then(|mut replies| replies.object(ticket));
        Ok(Self {
            key: made.map_err(refused)?,
            iova,
            memory,
        })
    }

    /// Whether they may stay where they are: there is nothing of `wanted`.
    pub(super) fn fits(&self, wanted: &Snapshot) -> bool {
        let Window { iova, size, .. } = self.window();
        wanted.extents().all(|extent| {
            extent.iova.saturating_add(extent.size) <= iova || iova + size <= extent.iova
        })
    }

    /// Where they are.
    pub(super) fn window(&self) -> Window {
        Window {
            iova: self.iova,
            // No more than there is memory.
            size: stride() * self.memory.len() as u64,
            key: key::number(self.key.id()),
        }
    }

    /// That of virtqueue `index`.
    pub(super) fn get(&self, index: u16) -> Option<Shadow> {
        let memory = self.memory.get(usize::from(index))?;
        let base = self.iova + stride() * u64::from(index);
        let Window { iova, size, .. } = self.window();
        Some(Shadow {
            layout: Layout::new(base, SIZE).ok()?,
            window: iova..iova + size,
            memory: memory.clone(),
        })
    }

    /// Gives the key, for its end, and lets go of the memory, which that holds.
    pub(super) fn into_key(self) -> Object {
        self.key
    }
}
