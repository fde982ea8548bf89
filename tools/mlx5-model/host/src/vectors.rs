// SPDX-License-Identifier: GPL-2.0

//! The interrupt vectors of a function, counted.

use std::{
    sync::{
        Condvar,
        Mutex,
        MutexGuard,
        PoisonError, //
    },
    time::Duration,
};

use mlx5_model::platform::Interrupts;

/// How many vectors there are.
pub const VECTORS: usize = 64;

/// How long anything is waited for before it is called lost. Nothing that works takes so long.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The interrupt vectors of a function: how often each was raised.
pub struct Vectors {
    counts: Mutex<[u64; VECTORS]>,
    raised: Condvar,
}

impl Default for Vectors {
    fn default() -> Self {
        Self {
            counts: Mutex::new([0; VECTORS]),
            raised: Condvar::new(),
        }
    }
}

impl Vectors {
    fn counts(&self) -> MutexGuard<'_, [u64; VECTORS]> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often a vector was raised.
    pub fn count(&self, vector: u16) -> u64 {
        self.counts()[usize::from(vector)]
    }

    /// Waits until a vector has been raised more than `seen` times, and returns how often it has.
    ///
    /// # Errors
    ///
    /// `None` if that does not happen in time.
    pub fn wait(&self, vector: u16, seen: u64) -> Option<u64> {
        self.wait_for(vector, seen, PATIENCE)
    }

    /// As [`Vectors::wait`], for as long as `patience`.
    pub fn wait_for(&self, vector: u16, seen: u64, patience: Duration) -> Option<u64> {
        let vector = usize::from(vector);
        let (counts, _) = self
            .raised
            .wait_timeout_while(self.counts(), patience, |counts| counts[vector] <= seen)
            .unwrap_or_else(PoisonError::into_inner);
        Some(counts[vector]).filter(|count| *count > seen)
    }
}

impl Interrupts for Vectors {
    fn count(&self) -> u16 {
        VECTORS as u16
    }

    fn raise(&self, vector: u16) {
        if let Some(count) = self.counts().get_mut(usize::from(vector)) {
            *count += 1;
            self.raised.notify_all();
        }
    }
}
