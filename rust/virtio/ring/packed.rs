// SPDX-License-Identifier: GPL-2.0
//! The packed layout (virtio 1.3, 2.8).
//!
//! ```text
//! desc:    { addr: u64, len: u32, id: u16, flags: u16 } [size]
//! driver:  { off_wrap: u16, flags: u16 }
//! device:  { off_wrap: u16, flags: u16 }
//! ```

use crate::memory::Memory;

use super::{
    chain::{
        Descriptor,
        Gather,
        Rules,
        DESC_SIZE,
        INDIRECT,
        NEXT,
        WRITE, //
    },
    flight::Taken,
    window,
    Config,
    RingError,
    State, //
};

/// Descriptor flags that, compared with the wrap counter, say whether it is available or used.
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// Offsets in a descriptor.
const DESC_LEN: u64 = 8;
const DESC_FLAGS: usize = 14;

/// Offsets in an event suppression structure.
const EVENT_OFF_WRAP: u64 = 0;
const EVENT_FLAGS: u64 = 2;

/// `flags` of an event suppression structure: notify always, never, or of one descriptor.
const EVENT_ENABLE: u16 = 0;
const EVENT_DISABLE: u16 = 1;
const EVENT_DESC: u16 = 2;
const EVENT_MASK: u16 = 3;

/// A place in a packed ring: an index, and the wrap counter that tells one round from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The index of a descriptor.
    pub index: u16,
    /// The ring wrap counter: 1 at first, and changed each time the index returns to 0.
    pub wrap: bool,
}

impl Position {
    /// Where a ring starts.
    pub const START: Self = Self {
        index: 0,
        wrap: true,
    };

    /// Takes a position apart that has the wrap counter in bit 15.
    pub const fn from_bits(bits: u16) -> Self {
        Self {
            index: bits & 0x7fff,
            wrap: bits & 0x8000 != 0,
        }
    }

    /// Returns the position in one word, with the wrap counter in bit 15.
    pub const fn bits(self) -> u16 {
        self.index | if self.wrap { 0x8000 } else { 0 }
    }

    /// The position `entries` further in a ring of `size`, which they do not exceed.
    #[inline]
    fn plus(self, entries: u16, size: u16) -> Self {
        let index = u32::from(self.index) + u32::from(entries);
        let size = u32::from(size);
        if index < size {
            Self {
                index: index as u16,
                wrap: self.wrap,
            }
        } else {
            Self {
                index: (index - size) as u16,
                wrap: !self.wrap,
            }
        }
    }

    /// The position `entries` back in a ring of `size`, which they do not exceed.
    #[inline]
    fn minus(self, entries: u16, size: u16) -> Self {
        // A whole round forward changes the wrap counter, and so does a whole round back.
        Self {
            wrap: !self.wrap,
            ..self
        }
        .plus(size - entries, size)
    }

    /// How many entries `other` must go forward to reach this position, at most two rounds.
    #[inline]
    fn after(self, other: Self, size: u16) -> u32 {
        let line = |at: Self| u32::from(at.index) + if at.wrap { 0 } else { u32::from(size) };
        let (to, from) = (line(self), line(other));
        if to >= from {
            to - from
        } else {
            to + 2 * u32::from(size) - from
        }
    }

    /// The address of the descriptor.
    #[inline]
    fn addr(self, config: &Config) -> u64 {
        config
            .desc
            .wrapping_add(u64::from(self.index) * DESC_SIZE as u64)
    }
}

/// Where a packed virtqueue stands.
pub(super) struct Packed {
    /// Where the next available descriptor is looked for.
    avail: Position,
    /// Where the next used descriptor is written.
    used: Position,
    /// Where the driver looks for the next used descriptor.
    published: Position,
    /// The flags that make the descriptor at `published` used, and all that follow with it. They
    /// are written last.
    first: Option<u16>,
    /// Entries between `published` and `used`.
    unpublished: u16,
}

