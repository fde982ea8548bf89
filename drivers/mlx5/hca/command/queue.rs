// SPDX-License-Identifier: GPL-2.0

//! The command queue: has commands executed, as many at once as there are slots.
//!
//! Who has commands to execute puts them into free slots, rings for all of them at once, and waits.
//! As soon as one is complete its outcome is taken; where there are more commands than slots, these
//! are filled again when half are complete. Until there is an event queue for commands the entries are
//! looked at again and again; from then on an interrupt says which are complete. Most commands are
//! short beside a sleep, so the entries are looked at for a moment before an interrupt is waited for.
//! Where none came for a while, both the event queue and the entries are looked at: an interrupt that
//! is lost costs a second, once.
//!
//! There is a bound on the time of every command. One that is not complete by then leaves its slot
//! and its mailboxes behind: the firmware may write there yet. They are used again when it turns out
//! that the firmware was just slow, and gave them back.

use hardware::{
    Device,
    Memory,
    WaitQueue, //
};
use kernel::{
    alloc::AllocError,
    new_mutex,
    new_spinlock_irq,
    prelude::*,
    sync::{
        Arc,
        Mutex,
        SpinLockIrq, //
    },
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    }, //
};
use prm::{
    command::{
        Delivery,
        Entry,
        OWNED_BY_FIRMWARE, //
    },
    eq::{
        Eqe, //
        EqeCmd,
    },
    Layout, //
};
use vdpa::RateLimit;
use zerocopy::{
    FromBytes,
    IntoBytes, //
};

use super::{
    mailbox,
    not_sent,
    slots::{
        Lane,
        Slots, //
    },
    tally::Tally,
    times::End,
    Failure,
    Reason,
    Reply,
    Request, //
};
use crate::hca::{
    eq::{
        Events,
        Sink, //
    },
    init_segment::{
        Geometry,
        InitSegment, //
    }, //
};

/// Where in an entry the owner is, behind everything else.
const OWNER: usize = size_of::<Entry>() - 1;

/// The queue fills a page at most.
const PAGE: usize = 4096;

/// How long it is slept between looks at entries.
const STEP: Delta = Delta::from_micros(20);

/// How long entries are looked at before an interrupt is waited for: no longer than it takes to sleep
/// and to be woken.
const MOMENT: Delta = Delta::from_micros(100);

/// How long an interrupt is waited for before entries are looked at anyhow, in milliseconds.
const LOOK_MS: u32 = 1000;

/// The largest input and output: what can be given in one command is a good deal less.
const MOST: usize = 1 << 20;

/// Memory for mailboxes that is kept for the next command: of one page, and of four.
const SPARE: usize = 32;
const SMALL: usize = PAGE;
const LARGE: usize = 4 * PAGE;

/// Limits the messages about commands that ended without an interrupt.
static UNTOLD: RateLimit = RateLimit::new();

/// The command queue of a function.
#[pin_data]
pub(crate) struct Queue {
    segment: InitSegment,
    device: Arc<Device>,
    tally: Arc<Tally>,
    entries: Memory,
    log_stride: u8,
    timeout_ms: u32,
    /// What tells which commands are complete, if an event queue does.
    #[pin]
    events: SpinLockIrq<Option<Arc<Events>>>,
    #[pin]
    state: SpinLockIrq<State>,
    #[pin]
    changed: WaitQueue,
    #[pin]
    spare: Mutex<Spare>,
    /// What the firmware may write to yet, as far as the queue knows.
    #[pin]
    lost: Mutex<KVec<Lost>>,
}

/// What a command was given that did not come back in time.
struct Lost {
    slot: u8,
    input: Option<Memory>,
    output: Option<Memory>,
}

struct State {
    slots: Slots,
    token: u8,
    dead: bool,
}

struct Spare {
    small: KVec<Memory>,
    large: KVec<Memory>,
}

/// A command in a slot.
struct Flight {
    /// Which of the requests it is.
    index: usize,
    slot: u8,
    token: u8,
    input: Option<Memory>,
    output: Option<Memory>,
    /// Where the output is copied to. It is there before the command is sent: what the firmware
    /// has done cannot fail for want of memory.
    reply: KVVec<u8>,
    since: Instant<Monotonic>,
}

/// The outcome of a command.
pub(crate) type Outcome = Result<Reply, Failure>;

