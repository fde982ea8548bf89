// SPDX-License-Identifier: GPL-2.0

//! What the monitor has said of each ring.

use std::os::fd::OwnedFd;

use virtio::byte_order::ByteOrder;

/// Where the parts of a ring are. Who has these addresses, the monitor or the guest, depends on
/// where this is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// The descriptor area.
    pub descriptor: u64,
    /// The driver area: what is available.
    pub available: u64,
    /// The device area: what is used.
    pub used: u64,
}

/// A ring. It begins as one of which nothing was said.
#[derive(Debug, Default)]
pub struct Ring {
    /// How many descriptors it has.
    pub size: u32,
    /// Where it is, by the monitor's addresses.
    pub addresses: Option<Addresses>,
    /// The index at which the device begins, as the kernel has it: for a packed ring that of the
    /// used descriptors is in the upper 16 bits.
    pub base: u32,
    /// What the driver's notifications come by.
    pub kick: Option<OwnedFd>,
    /// What the driver is notified by.
    pub call: Option<OwnedFd>,
    /// What the monitor is told of errors by.
    pub error: Option<OwnedFd>,
    /// Whether the monitor lets the ring be used.
    pub enabled: bool,
    /// Whether the ring was started, which a monitor does by saying what it is kicked by, even
    /// by nothing, and was not stopped since.
    pub started: bool,
    /// The byte order of a legacy driver, if the monitor said so.
    pub order: Option<ByteOrder>,
    /// Whether the running device has it.
    pub live: bool,
}

impl Ring {
    /// Returns whether the device can be given this ring.
    pub fn is_ready(&self) -> bool {
        self.started && self.size != 0 && self.addresses.is_some()
    }

    /// Forgets what a reset ends. What it notifies by remains, since a monitor says that once.
    pub fn reset(&mut self) {
        *self = Self {
            call: self.call.take(),
            error: self.error.take(),
            ..Self::default()
        };
    }
}
