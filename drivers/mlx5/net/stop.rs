// SPDX-License-Identifier: GPL-2.0

//! Stops virtqueues: for a while, for good, and where they do not want to.
//!
//! All of them are suspended at once, by one batch of commands, and by another the firmware is
//! asked where they stand. What it says is kept: who asks later costs no command.

use kernel::prelude::*;
use prm::virtq::{
    QueryVirtioNetQ,
    State, //
};
use virtio::lifecycle::QueueSet;

use super::{
    machine::{
        Inner,
        Machine, //
    },
    objects::Objects,
    queue::{
        fields::{
            Fields,
            Stage, //
        },
        Change,
        Found,
        Queue, //
    },
    trouble::Trouble, //
};
use crate::hca::{
    Batch,
    Failure,
    Ticket, //
};

/// Queues did not stop.
pub(super) struct Unstopped {
    /// Why not.
    pub(super) trouble: Trouble,
    /// Whether each queue is one that runs, or one that stands still and can go on.
    pub(super) can_go_on: bool,
}

impl Machine {
    /// Stops `queues`. With `ask` it is noted where they stand.
    ///
    /// When this has returned, the driver has been told of all that was used. A message or an interrupt
    /// that was late may have it told once more, of nothing.
    ///
    /// # Errors
    ///
    /// Some did not stop, or do not say where they stand.
    pub(super) fn stop(
        &self,
        inner: &mut Inner,
        queues: QueueSet,
        ask: bool,
    ) -> Result<(), Unstopped> {
        if queues.is_empty() {
            return Ok(());
        }
        if self
            .control_index()
            .is_some_and(|index| queues.contains(index))
        {
            self.stop_control(inner);
        }
        self.set_running(queues, false);
        let running = in_stage(inner, queues, Stage::Ready);
        let mut stopped = Ok(());
        if !running.is_empty() {
            stopped = self.suspend(inner, running);
            tell(inner.objects.as_deref(), running);
            for index in running.iter() {
                if let Some(vector) = self.vector(index) {
                    vector.synchronize();
                    // An interrupt may not have reached a processor yet.
                    self.callbacks().queue(index);
                }
            }
            if ask {
                let still = in_stage(inner, running, Stage::Suspended);
                stopped = stopped.and(self.ask_all(inner, still));
            }
        }
        stopped = stopped.and(self.stop_relays(inner, queues, ask));
        let in_doubt = self.in_doubt(inner, queues);
        if let Some(index) = in_doubt.iter().next() {
            stopped = stopped.and(Err(Trouble::Doubt(index)));
        }
        stopped.map_err(|trouble| Unstopped {
            trouble,
            can_go_on: in_doubt.is_empty(),
        })
    }

    /// The queues among `queues` of which nobody knows whether they run.
    pub(super) fn in_doubt(&self, inner: &Inner, queues: QueueSet) -> QueueSet {
        those(inner, queues, |queue| {
            queue.stage() == Stage::Lost && queue.id().is_some()
        })
    }

    /// Nobody knows how `queues` stand to what the driver was told.
    pub(super) fn lose(&self, inner: &mut Inner, queues: QueueSet) {
        if let Some(objects) = &mut inner.objects {
            for index in queues.iter() {
                if let Some(queue) = objects.queues.get_mut(usize::from(index)) {
                    queue.lose();
                }
            }
        }
    }

    /// The queues that move frames and run.
    pub(super) fn moving(&self, inner: &Inner) -> QueueSet {
        in_stage(inner, self.data_queues(), Stage::Ready)
    }

