// SPDX-License-Identifier: GPL-2.0

//! Virtqueue objects: made once, for one driver after the other.

pub(crate) mod fields;

use kernel::{
    prelude::*,
    sync::Arc, //
};
use prm::{
    umem::CreateUmem,
    virtq::{
        CreateVirtioNetQ,
        CreateVirtioQCounters,
        ModifyVirtioNetQ,
        QueryVirtioNetQ,
        QueryVirtioQCounters,
        State,
        VirtioNetQObject,
        VirtioQCounters, //
    }, //
};

use self::fields::{
    Fields,
    Stage, //
};
use super::{
    watch::Alarm,
    wire::{
        self,
        queue::{
            Events,
            QueueSpec, //
        },
        umem::Layout, //
    }, //
};
use crate::{
    hca::{
        Batch,
        Channel,
        Defect,
        Era,
        Failure,
        Listening,
        Object,
        Reason,
        Remains,
        Replies,
        Subject,
        Ticket, //
    },
    show::Show, //
};

/// A change of a virtqueue that was put into a batch.
pub(crate) struct Change {
    ticket: Ticket<ModifyVirtioNetQ>,
    /// What it has then, if fields change.
    fields: Option<Fields>,
    /// What it is in then, if the state changes.
    stage: Option<Stage>,
}

/// What the firmware says of a virtqueue that was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It stands still, and goes on from here: the index of the next used entry. That of the next
    /// available one is wrong on some firmware; with nothing in flight they are one.
    Still(u16),
    /// It failed by itself: what went wrong, in the firmware's own numbers.
    Error(u8),
}

/// A virtqueue. Field order is the order of teardown.
pub(crate) struct Queue {
    /// Of errors of the object.
    listening: Option<Listening>,
    /// `None` where it was taken away to be made anew, and that failed.
    object: Option<Object>,
    /// The firmware's memory for it, if its size is not that of the others.
    own: Option<Object>,
    counters: Option<Object>,
    /// What it tells of used buffers by, if it does not interrupt by itself.
    channel: Option<Channel>,
    /// What it is made as, for any driver, with the areas it has if it is of the usual size.
    spec: QueueSpec,
    stage: Stage,
    set: Fields,
    /// How often it failed by itself.
    errors: u64,
    /// It failed by itself, and nobody has drawn conclusions yet.
    has_failed: bool,
}

impl Queue {
    /// A virtqueue whose object is to be made yet.
    pub(crate) fn new(spec: QueueSpec, counters: Option<Object>, channel: Option<Channel>) -> Self {
        let by_pair = |channel: &Channel| Events::QueuePair(channel.number());
        Self {
            listening: None,
            object: None,
            own: None,
            spec: QueueSpec {
                counters: counters.as_ref().map_or(0, Object::id),
                events: channel.as_ref().map_or(spec.events, by_pair),
                ..spec
            },
            counters,
            channel,
            stage: Stage::Lost,
            set: Fields::default(),
            errors: 0,
            has_failed: false,
        }
    }

    /// The number of its object, if there is one.
    pub(crate) fn id(&self) -> Option<u32> {
        self.object.as_ref().map(Object::id)
    }

    /// What its object is in, whether or not its channel is [broken](Self::broken).
    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    /// What went wrong with its channel, if something did: it tells of nothing, and has another
    /// channel when its object is made anew. That may be at any time.
    pub(crate) fn broken(&self) -> Option<Defect> {
        self.channel.as_ref().and_then(Channel::broken)
    }

    /// Tells that buffers may be used, if it does not interrupt by itself: of what was used before it
    /// was stopped, or was made anew, the message may be late, or lost.
    pub(crate) fn tell(&self) {
        if let Some(channel) = &self.channel {
            channel.tell();
        }
    }

    /// What it has.
    pub(crate) fn set(&self) -> &Fields {
        &self.set
    }

    /// How often it failed by itself in this life of the firmware.
    pub(crate) fn errors(&self) -> u64 {
        self.errors
    }

