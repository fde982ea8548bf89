// SPDX-License-Identifier: GPL-2.0

//! How a virtqueue that cannot raise an interrupt by itself tells of used buffers.
//!
//! ```text
//!   virtqueue ──> firmware's pair ~~ empty message ~~> driver's pair ──> completion queue
//!                                                                              │
//!                    callback <── vector <── event queue <─────────────────────┘
//! ```
//!
//! A [`Channel`] is all of that but for the event queue, which belongs to a vector and serves all
//! channels that interrupt by it. What a channel needs in the firmware belongs to no driver and to no
//! device: channels are kept in a [`pool`] when a device is deleted, and the next one has them at
//! once.

pub(crate) mod pool;
pub(crate) mod ring;
mod wire;

use core::fmt;

use hardware::Memory;
use kernel::{
    new_spinlock_irq,
    prelude::*,
    sync::{
        Arc,
        SpinLockIrq, //
    }, //
};
use prm::{
    cq::CreateCq,
    qp::{
        CreateQp,
        Init2rtrQp,
        Rst2initQp,
        Rtr2rtsQp, //
    },
    uar::CQ_ARM,
    Command, //
};

use self::{
    pool::CompletionEq,
    ring::{
        Next,
        Ring,
        ENTRY,
        OWNER,
        SIZE, //
    }, //
};
use super::{
    batch::{
        Batch,
        Replies, //
    },
    command::Failure,
    events::{
        Listener,
        Listeners,
        Listening,
        Subject, //
    },
    firmware::Remains,
    interrupts::{
        Line,
        Used, //
    },
    object::Object,
    registers::{
        Registers,
        UAR_BYTES, //
    }, //
};

/// The bytes of a page of the firmware.
const PAGE: usize = 4096;

/// The pages of the completions.
const PAGES: usize = SIZE * ENTRY / PAGE;

/// Where in a channel's memory things are, each in pages of its own: the completions, the entries to
/// receive, of 16 bytes, and the two doorbell records, apart from each other.
const COMPLETIONS: usize = 0;
const ENTRIES: usize = PAGES * PAGE;
const CQ_RECORD: usize = ENTRIES + PAGE;
const QP_RECORD: usize = CQ_RECORD + 64;
const BYTES: usize = CQ_RECORD + PAGE;

const _: () = assert!(SIZE * ENTRY == PAGES * PAGE && SIZE * 16 <= PAGE);

/// What went wrong with a channel: it tells of nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// The firmware says so of its completion queue.
    Completions,
    /// The firmware says so of one of its queue pairs.
    Pair,
    /// A completion says that nothing was received: the queue pair failed.
    Entry,
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Completions => "its completion queue failed",
            Self::Pair => "its queue pair failed",
            Self::Entry => "its queue pair received nothing",
        })
    }
}

/// Who is told of used buffers, and of a channel that is broken.
pub(crate) struct Told {
    /// That of the virtqueues of a device.
    pub(crate) used: Arc<dyn Used>,
    /// Which of them it is.
    pub(crate) queue: u16,
    /// Told when the channel broke.
    pub(crate) trouble: Arc<dyn Listener>,
}

/// The driver's end of a channel: what an interrupt looks at.
#[pin_data]
struct End {
    memory: Arc<Memory>,
    registers: Arc<Registers>,
    /// Where the doorbell of completion queues is in the BAR.
    arm: usize,
    #[pin]
    state: SpinLockIrq<State>,
}

struct State {
    ring: Ring,
    told: Option<Told>,
    broken: Option<Defect>,
}

impl End {
    fn new(memory: Memory, registers: &Arc<Registers>, uar: u32) -> Result<Arc<Self>> {
        let ring = Ring::default();
        for at in (0..SIZE * ENTRY).step_by(ENTRY) {
            memory.write(COMPLETIONS + at + OWNER, &[Ring::NOT_WRITTEN])?;
        }
        // Posted before the queue pair can receive.
        memory.store_word(QP_RECORD, ring.posted())?;
        // What is there until an event is asked for must not look as if one was.
        memory.store_word(CQ_RECORD + 4, Ring::NOT_ARMED)?;
        let memory = Arc::new(memory, GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                memory,
                registers: registers.clone(),
                // No more than 24 bits of pages, and one page.
                arm: uar as usize * UAR_BYTES + CQ_ARM as usize,
                state <- new_spinlock_irq!(State {
                    ring,
                    told: None,
                    broken: None,
                }),
            }),
            GFP_KERNEL,
        )
    }

    fn addr(&self, at: usize) -> u64 {
        self.memory.addr() + at as u64
    }

    /// The addresses of the pages of the completions, as the firmware wants them.
    fn pages(&self) -> [[u8; 8]; PAGES] {
        core::array::from_fn(|page| self.addr(COMPLETIONS + page * PAGE).to_be_bytes())
    }

    /// Reads the completions there are. Returns whether there were any.
    fn read(&self, state: &mut State) -> bool {
        let mut any = false;
        // Who writes as fast as this is read is read again with the next event.
        for _ in 0..SIZE {
            let last = self.memory.load(COMPLETIONS + state.ring.place() + OWNER);
            match last.map_or(Next::Nothing, |last| state.ring.next(last)) {
                Next::Nothing => break,
                Next::Message => any = true,
                Next::Error => self.fail(state, Defect::Entry),
            }
            state.ring.advance();
            // In this order: there is room for completions before there are entries for them. Each
            // at once, so that a virtqueue never waits for this.
            let told = self.memory.store_word(CQ_RECORD, state.ring.consumed());
            let _ = told.and(self.memory.store_word(QP_RECORD, state.ring.posted()));
        }
        any
    }

    fn fail(&self, state: &mut State, how: Defect) {
        if state.broken.is_none() {
            state.broken = Some(how);
            if let Some(told) = &state.told {
                told.trouble.event();
            }
        }
    }

    /// Tells that something may be there. With the lock held, so that who was told of it is not
    /// called any more when there is somebody else.
    fn tell(&self, state: &State) {
        if let Some(told) = &state.told {
            told.used.used(told.queue);
        }
    }

    /// Tells of what there is. Returns whether there was something.
    fn take(&self, state: &mut State) -> bool {
        let any = self.read(state);
        if any {
            self.tell(state);
        }
        any
    }

    /// Has the firmware tell of the next completion by an event.
    fn ask(&self, state: &State, cqn: u32) {
        // Both are in memory that is there.
        let _ = self.memory.store_word(CQ_RECORD + 4, state.ring.armed());
        self.registers
            .write_pair(self.arm, state.ring.doorbell(cqn));
    }
}

