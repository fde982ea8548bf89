// SPDX-License-Identifier: GPL-2.0
//! Descriptors, and the chains that are gathered from them.

use crate::{
    byte_order::ByteOrder,
    memory::Memory, //
};

use super::{
    RingError,
    MAX_SIZE, //
};

/// The bytes of a descriptor, of either layout.
pub(crate) const DESC_SIZE: usize = 16;

/// Descriptor flag: the chain continues.
pub(crate) const NEXT: u16 = 1 << 0;
/// Descriptor flag: the device writes to the buffer.
pub(crate) const WRITE: u16 = 1 << 1;
/// Descriptor flag: the buffer is a table of descriptors.
pub(super) const INDIRECT: u16 = 1 << 2;

/// How many descriptors of an indirect table are read at once.
const TABLE_WINDOW: usize = 8;

/// A piece of the driver's memory that belongs to a buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// The address of the first byte.
    pub addr: u64,
    /// The number of bytes, never 0 in what [`Queue::pop`](super::Queue::pop) returns, and never
    /// reaching beyond the end of the address space.
    pub len: u32,
    /// Whether the device may write to it and not read, or read and not write.
    pub writable: bool,
}

/// A buffer taken from a queue: what has to be shown to give it back.
///
/// It is a token of one queue. Queues reject one that was completed already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    pub(super) slot: u16,
    pub(super) id: u16,
    pub(super) sequence: u32,
    readable_segments: u32,
    writable_segments: u32,
    readable: u32,
    writable: u32,
}

impl Chain {
    pub(super) fn new(slot: u16, id: u16, sequence: u32, gather: &Gather<'_>) -> Self {
        Self {
            slot,
            id,
            sequence,
            readable_segments: gather.readable_segments,
            writable_segments: gather.count - gather.readable_segments,
            // Both are bounded by the check of their sum in `Gather::push`.
            readable: gather.readable as u32,
            writable: (gather.total - gather.readable) as u32,
        }
    }

    /// The id of the buffer: the index of the first descriptor in a split ring, the buffer id in a
    /// packed one.
    pub fn id(&self) -> u16 {
        self.id
    }

    /// The number of segments, readable and writable.
    pub fn segments(&self) -> usize {
        (self.readable_segments + self.writable_segments) as usize
    }

    /// The number of segments that the device may read; they come first.
    pub fn readable_segments(&self) -> usize {
        self.readable_segments as usize
    }

    /// The number of segments that the device may write; they come last.
    pub fn writable_segments(&self) -> usize {
        self.writable_segments as usize
    }

    /// The number of bytes that the device may read.
    pub fn readable(&self) -> u32 {
        self.readable
    }

    /// The number of bytes that the device may write.
    pub fn writable(&self) -> u32 {
        self.writable
    }
}

/// A descriptor, copied out of the driver's memory.
///
/// The last two fields of a descriptor differ between the layouts: split descriptors have flags
/// and the index of the next descriptor, packed ones a buffer id and flags.
pub(super) struct Descriptor {
    pub(super) addr: u64,
    pub(super) len: u32,
    pub(super) flags: u16,
    /// The next descriptor of a split chain, or the buffer id of a packed one.
    pub(super) link: u16,
}

impl Descriptor {
    #[inline]
    fn parse(order: ByteOrder, bytes: &[u8; DESC_SIZE]) -> (u64, u32, u16, u16) {
        let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, b0, b1, c0, c1] = *bytes;
        (
            order.read_u64([a0, a1, a2, a3, a4, a5, a6, a7]),
            order.read_u32([l0, l1, l2, l3]),
            order.read_u16([b0, b1]),
            order.read_u16([c0, c1]),
        )
    }

    #[inline]
    pub(super) fn split(order: ByteOrder, bytes: &[u8; DESC_SIZE]) -> Self {
        let (addr, len, flags, link) = Self::parse(order, bytes);
        Self {
            addr,
            len,
            flags,
            link,
        }
    }

    #[inline]
    pub(super) fn packed(order: ByteOrder, bytes: &[u8; DESC_SIZE]) -> Self {
        let (addr, len, link, flags) = Self::parse(order, bytes);
        Self {
            addr,
            len,
            flags,
            link,
        }
    }

    #[inline]
    pub(super) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// What the descriptors of a queue may be.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    pub(super) byte_order: ByteOrder,
    /// Whether indirect descriptors were negotiated.
    pub(super) indirect: bool,
}

/// How many descriptors without bytes a chain may have. No driver has a use for any.
const MAX_EMPTY: usize = 64;

/// Collects the segments of one chain into the caller's slice.
pub(super) struct Gather<'a> {
    segments: &'a mut [Segment],
    count: u32,
    /// How many descriptors without bytes were left out.
    empty: usize,
    readable_segments: u32,
    /// Bytes of readable segments.
    readable: u64,
    /// Bytes of all segments.
    total: u64,
    /// Whether a writable descriptor was seen, empty or not.
    writing: bool,
}

impl<'a> Gather<'a> {
    #[inline]
    pub(super) fn new(segments: &'a mut [Segment]) -> Self {
        Self {
            segments,
            count: 0,
            empty: 0,
            readable_segments: 0,
            readable: 0,
            total: 0,
            writing: false,
        }
    }

