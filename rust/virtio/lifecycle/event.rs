// SPDX-License-Identifier: GPL-2.0

//! What goes into the machine and what comes out of it.

use core::fmt;

use super::QueueSet;
use crate::byte_order::ByteOrder;
use crate::features::{Features, Unmet};

/// Bits of the device status field (virtio 1.3, 2.1).
pub mod status {
    /// The driver has seen the device.
    pub const ACKNOWLEDGE: u8 = 0x01;
    /// There is a driver for the device.
    pub const DRIVER: u8 = 0x02;
    /// The driver is set up: the device runs.
    pub const DRIVER_OK: u8 = 0x04;
    /// The device agrees with the features acknowledged.
    pub const FEATURES_OK: u8 = 0x08;
    /// Written: the driver asks the device to stop. Read: the device has stopped.
    pub const STOP: u8 = 0x10;
    /// The device could not stop and runs on.
    pub const STOP_FAILED: u8 = 0x20;
    /// The device cannot go on until it is reset.
    pub const NEEDS_RESET: u8 = 0x40;
    /// The driver has given up.
    pub const FAILED: u8 = 0x80;
}

/// Which drivers the administrator lets in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Legacy {
    /// Only drivers of virtio 1.0 and later.
    Off,
    /// A transitional device: any driver.
    #[default]
    Allow,
    /// Only legacy drivers.
    Require,
}

/// Which legacy drivers a device can serve, for those who ask before a guest starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LegacySupport {
    /// None: the device is modern only.
    None,
    /// Those of little-endian guests.
    LittleEndian,
    /// Those of guests of either byte order.
    AnyEndian,
}

/// Who the driver is, once that is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Driver {
    /// A driver that did not acknowledge VERSION_1.
    Legacy,
    /// A driver of virtio 1.0 or later.
    Modern,
}

/// Something that happens to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The driver, or who serves it, resets the device.
    Reset,
    /// The driver acknowledges exactly these features. The empty set is a reset to nothing and
    /// says nothing about the driver.
    SetFeatures(Features),
    /// The driver writes the status field. Zero is the same as [`Event::Reset`].
    SetStatus(u8),
    /// A virtqueue is enabled or disabled.
    SetReady(u16, bool),
    /// A virtqueue's size, addresses or state (its indices) are about to be set.
    Configure(u16),
    /// The byte order of a legacy driver, for the device and all its virtqueues.
    SetByteOrder(ByteOrder),
    /// The byte order of a legacy driver for one virtqueue.
    SetQueueByteOrder(u16, ByteOrder),
    /// The administrator chooses which drivers are let in.
    SetLegacy(Legacy),
    /// Whether a user of the device has mapped memory for it. Told before the status is written;
    /// a driver that gives physical addresses is only let in on top of such a map.
    Mapped(bool),
    /// The device is asked to stop by a call that waits and reports the outcome itself.
    Suspend,
    /// The device is asked to go on from where it stopped, or the driver has seen STOP_FAILED.
    Resume,
    /// The executor has done what [`Actions::halt`] asked for.
    StopDone,
    /// The executor could not do what [`Actions::halt`] asked for; the device can run on.
    StopFailed,
    /// The executor could not do what [`Actions::begin`] asked for.
    StartFailed,
    /// The device, or what the driver put in a ring, is broken.
    Fault,
    /// The device is about to change its configuration by itself.
    ConfigChange,
}

/// What the executor must do, in the order of the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// Virtqueues that must stop: no access to their rings and no notification once this is done.
    /// Their indices stay readable. After a reset or fault in the middle of a stop, some have
    /// stopped already.
    pub stop: QueueSet,
    /// Forget everything the driver set: virtqueue sizes, addresses, indices, filters.
    pub reset: bool,
    /// Stop the whole device: finish or hand back what is in flight on the queues in `stop`,
    /// publish what was used, and report [`Event::StopDone`], or [`Event::StopFailed`] if that
    /// did not succeed within bounded time, or [`Event::Fault`] if it cannot run on either.
    pub halt: bool,
    /// Virtqueues that must run from now on, from their indices as set.
    pub start: QueueSet,
    /// Those are the virtqueues that the device begins with, for DRIVER_OK was written: if one of
    /// them cannot run, report [`Event::StartFailed`], and the driver does not see DRIVER_OK. A
    /// virtqueue that cannot run at any other time is an [`Event::Fault`].
    pub begin: bool,
    /// Virtqueues to look at as if the driver kicked them now: kicks latched before they could
    /// run, and rings that may hold what was announced before. Always running queues.
    pub kick: QueueSet,
    /// Send a configuration change notification.
    pub notify_config: bool,
    /// Why the device did not show what the driver wrote to the status field. To be logged.
    pub refused: Option<Refusal>,
}

impl Actions {
    /// Nothing to do.
    pub const NONE: Self = Self {
        stop: QueueSet::EMPTY,
        reset: false,
        halt: false,
        start: QueueSet::EMPTY,
        begin: false,
        kick: QueueSet::EMPTY,
        notify_config: false,
        refused: None,
    };
}