    /// It failed by itself, or nobody knows what it is in.
    pub(crate) fn lose(&mut self) {
        self.stage = Stage::Lost;
    }

    /// Its driver is gone. Returns whether it failed by itself under that.
    pub(crate) fn forget_driver(&mut self) -> bool {
        self.forget_index();
        // Its key may be gone when the next driver begins, and another one have the number.
        self.set.mkey = 0;
        self.set.desc_mkey = 0;
        core::mem::take(&mut self.has_failed)
    }

    /// Nobody may rely on where it stands: the next driver says.
    pub(crate) fn forget_index(&mut self) {
        self.set.index = None;
    }

    /// Puts the end of the object into a batch.
    ///
    /// # Errors
    ///
    /// As [`Batch::end`].
    pub(crate) fn end(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        self.stage = Stage::Lost;
        // The firmware may give its number to another at once.
        self.listening = None;
        self.object
            .take()
            .map_or(Ok(()), |object| batch.end(object))
    }

    /// Puts the end of what the object used into a batch, but for its channel, which the era takes
    /// back. To be called when the object is gone.
    ///
    /// # Errors
    ///
    /// As [`Batch::end`].
    pub(crate) fn end_rest(&mut self, era: &Era, batch: &mut Batch) -> Result<(), Failure> {
        if let Some(channel) = self.channel.take() {
            era.put_back(channel);
        }
        let rest = [self.own.take(), self.counters.take()];
        let ended = rest.into_iter().flatten().map(|object| batch.end(object));
        ended.fold(Ok(()), Result::and)
    }

    /// Puts the object's creation with `fields` into a batch.
    ///
    /// # Errors
    ///
    /// A [`Failure`] without memory, and that of the command by which memory is registered.
    pub(crate) fn create(
        &mut self,
        era: &Era,
        fields: &Fields,
        usual: u16,
        batch: &mut Batch,
    ) -> Result<Ticket<CreateVirtioNetQ>, Failure> {
        self.mend_channel(era)?;
        let mut spec = self.spec;
        // The firmware has no use for this any more: there is no object.
        self.own = None;
        if fields.size != usual {
            let layout = layout(era, fields.size)?;
            let mut batch = era.batch();
            let ticket = create_umem(era, &layout, 1, &mut batch)?;
            let umem = batch.run()?.object(ticket)?;
            spec.areas = layout.areas(umem.id(), 0);
            self.own = Some(umem);
        }
        batch.create::<CreateVirtioNetQ>(|input| wire::queue::create(input, &spec, fields))
    }

    /// Has another channel if that of before is broken. There is no object.
    fn mend_channel(&mut self, era: &Era) -> Result<(), Failure> {
        let Some(old) = self.channel.as_ref() else {
            return Ok(());
        };
        let Some(defect) = old.broken() else {
            return Ok(());
        };
        // Who is told stays with the old one until there is another.
        let fresh = era.channels(core::slice::from_ref(old.line()))?;
        let fresh = fresh.into_iter().next();
        let fresh = fresh.ok_or(Failure::not_sent::<CreateVirtioNetQ>(ENXIO))?;
        let device: &hardware::Device = era.device();
        dev_info!(
            device,
            "virtqueue {} tells by something else: {}\n",
            self.spec.index,
            Show(defect)
        );
        self.spec.events = Events::QueuePair(fresh.number());
        if let Some(old) = self.channel.take() {
            if let Some(told) = old.release() {
                fresh.serve(told);
            }
            // Which destroys it.
            era.put_back(old);
        }
        self.channel = Some(fresh);
        Ok(())
    }

    /// Takes the object that was made with `fields`. `alarm` is told of errors.
    ///
    /// # Errors
    ///
    /// A [`Failure`] without memory.
    pub(crate) fn created(
        &mut self,
        object: Object,
        fields: &Fields,
        era: &Era,
        alarm: &Arc<Alarm>,
    ) -> Result<(), Failure> {
        let subject = Subject::Virtqueue(object.id());
        self.object = Some(object);
        self.stage = Stage::Init;
        self.set = *fields;
        let listening = era
            .listen(subject, alarm.clone())
            .map_err(Failure::not_sent::<CreateVirtioNetQ>)?;
        self.listening = Some(listening);
        Ok(())
    }