/// As what a command that came back is counted.
fn end(outcome: &Outcome) -> End {
    match outcome {
        Ok(_) => End::Done,
        Err(failure) if matches!(failure.reason, Reason::Refused { .. }) => End::Refused,
        Err(_) => End::Lost,
    }
}

impl Queue {
    /// Makes a command queue and tells the firmware of it, which begins a life. No command takes
    /// longer than `timeout_ms` milliseconds. What becomes of them is counted in `tally`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the firmware wants a queue that there is none of; `ENODEV` if the device is not
    /// bound, `ENOMEM`.
    pub(crate) fn new(
        segment: InitSegment,
        device: &Arc<Device>,
        geometry: Geometry,
        timeout_ms: u32,
        tally: &Arc<Tally>,
    ) -> Result<Arc<Self>> {
        let slots = Slots::new(geometry.log_entries).ok_or(EINVAL)?;
        let bytes = slots.len() << geometry.log_stride;
        if 1 << geometry.log_stride < size_of::<Entry>() || bytes > PAGE {
            return Err(EINVAL);
        }
        let entries = Memory::new(device, bytes)?;
        let addr = entries.addr();
        let kept = || KVec::with_capacity(SPARE, GFP_KERNEL);
        let spare = Spare {
            small: kept()?,
            large: kept()?,
        };
        let lost = KVec::with_capacity(slots.len(), GFP_KERNEL)?;
        let state = State {
            slots,
            token: 0,
            dead: false,
        };
        let this = Arc::pin_init(
            pin_init!(Self {
                segment,
                device: device.clone(),
                tally: tally.clone(),
                entries,
                log_stride: geometry.log_stride,
                timeout_ms,
                events <- new_spinlock_irq!(None),
                state <- new_spinlock_irq!(state),
                changed <- WaitQueue::new(),
                spare <- new_mutex!(spare),
                lost <- new_mutex!(lost),
            }),
            GFP_KERNEL,
        )?;
        this.tally.begin();
        this.segment.set_queue(addr);
        Ok(this)
    }

    /// Waits for commands by their `events` from now on, or with `None` by looking at their entries.
    pub(crate) fn wait_by(&self, events: Option<Arc<Events>>) {
        let before = core::mem::replace(&mut *self.events.lock(), events);
        drop(before);
    }

    /// The firmware is dead: commands that it has are given up, and no other is sent.
    ///
    /// May be called in any context.
    pub(crate) fn kill(&self) {
        self.state.lock().dead = true;
        self.changed.wake();
    }

    /// Returns whether the firmware is dead.
    pub(crate) fn is_dead(&self) -> bool {
        self.state.lock().dead
    }

    /// Returns whether the firmware may still write to what a command was given that did not come
    /// back.
    pub(crate) fn has_lost(&self) -> bool {
        self.reclaim();
        self.state.lock().slots.lost() != 0
    }

    /// Has commands executed, as many at once as there are slots, in no order. Returns the outcome
    /// of each.
    ///
    /// Takes as long as a command may, or that many times longer than there are slots for.
    ///
    /// # Errors
    ///
    /// A [`Failure`] of the first command if there is no memory for outcomes: none was sent then.
    pub(crate) fn execute<R: AsRef<Request>>(
        &self,
        requests: &[R],
    ) -> Result<KVec<Outcome>, Failure> {
        let Some(first) = requests.first().map(AsRef::as_ref) else {
            return Ok(KVec::new());
        };
        let opcode = first.opcode();
        let no_memory = |error: AllocError| not_sent(Error::from(error)).of(opcode);
        let mut outcomes = KVec::with_capacity(requests.len(), GFP_KERNEL).map_err(no_memory)?;
        for request in requests.iter().map(AsRef::as_ref) {
            // To be replaced by what happens.
            let nothing = Reason::Dead.of(request.opcode());
            outcomes.push(Err(nothing), GFP_KERNEL).map_err(no_memory)?;
        }
        let most = requests.len().min(32);
        let mut flights = KVec::with_capacity(most, GFP_KERNEL).map_err(no_memory)?;

        // Who waited for a slot in vain once does not do so again for each command.
        let mut is_patient = true;
        let mut waiting = requests.iter().map(AsRef::as_ref).enumerate().peekable();
        loop {
            let mut rung = 0u32;
            while let Some((index, request)) = waiting.peek().copied() {
                // Only who has no slot waits for one.
                let has_none = flights.is_empty();
                let prepared = match self.take(request.lane(), has_none && is_patient) {
                    Some((slot, token)) => self.prepare(request, index, slot, token),
                    None if has_none => {
                        is_patient = false;
                        Err(self.no_slot())
                    }
                    None => break,
                };
                waiting.next();
                // There is room for one flight in each slot.
                let pushed = prepared.and_then(|flight| {
                    let slot = flight.slot;
                    flights
                        .push_within_capacity(flight)
                        .map(|()| rung |= 1 << slot)
                        .map_err(|_| self.no_slot())
                });
                if let (Err(reason), Some(outcome)) = (pushed, outcomes.get_mut(index)) {
                    *outcome = Err(reason.of(request.opcode()));
                }
            }
            if rung != 0 {
                self.state.lock().slots.send(rung);
                self.segment.ring(rung);
            }
            if flights.is_empty() {
                return Ok(outcomes);
            }
            // Slots are filled again some at a time, while the firmware is at the others.
            let enough = match waiting.peek() {
                Some(_) => flights.len().div_ceil(2),
                None => 1,
            };
            self.wait(&flights, enough);
            self.land(requests, &mut flights, &mut outcomes);
        }
    }

