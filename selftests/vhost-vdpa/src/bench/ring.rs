// SPDX-License-Identifier: GPL-2.0
//! The driver's side of a split ring whose buffers never change, so that adding one is a single
//! store. Tests use the `driver` crate, which checks what the device does; here that would take
//! longer than what is measured.

use driver::Region;

/// Bytes of a descriptor.
const DESC: u64 = 16;
/// Flag of a descriptor: for the device to write.
const WRITE: u16 = 2;
/// Flag that stops kicks or interrupts.
const QUIET: u16 = 1;

/// A split ring, little-endian, each of whose descriptors stands for one buffer.
pub(super) struct Ring {
    region: Region,
    size: u16,
    event_index: bool,
    /// Where the areas are.
    pub(super) desc: u64,
    pub(super) driver: u64,
    pub(super) device: u64,
    /// The next entry of the available ring, and the one up to which the device was told.
    avail: u16,
    published: u16,
    /// The next entry of the used ring, and the one up to which the device was seen to be.
    used: u16,
    seen: u16,
}

impl Ring {
    /// Makes a ring of `size` entries at the start of `region`, with as many `buffers` (address
    /// and length) as there are, for the device to write or to read.
    pub(super) fn new(
        region: &Region,
        size: u16,
        event_index: bool,
        writable: bool,
        buffers: impl Iterator<Item = (u64, u32)>,
    ) -> Self {
        let desc = region.base();
        let driver = desc + DESC * u64::from(size);
        // Behind the flags, the index, the ring and the event.
        let device = (driver + 6 + 2 * u64::from(size)).next_multiple_of(4);
        let flags = if writable { WRITE } else { 0 };
        for (at, (addr, len)) in (desc..).step_by(DESC as usize).zip(buffers) {
            region.write(at, &addr.to_le_bytes());
            region.write(at + 8, &len.to_le_bytes());
            region.write(at + 12, &flags.to_le_bytes());
        }
        Self {
            region: region.clone(),
            size,
            event_index,
            desc,
            driver,
            device,
            avail: 0,
            published: 0,
            used: 0,
            seen: 0,
        }
    }

    /// The place of entry `index`. Sizes are powers of two.
    fn place(&self, index: u16) -> u64 {
        u64::from(index & (self.size - 1))
    }

    /// Makes buffer `id` available, to be published.
    pub(super) fn add(&mut self, id: u16) {
        let at = self.driver + 4 + 2 * self.place(self.avail);
        self.region.store_u16(at, id.to_le());
        self.avail = self.avail.wrapping_add(1);
    }

    /// Shows the device what was added. Returns whether it wants a kick.
    pub(super) fn publish(&mut self) -> bool {
        if self.avail == self.published {
            return false;
        }
        self.region.store_u16(self.driver + 2, self.avail.to_le());
        self.region.fence();
        let old = std::mem::replace(&mut self.published, self.avail);
        if !self.event_index {
            return u16::from_le(self.region.load_u16(self.device)) & QUIET == 0;
        }
        let at = self.device + 4 + 8 * u64::from(self.size);
        let event = u16::from_le(self.region.load_u16(at));
        // virtio 1.3, 2.7.10: whether the event is among what was just published.
        self.avail.wrapping_sub(event).wrapping_sub(1) < self.avail.wrapping_sub(old)
    }

    fn look(&mut self) -> bool {
        self.seen = u16::from_le(self.region.load_u16(self.device + 2));
        self.seen != self.used
    }

    /// Takes the next buffer that the device used.
    pub(super) fn used(&mut self) -> Option<u16> {
        if self.seen == self.used && !self.look() {
            return None;
        }
        let at = self.device + 4 + 8 * self.place(self.used);
        self.used = self.used.wrapping_add(1);
        Some(u16::from_le(self.region.load_u16(at)))
    }

    /// Asks for an interrupt for the next used buffer. Returns whether there is one already.
    pub(super) fn enable_interrupts(&mut self) -> bool {
        if self.event_index {
            let at = self.driver + 4 + 2 * u64::from(self.size);
            self.region.store_u16(at, self.used.to_le());
        } else {
            self.region.store_u16(self.driver, 0);
        }
        self.region.fence();
        self.look()
    }

    /// Asks for no interrupts, if the device listens to that. With an event index it needs no
    /// asking: the last event lies behind.
    pub(super) fn disable_interrupts(&mut self) {
        if !self.event_index {
            self.region.store_u16(self.driver, QUIET.to_le());
        }
    }
}