impl Packed {
    pub(super) fn new(avail: Position, used: Position) -> Self {
        Self {
            avail,
            used,
            published: used,
            first: None,
            unpublished: 0,
        }
    }

    pub(super) fn state(&self) -> State {
        State::Packed {
            avail: self.avail,
            used: self.published,
        }
    }

    /// How many entries are written that the driver cannot see.
    #[inline]
    pub(super) fn unpublished(&self) -> u16 {
        self.unpublished
    }

    /// Returns the flags of the next descriptor if it is available.
    #[inline]
    fn available_flags<M: Memory + ?Sized>(
        &self,
        config: &Config,
        mem: &M,
    ) -> Result<Option<u16>, RingError> {
        let addr = self.avail.addr(config).wrapping_add(DESC_FLAGS as u64);
        let flags = config.byte_order.swap_u16(mem.load_u16(addr)?);
        let avail = flags & AVAIL != 0;
        let used = flags & USED != 0;
        Ok((avail == self.avail.wrap && used != self.avail.wrap).then_some(flags))
    }

    #[inline]
    pub(super) fn has_available<M: Memory + ?Sized>(
        &mut self,
        config: &Config,
        mem: &M,
    ) -> Result<bool, RingError> {
        Ok(self.available_flags(config, mem)?.is_some())
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
        let Some(head_flags) = self.available_flags(config, mem)? else {
            return Ok(None);
        };
        let mut at = self.avail;
        for entries in 1..=room {
            let mut bytes = [0; DESC_SIZE];
            let mut desc;
            if entries == 1 {
                // The flags were read already, by the load that the rest must follow.
                if let Some(bytes) = bytes.get_mut(..DESC_FLAGS) {
                    mem.read(at.addr(config), bytes)?;
                }
                desc = Descriptor::packed(rules.byte_order, &bytes);
                desc.flags = head_flags;
            } else {
                mem.read(at.addr(config), &mut bytes)?;
                desc = Descriptor::packed(rules.byte_order, &bytes);
            }
            if desc.has(INDIRECT) {
                gather.whole_table(rules, mem, &desc)?;
            } else {
                gather.push(&desc)?;
                if desc.has(NEXT) {
                    at = at.plus(1, config.size);
                    continue;
                }
            }
            return Ok(Some(Taken {
                id: desc.link,
                entries,
            }));
        }
        // Nothing is in flight if there is room for the whole ring.
        Err(if room == config.size {
            RingError::Loop
        } else {
            RingError::TooManyInFlight
        })
    }

    /// Takes `entries` descriptors.
    #[inline]
    pub(super) fn advance(&mut self, config: &Config, entries: u16) {
        self.avail = self.avail.plus(entries, config.size);
    }

    /// Puts `entries` descriptors back.
    pub(super) fn retreat(&mut self, config: &Config, entries: u16) {
        self.avail = self.avail.minus(entries, config.size);
    }

    /// Writes a used descriptor that stands for a buffer of `entries` descriptors, or for a batch
    /// of such.
    #[inline]
    pub(super) fn put_used<M: Memory + ?Sized>(
        &mut self,
        config: &Config,
        mem: &M,
        id: u16,
        written: u32,
        entries: u16,
    ) -> Result<(), RingError> {
        let mut flags = if self.used.wrap { AVAIL | USED } else { 0 };
        if written != 0 {
            flags |= WRITE;
        }
        let order = config.byte_order;
        let [l0, l1, l2, l3] = order.write_u32(written);
        let [i0, i1] = order.write_u16(id);
        let addr = self.used.addr(config).wrapping_add(DESC_LEN);
        if self.unpublished == 0 {
            mem.write(addr, &[l0, l1, l2, l3, i0, i1])?;
            self.first = Some(flags);
        } else {
            let [f0, f1] = order.write_u16(flags);
            mem.write(addr, &[l0, l1, l2, l3, i0, i1, f0, f1])?;
        }
        self.used = self.used.plus(entries, config.size);
        self.unpublished += entries;
        Ok(())
    }

