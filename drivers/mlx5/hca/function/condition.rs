// SPDX-License-Identifier: GPL-2.0

//! How a function is, for who looks at it.

use core::fmt;

use super::super::{
    health::pulse::{
        Death,
        Reading, //
    },
    init_segment::Version,
    running::Board, //
};

/// What becomes of the firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It runs.
    Running,
    /// It died, and is waited for.
    Waiting,
    /// It died, and the administrator has it recover.
    Held,
    /// The device sleeps, or is reset.
    Paused,
    /// It died, and nothing more is tried.
    GivenUp,
    /// The function ends.
    Ended,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Waiting => "dead, waited for",
            Self::Held => "dead, to be recovered by command",
            Self::Paused => "paused",
            Self::GivenUp => "dead, given up",
            Self::Ended => "ended",
        })
    }
}

/// How a function is.
pub(crate) struct Condition {
    /// What becomes of the firmware.
    pub(crate) stage: Stage,
    /// How often it was brought up.
    pub(crate) lives: u64,
    /// Why it died last, if that was not asked for.
    pub(crate) death: Option<Death>,
    /// Its version.
    pub(crate) version: Version,
    /// Its board.
    pub(crate) board: Board,
    /// What its registers say.
    pub(crate) reading: Reading,
    /// How many interrupt vectors it has.
    pub(crate) vectors: usize,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "stage      {}", self.stage)?;
        writeln!(f, "lives      {}", self.lives)?;
        match self.death {
            Some(death) => writeln!(f, "last death {death}")?,
            None => writeln!(f, "last death none")?,
        }
        writeln!(f, "firmware   {}", self.version)?;
        writeln!(f, "board      {}", self.board)?;
        writeln!(f, "syndrome   {:#x}", self.reading.syndrome)?;
        writeln!(f, "counter    {}", self.reading.counter)?;
        writeln!(f, "vectors    {}", self.vectors)
    }
}