    /// Takes the relays of those of `queues` away that do not run any more. With `ask` it is noted
    /// where the driver's rings stand, if the hardware was suspended.
    ///
    /// # Errors
    ///
    /// Nobody knows that of one.
    fn stop_relays(&self, inner: &mut Inner, queues: QueueSet, ask: bool) -> Result<(), Trouble> {
        let mut result = Ok(());
        for index in queues.without(in_stage(inner, queues, Stage::Ready)).iter() {
            if !ask || in_stage(inner, QueueSet::one(index), Stage::Suspended).is_empty() {
                self.relays().forget(index);
                continue;
            }
            let found = match self.relays().stop(index) {
                Ok(None) => continue,
                Ok(Some(found)) => Some(found),
                Err(snag) => {
                    let trouble = Trouble::Relay(index, snag);
                    self.warn(&trouble);
                    result = result.and(Err(trouble));
                    None
                }
            };
            if let Some(setup) = inner.setups.get_mut(usize::from(index)) {
                setup.index = found;
            }
        }
        result
    }

    /// The control queue is served under the lock that is held here: it has stopped as soon as its
    /// ring is taken away.
    fn stop_control(&self, inner: &mut Inner) {
        let Some(ring) = inner.control.take() else {
            return;
        };
        let setup = self
            .control_index()
            .and_then(|index| inner.setups.get_mut(usize::from(index)));
        if let Some(setup) = setup {
            setup.index = Some(ring.index());
        }
    }

    /// Has the firmware suspend queues that run.
    fn suspend(&self, inner: &mut Inner, queues: QueueSet) -> Result<(), Trouble> {
        let Some(objects) = &mut inner.objects else {
            return Ok(());
        };
        let mut batch = objects.era.batch();
        let mut changes: KVec<(u16, Change)> = KVec::new();
        for index in queues.iter() {
            let Some(queue) = objects.queues.get(usize::from(index)) else {
                continue;
            };
            changes
                .reserve(1, GFP_KERNEL)
                .map_err(|error| Failure::not_sent::<QueryVirtioNetQ>(error.into()))?;
            let none = Fields::default();
            let change = queue.change(0, &none, Some(State::SUSPEND), &mut batch)?;
            // There is room now.
            let _ = changes.push_within_capacity((index, change));
        }
        let mut replies = batch.run()?;
        let mut result = Ok(());
        let mut refused = QueueSet::EMPTY;
        for (index, change) in changes {
            if let Some(queue) = objects.queues.get_mut(usize::from(index)) {
                let changed = queue.changed(change, &mut replies);
                let is_for_state = |failure: &Failure| failure.is_for_state();
                refused.set(index, changed.as_ref().is_err_and(is_for_state));
                result = result.and(changed.map_err(Trouble::from));
            }
        }
        if !refused.is_empty() {
            self.reconsider(inner, refused);
        }
        result
    }

    /// Finds out which of `queues` run, that could not be stopped for the state that they are in. The
    /// others are lost.
    fn reconsider(&self, inner: &mut Inner, queues: QueueSet) {
        if let Err(trouble) = self.ask_anyway(inner, queues) {
            self.warn(&trouble);
            // Nobody knows what they are in.
            self.lose(inner, queues);
        }
    }

    /// # Errors
    ///
    /// The firmware does not say of all of them.
    fn ask_anyway(&self, inner: &mut Inner, queues: QueueSet) -> Result<(), Trouble> {
        let Some(objects) = &mut inner.objects else {
            return Ok(());
        };
        let mut batch = objects.era.batch();
        let tickets = ask(objects, queues, &mut batch)?;
        let mut replies = batch.run()?;
        for (index, ticket) in tickets {
            if let Some(queue) = objects.queues.get_mut(usize::from(index)) {
                if let Found::Error(error) = queue.reconsider(ticket, &mut replies)? {
                    self.warn(&Trouble::Queue(index, error));
                }
            }
        }
        Ok(())
    }

