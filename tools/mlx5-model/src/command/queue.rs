// SPDX-License-Identifier: GPL-2.0

//! The command queue: which commands are rung, delayed and executed, and by whom.
//!
//! The doorbell only leaves a bit for each slot. A thread of the function fetches the commands,
//! executes one after the other and tells the driver: by the entry's ownership bit, and by an
//! event if there is a queue for events of this kind. Commands that were rung together are executed
//! in an order of their own, as a driver may not rely on any; the page slot comes first.

use std::{
    collections::VecDeque,
    sync::{
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

use super::{
    mailbox::{
        self,
        Fetched,
        Request, //
    },
    perform, //
};
use crate::{
    eq::Event,
    hca::Hca,
    init_segment::{
        Registers,
        LOG_COMMANDS,
        LOG_STRIDE, //
    },
    platform::Platform, //
};

/// The number of slots.
const SLOTS: u32 = 1 << LOG_COMMANDS;

/// The slot for commands that give or take pages: other commands may be waiting for them.
const PAGE_SLOT: u32 = SLOTS - 1;

/// What commands act on; nothing between two lives of the function.
pub type SharedHca = Arc<Mutex<Option<Hca>>>;

/// The command queue of one function.
pub struct Queue {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    platform: Arc<Platform>,
    registers: Arc<Registers>,
    hca: SharedHca,
    state: Mutex<State>,
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
    /// When it was rung.
    since: Instant,
}

/// What the thread does next.
enum Work {
    Fetch { slots: u32, life: u64 },
    Execute(Job),
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
        hca: SharedHca,
    ) -> std::io::Result<Self> {
        let name = format!("cmd-{}", platform.name);
        let shared = Arc::new(Shared {
            platform,
            registers,
            hca,
            state: Mutex::default(),
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
        state.rung |= slots & !state.busy;
        drop(state);
        self.shared.wake.notify_one();
    }

    /// Forgets every command. One that is being executed ends before the lock of the
    /// [`Hca`] can be taken; no other begins.
    pub fn reset(&self) {
        let mut state = self.shared.state();
        *state = State {
            life: state.life.wrapping_add(1),
            closing: state.closing,
            ..State::default()
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

    /// The thread's whole life.
    fn run(&self) {
        while let Some(work) = self.next() {
            match work {
                Work::Fetch { slots, life } => self.fetch(slots, life),
                Work::Execute(job) => self.execute(job),
            }
        }
    }

    /// Waits for something to do.
    fn next(&self) -> Option<Work> {
        let mut state = self.state();
        loop {
            if state.closing {
                return None;
            }
            if state.rung != 0 {
                let slots = std::mem::take(&mut state.rung);
                state.busy |= slots;
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
    fn fetch(&self, slots: u32, life: u64) {
        let since = Instant::now();
        let queue = self.registers.command_queue();
        let mut jobs = VecDeque::new();
        let mut idle = 0;
        for slot in (0..SLOTS).filter(|slot| slots & 1 << slot != 0) {
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
            let job = Job {
                slot,
                life,
                entry,
                body,
                since,
            };
            jobs.push_back(job);
        }

        let mut state = self.state();
        if state.life != life {
            return;
        }
        state.busy &= !idle;
        for job in jobs {
            if job.slot == PAGE_SLOT {
                state.ready.push_front(job);
            } else {
                state.ready.push_back(job);
            }
        }
    }

    /// Executes one command and tells the driver.
    fn execute(&self, job: Job) {
        let mut hca = self.hca.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(hca) = hca.as_mut() else {
            return;
        };
        if self.state().life != job.life {
            return;
        }
        // The driver does not expect an event for the command that makes the queue for it.
        let events = self.platform.events.wanted(EventType::CMD);
        let memory = self.platform.memory.snapshot();
        let delivery = match &job.body {
            Ok(request) => {
                let output = perform(hca, &request.input, request.outlen).output;
                request
                    .deliver(&memory, &output)
                    .err()
                    .unwrap_or(Delivery::OK)
            }
            Err(delivery) => *delivery,
        };
        let _ = job.since;
        // The driver may ring for the slot as soon as it is released.
        self.state().busy &= !(1 << job.slot);
        mailbox::release(&memory, job.entry, delivery);
        if events {
            self.platform.events.post(Event::Command(1 << job.slot));
        }
    }
}
