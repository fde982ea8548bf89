// SPDX-License-Identifier: GPL-2.0

//! The command queue: which commands are rung, delayed and executed, and by whom.
//!
//! The doorbell only leaves a bit for each slot. A thread of the function fetches the commands,
//! executes one after the other and tells the driver: by the entry's ownership bit, and by an
//! event if there is a queue for events of this kind. Commands that were rung together are executed
//! in an order of their own, as a driver may not rely on any; the page slot comes first. A slot that
//! is rung while its command is under way stays as it is.
//!
//! ```text
//!   ring ──> rung ──fetch──> ready ──execute──> released
//!                      │       ▲
//!                      └─> delayed, by a fault
//! ```

use std::{
    collections::VecDeque,
    sync::{
        atomic::{
            AtomicBool,
            Ordering, //
        },
        Arc,
        Condvar,
        Mutex,
        MutexGuard,
        PoisonError, //
    },
    thread::{
        self,
        JoinHandle, //
    },
    time::Instant,
};

use prm::{
    command::Delivery,
    eq::EventType, //
};

use serde_json::json;

use super::{
    identify,
    mailbox::{
        self,
        Fetched,
        Request, //
    },
    perform,
    Outcome, //
};
use crate::{
    eq::Event,
    fault::Effects,
    hca::Hca,
    init_segment::{
        Registers,
        LOG_COMMANDS,
        LOG_STRIDE, //
    },
    platform::Platform,
    trace::{
        self,
        CommandRecord, //
    },
};

/// The number of slots.
const SLOTS: u32 = 1 << LOG_COMMANDS;

/// The slot for commands that give or take pages: other commands may be waiting for them.
const PAGE_SLOT: u32 = SLOTS - 1;

/// The command queue of one function.
pub struct Queue {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    platform: Arc<Platform>,
    registers: Arc<Registers>,
    hca: Arc<Mutex<Hca>>,
    state: Mutex<State>,
    /// Whether commands that were rung together are executed in the order of their slots.
    in_order: AtomicBool,
    /// Notified when there may be something to do.
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// Slots that were rung and not looked at yet.
    rung: u32,
    /// Slots that were looked at and are not complete.
    busy: u32,
    /// Commands that can be executed, in that order.
    ready: VecDeque<Job>,
    /// Commands that wait for a time to come.
    delayed: Vec<(Instant, Job)>,
    /// Counts the resets: a command of an earlier life is not executed.
    life: u64,
    /// Why the function begins a new life, if it is to.
    renew: Option<&'static str>,
    /// Whether the function goes.
    closing: bool,
}

/// A command on its way.
struct Job {
    slot: u32,
    life: u64,
    /// The address of its entry.
    entry: u64,
    /// What it says, or why it could not be delivered.
    body: Result<Request, Delivery>,
    /// What goes wrong with it.
    effects: Effects,
    /// When it was looked at.
    since: Instant,
}

/// What the thread does next.
enum Work {
    Fetch { slots: u32, life: u64 },
    Execute(Job),
    Renew,
}