    /// Why there is no slot.
    fn no_slot(&self) -> Reason {
        if self.is_dead() {
            Reason::Dead
        } else {
            Reason::NoSlot(self.timeout_ms)
        }
    }

    /// Takes a slot and a token; waits for one, if that is wanted.
    fn take(&self, lane: Lane, wait: bool) -> Option<(u8, u8)> {
        let start = Instant::<Monotonic>::now();
        loop {
            {
                let mut state = self.state.lock();
                if state.dead {
                    return None;
                }
                if let Some(slot) = state.slots.take(lane) {
                    // Never 0, which is in mailboxes that were not written.
                    state.token = state.token.checked_add(1).unwrap_or(1);
                    return Some((slot, state.token));
                }
            }
            if self.reclaim() {
                continue;
            }
            if !wait || start.elapsed().as_millis() >= i64::from(self.timeout_ms) {
                return None;
            }
            self.changed.wait(self.timeout_ms.min(LOOK_MS), || {
                let state = self.state.lock();
                state.dead || state.slots.is_free(lane)
            });
        }
    }

    /// Takes back the slots of commands that came back after all: the firmware does not write any
    /// more to what they were given. Returns whether there were any.
    fn reclaim(&self) -> bool {
        let lost = self.state.lock().slots.lost();
        let back = self.given_back(lost);
        if back == 0 {
            return false;
        }
        let mut lost = self.lost.lock();
        let is_back = |lost: &Lost| back & 1 << lost.slot != 0;
        while let Some(Ok(found)) = lost.iter().position(is_back).map(|at| lost.remove(at)) {
            self.put_back(found.input);
            self.put_back(found.output);
            // One by one, and only those that are in the list: others may do the same at once.
            self.state.lock().slots.find(1 << found.slot);
        }
        drop(lost);
        self.changed.wake();
        true
    }

    /// Writes a command into its slot, which is free again if that fails.
    fn prepare(
        &self,
        request: &Request,
        index: usize,
        slot: u8,
        token: u8,
    ) -> Result<Flight, Reason> {
        self.write(request, index, slot, token).inspect_err(|_| {
            self.state.lock().slots.withdraw(slot);
            self.changed.wake();
        })
    }

    fn write(
        &self,
        request: &Request,
        index: usize,
        slot: u8,
        token: u8,
    ) -> Result<Flight, Reason> {
        if request.input.len() > MOST || request.room > MOST {
            return Err(not_sent(E2BIG));
        }
        let reply = KVVec::from_elem(0u8, request.room, GFP_KERNEL)
            .map_err(|error| not_sent(error.into()))?;
        let (head, blocks) = mailbox::split(&request.input);
        let input = self.chain(request.input.len(), token)?;
        if let Some(input) = &input {
            for (at, block) in blocks {
                input.write(at, block).map_err(not_sent)?;
            }
        }
        let output = self.chain(request.room, token)?;
        let addr = |chain: &Option<Memory>| chain.as_ref().map_or(0, Memory::addr);
        // No more than `MOST`.
        let entry = mailbox::entry(
            head,
            (request.input.len() as u32, addr(&input)),
            (request.room as u32, addr(&output)),
            token,
        );
        self.entries
            .write(self.at(slot), entry.as_bytes())
            .map_err(not_sent)?;
        Ok(Flight {
            index,
            slot,
            token,
            input,
            output,
            reply,
            since: Instant::now(),
        })
    }