    /// Puts a change into a batch: of the fields that `select` names, as in
    /// [`modify`](prm::virtq::modify), and of the state if there is one.
    ///
    /// # Errors
    ///
    /// A [`Failure`] without memory, or without an object.
    pub(crate) fn change(
        &self,
        select: u64,
        fields: &Fields,
        state: Option<State>,
        batch: &mut Batch,
    ) -> Result<Change, Failure> {
        let id = self.id_or_failure::<ModifyVirtioNetQ>()?;
        let ticket = batch.push::<ModifyVirtioNetQ>(|input| {
            wire::queue::change(input, id, select, fields, state);
        })?;
        Ok(Change {
            ticket,
            fields: (select != 0).then_some(*fields),
            stage: state.map(|state| match state {
                State::RDY => Stage::Ready,
                State::SUSPEND => Stage::Suspended,
                State::INIT => Stage::Init,
                State::ERR => Stage::Lost,
            }),
        })
    }

    /// Notes what came of a change.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the command.
    pub(crate) fn changed(&mut self, change: Change, replies: &mut Replies) -> Result<(), Failure> {
        if let Err(failure) = replies.take(change.ticket) {
            // Firmware that speaks of its state knows something that is not known here: it failed,
            // or a command of before was executed that nobody heard of, or what it said of it was
            // not so. One that cannot be stopped now may run on: who asks finds out, see
            // `reconsider`.
            let may_run = failure.is_for_state() && change.stage == Some(Stage::Suspended);
            if failure.is_in_doubt() || failure.is_for_state() && !may_run {
                self.lose();
            }
            return Err(failure);
        }
        if let Some(fields) = change.fields {
            self.set = fields;
        }
        if let Some(stage) = change.stage {
            self.stage = stage;
            if stage == Stage::Suspended {
                self.forget_index();
            }
        }
        Ok(())
    }

    /// Puts the question where it stands into a batch.
    ///
    /// # Errors
    ///
    /// As [`Self::change`].
    pub(crate) fn ask(&self, batch: &mut Batch) -> Result<Ticket<QueryVirtioNetQ>, Failure> {
        let id = self.id_or_failure::<QueryVirtioNetQ>()?;
        batch.push::<QueryVirtioNetQ>(|input| {
            input.set_obj_id(id);
        })
    }

    /// The answer to [`Self::ask`].
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the command.
    pub(crate) fn answer(
        &mut self,
        ticket: Ticket<QueryVirtioNetQ>,
        replies: &mut Replies,
    ) -> Result<Found, Failure> {
        let reply = replies.take(ticket)?;
        let (output, _) = reply.read::<QueryVirtioNetQ>()?;
        Ok(self.found(output.obj_context()))
    }

    /// The answer to [`Self::ask`] of one that could not be stopped for the state that it is in. It
    /// is lost unless it runs.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the command.
    pub(crate) fn reconsider(
        &mut self,
        ticket: Ticket<QueryVirtioNetQ>,
        replies: &mut Replies,
    ) -> Result<Found, Failure> {
        let reply = replies.take(ticket).inspect_err(|_| self.lose())?;
        let (output, _) = reply.read::<QueryVirtioNetQ>()?;
        let object = output.obj_context();
        let found = self.found(object);
        if object.state() != Ok(State::RDY) {
            self.lose();
        }
        Ok(found)
    }

    /// Notes what the firmware says of the object.
    fn found(&mut self, object: &VirtioNetQObject) -> Found {
        if object.state() == Ok(State::ERR) {
            // It may be lost already by a command that was refused.
            if self.stage != Stage::Lost || !self.has_failed {
                self.errors += 1;
            }
            self.lose();
            self.has_failed = true;
            return Found::Error(object.virtio_q_context().error_type());
        }
        let index = object.hw_used_index();
        if self.stage == Stage::Suspended {
            self.set.index = Some(index);
        }
        Found::Still(index)
    }