impl Queue {
    /// Starts the command queue of a function.
    ///
    /// # Errors
    ///
    /// If there can be no thread for it.
    pub fn start(
        platform: Arc<Platform>,
        registers: Arc<Registers>,
        hca: Arc<Mutex<Hca>>,
    ) -> std::io::Result<Self> {
        let name = format!("cmd-{}", platform.name);
        let shared = Arc::new(Shared {
            platform,
            registers,
            hca,
            state: Mutex::default(),
            in_order: AtomicBool::new(false),
            wake: Condvar::new(),
        });
        let runner = shared.clone();
        let thread = thread::Builder::new()
            .name(name)
            .spawn(move || runner.run())?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// The doorbell was rung for some slots. Never waits for a command.
    pub fn ring(&self, slots: u32) {
        let mut state = self.shared.state();
        let ignored = slots & state.busy;
        state.rung |= slots & !ignored;
        drop(state);
        self.shared.wake.notify_one();
        if ignored != 0 {
            let fields = || json!({ "slots": ignored });
            let journal = &self.shared.platform.journal;
            journal.note("doorbell of a slot that is busy", fields);
        }
    }

    /// A driver set up a command queue: no slot of it holds a command, whatever the last queue's
    /// did. Never waits for a command.
    pub fn attach(&self) {
        let mut state = self.shared.state();
        let renew = state.renew;
        state.restart(renew);
    }

    /// Forgets every command. One that is being executed ends before the lock of the
    /// [`Hca`] can be taken; no other begins.
    pub fn reset(&self) {
        self.shared.state().restart(None);
    }

    /// Forgets every command and has the thread begin a new life of the function: for who must not
    /// wait.
    pub fn renew(&self, why: &'static str) {
        self.shared.state().restart(Some(why));
        self.shared.wake.notify_one();
    }

    /// A fault was cleared: commands that it delays wait no longer.
    pub fn hurry(&self) {
        let mut state = self.shared.state();
        let state = &mut *state;
        let mut at = 0;
        while let Some((_, job)) = state.delayed.get(at) {
            if self.shared.is_delayed(job) {
                at += 1;
            } else {
                let (_, job) = state.delayed.remove(at);
                state.ready.push_back(job);
            }
        }
        self.shared.wake.notify_one();
    }

    /// Has commands that are rung together executed in the order of their slots, or in another.
    pub fn set_in_order(&self, in_order: bool) {
        self.shared.in_order.store(in_order, Ordering::Relaxed);
    }
}

impl State {
    fn restart(&mut self, renew: Option<&'static str>) {
        *self = Self {
            life: self.life.wrapping_add(1),
            closing: self.closing,
            renew,
            ..Self::default()
        };
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.shared.state().closing = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hca(&self) -> MutexGuard<'_, Hca> {
        self.hca.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread's whole life.
    fn run(&self) {
        // Always the same order of things, so that what was seen once can be seen again.
        let mut random = Random(0x9e37_79b9);
        while let Some(work) = self.next() {
            match work {
                Work::Fetch { slots, life } => self.fetch(slots, life, &mut random),
                Work::Execute(job) => self.execute(job),
                Work::Renew => {
                    // A reset that was quicker has begun a life that is to stay.
                    let mut hca = self.hca();
                    let why = self.state().renew.take();
                    if let Some(why) = why {
                        hca.renew(why);
                    }
                }
            }
        }
    }

    /// Returns whether a fault delays a command.
    fn is_delayed(&self, job: &Job) -> bool {
        job.effects
            .delay
            .is_some_and(|(fault, _)| self.platform.faults.is_there(fault))
    }

    /// Waits for something to do.
    fn next(&self) -> Option<Work> {
        let mut state = self.state();
        loop {
            if state.closing {
                return None;
            }
            if state.renew.is_some() {
                return Some(Work::Renew);
            }
            if state.rung != 0 {
                let slots = std::mem::take(&mut state.rung);
                return Some(Work::Fetch {
                    slots,
                    life: state.life,
                });
            }
            if let Some(job) = state.ready.pop_front() {
                return Some(Work::Execute(job));
            }
            let now = Instant::now();
            let first = state
                .delayed
                .iter()
                .enumerate()
                .min_by_key(|(_, (due, _))| *due)
                .map(|(at, (due, _))| (at, *due));
            state = match first {
                Some((at, due)) if due <= now => {
                    let (_, job) = state.delayed.swap_remove(at);
                    return Some(Work::Execute(job));
                }
                Some((_, due)) => {
                    self.wake
                        .wait_timeout(state, due - now)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                None => self
                    .wake
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Reads the commands of some slots and puts them in line.
    fn fetch(&self, slots: u32, life: u64, random: &mut Random) {
        let since = Instant::now();
        let queue = self.registers.command_queue();
        let faults = &self.platform.faults;
        let mut jobs = Vec::new();
        let mut idle = 0;
        for slot in (0..SLOTS).filter(|slot| slots & (1 << slot) != 0) {
            let Some(queue) = queue else {
                idle |= 1 << slot;
                continue;
            };
            let entry = queue.wrapping_add(u64::from(slot) << LOG_STRIDE);
            let body = match mailbox::fetch(&self.platform.memory.snapshot(), entry) {
                Fetched::Request(request) => Ok(request),
                Fetched::Undelivered(delivery) => Err(delivery),
                Fetched::Nothing => {
                    idle |= 1 << slot;
                    continue;
                }
            };
            let effects = match &body {
                Ok(request) => faults.command(&request.input),
                Err(_) => (!faults.is_dead()).then(Effects::default),
            };
            // A command that is lost keeps its slot.
            let Some(effects) = effects.filter(|effects| !effects.lost) else {
                continue;
            };
            let job = Job {
                slot,
                life,
                entry,
                body,
                effects,
                since,
            };
            jobs.push(job);
        }
        if !self.in_order.load(Ordering::Relaxed) {
            random.shuffle(&mut jobs);
        }
        if idle != 0 {
            let fields = || json!({ "slots": idle });
            let journal = &self.platform.journal;
            journal.note("doorbell of a slot without a command", fields);
        }

        let mut state = self.state();
        if state.life != life {
            return;
        }
        // Slots may have been rung again meanwhile: those with a command for the same one, those
        // without for one that may not have been there yet.
        let taken = slots & !idle;
        state.busy |= taken;
        state.rung &= !taken;
        for job in jobs {
            let delay = job.effects.delay.filter(|_| self.is_delayed(&job));
            if let Some((_, delay)) = delay {
                state.delayed.push((since + delay, job));
            } else if job.slot == PAGE_SLOT {
                state.ready.push_front(job);
            } else {
                state.ready.push_back(job);
            }
        }
    }

    /// Executes one command and tells the driver.
    fn execute(&self, job: Job) {
        let mut hca = self.hca();
        if self.state().life != job.life || self.platform.faults.is_dead() {
            return;
        }
        // The driver does not expect an event for the command that makes the queue for it.
        let events = self.platform.events.wanted(EventType::CMD);
        let memory = self.platform.memory.snapshot();
        let (delivery, outcome) = match &job.body {
            Ok(request) => {
                let mut outcome = match job.effects.failed {
                    Some((status, syndrome)) => Outcome::injected(&request.input, status, syndrome),
                    None => perform(&mut hca, &request.input, request.outlen),
                };
                job.effects.spoil(&mut outcome.output);
                let delivery = request.deliver(&memory, &outcome.output);
                (delivery.err().unwrap_or(Delivery::OK), outcome)
            }
            Err(delivery) => (*delivery, Outcome::default()),
        };
        let (slot, entry) = (job.slot, job.entry);
        self.record(job, delivery, outcome);
        // The driver may ring for the slot as soon as it is released.
        self.state().busy &= !(1 << slot);
        mailbox::release(&memory, entry, delivery);
        if events {
            self.platform.events.post(Event::Command(1 << slot));
        }
    }

    /// Counts a command, and writes it down.
    fn record(&self, job: Job, delivery: Delivery, outcome: Outcome) {
        let end = Instant::now();
        let journal = &self.platform.journal;
        let input = job.body.map(|request| request.input).unwrap_or_default();
        let (opcode, object) = identify(&input);
        let why = if delivery != Delivery::OK {
            Some(delivery.name())
        } else if job.effects.failed.is_some() {
            Some("Injected")
        } else {
            outcome.refusal.map(|refusal| refusal.name())
        };
        let name = trace::command_name(opcode, object);
        let time = end.saturating_duration_since(job.since);
        journal.stats.command(&name, time, why);
        if !journal.is_traced() {
            return;
        }
        journal.command(CommandRecord {
            start: job.since,
            end,
            slot: job.slot,
            opcode,
            object,
            handler: outcome.handler,
            input: input.into(),
            output: outcome.output.into(),
            delivery,
            refusal: outcome.refusal.map(|refusal| format!("{refusal:?}")),
            faults: job.effects.faults,
        });
    }
}

/// Numbers that look random and are always the same.
struct Random(u32);

impl Random {
    fn next(&mut self) -> u32 {
        // Marsaglia's xorshift.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            things.swap(last, self.next() as usize % (last + 1));
        }
    }
}
