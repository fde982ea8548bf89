// SPDX-License-Identifier: GPL-2.0

//! Firmware that runs, or that died and is waited for.
//!
//! ```text
//!               dead                  well again
//!   running ───────────> waiting ────────────────────> running
//!     │  ^                │   ^                           │
//!     │  │                │   └──── bring-up fails ───────┤
//!     │ begin             v                               │
//!     │               given up <──── too often ───────────┘
//!     │
//!     └──> paused ──> waiting         while the device sleeps or is reset
//! ```
//!
//! One thread looks at the firmware every second, and takes it down and brings it up again.

use hardware::Device;
use kernel::{
    io::poll::read_poll_timeout,
    new_mutex,
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex,
        SetOnce,
        SpinLock, //
    },
    time::Delta, //
};
use vdpa::worker;

use super::{
    super::{
        clients::Clients,
        command::{
            queue::Queue,
            tally::Tally, //
        },
        era::Era,
        health::{
            pulse::{
                Death,
                Verdict, //
            },
            Watch,
            PERIOD, //
        },
        init_segment::{
            InitSegment,
            Version, //
        },
        interrupts::Interrupts,
        registers::Registers,
        running::{
            Board,
            Running,
            Trouble, //
        }, //
    },
    condition::{
        Condition,
        Stage, //
    }, //
};
use crate::show::Show;

/// How often in a row firmware is brought up in vain before it is given up.
const ATTEMPTS: u32 = 5;

/// How many looks a firmware has to be well again, for each attempt: a reset takes a minute.
const LOOKS: u32 = 120;

/// How long firmware that is well takes to say that it uses nothing any more, and how often it is
/// looked at. Who does not get there is waited for by the thread.
const DISABLING: Delta = Delta::from_millis(500);
const STEP: Delta = Delta::from_millis(1);

/// How long firmware that is well is waited for while it is started anew, by who needs it. It takes a
/// second or two.
const ANEW: Delta = Delta::from_millis(10_000);

/// What the thread looks after.
#[pin_data]
pub(super) struct Life {
    /// Held over commands: only the thread, and whoever begins, pauses and ends its work, takes it.
    #[pin]
    state: Mutex<State>,
    /// What others see.
    #[pin]
    seen: SpinLock<Seen>,
    /// The command queue of firmware that is being brought up: a command there may be waited for.
    #[pin]
    beginning: Mutex<Option<Arc<Queue>>>,
    clients: Arc<Clients>,
    interrupts: Arc<Interrupts>,
    device: Arc<Device>,
    registers: Arc<Registers>,
    segment: InitSegment,
    tally: Arc<Tally>,
    timeout_ms: u32,
    /// Whether somebody wants the firmware taken down and brought up again.
    wanted_anew: Atomic<bool>,
    /// Whether firmware that is well is being started anew.
    is_anew: Atomic<bool>,
    /// How often in a row that was done since anything was made in it.
    anew: Atomic<u32>,
    /// Whether firmware that died is left alone.
    held: Atomic<bool>,
    /// Whether all of it ends, or is about to pause.
    leaving: Atomic<bool>,
    /// By which the thread is woken again.
    handle: SetOnce<worker::Handle>,
}

/// What others see.
struct Seen {
    /// The firmware that runs.
    era: Option<Arc<Era>>,
    stage: Stage,
    lives: u64,
    death: Option<Death>,
    board: Board,
}

enum State {
    /// The firmware runs.
    Running(Running, Watch),
    /// It died. So often it was brought up in vain since, and so often looked at since the last.
    Waiting { attempts: u32, looks: u32 },
    /// The device sleeps, or is reset.
    Paused,
    /// Nothing more is tried.
    GivenUp,
    /// The function ends.
    Ended,
}

/// Firmware that is about to be looked at for the first time.
const WAITING: State = State::Waiting {
    attempts: 0,
    looks: 0,
};