/// Told of completions.
struct OnCompletion {
    end: Arc<End>,
    cqn: u32,
}

impl Listener for OnCompletion {
    fn event(&self) {
        let mut state = self.end.state.lock();
        state.ring.count_event();
        self.end.take(&mut state);
        self.end.ask(&state, self.cqn);
    }

    fn look(&self) {
        let mut state = self.end.state.lock();
        if state.told.is_none() {
            return;
        }
        let any = self.end.take(&mut state);
        state.ring.look(any);
        // The firmware does not mind to be asked again.
        self.end.ask(&state, self.cqn);
    }
}

/// Told of errors.
struct OnError {
    end: Arc<End>,
    how: Defect,
}

impl Listener for OnError {
    fn event(&self) {
        let mut state = self.end.state.lock();
        self.end.fail(&mut state, self.how);
    }
}

/// What a virtqueue tells of used buffers by. Field order is the order of teardown.
pub(crate) struct Channel {
    listening: KVec<Listening>,
    end: Arc<End>,
    /// The firmware's pair.
    sender: Object,
    /// The driver's.
    receiver: Object,
    completions: Object,
    eq: Arc<CompletionEq>,
}

impl Channel {
    /// The number of the firmware's queue pair: `event_qpn_or_msix` of a virtqueue.
    pub(crate) fn number(&self) -> u32 {
        self.sender.id()
    }

    /// The vector it interrupts by.
    pub(crate) fn line(&self) -> &Arc<Line> {
        self.eq.line()
    }

    /// What went wrong with it, if something did.
    pub(crate) fn broken(&self) -> Option<Defect> {
        self.end.state.lock().broken
    }

    /// Tells `told` from now on: what is there already is for nobody, but for what went wrong.
    pub(crate) fn serve(&self, told: Told) {
        let mut state = self.end.state.lock();
        self.end.read(&mut state);
        if state.broken.is_some() {
            told.trouble.event();
        }
        let nobody = state.told.replace(told);
        drop(state);
        drop(nobody);
    }

    /// Tells nobody any more; a callback that runs has returned. Returns who was told.
    pub(crate) fn release(&self) -> Option<Told> {
        self.end.state.lock().told.take()
    }

    /// Tells that something may be there, whether or not there is a message. One that a virtqueue
    /// sent before it was stopped, or taken away, may come late or not at all.
    pub(crate) fn tell(&self) {
        let mut state = self.end.state.lock();
        self.end.read(&mut state);
        self.end.tell(&state);
    }

    /// Puts the ends of its queue pairs into a batch, and returns what is to be ended behind that;
    /// and the [`Failure`] without memory for it, with which they were ended one by one.
    fn end_pairs(self, batch: &mut Batch) -> (Object, Arc<CompletionEq>, Result<(), Failure>) {
        // Their numbers may be others' at once.
        drop(self.listening);
        let ended = batch.end(self.sender);
        let ended = ended.and(batch.end(self.receiver));
        (self.completions, self.eq, ended)
    }
}

/// What channels are made of, beside the event queues.
struct Maker<'a> {
    registers: &'a Arc<Registers>,
    listeners: &'a Arc<Listeners>,
    pd: u32,
    uar: u32,
}

/// A channel that is being made.
struct Making {
    end: Arc<End>,
    sender: Object,
    completions: Object,
    eq: Arc<CompletionEq>,
}

