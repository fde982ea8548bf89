// SPDX-License-Identifier: GPL-2.0

//! Why a device cannot do what it shall.

use core::fmt;

use kernel::prelude::*;

use super::{
    control::Broken,
    map::MapError,
    relay::Snag, //
};
use crate::hca::{
    Defect,
    Failure, //
};

/// Why a device cannot do what it shall.
pub(crate) enum Trouble {
    /// The firmware died, and is not up again.
    NoFirmware,
    /// The firmware refused a command, or did not do it.
    Firmware(Failure),
    /// The driver's memory cannot be made known to the firmware.
    Map(MapError),
    /// A virtqueue failed by itself: which, and how in the firmware's own numbers.
    Queue(u16, u8),
    /// This virtqueue cannot be relayed, or not any more: why.
    Relay(u16, Snag),
    /// What this virtqueue tells of used buffers by is broken.
    Channel(u16, Defect),
    /// Nobody knows where this virtqueue stands.
    Doubt(u16),
    /// Virtqueues do not interrupt as they did with the firmware of before.
    Mode,
    /// What led frames to the virtqueues was taken away, and could not be made again.
    Detached,
    /// The control queue cannot be served: why.
    Control(Error),
    /// The driver broke the control queue.
    Ring(Broken),
}

impl Trouble {
    /// The virtqueue that it is about, if that is one alone.
    pub(crate) fn queue(&self) -> Option<usize> {
        match self {
            Self::Queue(index, _)
            | Self::Relay(index, _)
            | Self::Channel(index, _)
            | Self::Doubt(index) => Some((*index).into()),
            _ => None,
        }
    }

    /// Returns whether the firmware may have done all the same what it was asked for.
    pub(crate) fn is_in_doubt(&self) -> bool {
        matches!(self, Self::Firmware(failure) if failure.is_in_doubt())
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Firmware(failure)
    }
}

impl From<MapError> for Trouble {
    fn from(error: MapError) -> Self {
        Self::Map(error)
    }
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::NoFirmware => ENODEV,
            Trouble::Firmware(failure) => failure.into(),
            Trouble::Map(error) => error.into(),
            Trouble::Queue(..)
            | Trouble::Relay(..)
            | Trouble::Channel(..)
            | Trouble::Doubt(_)
            | Trouble::Mode
            | Trouble::Detached
            | Trouble::Ring(_) => EIO,
            Trouble::Control(error) => error,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFirmware => f.write_str("the firmware is not up"),
            Self::Firmware(failure) => failure.fmt(f),
            Self::Map(error) => error.fmt(f),
            Self::Queue(index, error) => write!(f, "virtqueue {index} failed: error {error:#x}"),
            Self::Relay(index, snag) => write!(f, "virtqueue {index} is not relayed: {snag}"),
            Self::Channel(index, defect) => {
                write!(
                    f,
                    "virtqueue {index} does not tell of used buffers: {defect}"
                )
            }
            Self::Doubt(index) => write!(f, "nobody knows where virtqueue {index} stands"),
            Self::Mode => f.write_str("virtqueues of the new firmware interrupt in another way"),
            Self::Detached => f.write_str("no frames are led to the virtqueues any more"),
            Self::Control(error) => {
                write!(
                    f,
                    "the control queue cannot be served: error {}",
                    -error.to_errno()
                )
            }
            Self::Ring(broken) => write!(f, "the control queue is broken: {broken}"),
        }
    }
}
