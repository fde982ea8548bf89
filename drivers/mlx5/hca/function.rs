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

use hardware::{
    Device,
    Vector,
    Vectors, //
};
use kernel::{
    cpu::nr_cpu_ids,
    device::Core,
    new_mutex,
    pci,
    prelude::*,
    sync::{
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
    eq::Line,
    health::{
        pulse::{
            Death,
            Verdict, //
        },
        Watch,
        PERIOD, //
    },
    init_segment::InitSegment,
    registers::Registers,
    running::Running, //
};
use crate::show::Show;

/// How often in a row firmware is brought up in vain before it is given up.
const ATTEMPTS: u32 = 5;

/// How many looks a firmware has to be well again, for each attempt: a reset takes a minute.
const LOOKS: u32 = 120;

/// The vector of what is neither a completion nor of a virtqueue.
const ASYNC_VECTOR: u16 = 0;

/// The most vectors of a function: each virtqueue may have one.
const MAX_VECTORS: u16 = 64;

/// A function. It belongs to its device, which drops it when it is unbound.
pub(crate) struct Function {
    /// Dropped first: nothing is brought up behind its end.
    _worker: Worker,
    _life: Arc<Life>,
}

/// What the thread looks after.
///
/// Interrupts belong to it, not to the firmware that runs: vectors that are taken after the device
/// was given the function to keep are gone before that is released, and the firmware would be taken
/// down without.
#[pin_data]
struct Life {
    /// Dropped first. Held over commands: only this thread, and whoever begins and ends its work,
    /// takes it.
    #[pin]
    state: Mutex<State>,
    line: Arc<Line>,
    _vector: Vector<Line>,
    device: Arc<Device>,
    registers: Arc<Registers>,
    segment: InitSegment,
    timeout_ms: u32,
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
pub(crate) fn bring_up(pdev: &pci::Device<Core<'_>>, timeout_ms: u32) -> Result<Function> {
    let device = Device::enable::<64>(pdev)?;
    let registers = Registers::map(pdev)?;
    let segment = InitSegment::new(&registers);
    segment.wait().inspect_err(|_| {
        dev_err!(pdev, "the firmware does not start\n");
    })?;
    // One for each processor, and one for what is not of virtqueues.
    let most = (nr_cpu_ids() + 1).min(MAX_VECTORS.into()) as u16;
    let (line, vector) = Vectors::new(&device, 1, most)
        .and_then(|vectors| Line::new(&vectors, ASYNC_VECTOR))
        .inspect_err(|error| {
            dev_err!(pdev, "no interrupt vector: error {}\n", -error.to_errno());
        })?;
    let version = segment.version();
    let running = Running::new(&device, &registers, &line, timeout_ms).map_err(|trouble| {
        dev_err!(
            pdev,
            "firmware {}: bring-up failed: {}\n",
            Show(version),
            Show(&trouble)
        );
        Error::from(trouble)
    })?;
    let state = State::Running(running, Watch::new());
    let life = Arc::pin_init(
        pin_init!(Life {
            state <- new_mutex!(state),
            line,
            _vector: vector,
            device,
            registers,
            segment,
            timeout_ms,
            handle: SetOnce::new(),
        }),
        GFP_KERNEL,
    )?;
    let worker = Worker::new(c"mlx5-vdpa-health", life.clone())?;
    life.handle.populate(worker.handle());
    worker.handle().queue_after(PERIOD);
    Ok(Function {
        _worker: worker,
        _life: life,
    })
}

impl worker::Run for Life {
    fn run(&self) {
        let mut state = self.state.lock();
        if let Some(next) = self.next(&mut state) {
            // What runs ends before something else takes its place.
            *state = next;
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
                let death = self.judge(watch.look(&self.segment))?;
                // No command is waited for from here on, and what the firmware has ends unasked.
                running.firmware().distrust();
                running.firmware().queue().kill();
                // What was pulled out comes back as another device.
                Some(if death == Death::Gone {
                    State::GivenUp
                } else {
                    State::Waiting {
                        attempts: 0,
                        looks: 0,
                    }
                })
            }
            State::Waiting { attempts, looks } => {
                if !self.segment.is_ready() {
                    *looks += 1;
                    return (*looks >= LOOKS).then(|| self.give_up());
                }
                self.device.start_dma();
                match Running::new(&self.device, &self.registers, &self.line, self.timeout_ms) {
                    Ok(running) => Some(State::Running(running, Watch::new())),
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

    /// Says what is wrong; returns why the firmware is dead, if it is.
    fn judge(&self, verdict: Verdict) -> Option<Death> {
        let device: &Device = &self.device;
        match verdict {
            Verdict::Well => None,
            Verdict::Ill(syndrome) => {
                dev_warn!(device, "the firmware is not well: {}\n", Show(syndrome));
                None
            }
            Verdict::Dead(death) => {
                dev_err!(device, "the firmware is dead: {}\n", Show(death));
                Some(death)
            }
        }
    }

    fn give_up(&self) -> State {
        let device: &Device = &self.device;
        dev_err!(device, "the firmware is given up; bind the device again\n");
        State::GivenUp
    }
}
