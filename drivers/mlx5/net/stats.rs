// SPDX-License-Identifier: GPL-2.0

//! What is counted for each virtqueue: by the firmware what it does, by the driver how often it
//! failed.
//!
//! What the firmware said last is kept: it is what there is to say of one that is dead, or does not
//! answer.

use kernel::prelude::*;
use prm::virtq::VirtioQCounters;
use vdpa::executor::Execute;

use super::{
    machine::{
        Inner,
        Machine, //
    },
    objects::Objects,
    queue::{
        self,
        Queue, //
    }, //
};
use crate::hca::Failure;

/// A counter: its name, and where it is.
type Counter = (&'static CStr, fn(&VirtioQCounters) -> u64);

/// The counters, by the names of the reference.
const COUNTERS: [Counter; 6] = [
    (c"received_desc", VirtioQCounters::received_desc),
    (c"completed_desc", VirtioQCounters::completed_desc),
    (c"error_cqes", |counters| counters.error_cqes().into()),
    (c"bad_desc_errors", |counters| {
        counters.bad_desc_errors().into()
    }),
    (c"exceed_max_chain", |counters| {
        counters.exceed_max_chain().into()
    }),
    (c"invalid_buffer", |counters| {
        counters.invalid_buffer().into()
    }),
];

impl Machine {
    /// Tells the name and the value of each counter of queue `index`: how often it failed in this
    /// life of the firmware, and what the firmware counts, if it does.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such queue; what `each` reports.
    pub(crate) fn count(&self, index: u16, mut each: impl FnMut(&CStr, u64) -> Result) -> Result {
        let mut turn = self.turn();
        let inner: &mut Inner = &mut turn;
        let at = usize::from(index);
        let queue = inner
            .objects
            .as_deref()
            .and_then(|objects| objects.queues.get(at));
        let errors = queue.map_or(0, Queue::errors);
        let asked = inner.objects.as_deref().map(|objects| ask(objects, at));
        let slot = inner.counters.get_mut(at).ok_or(EINVAL)?;
        match asked {
            Some(Ok(counters)) => *slot = counters,
            Some(Err(failure)) => self.warn(&failure.into()),
            None => (),
        }
        each(c"errors", errors)?;
        let Some(counters) = slot else {
            return Ok(());
        };
        COUNTERS
            .iter()
            .try_for_each(|(name, read)| each(name, read(counters)))
    }
}

fn ask(objects: &Objects, at: usize) -> Result<Option<VirtioQCounters>, Failure> {
    let Some(queue) = objects.queues.get(at) else {
        return Ok(None);
    };
    let mut batch = objects.era.batch();
    let Some(ticket) = queue.ask_counters(&mut batch)? else {
        return Ok(None);
    };
    queue::counters(ticket, &mut batch.run()?).map(Some)
}
