// SPDX-License-Identifier: GPL-2.0

//! The ring that the hardware is given: a split virtqueue, from the driver's side (virtio 1.3, 2.7).
//!
//! What it takes to know what the hardware has is in [`Entry`]s, which the hardware cannot reach: of
//! the ring itself, nothing is read but what the hardware writes.

use core::ops::DerefMut;

use super::RelayError;
use crate::{
    byte_order::ByteOrder,
    memory::Memory,
    net::header::MAX_LEN,
    ring::{
        chain::{
            DESC_SIZE,
            NEXT,
            WRITE, //
        },
        split::{
            FLAGS,
            IDX,
            NO_INTERRUPT,
            NO_NOTIFY,
            RING, //
        },
        window,
        Chain,
        ConfigError,
        Segment,
        MAX_SIZE, //
    }, //
};

/// The bytes of a descriptor.
const DESC: u64 = DESC_SIZE as u64;
/// What is between the headers of two chains, in bytes.
const HEADER: u64 = 16;
/// What the areas that different sides write to are apart, in bytes.
const APART: u64 = 64;

/// No descriptor. Rings have at most 32768.
const NONE: u16 = u16::MAX;

/// Where the parts of a shadow lie, one after the other from a base on: descriptors, available ring,
/// used ring, and a header for each descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    base: u64,
    size: u16,
}

impl Layout {
    /// A shadow of `size` entries that begins at the address `base`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Size`] unless the size is a power of two up to [`MAX_SIZE`],
    /// [`ConfigError::Alignment`] unless the base is a multiple of 64, and [`ConfigError::Extent`] if
    /// the address space ends before the shadow.
    pub fn new(base: u64, size: u16) -> Result<Self, ConfigError> {
        if !size.is_power_of_two() || size > MAX_SIZE {
            return Err(ConfigError::Size(size));
        }
        if base % APART != 0 {
            return Err(ConfigError::Alignment(base));
        }
        base.checked_add(Self::bytes(size))
            .ok_or(ConfigError::Extent(base))?;
        Ok(Self { base, size })
    }

    /// The bytes that a shadow of `size` entries takes.
    pub fn bytes(size: u16) -> u64 {
        Self { base: 0, size }.headers() + HEADER * u64::from(size)
    }

    /// The number of entries.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// The address of the descriptors.
    pub fn desc(&self) -> u64 {
        self.base
    }

    /// The address of the available ring.
    pub fn driver(&self) -> u64 {
        self.base + DESC * u64::from(self.size)
    }

    /// The address of the used ring.
    pub fn device(&self) -> u64 {
        (self.driver() + 6 + 2 * u64::from(self.size)).next_multiple_of(APART)
    }

    /// The address of the headers.
    fn headers(&self) -> u64 {
        (self.device() + 6 + 8 * u64::from(self.size)).next_multiple_of(APART)
    }

    /// The place of entry `index` in a ring.
    fn place(&self, index: u16) -> u64 {
        u64::from(index & (self.size - 1))
    }
}

/// What is known of one descriptor of a shadow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entry {
    addr: u64,
    len: u32,
    /// The next descriptor of its chain, or the next free one.
    next: u16,
    /// The guest's chain, in the first descriptor of one that the hardware has.
    chain: Option<Chain>,
}

/// A chain that the hardware used.
pub(super) struct Used {
    /// The guest's chain.
    pub(super) chain: Chain,
    /// Its first descriptor in the shadow, which is not free before [`Shadow::release`].
    pub(super) head: u16,
    /// How many bytes the hardware says that it wrote.
    pub(super) written: u32,
}

/// A shadow ring.
pub(super) struct Shadow<E> {
    layout: Layout,
    order: ByteOrder,
    event_index: bool,
    entries: E,
    /// The first free descriptor, and how many there are.
    free: u16,
    free_count: u16,
    /// The next entry of the available ring to write.
    avail: u16,
    /// The index that the hardware can see.
    published: u16,
    /// The next used entry to take.
    used: u16,
    /// The hardware's index when it was last read.
    device_used: u16,
}

impl<E: DerefMut<Target = [Entry]>> Shadow<E> {
    /// # Errors
    ///
    /// [`ConfigError::Slots`] with too few entries.
    pub(super) fn new(
        layout: Layout,
        order: ByteOrder,
        event_index: bool,
        index: u16,
        entries: E,
    ) -> Result<Self, ConfigError> {
        if entries.len() < usize::from(layout.size) {
            return Err(ConfigError::Slots);
        }
        let mut this = Self {
            layout,
            order,
            event_index,
            entries,
            free: NONE,
            free_count: 0,
            avail: index,
            published: index,
            used: index,
            device_used: index,
        };
        this.free_all();
        Ok(this)
    }

    pub(super) fn into_entries(self) -> E {
        self.entries
    }

