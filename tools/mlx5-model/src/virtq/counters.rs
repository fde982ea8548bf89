// SPDX-License-Identifier: GPL-2.0

//! What virtqueues count.

use std::sync::atomic::{
    AtomicU64,
    Ordering, //
};

use prm::virtq::VirtioQCounters;

use super::ring::Failure;

/// What happened in one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Descriptor chains taken from the driver.
    pub received: u64,
    /// Descriptor chains given back to it.
    pub completed: u64,
    /// Frames moved.
    pub frames: u64,
    /// Their bytes, without headers of virtio.
    pub bytes: u64,
    /// Frames to be sent that cannot be: no frames, too long, or not as their headers say.
    pub errors: u64,
    /// Frames that were not received, for want of buffers or of room in them.
    pub dropped: u64,
}

/// Counters of virtqueues, as a firmware object.
#[derive(Debug, Default)]
pub struct Counters {
    received: AtomicU64,
    completed: AtomicU64,
    errors: AtomicU64,
    bad_descriptors: AtomicU64,
    long_chains: AtomicU64,
    invalid_buffers: AtomicU64,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Counters {
    /// Counts what happened in a batch.
    pub fn add(&self, tally: &Tally) {
        add(&self.received, tally.received);
        add(&self.completed, tally.completed);
        add(&self.errors, tally.errors);
    }

    /// Counts why a virtqueue failed.
    pub fn add_failure(&self, failure: Failure) {
        match failure {
            Failure::BadDescriptor => add(&self.bad_descriptors, 1),
            Failure::LongChain => add(&self.long_chains, 1),
            Failure::InvalidBuffer => add(&self.invalid_buffers, 1),
            Failure::Network | Failure::Internal => add(&self.errors, 1),
        }
    }

    /// Writes the counters down.
    pub fn write(&self, to: &mut VirtioQCounters) {
        // Counters of 32 bits wrap.
        to.set_received_desc(get(&self.received))
            .set_completed_desc(get(&self.completed))
            .set_error_cqes(get(&self.errors) as u32)
            .set_bad_desc_errors(get(&self.bad_descriptors) as u32)
            .set_exceed_max_chain(get(&self.long_chains) as u32)
            .set_invalid_buffer(get(&self.invalid_buffers) as u32);
    }
}