    /// Shows the driver the used descriptors written, and returns how many entries that covers.
    #[inline]
    pub(super) fn publish<M: Memory + ?Sized>(
        &mut self,
        config: &Config,
        mem: &M,
    ) -> Result<u16, RingError> {
        let Some(flags) = self.first else {
            return Ok(0);
        };
        let addr = self.published.addr(config).wrapping_add(DESC_FLAGS as u64);
        mem.store_u16(addr, config.byte_order.swap_u16(flags))?;
        self.first = None;
        self.published = self.used;
        Ok(core::mem::take(&mut self.unpublished))
    }

    /// Returns whether the driver wants to know of the last `since` entries published.
    #[inline]
    pub(super) fn notification_wanted<M: Memory + ?Sized>(
        &mut self,
        config: &Config,
        mem: &M,
        since: u32,
    ) -> Result<bool, RingError> {
        let load = |offset| -> Result<u16, RingError> {
            let raw = mem.load_u16(config.driver.wrapping_add(offset))?;
            Ok(config.byte_order.swap_u16(raw))
        };
        match load(EVENT_FLAGS)? & EVENT_MASK {
            EVENT_DISABLE => Ok(false),
            EVENT_DESC if config.options.event_index => {
                let event = Position::from_bits(load(EVENT_OFF_WRAP)?);
                // A descriptor that does not exist is never used; better one notification too
                // many.
                Ok(event.index >= config.size
                    || window::passed(self.published.after(event, config.size), since))
            }
            _ => Ok(true),
        }
    }

    #[inline]
    pub(super) fn disable_kicks<M: Memory + ?Sized>(
        &mut self,
        config: &Config,
        mem: &M,
    ) -> Result<(), RingError> {
        self.store_event(config, mem, EVENT_FLAGS, EVENT_DISABLE)
    }

    /// Asks for a kick for the next descriptor. `fresh` says that kicks are not enabled already.
    #[inline]
    pub(super) fn enable_kicks<M: Memory + ?Sized>(
        &mut self,
        config: &Config,
        mem: &M,
        fresh: bool,
    ) -> Result<(), RingError> {
        let flags = if config.options.event_index {
            // Before the flags, that the driver may not apply them to an earlier descriptor.
            self.store_event(config, mem, EVENT_OFF_WRAP, self.avail.bits())?;
            EVENT_DESC
        } else {
            EVENT_ENABLE
        };
        if fresh {
            self.store_event(config, mem, EVENT_FLAGS, flags)?;
        }
        Ok(())
    }

    /// Writes a field of the device event suppression structure.
    #[inline]
    fn store_event<M: Memory + ?Sized>(
        &self,
        config: &Config,
        mem: &M,
        offset: u64,
        value: u16,
    ) -> Result<(), RingError> {
        let raw = config.byte_order.swap_u16(value);
        Ok(mem.store_u16(config.device.wrapping_add(offset), raw)?)
    }
}

#[cfg(test)]
mod tests {
    use super::Position;

    #[test]
    fn positions_go_round() {
        for size in [1, 2, 3, 7, 32768] {
            let mut at = Position::START;
            for step in 0..2 * u32::from(size) {
                let wrap = step < u32::from(size);
                let index = (step % u32::from(size)) as u16;
                assert_eq!(at, Position { index, wrap });
                assert_eq!(Position::from_bits(at.bits()), at);
                assert_eq!(at.after(Position::START, size), step);
                at = at.plus(1, size);
            }
            assert_eq!(at, Position::START);
        }
    }

    #[test]
    fn back_undoes_forth() {
        for size in 1..9 {
            for bits in (0..size).flat_map(|index| [index, index | 0x8000]) {
                let at = Position::from_bits(bits);
                for entries in 0..=size {
                    let then = at.plus(entries, size);
                    assert_eq!(then.minus(entries, size), at);
                    assert_eq!(then.after(at, size), entries.into());
                }
            }
        }
    }
}