    /// The index of the next used entry.
    pub(super) fn index(&self) -> u16 {
        self.used
    }

    /// Makes all descriptors free.
    fn free_all(&mut self) {
        let size = self.layout.size;
        for (entry, next) in self.entries.iter_mut().take(size.into()).zip(1..) {
            *entry = Entry {
                next: if next < size { next } else { NONE },
                ..Entry::default()
            };
        }
        self.free = 0;
        self.free_count = size;
    }

    fn load<M: Memory + ?Sized>(&self, mem: &M, addr: u64) -> Result<u16, RelayError> {
        let raw = mem.load_u16(addr).map_err(RelayError::Shadow)?;
        Ok(self.order.swap_u16(raw))
    }

    fn store<M: Memory + ?Sized>(&self, mem: &M, addr: u64, value: u16) -> Result<(), RelayError> {
        mem.store_u16(addr, self.order.swap_u16(value))
            .map_err(RelayError::Shadow)
    }

    /// The field of the available ring that names the used entry to interrupt for.
    fn used_event(&self) -> u64 {
        self.layout.driver() + RING + 2 * u64::from(self.layout.size)
    }

    /// The field of the used ring that names the available entry to kick for.
    fn avail_event(&self) -> u64 {
        self.layout.device() + RING + 8 * u64::from(self.layout.size)
    }

    /// Writes an empty ring.
    pub(super) fn start<M: Memory + ?Sized>(&mut self, mem: &M) -> Result<(), RelayError> {
        self.store(mem, self.layout.device() + FLAGS, 0)?;
        self.store(mem, self.layout.device() + IDX, self.used)?;
        // What hardware that names no entry leaves there asks for a kick at once.
        self.store(mem, self.avail_event(), self.avail)?;
        self.store(mem, self.layout.driver() + FLAGS, 0)?;
        self.store(mem, self.used_event(), self.used)?;
        self.store(mem, self.layout.driver() + IDX, self.avail)
    }

    /// Whether a chain of `count` descriptors can be added now.
    ///
    /// # Errors
    ///
    /// [`RelayError::TooLong`] if it never can.
    pub(super) fn has_room(&self, count: usize) -> Result<bool, RelayError> {
        if count > usize::from(self.layout.size) {
            return Err(RelayError::TooLong(count));
        }
        Ok(count <= usize::from(self.free_count))
    }

    /// Adds a chain of a header, if there is one, and the pieces behind it, and returns whether there
    /// was room for it. The hardware sees it after [`Self::publish`].
    ///
    /// # Errors
    ///
    /// As [`Self::has_room`], or the shadow is not there.
    pub(super) fn add<M: Memory + ?Sized>(
        &mut self,
        mem: &M,
        header: Option<&[u8]>,
        pieces: &[Segment],
        chain: Chain,
    ) -> Result<bool, RelayError> {
        let count = pieces.len() + usize::from(header.is_some());
        if !self.has_room(count)? {
            return Ok(false);
        }
        let head = self.free;
        let mut left = count;
        if let Some(header) = header {
            let addr = self.layout.headers() + HEADER * u64::from(head);
            mem.write(addr, header).map_err(RelayError::Shadow)?;
            left -= 1;
            let header = Segment {
                addr,
                // CAST: A header has at most `MAX_LEN` bytes.
                len: header.len().min(MAX_LEN) as u32,
                writable: false,
            };
            self.put(mem, &header, left != 0)?;
        }
        for piece in pieces {
            left -= 1;
            self.put(mem, piece, left != 0)?;
        }
        if let Some(entry) = self.entries.get_mut(usize::from(head)) {
            entry.chain = Some(chain);
        }
        let place = self.layout.driver() + RING + 2 * self.layout.place(self.avail);
        mem.write(place, &self.order.write_u16(head))
            .map_err(RelayError::Shadow)?;
        self.avail = self.avail.wrapping_add(1);
        Ok(true)
    }

    /// Writes a piece to the first free descriptor. Free ones are linked as the chain is to be.
    fn put<M: Memory + ?Sized>(
        &mut self,
        mem: &M,
        piece: &Segment,
        more: bool,
    ) -> Result<(), RelayError> {
        let index = self.free;
        let Some(entry) = self.entries.get_mut(usize::from(index)) else {
            return Err(RelayError::TooLong(usize::from(self.layout.size) + 1));
        };
        let next = entry.next;
        let mut flags = if piece.writable { WRITE } else { 0 };
        if more {
            flags |= NEXT;
        }
        *entry = Entry {
            addr: piece.addr,
            len: piece.len,
            next: if more { next } else { NONE },
            chain: None,
        };
        let [a0, a1, a2, a3, a4, a5, a6, a7] = self.order.write_u64(piece.addr);
        let [l0, l1, l2, l3] = self.order.write_u32(piece.len);
        let [f0, f1] = self.order.write_u16(flags);
        let [n0, n1] = self.order.write_u16(if more { next } else { 0 });
        let addr = self.layout.desc() + DESC * u64::from(index);
        mem.write(
            addr,
            &[
                a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, f0, f1, n0, n1,
            ],
        )
        .map_err(RelayError::Shadow)?;
        self.free = next;
        self.free_count -= 1;
        Ok(())
    }

