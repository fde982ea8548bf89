// SPDX-License-Identifier: GPL-2.0

//! What became of all commands of a function, over all lives of its firmware.

use core::fmt;

use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    }, //
};
use prm::{
    ObjectType,
    Opcode, //
};

use super::times::{
    Change,
    End,
    Kind,
    Times, //
};

/// How many kinds of commands there can be: four opcodes are for many types of objects.
const KINDS: usize = Opcode::ALL.len() + 4 * ObjectType::ALL.len();

/// The counts.
#[pin_data]
pub(crate) struct Tally {
    #[pin]
    all: SpinLock<KVec<Times>>,
}

impl Tally {
    /// No command yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let all = KVec::with_capacity(KINDS, GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                all <- new_spinlock!(all),
            }),
            GFP_KERNEL,
        )
    }

    /// Counts a command that took `us` microseconds.
    pub(super) fn add(&self, kind: Kind, end: End, us: u64) {
        let mut all = self.all.lock();
        if let Some(times) = all.iter_mut().find(|times| times.kind == kind) {
            return times.add(end, us);
        }
        let mut times = Times::new(kind);
        times.add(end, us);
        // There is room for every kind.
        let _ = all.push_within_capacity(times);
    }

    /// The firmware begins another life, in which it has nothing.
    pub(super) fn begin(&self) {
        self.all.lock().iter_mut().for_each(Times::begin);
    }

    /// The counts of this moment.
    fn copy(&self) -> Result<KVec<Times>> {
        let mut copy = KVec::with_capacity(KINDS, GFP_KERNEL)?;
        for times in self.all.lock().iter() {
            // It is as large.
            let _ = copy.push_within_capacity(*times);
        }
        Ok(copy)
    }

    /// A table of the commands: a line for each kind.
    pub(crate) fn commands(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", Times::HEAD)?;
        for times in self.copy().map_err(|_| fmt::Error)? {
            writeln!(f, "{times}")?;
        }
        Ok(())
    }

    /// A table of what there is in the firmware: a line for each kind of object that was ever made.
    pub(crate) fn objects(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.copy().map_err(|_| fmt::Error)?;
        for times in all.iter() {
            let Some(Change::Made(what)) = times.kind.change() else {
                continue;
            };
            let ended = all
                .iter()
                .filter(|other| other.kind.change() == Some(Change::Ended(what)))
                .map(Times::done_since)
                .sum();
            writeln!(
                f,
                "{:<24} {}",
                what,
                times.done_since().saturating_sub(ended)
            )?;
        }
        Ok(())
    }
}
