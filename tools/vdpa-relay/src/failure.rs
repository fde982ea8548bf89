// SPDX-License-Identifier: GPL-2.0

//! What can go wrong between a monitor and the device.

use std::io;

use thiserror::Error;
use virtio::byte_order::ByteOrder;

use crate::{
    byte_order,
    device::Refused,
    memory::Invalid, //
};

/// Why something that the monitor wants is not done.
#[derive(Debug, Error)]
pub enum Failure {
    /// The device or the kernel refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The guest's memory is not as it should be.
    #[error(transparent)]
    Memory(#[from] Invalid),
    /// The guest's memory cannot be had here.
    #[error("the guest's memory at {guest:#x} cannot be mapped: {source}; a VMM has to share it (QEMU: memory-backend-memfd with share=on)")]
    Mapping {
        /// Where the guest has it.
        guest: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// The message is not as it should be.
    #[error(transparent)]
    Message(#[from] io::Error),
    /// A ring that the device does not have.
    #[error("the device has no ring {ring}: it has {rings}")]
    NoRing {
        /// The one that was named.
        ring: u32,
        /// How many there are.
        rings: usize,
    },
    /// A ring that is not in the guest's memory.
    #[error("ring {ring} is at {user:#x} of the VMM, which is not in the guest's memory")]
    RingAddress {
        /// Which ring.
        ring: u32,
        /// The address, by the monitor.
        user: u64,
    },
    /// Features that were not offered.
    #[error("the VMM acknowledges the features {unknown:#x}, which were not offered")]
    Features {
        /// Those that were not.
        unknown: u64,
    },
    /// Features change under a running device.
    #[error("features cannot change while the device runs")]
    Running,
    /// The device does not agree to the features.
    #[error("the device does not accept the features {0:#x}")]
    NotAccepted(u64),
    /// The device did not start.
    #[error("the device does not start: its status is {0:#x}")]
    NotStarted(u8),
    /// A byte order that the device cannot be told.
    #[error(
        "the guest is a legacy one of {} byte order, which this device does not serve: it has no \
         attribute 'legacy_byte_order'",
        byte_order::name(*.0)
    )]
    ByteOrder(ByteOrder),
    /// Rings of different byte orders.
    #[error("the rings of the guest have different byte orders")]
    MixedByteOrder,
    /// The position of a packed ring is lost.
    #[error("ring {0} is packed, and the device cannot be suspended: where it is cannot be told")]
    Position(u32),
    /// What the relay does not do.
    #[error("request {0} of vhost-user is not served")]
    Unknown(u32),
    /// A number that means nothing there.
    #[error("{what} cannot be {value}")]
    Value {
        /// What it was for.
        what: &'static str,
        /// What it was.
        value: u64,
    },
}

/// What is done, or why not.
pub type Result<T> = std::result::Result<T, Failure>;