impl Maker<'_> {
    /// Makes a channel for each of `eqs`, all of them at once: in five batches of commands.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of a command. Nothing is left then.
    fn make(
        &self,
        batch: impl Fn() -> Batch,
        eqs: KVec<Arc<CompletionEq>>,
        device: &hardware::Device,
    ) -> Result<KVec<Channel>, Failure> {
        let mut first = batch();
        let mut tickets = room_for::<CreateCq, _>(eqs.len())?;
        for eq in &eqs {
            let end = Memory::new(device, BYTES)
                .and_then(|memory| End::new(memory, self.registers, self.uar))
                .map_err(Failure::not_sent::<CreateCq>)?;
            let completions = first.create_with::<CreateCq>(
                |input| wire::completions(input, eq.number(), self.uar, end.addr(CQ_RECORD)),
                end.pages().as_flattened(),
                uses::<CreateCq>(&end.memory)?,
                |_| {},
            )?;
            let sender = first.create::<CreateQp>(|input| wire::sender(input, self.pd))?;
            // There is room for all.
            let _ = tickets.push_within_capacity((end, completions, sender));
        }
        let mut replies = first.run()?;

        let mut second = batch();
        let mut making = room_for::<CreateQp, _>(eqs.len())?;
        for (eq, (end, completions, sender)) in eqs.into_iter().zip(tickets) {
            // In this order: what is dropped is what uses the other first.
            let completions = replies.object(completions)?;
            let sender = replies.object(sender)?;
            let receiver = second.create_with::<CreateQp>(
                |input| {
                    let record = end.addr(QP_RECORD);
                    wire::receiver(input, self.pd, self.uar, completions.id(), record);
                },
                &end.addr(ENTRIES).to_be_bytes(),
                uses::<CreateQp>(&end.memory)?,
                |_| {},
            )?;
            let made = Making {
                end,
                sender,
                completions,
                eq,
            };
            let _ = making.push_within_capacity((made, receiver));
        }
        let mut replies = second.run()?;

        let mut channels = room_for::<CreateQp, _>(making.len())?;
        for (made, receiver) in making {
            let receiver = match replies.object(receiver) {
                Ok(receiver) => receiver,
                Err(failure) => {
                    // Those of the others, before what they complete in.
                    drop(replies);
                    return Err(failure);
                }
            };
            let channel = Channel {
                listening: KVec::new(),
                receiver,
                end: made.end,
                sender: made.sender,
                completions: made.completions,
                eq: made.eq,
            };
            let _ = channels.push_within_capacity(channel);
        }
        connect(&batch, &channels)?;
        for channel in channels.iter_mut() {
            self.listen(channel)?;
            let state = channel.end.state.lock();
            channel.end.ask(&state, channel.completions.id());
        }
        Ok(channels)
    }

    /// Has a channel told of what is its own.
    fn listen(&self, channel: &mut Channel) -> Result<(), Failure> {
        let mut listen = || {
            let cqn = channel.completions.id();
            // Events of a queue that had the number before are not counted for this one, which was
            // not asked for any yet.
            channel.eq.take();
            let completions = OnCompletion {
                end: channel.end.clone(),
                cqn,
            };
            let completions = Arc::new(completions, GFP_KERNEL)?;
            let all = &mut channel.listening;
            all.push(channel.eq.listen(cqn, completions)?, GFP_KERNEL)?;
            for (subject, how) in [
                (Subject::CompletionQueue(cqn), Defect::Completions),
                (Subject::QueuePair(channel.receiver.id()), Defect::Pair),
                (Subject::QueuePair(channel.sender.id()), Defect::Pair),
            ] {
                let end = channel.end.clone();
                let error = Arc::new(OnError { end, how }, GFP_KERNEL)?;
                all.push(Listeners::add(self.listeners, subject, error)?, GFP_KERNEL)?;
            }
            Ok(())
        };
        listen().map_err(Failure::not_sent::<CreateCq>)
    }
}

/// Connects the pairs of channels.
fn connect(batch: &impl Fn() -> Batch, channels: &[Channel]) -> Result<(), Failure> {
    let ends = |channel: &Channel| {
        let (sender, receiver) = (channel.sender.id(), channel.receiver.id());
        [(sender, receiver), (receiver, sender)]
    };
    let mut initialize = batch();
    let mut receive = batch();
    let mut send = batch();
    for channel in channels {
        for (qpn, other) in ends(channel) {
            initialize.push::<Rst2initQp>(|input| wire::initialize(input, qpn, other))?;
            receive.push::<Init2rtrQp>(|input| wire::receive(input, qpn, other))?;
        }
        send.push::<Rtr2rtsQp>(|input| wire::send(input, channel.sender.id()))?;
    }
    initialize.run().and_then(Replies::rest)?;
    receive.run().and_then(Replies::rest)?;
    send.run().and_then(Replies::rest)
}

/// The memory of a channel, as what an object in the firmware uses.
fn uses<C: Command>(memory: &Arc<Memory>) -> Result<KVec<Arc<dyn Remains>>, Failure> {
    let mut uses = room_for::<C, Arc<dyn Remains>>(1)?;
    // There is room for it.
    let _ = uses.push_within_capacity(memory.clone());
    Ok(uses)
}

fn room_for<C: Command, T>(len: usize) -> Result<KVec<T>, Failure> {
    KVec::with_capacity(len, GFP_KERNEL).map_err(|error| Failure::not_sent::<C>(error.into()))
}
