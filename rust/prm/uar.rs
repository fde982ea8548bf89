// SPDX-License-Identifier: GPL-2.0

//! Pages of doorbells, through which the driver tells what it has done.

use crate::{
    command::{
        InputHeader,
        OutputHeader, //
    },
    layout::Info,
    Layout,
    Opcode,
    Status, //
};

crate::layout! {
    /// Output of ALLOC_UAR.
    pub struct AllocUarOut = "alloc_uar_out", 0x10 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// The index of the page: it lies that many pages into the BAR.
        uar: u32 @ 0x48, 24;
    }

    /// Input of DEALLOC_UAR.
    pub struct DeallocUarIn = "dealloc_uar_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The index of the page.
        uar: u32 @ 0x48, 24;
    }

    /// What is written to [`EQ_ARM`] and [`EQ_UPDATE`].
    pub struct EqDoorbell = "", 0x4 {
        /// The number of the event queue.
        eqn: u8 @ 0x00, 8;
        /// The entries the driver has consumed.
        consumer_counter: u32 @ 0x08, 24;
    }

    /// What is written to [`CQ_ARM`].
    ///
    /// The first half is also what the driver has written to the second word of the queue's
    /// doorbell record.
    pub struct CqDoorbell = "", 0x8 {
        /// Counts the completion events of the queue, so that the device knows old news.
        arm_sn: u8 @ 0x02, 2;
        /// Whether only completions that ask for it are worth an event.
        solicited: bool @ 0x07, 1;
        /// The entries the driver has consumed.
        consumer_counter: u32 @ 0x08, 24;
        /// The number of the completion queue.
        cqn: u32 @ 0x28, 24;
    }
}

/// Where in the page a completion queue is armed, by 8 bytes.
pub const CQ_ARM: u64 = 0x20;

/// Where in the page an event queue is told of entries consumed, and armed, by 4 bytes.
pub const EQ_ARM: u64 = 0x40;

/// Where in the page an event queue is told of entries consumed, by 4 bytes.
pub const EQ_UPDATE: u64 = 0x48;

crate::commands! {
    /// Gives a page of doorbells.
    pub AllocUar = ALLOC_UAR: InputHeader => AllocUarOut;
    /// Takes it back.
    pub DeallocUar = DEALLOC_UAR: DeallocUarIn => OutputHeader;
}

/// The structures of this module.
pub const LAYOUTS: &[Info] = &[
    AllocUarOut::INFO,
    DeallocUarIn::INFO,
    EqDoorbell::INFO,
    CqDoorbell::INFO,
];