    /// Asks where queues that stand still are, and notes it.
    ///
    /// # Errors
    ///
    /// Of a queue that failed by itself, or does not say where it is, that.
    pub(super) fn ask_all(&self, inner: &mut Inner, queues: QueueSet) -> Result<(), Trouble> {
        let Some(objects) = &mut inner.objects else {
            return Ok(());
        };
        let mut batch = objects.era.batch();
        let tickets = ask(objects, queues, &mut batch)?;
        let mut replies = batch.run()?;
        let mut result = Ok(());
        for (index, ticket) in tickets {
            let at = usize::from(index);
            let (Some(queue), Some(setup)) = (objects.queues.get_mut(at), inner.setups.get_mut(at))
            else {
                continue;
            };
            let found = queue.answer(ticket, &mut replies);
            result = result.and(match found {
                Ok(Found::Still(index)) => {
                    setup.index = Some(index);
                    Ok(())
                }
                Ok(Found::Error(error)) => {
                    // Each has its line.
                    let trouble = Trouble::Queue(index, error);
                    self.warn(&trouble);
                    Err(trouble)
                }
                Err(failure) => {
                    // Where it is to go on nobody knows.
                    queue.lose();
                    Err(failure.into())
                }
            });
        }
        result
    }

    /// Asks where a queue is that runs.
    ///
    /// # Errors
    ///
    /// The firmware does not say, or the queue failed by itself.
    pub(super) fn ask_index(&self, inner: &mut Inner, index: u16) -> Result<u16, Trouble> {
        let objects = inner.objects.as_deref_mut().ok_or(Trouble::NoFirmware)?;
        let queue = objects.queues.get_mut(usize::from(index));
        let queue = queue.ok_or(Trouble::NoFirmware)?;
        let mut batch = objects.era.batch();
        let ticket = queue.ask(&mut batch)?;
        match queue.answer(ticket, &mut batch.run()?)? {
            Found::Still(index) => Ok(index),
            Found::Error(error) => Err(Trouble::Queue(index, error)),
        }
    }

    /// Takes the objects of those of `queues` away that did not stop, so that they use the driver's
    /// memory no more, and makes them anew. If that fails nothing is used any more.
    pub(super) fn discard(&self, inner: &mut Inner, queues: QueueSet) {
        let which = those(inner, queues, |queue| {
            !matches!(queue.stage(), Stage::Init | Stage::Suspended) || queue.broken().is_some()
        });
        let Some(objects) = &mut inner.objects else {
            return;
        };
        let pairs = self.settings().lock().pairs;
        let idle = objects.idle();
        if let Err(failure) = objects.renew(which, pairs, |_| idle) {
            self.function().recover(&failure);
        }
        for index in queues.without(in_stage(inner, queues, Stage::Ready)).iter() {
            self.relays().forget(index);
        }
    }
}

/// Puts the question where they stand into a batch, for those of `queues` that have an object.
///
/// # Errors
///
/// A [`Failure`] without memory.
pub(super) fn ask(
    objects: &Objects,
    queues: QueueSet,
    batch: &mut Batch,
) -> Result<KVec<(u16, Ticket<QueryVirtioNetQ>)>, Failure> {
    let mut tickets = KVec::new();
    for index in queues.iter() {
        let queue = objects.queues.get(usize::from(index));
        if let Some(queue) = queue.filter(|queue| queue.id().is_some()) {
            tickets
                .push((index, queue.ask(batch)?), GFP_KERNEL)
                .map_err(|error| Failure::not_sent::<QueryVirtioNetQ>(error.into()))?;
        }
    }
    Ok(tickets)
}

/// Has the driver look at queues that do not interrupt by themselves, for what they sent before they
/// were stopped or made anew.
pub(super) fn tell(objects: Option<&Objects>, queues: QueueSet) {
    for index in queues.iter() {
        let queue = objects.and_then(|objects| objects.queues.get(usize::from(index)));
        if let Some(queue) = queue {
            queue.tell();
        }
    }
}

/// Those of `queues` that move frames, and whose objects are as `is_one` says.
fn those(inner: &Inner, queues: QueueSet, is_one: impl Fn(&Queue) -> bool) -> QueueSet {
    let mut found = QueueSet::EMPTY;
    if let Some(objects) = &inner.objects {
        for index in queues.iter() {
            let queue = objects.queues.get(usize::from(index));
            found.set(index, queue.is_some_and(&is_one));
        }
    }
    found
}

/// Those of `queues` that move frames, and whose objects are in `stage`.
fn in_stage(inner: &Inner, queues: QueueSet, stage: Stage) -> QueueSet {
    those(inner, queues, |queue| queue.stage() == stage)
}
