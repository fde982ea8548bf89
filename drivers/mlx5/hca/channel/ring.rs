// SPDX-License-Identifier: GPL-2.0

//! Where the driver stands in the completion queue of a channel, and in the receive queue behind it.
//!
//! The two have as many entries, and each completion is of one entry received: as many entries are
//! posted as completions were read, and so a completion always finds room.

use prm::{
    cq::{
        CqRecord,
        Cqe,
        CqeOpcode, //
    },
    layout::bits,
    qp::QpRecord,
    uar::CqDoorbell,
    Layout, //
};

/// The bytes of a completion; who owns it is in the last of them.
pub(crate) const ENTRY: usize = size_of::<Cqe>();
pub(crate) const OWNER: usize = ENTRY - 1;

/// The logarithm of the number of completions, and of entries to receive: as many messages as a
/// virtqueue of the usual size has entries find room before one of them is read.
pub(crate) const LOG_SIZE: u8 = 8;

/// The number of completions, and of entries to receive.
pub(crate) const SIZE: usize = 1 << LOG_SIZE;

/// What the next completion says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// There is none yet.
    Nothing,
    /// A message came.
    Message,
    /// The queue pair failed.
    Error,
}

/// Where the driver stands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ring {
    /// The completions read.
    consumed: u32,
    /// The events that came for them.
    events: u8,
    /// An event came since it was looked last.
    is_told: bool,
    /// When it was looked last there were completions, and no event had come.
    is_untold: bool,
}

impl Ring {
    /// The last byte of completions that no turn has come to.
    pub(crate) const NOT_WRITTEN: u8 = ((CqeOpcode::INVALID as u8) << 4) | 1;

    /// The second word of a completion queue's doorbell record before an event is asked for: as it
    /// is after an event, with a number that is not the first one.
    pub(crate) const NOT_ARMED: u32 = 2 << 28;

    /// The offset of the next completion.
    pub(crate) fn place(&self) -> usize {
        (self.consumed as usize % SIZE) * ENTRY
    }

    /// What the next completion says by its last byte: in it is a bit that the firmware flips with
    /// each turn around the queue.
    pub(crate) fn next(&self, last: u8) -> Next {
        let turn = (self.consumed >> LOG_SIZE) & 1;
        if u32::from(last & 1) != turn || last >> 4 == CqeOpcode::INVALID as u8 {
            return Next::Nothing;
        }
        match CqeOpcode::try_from(last >> 4) {
            Ok(CqeOpcode::REQ_ERR | CqeOpcode::RESP_ERR) => Next::Error,
            // By which kind of message it is told is the firmware's business.
            _ => Next::Message,
        }
    }

    /// The next completion was read.
    pub(crate) fn advance(&mut self) {
        self.consumed = self.consumed.wrapping_add(1);
    }

    /// An event came. The firmware counts them as well, and does not listen to who asks for one that
    /// was sent already.
    pub(crate) fn count_event(&mut self) {
        self.events = (self.events + 1) % 4;
        self.is_told = true;
    }

    /// It was looked, as is done every second, whether there are completions that no event told of:
    /// `any` says so.
    ///
    /// An event may be on its way yet. If none came until the next look, the firmware does not
    /// listen, for it counts otherwise: events that were lost. Asked with other numbers in turn, it
    /// does.
    pub(crate) fn look(&mut self, any: bool) {
        if self.is_untold && !self.is_told {
            self.events = (self.events + 1) % 4;
        }
        self.is_untold = any && !self.is_told;
        self.is_told = false;
    }

    /// What to write to the first word of the completion queue's doorbell record: how far it was
    /// read.
    pub(crate) fn consumed(&self) -> u32 {
        let mut record = CqRecord::new();
        record.set_consumer_counter(self.counter());
        word(&record, 0)
    }

    /// What to write to its second word before an event is asked for.
    pub(crate) fn armed(&self) -> u32 {
        let mut record = CqRecord::new();
        record
            .set_arm_sn(self.events)
            .set_arm_counter(self.counter());
        word(&record, 32)
    }

