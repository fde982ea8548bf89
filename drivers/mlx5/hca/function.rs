// SPDX-License-Identifier: GPL-2.0

//! The function as a whole, for as long as its device is bound: firmware that runs, or that died
//! and is waited for.
//!
//! ```text
//!               dead                  well again
//!   running ───────────> waiting ────────────────────> running
//!      ^                  │   ^                           │
//!      │                  │   └──── bring-up fails ───────┤
//!   bring_up              v                               │
//!                     given up <──── too often ───────────┘
//! ```
//!
//! One thread looks at the firmware every second, and takes it down and brings it up again.

use core::fmt;

use hardware::Device;
use kernel::{
    device::Core,
    new_mutex,
    pci,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex,
        SetOnce, //
    }, //
};
use vdpa::worker::{
    self,
    Worker, //
};

use super::{
    clients::{
        Client,
        Clients,
        Membership, //
    },
    command::Failure,
    era::Era,
    health::{
        pulse::{
            Death,
            Verdict, //
        },
        Watch,
        PERIOD, //
    },
    init_segment::InitSegment,
    interrupts::{
        Interrupts,
        Taken, //
    },
    registers::Registers,
    running::{
        Running,
        Trouble, //
    }, //
};
use crate::show::Show;

/// How often in a row firmware is brought up in vain before it is given up.
const ATTEMPTS: u32 = 5;

/// How many looks a firmware has to be well again, for each attempt: a reset takes a minute.
const LOOKS: u32 = 120;

/// A function, from the binding of its device to its end.
///
/// It outlives the lives of its firmware: who needs that asks for the [`Era`] of the time.
#[pin_data(PinnedDrop)]
pub(crate) struct Function {
    /// `None` behind the end: nothing is brought up any more.
    #[pin]
    worker: Mutex<Option<Worker>>,
    life: Arc<Life>,
}

/// What the thread looks after.
#[pin_data]
struct Life {
    /// Held over commands: only this thread, and whoever begins and ends its work, takes it.
    #[pin]
    state: Mutex<State>,
    /// The firmware that runs, for others.
    #[pin]
    era: Mutex<Option<Arc<Era>>>,
    clients: Arc<Clients>,
    interrupts: Arc<Interrupts>,
    device: Arc<Device>,
    registers: Arc<Registers>,
    segment: InitSegment,
    timeout_ms: u32,
    /// Whether somebody wants the firmware taken down and brought up again.
    wanted_anew: Atomic<bool>,
    /// By which the thread is woken again.
    handle: SetOnce<worker::Handle>,
}

enum State {
    /// The firmware runs.
    Running(Running, Watch),
    /// It died. So often it was brought up in vain since, and so often looked at since the last.
    Waiting { attempts: u32, looks: u32 },
    /// Nothing more is tried.
    GivenUp,
}

/// Brings a function up, with no command taking longer than `timeout_ms` milliseconds. What failed
/// is in the log.
///
/// # Errors
///
/// What the failure of a command is as a number; what C reports otherwise.
pub(crate) fn bring_up(pdev: &pci::Device<Core<'_>>, timeout_ms: u32) -> Result<Arc<Function>> {
    let device = Device::enable::<64>(pdev)?;
    let registers = Registers::map(pdev)?;
    let segment = InitSegment::new(&registers);
    segment.wait().inspect_err(|_| {
        dev_err!(pdev, "the firmware does not start\n");
    })?;
    let interrupts = Interrupts::new(&device, pdev).inspect_err(|error| {
        dev_err!(pdev, "no interrupt vector: error {}\n", -error.to_errno());
    })?;
    let clients = Clients::new()?;
    let version = segment.version();
    let line = interrupts.shared()?;
    let running = Running::new(&device, &registers, line, timeout_ms).map_err(|trouble| {
        dev_err!(
            pdev,
            "firmware {}: bring-up failed: {}\n",
            Show(version),
            Show(&trouble)
        );
        Error::from(trouble)
    })?;
    let era = running.era().clone();
    let state = State::Running(running, Watch::new());
    let life = Arc::pin_init(
        pin_init!(Life {
            state <- new_mutex!(state),
            era <- new_mutex!(Some(era)),
            clients,
            interrupts,
            device,
            registers,
            segment,
            timeout_ms,
            wanted_anew: Atomic::new(false),
            handle: SetOnce::new(),
        }),
        GFP_KERNEL,
    )?;
    let worker = Worker::new(c"mlx5-vdpa-health", life.clone())?;
    life.handle.populate(worker.handle());
    worker.handle().queue_after(PERIOD);
    Arc::pin_init(
        pin_init!(Function {
            worker <- new_mutex!(Some(worker)),
            life,
        }),
        GFP_KERNEL,
    )
}

impl Function {
    /// The firmware that runs; `None` while there is none.
    pub(crate) fn era(&self) -> Option<Arc<Era>> {
        self.life.era.lock().clone()
    }

    /// Tells `client` of the firmware's death and life from now on, until the membership is dropped.
    ///
    /// Firmware that died before is not told of: who has an era looks behind this whether it [is
    /// over](Era::is_over).
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn join(&self, client: Arc<dyn Client>) -> Result<Membership> {
        Clients::join(&self.life.clients, client)
    }