/// What to do with a kick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kick {
    /// The queue runs: look at its ring.
    Deliver,
    /// The queue does not run yet; the kick comes back in [`Actions::kick`] when it does.
    Latch,
    /// There is no such queue, or the device is broken.
    Drop,
}

/// What to do with a write to the configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConfigWrite {
    /// Take it: a legacy driver may write its MAC address (virtio 1.3, 5.1.4.2).
    Apply,
    /// Take it for what was not provisioned: a VMM sets defaults of its own before the driver
    /// runs.
    ApplyUnlessProvisioned,
    /// Leave everything as it is.
    Ignore,
}

/// The shape of a refusal, for those who answer with an error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// The request makes no sense (`EINVAL`).
    Invalid,
    /// The request comes at the wrong time (`EBUSY`).
    Busy,
    /// The device cannot do it (`EOPNOTSUPP`).
    Unsupported,
    /// The device is broken (`EIO`).
    Broken,
}

/// Why an event was refused. A refused event changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// There is no virtqueue of that index.
    NoSuchQueue(u16),
    /// Features were acknowledged that are not offered: those.
    NotOffered(Features),
    /// The features cannot be changed any more without a reset.
    FeaturesFixed,
    /// A feature was acknowledged without one it needs.
    Unmet(Unmet),
    /// The driver does without features that device and platform need: those.
    Required(Features),
    /// A legacy driver, where none is let in.
    LegacyOff,
    /// Not a legacy driver, where only those are let in.
    LegacyRequired,
    /// Legacy drivers are to be let in, and the device cannot serve them.
    NoLegacy,
    /// Only drivers of virtio 1.0 and later are to be let in, and the device offers no VERSION_1.
    NoModern,
    /// The driver gives physical addresses, and nobody has mapped memory for the device.
    NoMap,
    /// The device cannot serve big-endian drivers.
    BigEndian,
    /// That cannot be changed while the device or the virtqueue runs.
    Running,
    /// That needs a running device.
    NotRunning,
    /// The device is stopping.
    Stopping,
    /// A stop has failed, and the driver has not cleared STOP_FAILED since.
    StopFailed,
    /// The device has stopped: its configuration does not change.
    Stopped,
    /// The device needs a reset.
    Broken,
}

impl Refusal {
    /// Returns what kind of error this is.
    pub fn kind(self) -> RefusalKind {
        match self {
            Self::NoSuchQueue(_)
            | Self::NotOffered(_)
            | Self::Unmet(_)
            | Self::Required(_)
            | Self::LegacyOff
            | Self::LegacyRequired
            | Self::NoMap
            | Self::NotRunning => RefusalKind::Invalid,
            Self::FeaturesFixed
            | Self::Running
            | Self::Stopping
            | Self::StopFailed
            | Self::Stopped => RefusalKind::Busy,
            Self::NoLegacy | Self::NoModern | Self::BigEndian => RefusalKind::Unsupported,
            Self::Broken => RefusalKind::Broken,
        }
    }

    /// Returns whether asking again is of no use, at any time, until the administrator changes his
    /// mind about who is let in. Such a refusal is to be logged, since whoever asked may be told no
    /// more than that it failed.
    pub fn lasts(self) -> bool {
        matches!(
            self,
            Self::LegacyOff
                | Self::LegacyRequired
                | Self::NoLegacy
                | Self::NoModern
                | Self::BigEndian
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchQueue(queue) => write!(f, "no virtqueue {queue}"),
            Self::NotOffered(bits) => write!(f, "features {bits:#x} are not offered"),
            Self::FeaturesFixed => f.write_str("features are fixed until the next reset"),
            Self::Unmet(unmet) => {
                write!(
                    f,
                    "feature {:#x} needs one of {:#x}",
                    unmet.feature, unmet.needs
                )
            }
            Self::Required(bits) => write!(f, "the driver must acknowledge features {bits:#x}"),
            Self::LegacyOff => {
                f.write_str("attribute legacy is off, and a legacy driver came (no VERSION_1)")
            }
            Self::LegacyRequired => {
                f.write_str("attribute legacy is require, and a modern driver came (VERSION_1)")
            }
            Self::NoLegacy => {
                f.write_str("attribute legacy stays off: the device cannot serve legacy drivers")
            }
            Self::NoModern => {
                f.write_str("attribute legacy cannot be off: the device offers no VERSION_1")
            }
            Self::NoMap => {
                f.write_str("the driver bypasses address translation and no memory is mapped")
            }
            Self::BigEndian => f.write_str(
                "attribute legacy_byte_order stays little: the device knows no big-endian rings",
            ),
            Self::Running => f.write_str("not while the device runs"),
            Self::NotRunning => f.write_str("the device does not run"),
            Self::Stopping => f.write_str("the device is stopping"),
            Self::StopFailed => f.write_str("a failed stop was not cleared yet"),
            Self::Stopped => f.write_str("the device has stopped"),
            Self::Broken => f.write_str("the device needs a reset"),
        }
    }
}
