// SPDX-License-Identifier: GPL-2.0
//! The split layout (virtio 1.3, 2.7).
//!
//! ```text
//! desc:    { addr: u64, len: u32, flags: u16, next: u16 } [size]
//! driver:  { flags: u16, idx: u16, ring: u16 [size], used_event: u16 }
//! device:  { flags: u16, idx: u16, ring: { id: u32, len: u32 } [size], avail_event: u16 }
//! ```

use crate::memory::Memory;

use super::{
    chain::{
        Descriptor,
        Gather,
        Rules,
        DESC_SIZE,
        INDIRECT,
        NEXT, //
    },
    flight::Taken,
    window,
    Config,
    RingError,
    State, //
};

/// `flags` of the available ring: no used buffer notifications.
pub(crate) const NO_INTERRUPT: u16 = 1;
/// `flags` of the used ring: no available buffer notifications.
pub(crate) const NO_NOTIFY: u16 = 1;

/// Offsets in the available and the used ring.
pub(crate) const FLAGS: u64 = 0;
pub(crate) const IDX: u64 = 2;
pub(crate) const RING: u64 = 4;

/// How many entries of the available ring are read at once.
const AHEAD: usize = 16;

/// Where a split virtqueue stands.
pub(super) struct Split {
    /// The next entry of the available ring to take.
    avail: u16,
    /// The driver's index when it was last read.
    driver_avail: u16,
    /// The next entry of the used ring to write.
    used: u16,
    /// The index that the driver can see.
    published: u16,
    /// Entries of the available ring that were read ahead.
    ahead: [u16; AHEAD],
    /// The index of the first of them.
    ahead_start: u16,
    ahead_count: u16,
}

impl Split {
    pub(super) fn new(avail: u16, used: u16) -> Self {
        Self {
            avail,
            driver_avail: avail,
            used,
            published: used,
            ahead: [0; AHEAD],
            ahead_start: avail,
            ahead_count: 0,
        }
    }

    pub(super) fn state(&self) -> State {
        State::Split {
            avail: self.avail,
            used: self.published,
        }
    }

    /// How many entries are written that the driver cannot see.
    #[inline]
    pub(super) fn unpublished(&self) -> u16 {
        self.used.wrapping_sub(self.published)
    }

    /// The place of entry `index` in a ring. Sizes are powers of two.
    #[inline]
    fn place(config: &Config, index: u16) -> u64 {
        u64::from(index & (config.size - 1))
    }

    #[inline]
    pub(super) fn has_available<M: Memory + ?Sized>(
        &mut self,
        config: &Config,
        mem: &M,
    ) -> Result<bool, RingError> {
        if self.driver_avail != self.avail {
            return Ok(true);
        }
        let index = config
            .byte_order
            .swap_u16(mem.load_u16(config.driver.wrapping_add(IDX))?);
        let pending = index.wrapping_sub(self.avail);
        if pending > config.size {
            return Err(RingError::AvailableIndex(pending));
        }
        self.driver_avail = index;
        Ok(pending != 0)
    }

    /// Returns the next entry of the available ring, of which there is at least one.
    #[inline]
    fn head<M: Memory + ?Sized>(&mut self, config: &Config, mem: &M) -> Result<u16, RingError> {
        let offset = self.avail.wrapping_sub(self.ahead_start);
        if offset >= self.ahead_count {
            self.read_ahead(config, mem)?;
            return Ok(self.ahead[0]);
        }
        // Within `ahead_count`, thus within the array.
        Ok(self.ahead.get(usize::from(offset)).copied().unwrap_or(0))
    }

    /// Reads entries of the available ring from the next one to take on, up to the driver's index
    /// and the end of the ring.
    fn read_ahead<M: Memory + ?Sized>(
        &mut self,
        config: &Config,
        mem: &M,
    ) -> Result<(), RingError> {
        let place = Self::place(config, self.avail);
        let count = usize::from(self.driver_avail.wrapping_sub(self.avail))
            .min(AHEAD)
            .min(usize::from(config.size).saturating_sub(place as usize));
        let mut bytes = [[0; 2]; AHEAD];
        if let Some(bytes) = bytes.as_flattened_mut().get_mut(..2 * count) {
            mem.read(config.driver.wrapping_add(RING + 2 * place), bytes)?;
        }
        for (entry, bytes) in self.ahead.iter_mut().zip(bytes) {
            *entry = config.byte_order.read_u16(bytes);
        }
        self.ahead_start = self.avail;
        self.ahead_count = count as u16;
        Ok(())
    }

