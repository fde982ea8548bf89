// SPDX-License-Identifier: GPL-2.0

//! Which slots of the command queue are free, and which are not.
//!
//! ```text
//!   free ──take──> busy ──complete──> done ──release──> free
//!                   │                  │
//!                   └─────── lose ─────┴──────────────> lost
//! ```
//!
//! A slot whose command did not come back in time is lost: the firmware may still write to what
//! the command was given. It is not used again in this life of the queue.

/// What a slot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Any command but those that move pages.
    General,
    /// Commands that give or take pages: all others may be waiting for those. It is the last slot.
    Pages,
}

/// The slots of a command queue: a bit for each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slots {
    all: u32,
    busy: u32,
    done: u32,
    lost: u32,
}

impl Slots {
    /// The slots of a queue of `1 << log_size` entries, all free; `None` if that is not a queue:
    /// there are two lanes, and the doorbell has 32 bits.
    pub(crate) fn new(log_size: u8) -> Option<Self> {
        if !(1..=5).contains(&log_size) {
            return None;
        }
        Some(Self {
            all: u32::MAX >> (32 - (1 << log_size)),
            busy: 0,
            done: 0,
            lost: 0,
        })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.all.count_ones() as usize
    }

    fn lane(&self, lane: Lane) -> u32 {
        let general = self.all >> 1;
        match lane {
            Lane::General => general,
            Lane::Pages => self.all ^ general,
        }
    }

    /// Takes a free slot.
    pub(crate) fn take(&mut self, lane: Lane) -> Option<u8> {
        let free = self.lane(lane) & !(self.busy | self.done | self.lost);
        if free == 0 {
            return None;
        }
        let slot = free.trailing_zeros();
        self.busy |= 1 << slot;
        Some(slot as u8)
    }

    /// Returns whether there is a free slot.
    pub(crate) fn is_free(&self, lane: Lane) -> bool {
        self.lane(lane) & !(self.busy | self.done | self.lost) != 0
    }

    /// Returns whether there is a slot that is not lost.
    pub(crate) fn is_usable(&self, lane: Lane) -> bool {
        self.lane(lane) & !self.lost != 0
    }

    /// Commands are complete, a bit for each. Bits of slots that have none change nothing.
    pub(crate) fn complete(&mut self, slots: u32) {
        let slots = slots & self.busy;
        self.busy &= !slots;
        self.done |= slots;
    }

    /// Which slots hold commands that are not complete.
    pub(crate) fn busy(&self) -> u32 {
        self.busy
    }

    /// Which slots hold commands that are complete.
    pub(crate) fn done(&self) -> u32 {
        self.done
    }

    /// The outcome of a complete command was taken.
    pub(crate) fn release(&mut self, slot: u8) {
        self.done &= !(1 << slot);
    }

    /// The command never reached the firmware.
    pub(crate) fn withdraw(&mut self, slot: u8) {
        self.busy &= !(1 << slot);
    }

    /// The command will not be complete.
    pub(crate) fn lose(&mut self, slot: u8) {
        let bit = 1 << slot;
        if (self.busy | self.done) & bit != 0 {
            self.busy &= !bit;
            self.done &= !bit;
            self.lost |= bit;
        }
    }

    /// How many slots were lost.
    pub(crate) fn lost(&self) -> u32 {
        self.lost.count_ones()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_slots_are_given_once() {
        let mut slots = Slots::new(5).unwrap();
        let mut seen = 0u32;
        while let Some(slot) = slots.take(Lane::General) {
            assert_eq!(seen & (1 << slot), 0);
            seen |= 1 << slot;
        }
        assert_eq!(seen, 0x7fff_ffff);
        assert!(!slots.is_free(Lane::General) && slots.is_free(Lane::Pages));
        assert_eq!(slots.take(Lane::Pages), Some(31));
        assert_eq!(slots.take(Lane::Pages), None);
        assert_eq!((slots.busy(), slots.len()), (u32::MAX, 32));
    }

    #[test]
    fn a_slot_is_free_when_its_outcome_was_taken() {
        let mut slots = Slots::new(1).unwrap();
        assert_eq!(slots.take(Lane::General), Some(0));
        assert_eq!(slots.take(Lane::General), None);
        slots.complete(0b11);
        assert_eq!((slots.busy(), slots.done()), (0, 1));
        assert_eq!(slots.take(Lane::General), None);
        slots.release(0);
        assert_eq!(slots.take(Lane::General), Some(0));
        slots.withdraw(0);
        assert!(slots.is_free(Lane::General));
    }

    #[test]
    fn what_is_lost_stays_so() {
        let mut slots = Slots::new(2).unwrap();
        let slot = slots.take(Lane::General).unwrap();
        slots.lose(slot);
        slots.complete(u32::MAX);
        assert_eq!((slots.busy(), slots.done(), slots.lost()), (0, 0, 1));
        assert_eq!(slots.take(Lane::General), Some(1));
        assert_eq!(slots.take(Lane::General), Some(2));
        assert_eq!(slots.take(Lane::General), None);
        slots.lose(1);
        assert!(slots.is_usable(Lane::General));
        slots.lose(2);
        slots.lose(2);
        assert!(!slots.is_usable(Lane::General) && slots.is_usable(Lane::Pages));
        assert_eq!(slots.lost(), 3);
    }

    #[test]
    fn what_is_no_queue_is_refused() {
        assert!(Slots::new(0).is_none());
        assert!(Slots::new(6).is_none());
        assert_eq!(Slots::new(1).unwrap().len(), 2);
    }
}
