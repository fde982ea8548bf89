// SPDX-License-Identifier: GPL-2.0

//! Doorbells: from the index that a driver writes to the virtqueue it means.

use std::{
    collections::BTreeMap,
    sync::{
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
}

impl Doorbells {
    /// The doorbell of queue `index` was rung. Lost if the queue is not ready, or not there.
    pub fn kick(&self, index: u16) {
        let queue = self.queues.read().get(&index).and_then(Weak::upgrade);
        if let Some(queue) = queue {
            queue.kick();
        }
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