    /// What to write to the doorbell of completion queues, to be told of the next completion of
    /// queue `cqn` by an event.
    pub(crate) fn doorbell(&self, cqn: u32) -> [u8; 8] {
        let mut doorbell = CqDoorbell::new();
        doorbell
            .set_arm_sn(self.events)
            .set_consumer_counter(self.counter())
            .set_cqn(cqn & 0xff_ffff);
        zerocopy::transmute!(doorbell)
    }

    /// What to write to the doorbell record of the queue pair: the entries ever posted.
    pub(crate) fn posted(&self) -> u32 {
        let mut record = QpRecord::new();
        // The counter has 16 bits.
        record.set_rq_counter(self.consumed.wrapping_add(SIZE as u32) as u16);
        word(&record, 0)
    }

    /// The counter in registers has 24 bits.
    fn counter(&self) -> u32 {
        self.consumed & 0xff_ffff
    }
}

/// The word of 32 bits at bit `at` of a structure.
fn word(structure: &impl Layout, at: usize) -> u32 {
    // Of no more than 32 bits.
    bits(structure.as_bytes(), at, 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: u8 = (CqeOpcode::RESP_SEND as u8) << 4;

    #[test]
    fn the_owner_flips_with_each_turn() {
        let mut ring = Ring::default();
        assert_eq!(ring.next(Ring::NOT_WRITTEN), Next::Nothing);
        for turn in 0..5u8 {
            for index in 0..SIZE {
                assert_eq!(ring.place(), index * ENTRY);
                assert_eq!(ring.next(MESSAGE | turn & 1), Next::Message);
                assert_eq!(ring.next(MESSAGE | turn & 1 ^ 1), Next::Nothing);
                assert_eq!(
                    ring.next(Ring::NOT_WRITTEN & 0xf0 | turn & 1),
                    Next::Nothing
                );
                ring.advance();
            }
        }
    }

    #[test]
    fn what_is_no_error_is_a_message() {
        for opcode in 0..16u8 {
            let expected = match opcode {
                13 | 14 => Next::Error,
                15 => Next::Nothing,
                _ => Next::Message,
            };
            assert_eq!(Ring::default().next(opcode << 4), expected);
        }
    }

    #[test]
    fn events_that_were_lost_are_made_up_for() {
        let mut ring = Ring::default();
        let asked = |ring: &Ring| ring.armed() >> 28;
        // Nothing happens; or something, and an event comes, be it late.
        for (before, any, expected) in [
            (0, false, 0),
            (1, false, 1),
            (0, true, 1),
            (1, false, 2),
            (0, true, 2),
            (1, true, 3),
            (0, true, 3),
            // None came for a second.
            (0, true, 0),
            (0, true, 1),
            (1, true, 2),
            (0, false, 2),
            (0, false, 2),
        ] {
            for _ in 0..before {
                ring.count_event();
            }
            ring.look(any);
            assert_eq!(asked(&ring), expected);
        }
    }

    #[test]
    fn an_entry_is_posted_for_each_that_was_read() {
        let mut ring = Ring {
            consumed: 0xffff - SIZE as u32,
            ..Ring::default()
        };
        assert_eq!(ring.posted(), 0xffff);
        ring.advance();
        assert_eq!(ring.posted(), 0);
        assert_eq!(ring.consumed(), 0xffff - SIZE as u32 + 1);
    }

    #[test]
    fn counters_wrap() {
        let mut ring = Ring {
            consumed: u32::MAX,
            events: 3,
            ..Ring::default()
        };
        assert_eq!((ring.consumed(), ring.armed()), (0xff_ffff, 0x30ff_ffff));
        assert_eq!(
            ring.doorbell(0x12345),
            [0x30, 0xff, 0xff, 0xff, 0, 1, 0x23, 0x45]
        );
        assert_eq!(ring.posted(), 0xff);
        ring.advance();
        ring.count_event();
        assert_eq!((ring.consumed(), ring.armed(), ring.place()), (0, 0, 0));
        assert_eq!(ring.doorbell(7), [0, 0, 0, 0, 0, 0, 0, 7]);
    }
}
