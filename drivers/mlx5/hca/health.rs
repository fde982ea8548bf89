// SPDX-License-Identifier: GPL-2.0

//! Watching the firmware by its registers.

pub(crate) mod pulse;

use kernel::time::{
    Instant,
    Monotonic, //
};

use self::pulse::{
    Pulse,
    Verdict, //
};
use super::init_segment::InitSegment;

/// How often the firmware is looked at, in milliseconds.
pub(crate) const PERIOD: u32 = 1000;

/// In how many milliseconds it changes its counter.
const BEAT: i64 = 2000;

/// What is known of the firmware's health.
pub(crate) struct Watch {
    pulse: Pulse,
    /// When the counter was last looked at.
    polled: Instant<Monotonic>,
}

impl Watch {
    /// Nothing is known yet.
    pub(crate) fn new() -> Self {
        Self {
            pulse: Pulse::default(),
            polled: Instant::now(),
        }
    }

    /// Looks at the firmware. To be called every [`PERIOD`], or more often. `is_deaf` says that there
    /// are commands that were not answered in time.
    pub(crate) fn look(&mut self, segment: &InitSegment, is_deaf: bool) -> Verdict {
        let is_poll = self.polled.elapsed().as_millis() >= BEAT;
        if is_poll {
            self.polled = Instant::now();
        }
        self.pulse.judge(segment.health(), is_poll, is_deaf)
    }
}
