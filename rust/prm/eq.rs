// SPDX-License-Identifier: GPL-2.0

//! Event queues.

use crate::{
    command::OutputHeader,
    layout::Info,
    Layout,
    Opcode,
    Status, //
};

crate::layout! {
    /// The context of an event queue.
    pub struct EqContext = "eqc", 0x40 {
        /// The logarithm of the number of entries.
        log_eq_size: u8 @ 0x63, 5;
        /// The page of doorbells it is armed through.
        uar_page: u32 @ 0x68, 24;
        /// The interrupt vector.
        intr: u16 @ 0xb4, 12;
        /// The logarithm of the page size in units of 4096 bytes.
        log_page_size: u8 @ 0xc3, 5;
        /// The entries the driver has consumed.
        consumer_counter: u32 @ 0x148, 24;
        /// The entries the firmware has written.
        producer_counter: u32 @ 0x168, 24;
    }

    /// Input of CREATE_EQ. The addresses of the queue's pages follow, 64 bits each.
    pub struct CreateEqIn = "create_eq_in", 0x110 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// What to make.
        eq_context_entry: &EqContext @ 0x80;
        /// One bit for each type of event to be told of; the first 64 types.
        event_bitmask: u64 @ 0x2c0, 64;
    }

    /// Output of CREATE_EQ.
    pub struct CreateEqOut = "create_eq_out", 0x10 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// The number of the queue.
        eq_number: u8 @ 0x58, 8;
    }

    /// Input of DESTROY_EQ.
    pub struct DestroyEqIn = "destroy_eq_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the queue.
        eq_number: u8 @ 0x58, 8;
    }
}

crate::commands! {
    /// Makes an event queue.
    pub CreateEq = CREATE_EQ: CreateEqIn => CreateEqOut;
    /// Takes it away.
    pub DestroyEq = DESTROY_EQ: DestroyEqIn => OutputHeader;
}

/// The structures of this module.
pub const LAYOUTS: &[Info] = &[
    EqContext::INFO,
    CreateEqIn::INFO,
    CreateEqOut::INFO,
    DestroyEqIn::INFO,
];
