// SPDX-License-Identifier: GPL-2.0

//! What the test parent says in the configuration space of its devices, and what it is told there.
//!
//! The space is a [`HEADER`] of four 32-bit words (how many records there are, how often a device
//! was reported removed, how often one was freed, the first word of the doorbell page), and then
//! records: which operations were called, with what. Writing three words at its beginning is a
//! [`command`]. All numbers are little-endian.

/// Bytes before the records.
pub(crate) const HEADER: usize = 16;

/// Bytes of a record: the operation, the virtqueue or whatever else it is about, three arguments.
pub(crate) const RECORD: usize = 4 + 4 + 3 * 8;

/// How many records are kept, from the oldest on.
pub(crate) const RECORDS: usize = 256;

/// Virtqueues of a device, and groups of them.
pub(crate) const QUEUES: u16 = 3;

/// Address spaces of a device.
pub(crate) const SPACES: u32 = 2;

/// What a device is told: the first of three words. The others are arguments.
pub(crate) mod command {
    /// Forget the records.
    pub(crate) const CLEAR: u32 = 1;
    /// Let operation (first argument) fail with this error number; with 0, let none.
    pub(crate) const FAIL: u32 = 2;
    /// Fire the callback of this virtqueue.
    pub(crate) const FIRE: u32 = 3;
    /// Have a worker dropped by its own thread.
    pub(crate) const RETIRE: u32 = 4;
}

/// An operation of which a record is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Op {
    /// The three addresses.
    SetVqAddress = 1,
    /// The size.
    SetVqNum,
    /// No arguments.
    KickVq,
    /// Whether there is one.
    SetVqCb,
    /// Whether it is.
    SetVqReady,
    /// Available, used.
    SetVqState,
    /// No arguments.
    GetVqIrq,
    /// The features.
    SetDriverFeatures,
    /// The status.
    SetStatus,
    /// No arguments.
    Reset,
    /// Whether maps are dropped.
    CompatReset,
    /// No arguments.
    Suspend,
    /// No arguments.
    Resume,
    /// Offset, length, the first byte.
    SetConfig,
    /// About a group: the address space.
    SetGroupAsid,
    /// About an address space. What follows are [`Op::Extent`]s.
    SetMap,
    /// About permissions: IO virtual address, length.
    Extent,
    /// About an address space. An [`Op::Extent`] follows, which has an address of the user as its
    /// third argument.
    DmaMap,
    /// About an address space: IO virtual address, length.
    DmaUnmap,
    /// About an address space.
    ResetMap,
    /// No arguments.
    BindMm,
    /// No arguments.
    UnbindMm,
    /// Which drivers are let in: 0 modern ones, 1 any, 2 legacy ones.
    SetLegacy,
    /// About 0 for the device, or one more than the virtqueue: whether it is big-endian.
    SetByteOrder,
    /// Not an operation: a worker that its own thread dropped is about to end.
    Retired,
}
