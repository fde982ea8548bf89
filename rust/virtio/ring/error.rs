// SPDX-License-Identifier: GPL-2.0
//! What can be wrong with a ring.

use core::fmt;

use crate::memory::Fault;

/// Why a virtqueue cannot be set up as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The number of entries is zero, too large, or not a power of two in a split ring.
    Size(u16),
    /// The area at this address is not aligned as the standard demands.
    Alignment(u64),
    /// The area at this address reaches beyond the end of the address space.
    Extent(u64),
    /// The state is not one that a ring of this layout and size can be in.
    State,
    /// There are fewer slots than entries.
    Slots,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(size) => write!(f, "invalid queue size {}", size),
            Self::Alignment(addr) => write!(f, "misaligned ring address {:#x}", addr),
            Self::Extent(addr) => write!(f, "ring at {:#x} ends beyond the address space", addr),
            Self::State => write!(f, "ring state does not fit the ring"),
            Self::Slots => write!(f, "too few slots for the queue size"),
        }
    }
}

/// Why a virtqueue cannot go on.
///
/// All but [`RingError::NotInFlight`] and [`RingError::NotNewest`] are the driver's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingError {
    /// The driver's available index is this many entries ahead, more than the ring has.
    AvailableIndex(u16),
    /// A descriptor index, in the available ring or in a chain, is not below the number of
    /// descriptors.
    DescriptorIndex(u16),
    /// A chain has more descriptors than its table: it must run in a circle.
    Loop,
    /// A chain has more segments than the device accepts, or too many descriptors without bytes.
    ChainTooLong,
    /// A readable descriptor follows a writable one.
    ReadableAfterWritable,
    /// An indirect descriptor, though the feature was not negotiated.
    IndirectNotNegotiated,
    /// A descriptor is indirect and continues.
    IndirectAndNext,
    /// A descriptor of an indirect table is indirect itself.
    IndirectNested,
    /// An indirect table of this many bytes is empty, too large or not a whole number of
    /// descriptors.
    IndirectLength(u32),
    /// The segment at this address reaches beyond the end of the address space.
    AddressOverflow(u64),
    /// The segments of a chain together have more bytes than the standard permits.
    LengthOverflow,
    /// More was made available than fits into the ring besides what is in flight.
    TooManyInFlight,
    /// The chain is not in flight.
    NotInFlight,
    /// The chain cannot be put back, for it is not the one taken last.
    NotNewest,
    /// The ring or an indirect table lies where the device may not access it.
    Fault(Fault),
}

impl From<Fault> for RingError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AvailableIndex(n) => write!(f, "available index jumped ahead by {}", n),
            Self::DescriptorIndex(n) => write!(f, "descriptor index {} out of range", n),
            Self::Loop => f.write_str("descriptor chain loops"),
            Self::ChainTooLong => f.write_str("descriptor chain too long"),
            Self::ReadableAfterWritable => f.write_str("readable descriptor after a writable one"),
            Self::IndirectNotNegotiated => f.write_str("indirect descriptor not negotiated"),
            Self::IndirectAndNext => f.write_str("indirect descriptor with the next flag"),
            Self::IndirectNested => f.write_str("indirect descriptor in an indirect table"),
            Self::IndirectLength(n) => write!(f, "indirect table of {} bytes", n),
            Self::AddressOverflow(addr) => write!(f, "segment at {:#x} overflows", addr),
            Self::LengthOverflow => f.write_str("descriptor chain of more than 4 GiB"),
            Self::TooManyInFlight => f.write_str("more buffers available than the ring holds"),
            Self::NotInFlight => f.write_str("buffer not in flight"),
            Self::NotNewest => f.write_str("buffers were used out of order"),
            Self::Fault(fault) => fault.fmt(f),
        }
    }
}
