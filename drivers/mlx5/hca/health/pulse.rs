// SPDX-License-Identifier: GPL-2.0

//! Judging the firmware's health by what its registers say from time to time.

use core::fmt;

use prm::{
    init_segment::{
        HealthSyndrome,
        NicInterface, //
    },
    layout::Field, //
};

/// How often in a row the counter may be found as it was: it stands still then. That alone is no
/// death: firmware that is being exchanged, or resets another function, counts later.
const MISSES: u8 = 3;

/// In the severity: the firmware asks for a reset.
const RESET_REQUESTED: u8 = 0x80;

/// What the registers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The version of the firmware; all ones if nothing answers.
    pub(crate) firmware: u32,
    /// How grave it is, and whether a reset is asked for.
    pub(crate) severity: u8,
    /// What is wrong; 0 if nothing is.
    pub(crate) syndrome: u8,
    /// Who may use the function: a [`NicInterface`].
    pub(crate) interface: u8,
    /// Changes as long as the firmware is well.
    pub(crate) counter: u32,
}

impl Reading {
    /// Returns whether the firmware asks for a reset.
    pub(crate) fn asks_for_reset(&self) -> bool {
        self.syndrome != 0 && self.severity & RESET_REQUESTED != 0
    }
}

/// What is wrong with the firmware by its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Syndrome(pub(crate) u8);

impl fmt::Display for Syndrome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match HealthSyndrome::try_from(self.0) {
            Ok(syndrome) => write!(f, "{} ({:#x})", syndrome.name(), self.0),
            Err(_) => write!(f, "{:#x}", self.0),
        }
    }
}

/// Why the firmware is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// Nothing answers: the device was pulled out, or its link is down.
    Gone,
    /// The function was taken from the driver.
    TakenAway,
    /// The firmware asks for a reset.
    ResetRequested(Syndrome),
    /// The health counter stands still, and a command was not answered.
    Silent,
    /// The driver could not take something away, and starts it anew.
    Wanted,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the device does not answer"),
            Self::TakenAway => f.write_str("the function was disabled or reset"),
            Self::ResetRequested(syndrome) => write!(f, "it asks for a reset: {syndrome}"),
            Self::Silent => {
                f.write_str("its health counter stands still, and commands are not answered")
            }
            Self::Wanted => f.write_str("it kept what the driver wanted back"),
        }
    }
}

/// What is wrong with firmware that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Illness {
    /// By its own words.
    Said(Syndrome),
    /// The health counter stands still.
    Still,
}

impl fmt::Display for Illness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said(syndrome) => syndrome.fmt(f),
            Self::Still => f.write_str("its health counter stands still"),
        }
    }
}

/// How the firmware is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Well, or no worse than before.
    Well,
    /// Something new is wrong, and it goes on.
    Ill(Illness),
    /// It is of no use any more.
    Dead(Death),
}

/// What is remembered from reading to reading.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pulse {
    counter: Option<u32>,
    misses: u8,
    syndrome: u8,
}

impl Pulse {
    /// Judges a reading. `is_poll` says that it was time for the counter to change since the last
    /// one, `is_deaf` that there are commands that were not answered in time.
    pub(crate) fn judge(&mut self, reading: Reading, is_poll: bool, is_deaf: bool) -> Verdict {
        if reading.firmware == u32::MAX {
            return Verdict::Dead(Death::Gone);
        }
        if u64::from(reading.interface) != NicInterface::FULL_DRIVER.into_bits() {
            return Verdict::Dead(Death::TakenAway);
        }
        let syndrome = Syndrome(reading.syndrome);
        if reading.asks_for_reset() {
            return Verdict::Dead(Death::ResetRequested(syndrome));
        }
        let mut is_news = false;
        if is_poll {
            let same = self.counter == Some(reading.counter);
            self.misses = if same {
                self.misses.saturating_add(1)
            } else {
                0
            };
            self.counter = Some(reading.counter);
            is_news = self.misses == MISSES;
        }
        if self.misses >= MISSES && is_deaf {
            return Verdict::Dead(Death::Silent);
        }
        let before = core::mem::replace(&mut self.syndrome, reading.syndrome);
        if reading.syndrome != 0 && reading.syndrome != before {
            return Verdict::Ill(Illness::Said(syndrome));
        }
        if is_news {
            return Verdict::Ill(Illness::Still);
        }
        Verdict::Well
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Reading = Reading {
        firmware: 0x1c00_0000,
        severity: 0,
        syndrome: 0,
        interface: 0,
        counter: 1,
    };

    #[test]
    fn a_counter_that_stands_still_is_told_once() {
        let mut pulse = Pulse::default();
        for _ in 0..3 {
            assert_eq!(pulse.judge(WELL, true, true), Verdict::Well);
        }
        assert_eq!(pulse.judge(WELL, false, false), Verdict::Well);
        let ill = Verdict::Ill(Illness::Still);
        assert_eq!(pulse.judge(WELL, true, false), ill);
        for _ in 0..1000 {
            assert_eq!(pulse.judge(WELL, true, false), Verdict::Well);
        }
    }

    #[test]
    fn who_does_not_answer_either_is_dead() {
        let mut pulse = Pulse::default();
        for _ in 0..3 {
            assert_eq!(pulse.judge(WELL, true, true), Verdict::Well);
        }
        let dead = Verdict::Dead(Death::Silent);
        assert_eq!(pulse.judge(WELL, true, true), dead);
        // One that counts may just be slow.
        let mut pulse = Pulse::default();
        for counter in 0..100 {
            let reading = Reading { counter, ..WELL };
            assert_eq!(pulse.judge(reading, true, true), Verdict::Well);
        }
    }

    #[test]
    fn a_counter_that_moves_again_is_forgiven() {
        let mut pulse = Pulse::default();
        for round in 0..100 {
            let reading = Reading {
                counter: round / 3,
                ..WELL
            };
            assert_eq!(pulse.judge(reading, true, true), Verdict::Well);
        }
    }

    #[test]
    fn an_illness_is_told_once() {
        let mut pulse = Pulse::default();
        let ill = Reading {
            syndrome: 0x10,
            severity: 0x0b,
            ..WELL
        };
        assert_eq!(
            pulse.judge(ill, false, false),
            Verdict::Ill(Illness::Said(Syndrome(0x10)))
        );
        assert_eq!(pulse.judge(ill, false, false), Verdict::Well);
        assert_eq!(pulse.judge(WELL, false, false), Verdict::Well);
        assert_eq!(
            pulse.judge(ill, false, false),
            Verdict::Ill(Illness::Said(Syndrome(0x10)))
        );
    }

    #[test]
    fn each_death_has_its_reason() {
        let fatal = Reading {
            syndrome: 8,
            severity: 0x8a,
            ..WELL
        };
        let gone = Reading {
            firmware: u32::MAX,
            severity: 0xff,
            syndrome: 0xff,
            interface: 7,
            counter: u32::MAX,
        };
        let disabled = Reading {
            interface: 1,
            ..WELL
        };
        for (reading, text) in [
            (fatal, "it asks for a reset: HW_FATAL_ERR (0x8)"),
            (gone, "the device does not answer"),
            (disabled, "the function was disabled or reset"),
        ] {
            match Pulse::default().judge(reading, false, false) {
                Verdict::Dead(death) => assert_eq!(death.to_string(), text),
                verdict => panic!("{verdict:?}"),
            }
        }
        assert_eq!(Syndrome(0xee).to_string(), "0xee");
    }
}
