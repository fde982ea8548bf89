// SPDX-License-Identifier: GPL-2.0

//! Which slots of the command queue are free, and which are not.
//!
//! ```text
//!   free ──take──> taken ──send──> busy ──complete──> done ──release──> free
//!                                   │                  │                  ^
//!                                   └─────── lose ─────┴──> lost ──find───┘
//! ```
//!
//! A slot is busy once its command is written: until then it says that the last one is complete, as
//! an event that comes late may.
//!
//! A slot whose command did not come back in time is lost: the firmware may still write to what
//! the command was given. It is not used again until the command came back after all.

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
    taken: u32,
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
            taken: 0,
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

    fn free(&self, lane: Lane) -> u32 {
        self.lane(lane) & !(self.taken | self.busy | self.done | self.lost)
    }

    /// Takes a free slot, to write a command into it.
    pub(crate) fn take(&mut self, lane: Lane) -> Option<u8> {
        let free = self.free(lane);
        if free == 0 {
            return None;
        }
        let slot = free.trailing_zeros();
        self.taken |= 1 << slot;
        Some(slot as u8)
    }

    /// The commands of taken slots are written, and the firmware is about to be told, a bit for
    /// each.
    pub(crate) fn send(&mut self, slots: u32) {
        let slots = slots & self.taken;
        self.taken &= !slots;
        self.busy |= slots;
    }

    /// Returns whether there is a free slot.
    pub(crate) fn is_free(&self, lane: Lane) -> bool {
        self.free(lane) != 0
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

    /// No command was written into a taken slot.
    pub(crate) fn withdraw(&mut self, slot: u8) {
        self.taken &= !(1 << slot);
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

    /// Which slots are lost.
    pub(crate) fn lost(&self) -> u32 {
        self.lost
    }

    /// Commands of lost slots came back, a bit for each.
    pub(crate) fn find(&mut self, slots: u32) {
        self.lost &= !slots;
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
        slots.send(u32::MAX);
        assert_eq!((slots.busy(), slots.len()), (u32::MAX, 32));
    }

    #[test]
    fn a_slot_is_free_when_its_outcome_was_taken() {
        let mut slots = Slots::new(1).unwrap();
        assert_eq!(slots.take(Lane::General), Some(0));
        assert_eq!(slots.take(Lane::General), None);
        slots.send(0b11);
        slots.complete(0b11);
        assert_eq!((slots.busy(), slots.done()), (0, 1));
        assert_eq!(slots.take(Lane::General), None);
        slots.release(0);
        assert_eq!(slots.take(Lane::General), Some(0));
        slots.withdraw(0);
        assert!(slots.is_free(Lane::General));
    }

    #[test]
    fn a_late_event_completes_no_command_that_was_not_sent() {
        let mut slots = Slots::new(1).unwrap();
        let slot = slots.take(Lane::General).unwrap();
        slots.complete(u32::MAX);
        assert_eq!((slots.busy(), slots.done()), (0, 0));
        slots.withdraw(slot);
        assert!(slots.is_free(Lane::General));
        slots.take(Lane::General).unwrap();
        slots.send(1 << slot);
        slots.complete(u32::MAX);
        assert_eq!((slots.busy(), slots.done()), (0, 1));
    }

    #[test]
    fn what_is_lost_stays_so_until_it_is_found() {
        let mut slots = Slots::new(2).unwrap();
        let slot = slots.take(Lane::General).unwrap();
        slots.send(1 << slot);
        slots.lose(slot);
        slots.complete(u32::MAX);
        assert_eq!((slots.busy(), slots.done(), slots.lost()), (0, 0, 0b1));
        assert_eq!(slots.take(Lane::General), Some(1));
        assert_eq!(slots.take(Lane::General), Some(2));
        assert_eq!(slots.take(Lane::General), None);
        slots.send(0b110);
        slots.lose(1);
        slots.lose(2);
        slots.lose(2);
        assert!(!slots.is_free(Lane::General) && slots.is_free(Lane::Pages));
        assert_eq!(slots.lost(), 0b111);
        slots.find(0b10);
        assert_eq!(slots.lost(), 0b101);
        assert_eq!(slots.take(Lane::General), Some(1));
        assert_eq!(slots.take(Lane::General), None);
    }

    #[test]
    fn what_is_no_queue_is_refused() {
        assert!(Slots::new(0).is_none());
        assert!(Slots::new(6).is_none());
        assert_eq!(Slots::new(1).unwrap().len(), 2);
    }
}
