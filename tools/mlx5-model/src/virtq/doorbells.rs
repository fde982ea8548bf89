// SPDX-License-Identifier: GPL-2.0

//! Doorbells: from the index that a driver writes to the virtqueue it means.

use std::{
    collections::BTreeMap,
    sync::{
        atomic::{
            AtomicU64,
            Ordering, //
        },
        Arc,
        Weak, //
    }, //
};

use parking_lot::RwLock;

use crate::refusal::Refusal;

use super::Virtq;

/// Who hears the doorbell of which virtqueue. Kicks come from the thread that serves the BAR, at any
/// time, and wait for no command.
#[derive(Default)]
pub struct Doorbells {
    queues: RwLock<BTreeMap<u16, Weak<Virtq>>>,
    /// Kicks of no virtqueue at all.
    unheard: AtomicU64,
}

impl Doorbells {
    /// The doorbell of queue `index` was rung. Lost if the queue is not ready.
    pub fn kick(&self, index: u16) {
        match self.queue(index) {
            Some(queue) => queue.kick(),
            None => {
                self.unheard.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// The virtqueue that hears doorbell `index`.
    pub fn queue(&self, index: u16) -> Option<Arc<Virtq>> {
        self.queues.read().get(&index).and_then(Weak::upgrade)
    }

    /// How many kicks there were for no virtqueue at all.
    pub fn unheard(&self) -> u64 {
        self.unheard.load(Ordering::Relaxed)
    }

    /// Has `queue` hear doorbell `index`.
    ///
    /// # Errors
    ///
    /// [`Refusal::QueueIndexTaken`] if another one does.
    pub(super) fn add(&self, index: u16, queue: &Arc<Virtq>) -> Result<(), Refusal> {
        let mut queues = self.queues.write();
        if queues
            .get(&index)
            .is_some_and(|there| there.strong_count() > 0)
        {
            return Err(Refusal::QueueIndexTaken);
        }
        queues.insert(index, Arc::downgrade(queue));
        Ok(())
    }

    /// Leaves doorbell `index` to nobody.
    pub(super) fn remove(&self, index: u16) {
        self.queues.write().remove(&index);
    }
}