    /// Adds the buffer of a direct descriptor, or of one in an indirect table.
    #[inline]
    pub(super) fn push(&mut self, desc: &Descriptor) -> Result<(), RingError> {
        let writable = desc.has(WRITE);
        if self.writing && !writable {
            return Err(RingError::ReadableAfterWritable);
        }
        self.writing = writable;
        if desc.len == 0 {
            // They cost the device as much as others do.
            if self.empty == MAX_EMPTY {
                return Err(RingError::ChainTooLong);
            }
            self.empty += 1;
            return Ok(());
        }
        if desc.addr.checked_add(u64::from(desc.len) - 1).is_none() {
            return Err(RingError::AddressOverflow(desc.addr));
        }
        let total = self.total + u64::from(desc.len);
        if total > u64::from(u32::MAX) {
            return Err(RingError::LengthOverflow);
        }
        let segment = self
            .segments
            .get_mut(self.count as usize)
            .ok_or(RingError::ChainTooLong)?;
        *segment = Segment {
            addr: desc.addr,
            len: desc.len,
            writable,
        };
        self.total = total;
        self.count += 1;
        if !writable {
            self.readable = total;
            self.readable_segments = self.count;
        }
        Ok(())
    }

    /// Checks that an indirect descriptor may be one and returns the number of descriptors in its
    /// table (virtio 1.3, 2.7.5.3 and 2.8.7).
    ///
    /// A table may have more entries than the ring, as Linux has always done with long lists, but
    /// not more than any ring may have.
    fn table_len(rules: Rules, desc: &Descriptor) -> Result<u16, RingError> {
        if !rules.indirect {
            return Err(RingError::IndirectNotNegotiated);
        }
        if desc.has(NEXT) {
            return Err(RingError::IndirectAndNext);
        }
        let len = desc.len as usize;
        match u16::try_from(len / DESC_SIZE) {
            Ok(count @ 1..=MAX_SIZE) if len % DESC_SIZE == 0 => {
                desc.addr
                    .checked_add(u64::from(desc.len))
                    .ok_or(RingError::AddressOverflow(desc.addr))?;
                Ok(count)
            }
            _ => Err(RingError::IndirectLength(desc.len)),
        }
    }

    /// Adds the buffers of a split ring's indirect table: linked descriptors, the first one first.
    pub(super) fn linked_table<M: Memory + ?Sized>(
        &mut self,
        rules: Rules,
        mem: &M,
        desc: &Descriptor,
    ) -> Result<(), RingError> {
        let mut table = Table::new(desc.addr, Self::table_len(rules, desc)?);
        let mut index = 0;
        for _ in 0..table.len {
            let entry = Descriptor::split(rules.byte_order, table.entry(mem, index)?);
            if entry.has(INDIRECT) {
                return Err(RingError::IndirectNested);
            }
            self.push(&entry)?;
            if !entry.has(NEXT) {
                return Ok(());
            }
            index = entry.link;
        }
        Err(RingError::Loop)
    }

    /// Adds the buffers of a packed ring's indirect table: all of its descriptors in turn.
    pub(super) fn whole_table<M: Memory + ?Sized>(
        &mut self,
        rules: Rules,
        mem: &M,
        desc: &Descriptor,
    ) -> Result<(), RingError> {
        let mut table = Table::new(desc.addr, Self::table_len(rules, desc)?);
        for index in 0..table.len {
            let entry = Descriptor::packed(rules.byte_order, table.entry(mem, index)?);
            if entry.has(INDIRECT) {
                return Err(RingError::IndirectNested);
            }
            self.push(&entry)?;
        }
        Ok(())
    }
}

/// An indirect table, read a few descriptors at a time.
struct Table {
    addr: u64,
    len: u16,
    /// Which descriptors `bytes` holds.
    start: u16,
    count: u16,
    bytes: [[u8; DESC_SIZE]; TABLE_WINDOW],
}

impl Table {
    fn new(addr: u64, len: u16) -> Self {
        Self {
            addr,
            len,
            start: 0,
            count: 0,
            bytes: [[0; DESC_SIZE]; TABLE_WINDOW],
        }
    }

    /// Returns the bytes of descriptor `index`.
    ///
    /// Drivers lay tables out in sequence, so the ones after it are read along.
    #[inline]
    fn entry<M: Memory + ?Sized>(
        &mut self,
        mem: &M,
        index: u16,
    ) -> Result<&[u8; DESC_SIZE], RingError> {
        if index >= self.len {
            return Err(RingError::DescriptorIndex(index));
        }
        // What is in the window was read once and stays.
        let mut offset = index.wrapping_sub(self.start);
        if offset >= self.count {
            let count = usize::from(self.len - index).min(TABLE_WINDOW);
            let addr = self.addr.wrapping_add(u64::from(index) * DESC_SIZE as u64);
            let window = self.bytes.as_flattened_mut();
            if let Some(window) = window.get_mut(..count * DESC_SIZE) {
                mem.read(addr, window)?;
            }
            self.start = index;
            self.count = count as u16;
            offset = 0;
        }
        self.bytes
            .get(usize::from(offset))
            .ok_or(RingError::DescriptorIndex(index))
    }
}
