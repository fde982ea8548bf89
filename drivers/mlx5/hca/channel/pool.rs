// SPDX-License-Identifier: GPL-2.0

//! The channels of a function that no device has, and the event queues of all.

use hardware::Device;
use kernel::{
    prelude::*,
    sync::Arc, //
};
use prm::{
    cq::CreateCq,
    eq::{
        CreateEq,
        Eqe, //
    },
    pd::AllocPd, //
};
use vdpa::RateLimit;

use super::{
    room_for,
    Channel,
    Maker, //
};
use crate::{
    hca::{
        batch::{
            Batch,
            Replies, //
        },
        command::Failure,
        eq::{
            Eq,
            Sink, //
        },
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
    },
    show::Show, //
};

/// The logarithm of the entries of an event queue for completions: each completion queue has one at
/// most, until it is armed again, and there are no more than 64.
const LOG_COMPLETIONS: u8 = 7;

/// Who is told of completions that interrupt by one vector.
struct Completions {
    listeners: Arc<Listeners>,
    firmware: Arc<Firmware>,
    warnings: RateLimit,
}

impl Sink for Completions {
    fn event(&self, entry: &Eqe) {
        // Who it was for is not told, and does not ask for another one.
        if !self.listeners.tell(entry) && self.warnings.allow() {
            let subject = Subject::of(entry);
            dev_warn!(
                self.firmware.log(),
                "an event is for nobody: {:?}\n",
                subject
            );
        }
    }

    fn look(&self) {
        self.listeners.look();
    }
}

/// The event queue of a vector, for completions.
pub(crate) struct CompletionEq {
    eq: Eq,
    listeners: Arc<Listeners>,
}

impl CompletionEq {
    /// Makes one that interrupts by `line`.
    fn new(firmware: &Arc<Firmware>, uar: u32, line: &Arc<Line>) -> Result<Arc<Self>, Failure> {
        let not_made = |error| Failure::not_sent::<CreateEq>(error);
        let listeners = Listeners::new().map_err(not_made)?;
        let sink = Completions {
            listeners: listeners.clone(),
            firmware: firmware.clone(),
            warnings: RateLimit::new(),
        };
        let sink = Arc::new(sink, GFP_KERNEL).map_err(|error| not_made(error.into()))?;
        // Completions are in no mask: a completion queue names its event queue.
        let eq = Eq::new(firmware, uar, line, LOG_COMPLETIONS, 0, sink)?;
        Arc::new(Self { eq, listeners }, GFP_KERNEL).map_err(|error| not_made(error.into()))
    }

    /// Its number: `c_eqn` of completion queues.
    pub(super) fn number(&self) -> u8 {
        self.eq.number()
    }

    /// The vector it interrupts by.
    pub(super) fn line(&self) -> &Arc<Line> {
        self.eq.line()
    }

    /// Passes on the events there are.
    pub(super) fn take(&self) {
        self.eq.events().take();
    }

    /// Tells `listener` of completions of queue `cqn`, whenever that was armed, until the value that
    /// is returned is dropped.
    pub(super) fn listen(&self, cqn: u32, listener: Arc<dyn Listener>) -> Result<Listening> {
        Listeners::add(&self.listeners, Subject::Completions(cqn), listener)
    }

    /// Whether no channel interrupts by it.
    fn is_idle(&self) -> bool {
        self.listeners.is_empty()
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
    most_eqs: usize,
    uar: u32,
    uid: u16,
}

impl Pool {
    /// Nothing yet. Channels will be made on behalf of user context `uid`, and armed by the page of
    /// doorbells `uar`; `listeners` are those who hear of errors. There can be no more than
    /// `most_eqs` event queues.
    pub(crate) fn new(
        firmware: &Arc<Firmware>,
        listeners: &Arc<Listeners>,
        most_eqs: usize,
        uar: u32,
        uid: u16,
    ) -> Self {
        Self {
            spare: KVec::new(),
            eqs: KVec::new(),
            pd: None,
            firmware: firmware.clone(),
            listeners: listeners.clone(),
            most_eqs,
            uar,
            uid,
        }
    }

    fn batch(&self) -> Batch {
        Batch::new(&self.firmware, self.uid)
    }

    /// A channel for each of `lines`, by which they interrupt: those that are there, and others. If
    /// there can be no event queue for a line, its channel interrupts by another one.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of a command.
    pub(crate) fn take(&mut self, lines: &[Arc<Line>]) -> Result<KVec<Channel>, Failure> {
        // What failed while nobody had it is of no use to anybody.
        self.spare.retain(|channel| channel.broken().is_none());
        let had_pd = self.pd.is_some();
        let taken = self.find_or_make(lines);
        if taken.is_err() {
            // It may be for what was made now that nothing could be made of it: not kept, then.
            self.eqs.retain(|eq| !eq.is_idle());
            if !had_pd {
                drop(self.pd.take());
            }
        }
        taken
    }