    /// An interrupt vector that nobody else has; or if all are taken, one that the fewest share.
    pub(crate) fn take_vector(&self) -> Taken {
        Interrupts::take(&self.life.interrupts)
    }

    /// The function's device, as what messages are about as well.
    pub(crate) fn device(&self) -> &Arc<Device> {
        &self.life.device
    }

    /// Takes the firmware down and brings it up again, as if it had died. For who could not take
    /// something away. Returns at once; from then on nothing is used that the firmware was given.
    pub(crate) fn recover(&self, why: &Failure) {
        if why.is_for_death() {
            // It is being done already, or was.
            return;
        }
        self.start_anew(why);
    }

    /// As [`Self::recover`], if there is something in the firmware that nobody can end any more, and
    /// that keeps memory. For who has nothing there that he would miss.
    pub(crate) fn tidy(&self) {
        let is_left = |era: Arc<Era>| era.is_unclean() && !era.is_over();
        if self.era().is_some_and(is_left) {
            self.start_anew("something is left in it");
        }
    }

    fn start_anew(&self, why: impl fmt::Display) {
        let device: &Device = &self.life.device;
        self.life.quiesce();
        // Once is enough.
        if !self.life.wanted_anew.xchg(true, Relaxed) {
            dev_err!(device, "the firmware is started anew: {}\n", Show(why));
        }
        if let Some(handle) = self.life.handle.as_ref() {
            handle.queue();
        }
    }

    /// Takes the firmware down for good. Its users are gone.
    ///
    /// May be called more than once.
    pub(crate) fn end(&self) {
        // First: nothing is brought up behind the end.
        let worker = self.worker.lock().take();
        drop(worker);
        let era = self.life.era.lock().take();
        drop(era);
        let mut state = self.life.state.lock();
        // What runs ends before something else takes its place.
        *state = State::GivenUp;
    }
}

#[pinned_drop]
impl PinnedDrop for Function {
    fn drop(self: Pin<&mut Self>) {
        self.end();
    }
}

impl worker::Run for Life {
    fn run(&self) {
        let mut state = self.state.lock();
        if let Some(next) = self.next(&mut state) {
            // What runs ends before something else takes its place.
            *state = next;
            self.show(&state);
        }
        if let (State::Running(..) | State::Waiting { .. }, Some(handle)) =
            (&*state, self.handle.as_ref())
        {
            handle.queue_after(PERIOD);
        }
    }
}

impl Life {
    /// Looks at the firmware. Returns what becomes of it, if it does not stay as it is.
    fn next(&self, state: &mut State) -> Option<State> {
        match state {
            State::Running(running, watch) => {
                self.interrupts.look();
                let mut verdict = watch.look(&self.segment);
                if running.firmware().is_dead() {
                    // A command found nobody, even if somebody answers again by now.
                    verdict = Verdict::Dead(Death::Gone);
                }
                let is_dead = self.judge(verdict);
                let wanted_anew = self.wanted_anew.xchg(false, Relaxed);
                if !is_dead && !wanted_anew {
                    return None;
                }
                // Before somebody is told that nothing is used any more.
                self.quiesce();
                // No command is waited for from here on, and what the firmware has ends unasked.
                running.firmware().distrust();
                running.firmware().queue().kill();
                let era = self.era.lock().take();
                drop(era);
                self.clients.each(|client| client.died());
                Some(State::Waiting {
                    attempts: 0,
                    looks: 0,
                })
            }
            State::Waiting { attempts, looks } => {
                // Firmware that did not say that it let go of what it was given may yet use it.
                let is_disabled = self.segment.is_disabled();
                if !is_disabled && !self.segment.is_gone() {
                    // Who was away when it was told is told again.
                    self.segment.disable();
                }
                if !is_disabled || !self.segment.is_ready() {
                    *looks += 1;
                    return (*looks >= LOOKS).then(|| self.give_up());
                }
                self.device.start_dma();
                let running = self
                    .interrupts
                    .shared()
                    .map_err(|error| Trouble::System("interrupt vector", error))
                    .and_then(|line| {
                        Running::new(&self.device, &self.registers, line, self.timeout_ms)
                    });
                match running {
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
            State::GivenUp => None,
        }
    }

    /// Has the device use nothing that it was given, from now until firmware is brought up again.
    fn quiesce(&self) {
        self.segment.disable();
        self.device.stop_dma();
    }

    /// Shows others the firmware that lives again.
    fn show(&self, state: &State) {
        if let State::Running(running, _) = state {
            let era = running.era();
            let none = self.era.lock().replace(era.clone());
            drop(none);
            self.clients.each(|client| client.lives(era));
        }
    }

    /// Says what is wrong; returns whether the firmware is dead.
    fn judge(&self, verdict: Verdict) -> bool {
        let device: &Device = &self.device;
        match verdict {
            Verdict::Well => false,
            Verdict::Ill(syndrome) => {
                dev_warn!(device, "the firmware is not well: {}\n", Show(syndrome));
                false
            }
            Verdict::Dead(death) => {
                dev_err!(device, "the firmware is dead: {}\n", Show(death));
                true
            }
        }
    }

    fn give_up(&self) -> State {
        let device: &Device = &self.device;
        dev_err!(device, "the firmware is given up; bind the device again\n");
        State::GivenUp
    }
}