impl Life {
    /// No firmware yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(
        clients: Arc<Clients>,
        interrupts: Arc<Interrupts>,
        device: Arc<Device>,
        registers: Arc<Registers>,
        segment: InitSegment,
        tally: Arc<Tally>,
        timeout_ms: u32,
    ) -> Result<Arc<Self>> {
        let seen = Seen {
            era: None,
            stage: Stage::Waiting,
            lives: 0,
            death: None,
            board: Board::NONE,
        };
        Arc::pin_init(
            pin_init!(Self {
                state <- new_mutex!(WAITING),
                seen <- new_spinlock!(seen),
                beginning <- new_mutex!(None),
                clients,
                interrupts,
                device,
                registers,
                segment,
                tally,
                timeout_ms,
                wanted_anew: Atomic::new(false),
                is_anew: Atomic::new(false),
                anew: Atomic::new(0),
                held: Atomic::new(false),
                leaving: Atomic::new(false),
                handle: SetOnce::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Brings the firmware up for the first time.
    ///
    /// # Errors
    ///
    /// The [`Trouble`].
    pub(super) fn begin(&self) -> Result<(), Trouble> {
        let running = self.bring_up()?;
        let mut state = self.state.lock();
        *state = State::Running(running, Watch::new());
        self.show(&state);
        Ok(())
    }

    /// Has the thread called `handle` look after it from now on.
    pub(super) fn attend(&self, handle: worker::Handle) {
        handle.queue_after(PERIOD);
        self.handle.populate(handle);
    }

    /// The firmware that runs; `None` while there is none.
    pub(super) fn era(&self) -> Option<Arc<Era>> {
        self.seen.lock().era.clone()
    }

    /// Who is told.
    pub(super) fn clients(&self) -> &Arc<Clients> {
        &self.clients
    }

    /// The vectors.
    pub(super) fn interrupts(&self) -> &Arc<Interrupts> {
        &self.interrupts
    }

    /// The device.
    pub(super) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// What became of commands.
    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The version of the firmware.
    pub(super) fn version(&self) -> Version {
        self.segment.version()
    }

    /// How it is. Any context in which one may sleep.
    pub(super) fn condition(&self) -> Condition {
        let reading = self.segment.health();
        let version = self.segment.version();
        let seen = self.seen.lock();
        let stage = match seen.stage {
            Stage::Waiting if self.held.load(Relaxed) => Stage::Held,
            stage => stage,
        };
        Condition {
            stage,
            lives: seen.lives,
            death: seen.death,
            version,
            board: seen.board,
            reading,
            vectors: self.interrupts.count(),
        }
    }

    /// Has the thread look.
    fn wake(&self) {
        if let Some(handle) = self.handle.as_ref() {
            handle.queue();
        }
    }

    /// The firmware is to be taken down and brought up again. Returns whether it was to already.
    pub(super) fn want_anew(&self) -> bool {
        let was_wanted = self.wanted_anew.xchg(true, Relaxed);
        self.wake();
        was_wanted
    }

    /// Firmware that is well is about to be taken down, to be brought up again at once.
    pub(super) fn begin_anew(&self) {
        self.is_anew.store(true, Relaxed);
    }

    /// Returns whether firmware that is well is being started anew.
    pub(super) fn is_anew(&self) -> bool {
        self.is_anew.load(Relaxed) && !self.held.load(Relaxed)
    }

    /// Waits until it is not any more, but not for long.
    pub(super) fn wait_anew(&self) {
        // Who waits finds out by himself what came of it.
        let _ = read_poll_timeout(|| Ok(self.is_anew()), |is_anew| !*is_anew, STEP, ANEW);
    }

    /// Counts that it is started anew for what is left in it. Returns whether that is worth while: it
    /// is not where something is left each time before anything was made.
    pub(super) fn count_anew(&self) -> bool {
        let count = self.anew.load(Relaxed);
        if count > ATTEMPTS {
            return false;
        }
        self.anew.store(count + 1, Relaxed);
        if count == ATTEMPTS {
            let device: &Device = &self.device;
            dev_err!(
                device,
                "something is left in the firmware each time that it is started anew\n"
            );
        }
        count < ATTEMPTS
    }

    /// Something was made in it, and it works.
    pub(super) fn has_served(&self) {
        self.anew.store(0, Relaxed);
    }

    /// Firmware that died is left alone.
    pub(super) fn hold(&self) {
        self.held.store(true, Relaxed);
    }

    /// Firmware that died is brought up, even if it was given up.
    pub(super) fn revive(&self) {
        self.held.store(false, Relaxed);
        self.want_anew();
    }

    /// Has the device use nothing that it was given, from now until firmware is brought up again.
    pub(super) fn quiesce(&self) {
        self.segment.disable();
        self.device.stop_dma();
    }

    /// Waits until the firmware says that it uses nothing, which does not take long if it is well.
    fn wait_disabled(&self) -> bool {
        read_poll_timeout(
            || Ok(self.segment.is_disabled() || self.segment.is_gone()),
            |is_over| *is_over,
            STEP,
            DISABLING,
        )
        .is_ok_and(|_| self.segment.is_disabled())
    }

    /// Takes the firmware down, and tells everybody.
    fn take_down(&self, running: &Running, stage: Stage) {
        // Before somebody is told that nothing is used any more.
        self.quiesce();
        // No command is waited for from here on, and what the firmware has ends unasked.
        running.firmware().queue().kill();
        let mut seen = self.seen.lock();
        seen.stage = stage;
        let era = seen.era.take();
        drop(seen);
        drop(era);
        self.clients.each(|client| client.died());
    }

    /// Nobody waits for a bring-up that is under way, and none begins.
    fn leave(&self) {
        self.leaving.store(true, Relaxed);
        if let Some(queue) = &*self.beginning.lock() {
            queue.kill();
        }
    }

    /// Takes the firmware down until [`Self::resume`].
    pub(super) fn pause(&self) {
        self.leave();
        let mut state = self.state.lock();
        match &*state {
            State::Running(running, _) => self.take_down(running, Stage::Paused),
            _ => self.quiesce(),
        }
        if !matches!(*state, State::GivenUp | State::Ended) {
            // What runs ends before something else takes its place.
            *state = State::Paused;
            self.show(&state);
        }
        if !self.wait_disabled() && !self.segment.is_gone() {
            let device: &Device = &self.device;
            dev_warn!(device, "the firmware does not say that it stopped\n");
        }
    }

    /// Brings the firmware up again.
    pub(super) fn resume(&self) {
        let mut state = self.state.lock();
        self.leaving.store(false, Relaxed);
        if matches!(*state, State::Paused) {
            *state = WAITING;
            self.show(&state);
            self.wake();
        }
    }

    /// Nothing is brought up from here on.
    pub(super) fn end(&self) {
        self.leave();
    }

    /// Takes the firmware down in order, for good. The thread has ended.
    pub(super) fn finish(&self) {
        let era = self.seen.lock().era.take();
        drop(era);
        let mut state = self.state.lock();
        // What runs ends before something else takes its place.
        *state = State::Ended;
        self.show(&state);
    }

    fn bring_up(&self) -> Result<Running, Trouble> {
        self.device.start_dma();
        let line = self
            .interrupts
            .shared()
            .map_err(|error| Trouble::System("interrupt vector", error))?;
        let begin = |queue: &Arc<Queue>| {
            *self.beginning.lock() = Some(queue.clone());
            if self.leaving.load(Relaxed) {
                queue.kill();
            }
        };
        let running = Running::new(
            &self.device,
            &self.registers,
            line,
            self.timeout_ms,
            &self.tally,
            begin,
        );
        let queue = self.beginning.lock().take();
        drop(queue);
        if running.is_err() {
            // Whoever was here before may have left something.
            self.quiesce();
        }
        running
    }

    /// Looks at the firmware. Returns what becomes of it, if it does not stay as it is.
    fn next(&self, state: &mut State) -> Option<State> {
        match state {
            State::Running(running, watch) => {
                self.interrupts.look();
                let is_deaf = running.firmware().queue().has_lost();
                let mut verdict = watch.look(&self.segment, is_deaf);
                if running.firmware().is_dead() {
                    // A command found nobody, even if somebody answers again by now.
                    verdict = Verdict::Dead(Death::Gone);
                }
                let wanted_anew = self.wanted_anew.xchg(false, Relaxed);
                if wanted_anew && matches!(verdict, Verdict::Dead(Death::TakenAway)) {
                    // Who wanted that disabled the function, and said why.
                    verdict = Verdict::Well;
                }
                let is_dead = self.judge(verdict);
                if !is_dead && !wanted_anew {
                    return None;
                }
                if !is_dead {
                    self.seen.lock().death = Some(Death::Wanted);
                }
                self.take_down(running, Stage::Waiting);
                Some(WAITING)
            }
            State::Waiting { attempts, looks } => {
                if self.held.load(Relaxed) || self.leaving.load(Relaxed) {
                    return None;
                }
                if self.device.restore() {
                    let device: &Device = &self.device;
                    dev_warn!(device, "its configuration was lost, and is put back\n");
                }
                // Firmware that did not say that it let go of what it was given may yet use it.
                if !self.segment.is_disabled() && !self.segment.is_gone() {
                    // Who was away when it was told is told again.
                    self.segment.disable();
                }
                if !self.wait_disabled() || !self.segment.is_ready() {
                    *looks += 1;
                    return (*looks >= LOOKS).then(|| self.give_up());
                }
                match self.bring_up() {
                    Ok(running) => {
                        // What was wanted of the firmware before is done with this.
                        self.wanted_anew.store(false, Relaxed);
                        Some(State::Running(running, Watch::new()))
                    }
                    Err(trouble) => {
                        let device: &Device = &self.device;
                        dev_err!(device, "bring-up failed again: {}\n", Show(&trouble));
                        *attempts += 1;
                        *looks = 0;
                        (*attempts >= ATTEMPTS).then(|| self.give_up())
                    }
                }
            }
            State::GivenUp => self.wanted_anew.xchg(false, Relaxed).then_some(WAITING),
            State::Paused | State::Ended => None,
        }
    }

    /// Shows others what became of the firmware.
    fn show(&self, state: &State) {
        let (stage, running) = match state {
            State::Running(running, _) => (Stage::Running, Some(running)),
            State::Waiting { .. } => (Stage::Waiting, None),
            State::Paused => (Stage::Paused, None),
            State::GivenUp => (Stage::GivenUp, None),
            State::Ended => (Stage::Ended, None),
        };
        let mut seen = self.seen.lock();
        seen.stage = stage;
        let Some(running) = running else {
            if stage != Stage::Waiting {
                self.is_anew.store(false, Relaxed);
            }
            return;
        };
        let era = running.era();
        let none = seen.era.replace(era.clone());
        seen.lives += 1;
        seen.board = running.board();
        drop(seen);
        drop(none);
        self.is_anew.store(false, Relaxed);
        self.clients.each(|client| client.lives(era));
    }

    /// Says what is wrong; returns whether the firmware is dead.
    fn judge(&self, verdict: Verdict) -> bool {
        let device: &Device = &self.device;
        match verdict {
            Verdict::Well => false,
            Verdict::Ill(illness) => {
                dev_warn!(device, "the firmware is not well: {}\n", Show(illness));
                false
            }
            Verdict::Dead(death) => {
                dev_err!(device, "the firmware is dead: {}\n", Show(death));
                self.seen.lock().death = Some(death);
                true
            }
        }
    }

    fn give_up(&self) -> State {
        let device: &Device = &self.device;
        dev_err!(
            device,
            "the firmware is given up; devlink health recover has it tried again\n"
        );
        State::GivenUp
    }
}

impl worker::Run for Life {
    fn run(&self) {
        let mut state = self.state.lock();
        if let Some(next) = self.next(&mut state) {
            // What runs ends before something else takes its place.
            *state = next;
            self.show(&state);
            if let (State::Waiting { .. }, Some(handle)) = (&*state, self.handle.as_ref()) {
                // It may be well already.
                handle.queue();
            }
        }
        if let (State::Running(..) | State::Waiting { .. }, Some(handle)) =
            (&*state, self.handle.as_ref())
        {
            handle.queue_after(PERIOD);
        }
    }
}
