// SPDX-License-Identifier: GPL-2.0

//! Sets of virtqueues for those who must not wait.

use kernel::sync::atomic::{
    Atomic,
    Relaxed,
    Release, //
};
use virtio::lifecycle::QueueSet;

/// A set of virtqueues, of the first 64, that may be looked at in any context.
pub(super) struct Marks(Atomic<u64>);

impl Marks {
    /// None.
    pub(super) fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// Whether queue `index` is among them.
    pub(super) fn contains(&self, index: u16) -> bool {
        let bit = 1u64.checked_shl(index.into()).unwrap_or(0);
        self.0.load(Relaxed) & bit != 0
    }

    /// Adds `queues`, or takes them away. Only who has a turn changes it.
    pub(super) fn change(&self, queues: QueueSet, member: bool) {
        let mut word = self.0.load(Relaxed);
        for index in queues.iter() {
            let bit = 1u64.checked_shl(index.into()).unwrap_or(0);
            word = if member { word | bit } else { word & !bit };
        }
        self.0.store(word, Release);
    }
}