    fn find_or_make(&mut self, lines: &[Arc<Line>]) -> Result<KVec<Channel>, Failure> {
        let mut found = room_for::<CreateCq, _>(lines.len())?;
        let mut channels = room_for::<CreateCq, _>(lines.len())?;
        for line in lines {
            let is_it = |channel: &Channel| Arc::ptr_eq(channel.line(), line);
            let at = self.spare.iter().position(is_it);
            // There is room for all.
            let _ = found.push_within_capacity(at.and_then(|at| self.spare.remove(at).ok()));
        }
        let wanting = lines.iter().zip(found.iter());
        let wanting = wanting.filter(|(_, channel)| channel.is_none());
        let made = self.make_for(lines, wanting.map(|(line, _)| line));
        let (mut made, failed) = match made {
            Ok(made) => (made.into_iter(), Ok(())),
            Err(failure) => (KVec::new().into_iter(), Err(failure)),
        };
        for channel in found
            .into_iter()
            .filter_map(|one| one.or_else(|| made.next()))
        {
            match &failed {
                Ok(()) => _ = channels.push_within_capacity(channel),
                Err(_) => self.put_back(channel),
            }
        }
        failed.map(|()| channels)
    }

    /// Makes a channel for each of `wanting`. What interrupts by any of `lines` is left alone.
    fn make_for<'a>(
        &mut self,
        lines: &[Arc<Line>],
        wanting: impl Iterator<Item = &'a Arc<Line>>,
    ) -> Result<KVec<Channel>, Failure> {
        let mut eqs = room_for::<CreateCq, _>(lines.len())?;
        for line in wanting {
            // There is room for all.
            let _ = eqs.push_within_capacity(self.completion_eq(line, lines)?);
        }
        match eqs.is_empty() {
            true => Ok(KVec::new()),
            false => self.make(eqs),
        }
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

    /// The event queue for completions that interrupts by `line`, made when it is first asked for; or
    /// another one, if there can be no more. Those of `lines` are needed.
    fn completion_eq(
        &mut self,
        line: &Arc<Line>,
        lines: &[Arc<Line>],
    ) -> Result<Arc<CompletionEq>, Failure> {
        let is_it = |eq: &&Arc<CompletionEq>| Arc::ptr_eq(eq.line(), line);
        if let Some(eq) = self.eqs.iter().find(is_it) {
            return Ok(eq.clone());
        }
        self.eqs
            .reserve(1, GFP_KERNEL)
            .map_err(|error| Failure::not_sent::<CreateEq>(error.into()))?;
        if self.eqs.len() >= self.most_eqs {
            self.trim(lines);
        }
        let mut made = CompletionEq::new(&self.firmware, self.uar, line);
        if made.as_ref().is_err_and(Failure::is_for_want) && self.trim(lines) {
            made = CompletionEq::new(&self.firmware, self.uar, line);
        }
        match (made, self.eqs.first()) {
            (Ok(eq), _) => {
                // There is room now.
                let _ = self.eqs.push_within_capacity(eq.clone());
                Ok(eq)
            }
            // All complete in it rather than not at all.
            (Err(failure), Some(eq)) if failure.is_for_want() => {
                dev_warn!(
                    self.firmware.log(),
                    "virtqueues share an event queue: {}\n",
                    Show(&failure)
                );
                Ok(eq.clone())
            }
            (Err(failure), _) => Err(failure),
        }
    }

    /// Takes away what is not in use, and not for one of `lines`: channels, and event queues that have
    /// none. Returns whether there was an event queue less then.
    fn trim(&mut self, lines: &[Arc<Line>]) -> bool {
        let is_needed = |line: &Arc<Line>| lines.iter().any(|other| Arc::ptr_eq(other, line));
        self.spare.retain(|channel| is_needed(channel.line()));
        let before = self.eqs.len();
        self.eqs.retain(|eq| !eq.is_idle() || is_needed(eq.line()));
        self.eqs.len() < before
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
        let mut result = Ok(());
        let mut rest = KVec::new();
        for channel in core::mem::take(&mut self.spare) {
            if let Err(error) = rest.reserve(1, GFP_KERNEL) {
                // By itself, and in its own order.
                drop(channel);
                result = result.and(Err(Failure::not_sent::<CreateCq>(error.into())));
                continue;
            }
            let (completions, eq, ended) = channel.end_pairs(&mut batch);
            result = result.and(ended);
            // There is room now.
            let _ = rest.push_within_capacity((completions, eq));
        }
        result = result.and(batch.run().and_then(Replies::rest));
        result = result.and(end_all(
            rest.into_iter().map(|(completions, _eq)| completions),
        ));
        // Those of the queue pairs and of event queues, which have no other users.
        drop(self.pd.take());
        for eq in core::mem::take(&mut self.eqs) {
            // Users of firmware that died may have it a little longer.
            eq.eq.retire();
        }
        result
    }
}
