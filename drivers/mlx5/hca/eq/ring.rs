// SPDX-License-Identifier: GPL-2.0

//! Where the driver stands in an event queue.

use prm::{
    eq::Eqe,
    layout::bits,
    uar::EqDoorbell,
    Layout, //
};

/// The bytes of an entry; the owner is the last of them.
pub(crate) const ENTRY: usize = size_of::<Eqe>();
pub(crate) const OWNER: usize = ENTRY - 1;

/// The bytes of the largest queue are those of a page: that many events wait nowhere.
const LOG_MOST: u8 = 20;

/// Where the driver stands in a queue of `1 << log_size` entries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ring {
    log_size: u8,
    consumed: u32,
}

impl Ring {
    /// A queue that is new; `None` if there can be no such queue.
    pub(crate) fn new(log_size: u8) -> Option<Self> {
        (log_size <= LOG_MOST).then_some(Self {
            log_size,
            consumed: 0,
        })
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        1 << self.log_size
    }

    /// A quarter of that, or one: after so many entries the firmware is told how far it was read.
    pub(crate) fn quarter(&self) -> usize {
        (self.len() / 4).max(1)
    }

    /// The offset of the next entry.
    pub(crate) fn place(&self) -> usize {
        let index = self.consumed & ((1 << self.log_size) - 1);
        index as usize * ENTRY
    }

    /// Returns whether the next entry is the driver's, by its owner byte: the firmware flips a bit
    /// with each turn around the queue.
    pub(crate) fn is_new(&self, owner: u8) -> bool {
        u32::from(owner & 1) == (self.consumed >> self.log_size) & 1
    }

    /// The owner byte of entries that no turn has come to.
    pub(crate) const NOT_WRITTEN: u8 = 1;

    /// The next entry was read.
    pub(crate) fn advance(&mut self) {
        self.consumed = self.consumed.wrapping_add(1);
    }

    /// What to write to a doorbell to say how far queue `eqn` was read.
    pub(crate) fn doorbell(&self, eqn: u8) -> u32 {
        let mut doorbell = EqDoorbell::new();
        doorbell
            .set_eqn(eqn)
            .set_consumer_counter(self.consumed & 0xff_ffff);
        let bytes: &[u8] = zerocopy::IntoBytes::as_bytes(&doorbell);
        // It is a word of 32 bits.
        bits(bytes, 0, 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_flips_with_each_turn() {
        let mut ring = Ring::new(2).unwrap();
        assert!(!ring.is_new(Ring::NOT_WRITTEN));
        for turn in 0..4u8 {
            for index in 0..4 {
                assert_eq!(ring.place(), index * ENTRY);
                assert!(ring.is_new(turn & 1) && !ring.is_new(turn & 1 ^ 1));
                ring.advance();
            }
        }
        assert_eq!(ring.len(), 4);
        assert_eq!(ring.doorbell(0xab), 0xab00_0010);
    }

    #[test]
    fn a_counter_wraps() {
        let mut ring = Ring::new(0).unwrap();
        ring.consumed = u32::MAX;
        assert_eq!(ring.doorbell(1), 0x01ff_ffff);
        ring.advance();
        assert_eq!((ring.doorbell(1), ring.place()), (0x0100_0000, 0));
        assert!(Ring::new(21).is_none());
    }
}