    /// Shows the hardware what was added, and returns whether it wants a kick for that.
    pub(super) fn publish<M: Memory + ?Sized>(&mut self, mem: &M) -> Result<bool, RelayError> {
        let since = self.avail.wrapping_sub(self.published);
        if since == 0 {
            return Ok(false);
        }
        self.store(mem, self.layout.driver() + IDX, self.avail)?;
        self.published = self.avail;
        // The hardware asks for a kick and then looks at the index again; this is the other half.
        mem.fence();
        if self.event_index {
            let event = self.load(mem, self.avail_event())?;
            let ahead = self.avail.wrapping_sub(event);
            return Ok(window::passed(ahead.into(), since.into()));
        }
        Ok(self.load(mem, self.layout.device() + FLAGS)? & NO_NOTIFY == 0)
    }

    /// Takes the next chain that the hardware used.
    pub(super) fn used<M: Memory + ?Sized>(&mut self, mem: &M) -> Result<Option<Used>, RelayError> {
        if self.device_used == self.used {
            let index = self.load(mem, self.layout.device() + IDX)?;
            let pending = index.wrapping_sub(self.used);
            if pending > self.published.wrapping_sub(self.used) {
                return Err(RelayError::UsedIndex(pending));
            }
            self.device_used = index;
            if pending == 0 {
                return Ok(None);
            }
        }
        let mut bytes = [0; 8];
        let place = self.layout.device() + RING + 8 * self.layout.place(self.used);
        mem.read(place, &mut bytes).map_err(RelayError::Shadow)?;
        let [i0, i1, i2, i3, l0, l1, l2, l3] = bytes;
        let id = self.order.read_u32([i0, i1, i2, i3]);
        let head = u16::try_from(id).map_err(|_| RelayError::UsedId(id))?;
        let entry = self.entries.get_mut(usize::from(head));
        let chain = entry.and_then(|entry| entry.chain.take());
        self.used = self.used.wrapping_add(1);
        Ok(Some(Used {
            chain: chain.ok_or(RelayError::UsedId(id))?,
            head,
            written: self.order.read_u32([l0, l1, l2, l3]),
        }))
    }

    /// The addresses and lengths in bytes of the descriptors of the chain `head`, in order.
    pub(super) fn pieces(&self, head: u16) -> impl Iterator<Item = (u64, u32)> + '_ {
        let mut at = head;
        core::iter::from_fn(move || {
            let entry = self.entries.get(usize::from(at))?;
            at = entry.next;
            Some((entry.addr, entry.len))
        })
    }

    /// Makes the descriptors of a chain free that was used.
    pub(super) fn release(&mut self, head: u16) {
        let mut at = head;
        // A chain ends after as many descriptors as there are, at the latest.
        for _ in 0..self.layout.size {
            let free = self.free;
            let Some(entry) = self.entries.get_mut(usize::from(at)) else {
                return;
            };
            let next = core::mem::replace(&mut entry.next, free);
            self.free = at;
            self.free_count += 1;
            at = next;
        }
    }

    /// Takes back all that the hardware has not used, which stands still and is to see nothing of
    /// it when it goes on.
    pub(super) fn rewind<M: Memory + ?Sized>(&mut self, mem: &M) -> Result<(), RelayError> {
        self.free_all();
        self.avail = self.used;
        self.published = self.used;
        // As when it starts: what the hardware wanted may lie ahead now.
        self.store(mem, self.avail_event(), self.avail)?;
        self.store(mem, self.layout.driver() + IDX, self.avail)
    }

    /// Tells the hardware that no interrupts are needed.
    pub(super) fn disable_interrupts<M: Memory + ?Sized>(&self, mem: &M) -> Result<(), RelayError> {
        if self.event_index {
            // As far away as can be.
            return self.store(mem, self.used_event(), self.used.wrapping_sub(1));
        }
        self.store(mem, self.layout.driver() + FLAGS, NO_INTERRUPT)
    }

    /// Asks the hardware for an interrupt for the next chain that it uses, and returns whether it
    /// used one already, for which none may come.
    pub(super) fn enable_interrupts<M: Memory + ?Sized>(
        &mut self,
        mem: &M,
    ) -> Result<bool, RelayError> {
        if self.event_index {
            self.store(mem, self.used_event(), self.used)?;
        } else {
            self.store(mem, self.layout.driver() + FLAGS, 0)?;
        }
        mem.fence();
        Ok(self.load(mem, self.layout.device() + IDX)? != self.used)
    }
}