    /// Where the entry of a slot is.
    fn at(&self, slot: u8) -> usize {
        usize::from(slot) << self.log_stride
    }

    /// A chain of mailboxes for an input or output of `bytes` bytes, if it takes any.
    fn chain(&self, bytes: usize, token: u8) -> Result<Option<Memory>, Reason> {
        let count = mailbox::count(bytes);
        if count == 0 {
            return Ok(None);
        }
        let needed = count * mailbox::STRIDE;
        let len = [SMALL, LARGE].into_iter().find(|len| *len >= needed);
        let kept = match len {
            Some(SMALL) => self.spare.lock().small.pop(),
            Some(_) => self.spare.lock().large.pop(),
            None => None,
        };
        let memory = match kept {
            Some(memory) => memory,
            None => Memory::new(&self.device, len.unwrap_or(needed)).map_err(not_sent)?,
        };
        for number in 0..count {
            let (at, block) = mailbox::link(memory.addr(), number, count, token);
            let head = block.as_bytes().get(mailbox::PAYLOAD..).unwrap_or_default();
            memory
                .write(at + mailbox::PAYLOAD, head)
                .map_err(not_sent)?;
        }
        Ok(Some(memory))
    }

    /// Keeps a chain for the next command, if it is one of those that are kept.
    fn put_back(&self, chain: Option<Memory>) {
        let Some(memory) = chain else {
            return;
        };
        let mut spare = self.spare.lock();
        let kept = match memory.len() {
            SMALL => &mut spare.small,
            LARGE => &mut spare.large,
            _ => return,
        };
        // There are enough of them if there is no room.
        let rest = kept.push_within_capacity(memory);
        drop(spare);
        drop(rest);
    }

    /// Waits until so many of the flights have ended, or one has taken too long, or the firmware is
    /// dead.
    fn wait(&self, flights: &[Flight], enough: usize) {
        let mine = flights
            .iter()
            .fold(0, |mine, flight| mine | 1u32 << flight.slot);
        let is_over = || {
            let state = self.state.lock();
            state.dead || (state.slots.done() & mine).count_ones() as usize >= enough
        };
        let oldest = flights
            .iter()
            .map(|flight| flight.since.elapsed().as_millis())
            .max();
        let left = i64::from(self.timeout_ms) - oldest.unwrap_or(0);
        let left = u32::try_from(left).unwrap_or(0);
        let patience = left.min(LOOK_MS);
        let events = self.events.lock().clone();
        if let Some(events) = events {
            let start = Instant::<Monotonic>::now();
            while start.elapsed() < MOMENT {
                self.look(mine);
                if is_over() {
                    return;
                }
                core::hint::spin_loop();
            }
            if self.changed.wait(patience, is_over) {
                return;
            }
            // The interrupt may be lost, and with it all that would follow: the events are looked
            // for, which has the firmware interrupt for the next.
            events.take();
            if self.look(mine) == 0 && !is_over() {
                self.check();
            } else if UNTOLD.allow() {
                let device: &Device = &self.device;
                dev_warn!(
                    device,
                    "commands ended, and no interrupt told for {} ms\n",
                    LOOK_MS
                );
            }
            return;
        }
        let start = Instant::<Monotonic>::now();
        while self.look(mine) == 0 && !is_over() {
            if start.elapsed().as_millis() >= i64::from(patience) {
                return self.check();
            }
            fsleep(STEP);
        }
    }

    /// Nothing happened for a while: sees to it that nobody waits for a device that is gone.
    fn check(&self) {
        if self.segment.is_gone() {
            self.kill();
        }
    }

    /// Looks which of some commands the firmware gave back, and completes them.
    fn look(&self, slots: u32) -> u32 {
        let back = self.given_back(slots & self.state.lock().slots.busy());
        if back != 0 {
            self.state.lock().slots.complete(back);
            // Others may wait for what their own looks do not find any more.
            self.changed.wake();
        }
        back
    }

