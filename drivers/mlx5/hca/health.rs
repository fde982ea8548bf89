// SPDX-License-Identifier: GPL-2.0

//! Watching the firmware: a thread looks at its registers every second, and at once when an event
//! says that something is wrong.

pub(crate) mod pulse;

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex,
        SetOnce, //
    },
    time::{
        Instant,
        Monotonic, //
    }, //
};
use vdpa::worker::{
    self,
    Worker, //
};

use self::pulse::{
    Pulse,
    Verdict, //
};
use super::firmware::Firmware;
use crate::show::Show;

/// How often the health counter is looked at, in milliseconds: firmware changes it more often.
const PERIOD: u32 = 1000;

/// What the thread does.
#[pin_data]
pub(crate) struct Watch {
    firmware: Arc<Firmware>,
    /// By which the thread is woken again.
    handle: SetOnce<worker::Handle>,
    #[pin]
    state: Mutex<State>,
}

struct State {
    pulse: Pulse,
    /// When the counter was last looked at.
    polled: Instant<Monotonic>,
}

impl Watch {
    /// Begins to watch, until the thread is dropped.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and what C reports if no thread can be made.
    pub(crate) fn start(firmware: &Arc<Firmware>) -> Result<Worker> {
        let state = State {
            pulse: Pulse::default(),
            polled: Instant::now(),
        };
        let this = Arc::pin_init(
            pin_init!(Self {
                firmware: firmware.clone(),
                handle: SetOnce::new(),
                state <- new_mutex!(state),
            }),
            GFP_KERNEL,
        )?;
        let worker = Worker::new(c"mlx5-vdpa-health", this.clone())?;
        this.handle.populate(worker.handle());
        worker.handle().queue_after(PERIOD);
        Ok(worker)
    }
}

impl worker::Run for Watch {
    fn run(&self) {
        let reading = self.firmware.segment().health();
        let verdict = {
            let mut state = self.state.lock();
            let is_poll = state.polled.elapsed().as_millis() >= i64::from(PERIOD) / 2;
            if is_poll {
                state.polled = Instant::now();
            }
            state.pulse.judge(reading, is_poll)
        };
        let log = self.firmware.log();
        match verdict {
            Verdict::Well => {}
            Verdict::Ill(syndrome) => {
                dev_warn!(log, "the firmware is not well: {}\n", Show(syndrome));
            }
            Verdict::Dead(death) => {
                self.firmware.distrust();
                self.firmware.queue().kill();
                dev_err!(log, "the firmware is given up: {}\n", Show(death));
                return;
            }
        }
        if let Some(handle) = self.handle.as_ref() {
            handle.queue_after(PERIOD);
        }
    }
}
