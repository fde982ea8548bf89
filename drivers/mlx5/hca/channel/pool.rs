// SPDX-License-Identifier: GPL-2.0

//! The channels of a function that no device has, and the event queues of all.

use hardware::Device;
use kernel::{
    prelude::*,
    sync::Arc, //
};
use prm::{
    cq::CreateCq,
    eq::CreateEq,
    pd::AllocPd, //
};

use super::{
    room_for,
    Channel,
    Maker, //
};
use crate::hca::{
    batch::{
        Batch,
        Replies, //
    },
    command::Failure,
    eq::Eq,
    events::{
        Listener,
        Listeners,
        Listening,
        Subject, //
    },
    firmware::Firmware,
    interrupts::Line,
    object::{
        end_all,
        Object, //
    }, //
};

/// The logarithm of the entries of an event queue for completions: each completion queue has one at
/// most, until it is armed again, and there are no more than 64.
const LOG_COMPLETIONS: u8 = 7;

/// The event queue of a vector, for completions.
pub(crate) struct CompletionEq {
    eq: Eq,
    listeners: Arc<Listeners>,
}

impl CompletionEq {
    /// Makes one that interrupts by `line`.
    fn new(firmware: &Arc<Firmware>, uar: u32, line: &Arc<Line>) -> Result<Arc<Self>, Failure> {
        let listeners = Listeners::new().map_err(Failure::not_sent::<CreateEq>)?;
        // Completions are in no mask: a completion queue names its event queue.
        let eq = Eq::new(firmware, uar, line, LOG_COMPLETIONS, 0, listeners.clone())?;
        Arc::new(Self { eq, listeners }, GFP_KERNEL)
            .map_err(|error| Failure::not_sent::<CreateEq>(error.into()))
    }

    /// Its number: `c_eqn` of completion queues.
    pub(super) fn number(&self) -> u8 {
        self.eq.number()
    }

    /// The vector it interrupts by.
    pub(super) fn line(&self) -> &Arc<Line> {
        self.eq.line()
    }

    /// Tells `listener` of completions of queue `cqn`, whenever that was armed, until the value that
    /// is returned is dropped.
    pub(super) fn listen(&self, cqn: u32, listener: Arc<dyn Listener>) -> Result<Listening> {
        Listeners::add(&self.listeners, Subject::Completions(cqn), listener)
    }
}

/// What is kept from one device of a function to the next. Field order is the order of teardown.
pub(crate) struct Pool {
    spare: KVec<Channel>,
    eqs: KVec<Arc<CompletionEq>>,
    /// The protection domain of queue pairs.
    pd: Option<Object>,
    firmware: Arc<Firmware>,
    listeners: Arc<Listeners>,
    uar: u32,
    uid: u16,
}

impl Pool {
    /// Nothing yet. Channels will be made on behalf of user context `uid`, and armed by the page of
    /// doorbells `uar`; `listeners` are those who hear of errors.
    pub(crate) fn new(
        firmware: &Arc<Firmware>,
        listeners: &Arc<Listeners>,
        uar: u32,
        uid: u16,
    ) -> Self {
        Self {
            spare: KVec::new(),
            eqs: KVec::new(),
            pd: None,
            firmware: firmware.clone(),
            listeners: listeners.clone(),
            uar,
            uid,
        }
    }

    fn batch(&self) -> Batch {
        Batch::new(&self.firmware, self.uid)
    }

    /// A channel for each of `lines`, by which they interrupt: those that are there, and others.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of a command.
    pub(crate) fn take(&mut self, lines: &[Arc<Line>]) -> Result<KVec<Channel>, Failure> {
        let mut found = room_for::<CreateCq, _>(lines.len())?;
        let mut eqs = room_for::<CreateCq, _>(lines.len())?;
        for line in lines {
            let is_it = |channel: &Channel| Arc::ptr_eq(channel.line(), line);
            let at = self.spare.iter().position(is_it);
            let channel = at.and_then(|at| self.spare.remove(at).ok());
            if channel.is_none() {
                // There is room for all.
                let _ = eqs.push_within_capacity(self.completion_eq(line)?);
            }
            let _ = found.push_within_capacity(channel);
        }
        let mut made = match eqs.is_empty() {
            true => KVec::new(),
            false => self.make(eqs)?,
        }
        .into_iter();
        let mut channels = room_for::<CreateCq, _>(lines.len())?;
        for channel in found
            .into_iter()
            .filter_map(|one| one.or_else(|| made.next()))
        {
            let _ = channels.push_within_capacity(channel);
        }
        Ok(channels)
    }

    fn make(&mut self, eqs: KVec<Arc<CompletionEq>>) -> Result<KVec<Channel>, Failure> {
        let pd = match &self.pd {
            Some(pd) => pd.id(),
            None => {
                let mut batch = self.batch();
                let ticket = batch.create::<AllocPd>(|_| {})?;
                self.pd.insert(batch.run()?.object(ticket)?).id()
            }
        };
        let maker = Maker {
            registers: self.firmware.registers(),
            listeners: &self.listeners,
            pd,
            uar: self.uar,
        };
        let device: &Device = self.firmware.device();
        maker.make(|| self.batch(), eqs, device)
    }

    /// The event queue for completions that interrupts by `line`, made when it is first asked for.
    fn completion_eq(&mut self, line: &Arc<Line>) -> Result<Arc<CompletionEq>, Failure> {
        let is_it = |eq: &&Arc<CompletionEq>| Arc::ptr_eq(eq.line(), line);
        if let Some(eq) = self.eqs.iter().find(is_it) {
            return Ok(eq.clone());
        }
        self.eqs
            .reserve(1, GFP_KERNEL)
            .map_err(|error| Failure::not_sent::<CreateEq>(error.into()))?;
        let eq = CompletionEq::new(&self.firmware, self.uar, line)?;
        // There is room now.
        let _ = self.eqs.push_within_capacity(eq.clone());
        Ok(eq)
    }

    /// Keeps a channel that nobody needs any more. One that is broken, or for which there is no
    /// memory, is destroyed.
    pub(crate) fn put_back(&mut self, channel: Channel) {
        drop(channel.release());
        if channel.broken().is_none() && self.spare.reserve(1, GFP_KERNEL).is_ok() {
            // There is room now.
            let _ = self.spare.push_within_capacity(channel);
        }
    }

    /// Takes everything away that is there: its users are gone.
    ///
    /// # Errors
    ///
    /// The first [`Failure`]; what failed is in the log.
    pub(crate) fn end(&mut self) -> Result<(), Failure> {
        let mut batch = self.batch();
        let mut rest = KVec::with_capacity(self.spare.len(), GFP_KERNEL)
            .map_err(|error| Failure::not_sent::<CreateCq>(error.into()))?;
        for channel in core::mem::take(&mut self.spare) {
            // There is room for all.
            let _ = rest.push_within_capacity(channel.end_pairs(&mut batch)?);
        }
        let pairs = batch.run().and_then(Replies::rest);
        let completions = end_all(rest.into_iter().map(|(completions, _eq)| completions));
        // Those of the queue pairs and of event queues, which have no other users.
        drop(self.pd.take());
        self.eqs.clear();
        pairs.and(completions)
    }
}
