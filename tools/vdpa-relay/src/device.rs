// SPDX-License-Identifier: GPL-2.0

//! What the relay asks of a device: the calls of vhost-vdpa, one by one.

use std::{
    io,
    os::fd::BorrowedFd, //
};

use thiserror::Error;
use virtio::byte_order::ByteOrder;

use crate::ring::Addresses;

/// A call that the device, or the kernel for it, refused.
#[derive(Debug, Error)]
#[error("{call}: {source}{}", hint(source))]
pub struct Refused {
    /// What it was asked.
    pub call: &'static str,
    /// What it said.
    pub source: io::Error,
}

/// Returns what helps against an error, where something often does.
fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EBUSY) => " (is another program using the device?)",
        Some(libc::ENOMEM) => {
            " (the guest's memory stays locked; 'ulimit -l' must allow for all of it)"
        }
        Some(libc::EACCES | libc::EPERM) => " (the relay needs the right to use the device)",
        _ => "",
    }
}

/// What a call gives.
pub type Result<T> = std::result::Result<T, Refused>;

/// Memory that a device shall reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Where the device reaches it, which is where the guest has it.
    pub guest: u64,
    /// Its length in bytes.
    pub size: u64,
    /// Where it is in this process.
    pub address: u64,
}

/// What does not change as long as a device is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// The kind of device, as virtio numbers them.
    pub id: u32,
    /// The feature bits offered.
    pub features: u64,
    /// How many rings it has.
    pub rings: u32,
    /// How many descriptors a ring has at most.
    pub ring_size: u16,
    /// The length of its configuration space in bytes.
    pub config_size: u32,
    /// Whether it can be suspended, and then tell where its rings are.
    pub suspends: bool,
    /// Whether maps outlive a reset.
    pub keeps_maps: bool,
    /// Whether the byte order of legacy drivers can be set.
    pub any_byte_order: bool,
}

/// A device of vhost-vdpa. Every call may be refused, with what the kernel said.
#[allow(clippy::missing_errors_doc)]
pub trait Device {
    /// What does not change.
    fn traits(&self) -> &Traits;
    /// Sets what the driver acknowledged.
    fn set_features(&mut self, features: u64) -> Result<()>;
    /// Returns the status byte.
    fn status(&self) -> Result<u8>;
    /// Sets the status byte; 0 resets the device.
    fn set_status(&mut self, status: u8) -> Result<()>;
    /// Reads the configuration space from `offset` on.
    fn config(&self, offset: u32, bytes: &mut [u8]) -> Result<()>;
    /// Writes the configuration space from `offset` on.
    fn set_config(&mut self, offset: u32, bytes: &[u8]) -> Result<()>;
    /// Sets the byte order of legacy drivers; none but the native one if it cannot be set.
    fn set_byte_order(&mut self, order: ByteOrder) -> Result<()>;
    /// Sets how many descriptors a ring has.
    fn set_ring_size(&mut self, ring: u32, size: u32) -> Result<()>;
    /// Sets where a ring is, by the guest's addresses.
    fn set_ring_addresses(&mut self, ring: u32, at: &Addresses) -> Result<()>;
    /// Sets where a ring begins.
    fn set_ring_base(&mut self, ring: u32, base: u32) -> Result<()>;
    /// Returns where a ring of a suspended device is.
    fn ring_base(&self, ring: u32) -> Result<u32>;
    /// Makes a ring ready, or not.
    fn set_ring_ready(&mut self, ring: u32, ready: bool) -> Result<()>;
    /// Sets what a ring is kicked by.
    fn set_kick(&mut self, ring: u32, by: Option<BorrowedFd<'_>>) -> Result<()>;
    /// Sets what a ring calls by.
    fn set_call(&mut self, ring: u32, by: Option<BorrowedFd<'_>>) -> Result<()>;
    /// Sets what a ring tells of errors by.
    fn set_error(&mut self, ring: u32, by: Option<BorrowedFd<'_>>) -> Result<()>;
    /// Has the device use no ring any more, and keep where it is in each.
    fn suspend(&mut self) -> Result<()>;
    /// Changes what memory the device reaches, at once: `unmap` goes, by where the guest has it
    /// and its length, then `map` comes.
    fn change_memory(&mut self, unmap: &[(u64, u64)], map: &[Mapping]) -> Result<()>;
}

/// Bits of the device status (virtio 1.3, 2.1).
pub mod status {
    /// A driver has seen the device.
    pub const ACKNOWLEDGE: u8 = 0x01;
    /// It knows how to drive it.
    pub const DRIVER: u8 = 0x02;
    /// It is ready, and the device runs.
    pub const DRIVER_OK: u8 = 0x04;
    /// The features are agreed on.
    pub const FEATURES_OK: u8 = 0x08;
    /// The device has failed and must be reset.
    pub const NEEDS_RESET: u8 = 0x40;
}
