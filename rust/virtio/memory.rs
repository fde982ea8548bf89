// SPDX-License-Identifier: GPL-2.0
//! Guest memory, as a device sees it.
//!
//! Everything in this crate that touches the driver's memory does it through [`Memory`]: an
//! address space of 64-bit addresses in which some ranges exist, some of them for reading only or
//! for writing only. Who implements it decides what an address is: an IO virtual address of a vDPA
//! device's address space in the kernel, an offset into a buffer in a test.
//!
//! The other side of the memory runs at the same time and may be hostile. What was read once must
//! be used from the copy; reading it again may give something else.

use core::{
    fmt,
    sync::atomic, //
};

/// What an access that failed wanted to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The device wanted to read.
    Read,
    /// The device wanted to write.
    Write,
}

/// An access to memory that the device was not given, or not given for this purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The first address of the access.
    pub addr: u64,
    /// What the access wanted to do.
    pub access: Access,
}

impl Fault {
    /// A read at `addr` that failed.
    pub const fn read(addr: u64) -> Self {
        Self {
            addr,
            access: Access::Read,
        }
    }

    /// A write at `addr` that failed.
    pub const fn write(addr: u64) -> Self {
        Self {
            addr,
            access: Access::Write,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = match self.access {
            Access::Read => "read",
            Access::Write => "write",
        };
        write!(f, "no {} access at {:#x}", access, self.addr)
    }
}

/// The memory of a driver.
///
/// An access succeeds or fails as a whole as far as addresses and permissions go: no byte is
/// transferred when any of its bytes is out of reach. Accesses may cross the ranges that the
/// address space is made of, as long as there is no hole between them.
///
/// No method converts byte order; the caller does, with [`ByteOrder`](crate::byte_order::ByteOrder).
pub trait Memory {
    /// Copies `to.len()` bytes at `addr` into `to`.
    ///
    /// The copy is not atomic and not ordered against other accesses.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if a byte of the range is not there or not readable.
    fn read(&self, addr: u64, to: &mut [u8]) -> Result<(), Fault>;

    /// Copies `from` to `addr`.
    ///
    /// The copy is not atomic and not ordered against other accesses.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if a byte of the range is not there or not writable.
    fn write(&self, addr: u64, from: &[u8]) -> Result<(), Fault>;

    /// Reads the 16-bit value at `addr` in one access, as the processor stores it, with acquire
    /// ordering: what the driver wrote before this value is seen by accesses after the load.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if `addr` is odd, not there or not readable.
    fn load_u16(&self, addr: u64) -> Result<u16, Fault>;

    /// Writes the 16-bit `value` at `addr` in one access, as the processor stores it, with release
    /// ordering: a driver that sees this value sees what was written before it.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if `addr` is odd, not there or not writable.
    fn store_u16(&self, addr: u64, value: u16) -> Result<(), Fault>;

    /// Orders every access before it against every access after it, stores against loads included.
    fn fence(&self) {
        atomic::fence(atomic::Ordering::SeqCst);
    }
}