    /// Which of some slots the firmware does not own any more.
    fn given_back(&self, slots: u32) -> u32 {
        let mut back = 0;
        let mut left = slots;
        while left != 0 {
            let slot = left.trailing_zeros();
            left &= left - 1;
            let owner = self.entries.load(self.at(slot as u8) + OWNER);
            if owner.is_ok_and(|owner| owner & OWNED_BY_FIRMWARE == 0) {
                back |= 1 << slot;
            }
        }
        back
    }

    /// Takes the outcomes of flights that have ended.
    fn land<R: AsRef<Request>>(
        &self,
        requests: &[R],
        flights: &mut KVec<Flight>,
        outcomes: &mut [Outcome],
    ) {
        let (done, dead) = {
            let state = self.state.lock();
            (state.slots.done(), state.dead)
        };
        let mut at = 0;
        while let Some(flight) = flights.get(at) {
            let is_done = done & (1 << flight.slot) != 0;
            let is_late = flight.since.elapsed().as_millis() >= i64::from(self.timeout_ms);
            if !is_done && !is_late && !dead {
                at += 1;
                continue;
            }
            let Ok(flight) = flights.remove(at) else {
                return;
            };
            let Some((request, outcome)) = requests
                .get(flight.index)
                .map(AsRef::as_ref)
                .zip(outcomes.get_mut(flight.index))
            else {
                return;
            };
            let us = flight.since.elapsed().as_micros_ceil().unsigned_abs();
            *outcome = if is_done {
                let outcome = self.finish(request, flight);
                self.tally.add(request.kind(), end(&outcome), us);
                outcome
            } else {
                self.tally.add(request.kind(), End::Lost, us);
                self.lose(flight);
                let reason = if dead {
                    Reason::Dead
                } else {
                    Reason::Timeout(self.timeout_ms)
                };
                Err(reason.of(request.opcode()))
            };
        }
    }

    /// Takes the outcome of a command that is complete.
    fn finish(&self, request: &Request, mut flight: Flight) -> Outcome {
        let opcode = request.opcode();
        let read = self.output(&mut flight);
        self.put_back(flight.input);
        self.put_back(flight.output);
        self.state.lock().slots.release(flight.slot);
        self.changed.wake();
        read.map_err(|reason| reason.of(opcode))
            .and_then(|()| Reply::new(opcode, flight.reply))
    }

    /// Copies the output of a command that is complete. What cannot be read is no answer.
    fn output(&self, flight: &mut Flight) -> Result<(), Reason> {
        let mut bytes = [0; size_of::<Entry>()];
        self.entries
            .read(self.at(flight.slot), &mut bytes)
            .map_err(|_| Reason::Garbled)?;
        let entry = Entry::read_from_bytes(&bytes).map_err(|_| Reason::Garbled)?;
        let delivery = Delivery::try_from(entry.status_own() >> 1);
        if delivery != Ok(Delivery::OK) {
            return Err(Reason::Undelivered(delivery));
        }
        if entry.token() != flight.token {
            return Err(Reason::Garbled);
        }
        let (head, blocks) = mailbox::split_mut(&mut flight.reply);
        for (to, from) in head.iter_mut().zip(entry.output()) {
            *to = *from;
        }
        if let Some(memory) = &flight.output {
            for (at, block) in blocks {
                memory.read(at, block).map_err(|_| Reason::Garbled)?;
            }
        }
        Ok(())
    }

    /// Gives a command up. Its slot and its memory are not used again until it comes back.
    fn lose(&self, flight: Flight) {
        let mut lost = self.lost.lock();
        self.state.lock().slots.lose(flight.slot);
        let Flight {
            slot,
            input,
            output,
            ..
        } = flight;
        if let Err(rest) = lost.push_within_capacity(Lost {
            slot,
            input,
            output,
        }) {
            // There is room for all slots; better lost for good than used twice.
            core::mem::forget(rest);
        }
    }
}

impl Sink for Queue {
    /// Commands are complete, says the firmware.
    fn event(&self, entry: &Eqe) {
        let Some((event, _)) = EqeCmd::split(entry.data()) else {
            return;
        };
        // Only what the entries themselves say is believed.
        let busy = self.state.lock().slots.busy();
        let back = self.given_back(event.vector() & busy);
        if back != 0 {
            self.state.lock().slots.complete(back);
            self.changed.wake();
        }
    }
}