    /// Reads the next available chain without taking it.
    #[inline]
    pub(super) fn peek<M: Memory + ?Sized>(
        &mut self,
        config: &Config,
        rules: Rules,
        mem: &M,
        room: u16,
        gather: &mut Gather<'_>,
    ) -> Result<Option<Taken>, RingError> {
        if !self.has_available(config, mem)? {
            return Ok(None);
        }
        if room == 0 {
            return Err(RingError::TooManyInFlight);
        }
        let head = self.head(config, mem)?;
        let mut index = head;
        for _ in 0..config.size {
            if index >= config.size {
                return Err(RingError::DescriptorIndex(index));
            }
            let mut bytes = [0; DESC_SIZE];
            let at = u64::from(index) * DESC_SIZE as u64;
            mem.read(config.desc.wrapping_add(at), &mut bytes)?;
            let desc = Descriptor::split(rules.byte_order, &bytes);
            if desc.has(INDIRECT) {
                gather.linked_table(rules, mem, &desc)?;
            } else {
                gather.push(&desc)?;
                if desc.has(NEXT) {
                    index = desc.link;
                    continue;
                }
            }
            return Ok(Some(Taken {
                id: head,
                entries: 1,
            }));
        }
        Err(RingError::Loop)
    }

    /// Takes `entries` entries of the available ring.
    #[inline]
    pub(super) fn advance(&mut self, _config: &Config, entries: u16) {
        self.avail = self.avail.wrapping_add(entries);
    }

    /// Puts `entries` entries back.
    pub(super) fn retreat(&mut self, _config: &Config, entries: u16) {
        self.avail = self.avail.wrapping_sub(entries);
    }

    /// Writes a used entry that stands for `entries` of them: more than one with IN_ORDER only,
    /// when the entry of the last one is written and the rest skipped.
    #[inline]
    pub(super) fn put_used<M: Memory + ?Sized>(
        &mut self,
        config: &Config,
        mem: &M,
        id: u16,
        written: u32,
        entries: u16,
    ) -> Result<(), RingError> {
        let [i0, i1, i2, i3] = config.byte_order.write_u32(u32::from(id));
        let [l0, l1, l2, l3] = config.byte_order.write_u32(written);
        let offset = RING + 8 * Self::place(config, self.used);
        mem.write(
            config.device.wrapping_add(offset),
            &[i0, i1, i2, i3, l0, l1, l2, l3],
        )?;
        self.used = self.used.wrapping_add(entries);
        Ok(())
    }

    /// Shows the driver the used entries written, and returns how many became visible.
    #[inline]
    pub(super) fn publish<M: Memory + ?Sized>(
        &mut self,
        config: &Config,
        mem: &M,
    ) -> Result<u16, RingError> {
        let entries = self.unpublished();
        if entries != 0 {
            mem.store_u16(
                config.device.wrapping_add(IDX),
                config.byte_order.swap_u16(self.used),
            )?;
            self.published = self.used;
        }
        Ok(entries)
    }

    /// Returns whether the driver wants to know of the last `since` entries published.
    #[inline]
    pub(super) fn notification_wanted<M: Memory + ?Sized>(
        &mut self,
        config: &Config,
        mem: &M,
        since: u32,
    ) -> Result<bool, RingError> {
        // The driver may have added more meanwhile; one notification too many does no harm.
        if config.options.notify_on_empty && self.avail == self.driver_avail {
            return Ok(true);
        }
        if config.options.event_index {
            let used_event = RING + 2 * u64::from(config.size);
            let event = config
                .byte_order
                .swap_u16(mem.load_u16(config.driver.wrapping_add(used_event))?);
            let ahead = self.published.wrapping_sub(event);
            return Ok(window::passed(u32::from(ahead), since));
        }
        let flags = mem.load_u16(config.driver.wrapping_add(FLAGS))?;
        Ok(config.byte_order.swap_u16(flags) & NO_INTERRUPT == 0)
    }

    #[inline]
    pub(super) fn disable_kicks<M: Memory + ?Sized>(
        &mut self,
        config: &Config,
        mem: &M,
    ) -> Result<(), RingError> {
        if config.options.event_index {
            return Ok(());
        }
        let flags = config.byte_order.swap_u16(NO_NOTIFY);
        Ok(mem.store_u16(config.device.wrapping_add(FLAGS), flags)?)
    }

    /// Asks for a kick for the next entry. `fresh` says that kicks are not enabled already.
    #[inline]
    pub(super) fn enable_kicks<M: Memory + ?Sized>(
        &mut self,
        config: &Config,
        mem: &M,
        fresh: bool,
    ) -> Result<(), RingError> {
        if config.options.event_index {
            let avail_event = RING + 8 * u64::from(config.size);
            mem.store_u16(
                config.device.wrapping_add(avail_event),
                config.byte_order.swap_u16(self.avail),
            )?;
        } else if fresh {
            mem.store_u16(config.device.wrapping_add(FLAGS), 0)?;
        }
        Ok(())
    }
}