    /// Puts the question for its counters into a batch; `None` if it has none.
    ///
    /// # Errors
    ///
    /// A [`Failure`] without memory.
    pub(crate) fn ask_counters(
        &self,
        batch: &mut Batch,
    ) -> Result<Option<Ticket<QueryVirtioQCounters>>, Failure> {
        let Some(counters) = &self.counters else {
            return Ok(None);
        };
        let id = counters.id();
        let ticket = batch.push::<QueryVirtioQCounters>(|input| {
            input.set_obj_id(id);
        })?;
        Ok(Some(ticket))
    }

    fn id_or_failure<C: prm::Command>(&self) -> Result<u32, Failure> {
        self.id()
            .ok_or(Reason::NotSent(-ENXIO.to_errno()).of(C::OPCODE))
    }
}

/// The answer to [`Queue::ask_counters`].
///
/// # Errors
///
/// The [`Failure`] of the command.
pub(crate) fn counters(
    ticket: Ticket<QueryVirtioQCounters>,
    replies: &mut Replies,
) -> Result<VirtioQCounters, Failure> {
    let reply = replies.take(ticket)?;
    Ok(reply.read::<QueryVirtioQCounters>()?.0.counters().clone())
}

/// Puts the creation of counters into a batch, if the firmware has any.
///
/// # Errors
///
/// A [`Failure`] without memory.
pub(crate) fn create_counters(
    era: &Era,
    batch: &mut Batch,
) -> Result<Option<Ticket<CreateVirtioQCounters>>, Failure> {
    if !era.capabilities().counters() {
        return Ok(None);
    }
    batch.create::<CreateVirtioQCounters>(|_| {}).map(Some)
}

/// What memory the firmware wants for virtqueues of `size` entries.
///
/// # Errors
///
/// A [`Failure`] if it wants more than there can be.
pub(crate) fn layout(era: &Era, size: u16) -> Result<Layout, Failure> {
    era.capabilities()
        .umem_sizes(size)
        .and_then(Layout::new)
        .ok_or(Failure::not_sent::<CreateUmem>(EINVAL))
}

/// Puts the registration of the firmware's memory for `queues` virtqueues into a batch.
///
/// # Errors
///
/// A [`Failure`] without memory.
pub(crate) fn create_umem(
    era: &Era,
    layout: &Layout,
    queues: u16,
    batch: &mut Batch,
) -> Result<Ticket<CreateUmem>, Failure> {
    let no_memory = |error: Error| Failure::not_sent::<CreateUmem>(error);
    let bytes = usize::try_from(layout.bytes()).map_err(|_| no_memory(ENOMEM))?;
    let mut uses: KVec<Arc<dyn Remains>> =
        KVec::with_capacity(queues.into(), GFP_KERNEL).map_err(|error| no_memory(error.into()))?;
    let mut list: KVVec<u8> = KVVec::new();
    // Not in one piece: there may be none as large.
    for _ in 0..queues {
        let memory = hardware::Memory::new(era.device(), bytes).map_err(no_memory)?;
        let pages = layout.bytes() >> wire::umem::PAGE_SHIFT;
        for page in 0..pages {
            let addr = memory.addr() + (page << wire::umem::PAGE_SHIFT);
            list.extend_from_slice(&wire::umem::page(addr), GFP_KERNEL)
                .map_err(|error| no_memory(error.into()))?;
        }
        let memory = Arc::new(memory, GFP_KERNEL).map_err(|error| no_memory(error.into()))?;
        uses.push(memory, GFP_KERNEL)
            .map_err(|error| no_memory(error.into()))?;
    }
    let pages = (list.len() / size_of::<u64>()) as u64;
    batch.create_with::<CreateUmem>(
        |input| wire::umem::create(input, pages),
        &list,
        uses,
        |_| {},
    )
}
