// SPDX-License-Identifier: GPL-2.0
//! What a virtqueue counts, shown by `vdpa dev vstats show`.
//!
//! A worker counts in a plain [`Tally`] while it handles a batch and adds it once.

use kernel::{
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

/// Counts of one batch.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tally {
    /// Frames that were passed on, or commands that were handled.
    pub(crate) packets: u64,
    /// Bytes of those frames, without the virtio header.
    pub(crate) bytes: u64,
    /// Frames that somebody did not want: the filter, a port that is down, a frame too long.
    pub(crate) drops: u64,
    /// Frames or commands that were malformed.
    pub(crate) errors: u64,
    /// Frames dropped because the receiver had no buffers.
    pub(crate) overruns: u64,
}

impl Tally {
    /// Adds the counts of a part of the batch.
    pub(crate) fn add(&mut self, part: &Self) {
        self.packets += part.packets;
        self.bytes += part.bytes;
        self.drops += part.drops;
        self.errors += part.errors;
        self.overruns += part.overruns;
    }
}

/// The counters of one virtqueue. They live as long as the device and survive a reset.
pub(crate) struct Stats {
    packets: Atomic<u64>,
    bytes: Atomic<u64>,
    drops: Atomic<u64>,
    errors: Atomic<u64>,
    overruns: Atomic<u64>,
}

impl Stats {
    /// All zero.
    pub(crate) fn new() -> Self {
        Self {
            packets: Atomic::new(0),
            bytes: Atomic::new(0),
            drops: Atomic::new(0),
            errors: Atomic::new(0),
            overruns: Atomic::new(0),
        }
    }

    /// Adds the counts of a batch.
    pub(crate) fn add(&self, tally: &Tally) {
        let pairs = [
            (&self.packets, tally.packets),
            (&self.bytes, tally.bytes),
            (&self.drops, tally.drops),
            (&self.errors, tally.errors),
            (&self.overruns, tally.overruns),
        ];
        for (counter, n) in pairs {
            if n != 0 {
                counter.add(n, Relaxed);
            }
        }
    }

    /// Returns the counts so far.
    pub(crate) fn get(&self) -> Tally {
        Tally {
            packets: self.packets.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            drops: self.drops.load(Relaxed),
            errors: self.errors.load(Relaxed),
            overruns: self.overruns.load(Relaxed),
        }
    }
}

/// Which kind of virtqueue counters belong to; it names them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A receive queue.
    Receive,
    /// A transmit queue.
    Transmit,
    /// The control queue.
    Control,
}

impl Kind {
    /// Gives name and value of every counter to `put`, until that fails.
    ///
    /// The names are those of the C simulator.
    pub(crate) fn each(
        self,
        tally: &Tally,
        mut put: impl FnMut(&'static CStr, u64) -> Result,
    ) -> Result {
        match self {
            Kind::Receive => {
                put(c"rx packets", tally.packets)?;
                put(c"rx bytes", tally.bytes)?;
                put(c"rx errors", tally.errors)?;
                put(c"rx overruns", tally.overruns)?;
                put(c"rx drops", tally.drops)
            }
            Kind::Transmit => {
                put(c"tx packets", tally.packets)?;
                put(c"tx bytes", tally.bytes)?;
                put(c"tx errors", tally.errors)?;
                put(c"tx overruns", tally.overruns)?;
                put(c"tx drops", tally.drops)
            }
            Kind::Control => {
                put(c"cvq requests", tally.packets.wrapping_add(tally.errors))?;
                put(c"cvq successes", tally.packets)?;
                put(c"cvq errors", tally.errors)
            }
        }
    }
}
