// SPDX-License-Identifier: GPL-2.0

//! Receive queue tables (RQT): the queues a receive interface spreads frames over.

use crate::{
    command::OutputHeader,
    layout::Info,
    Layout,
    Opcode,
    Status, //
};

crate::values! {
    /// What the entries of a table are numbers of.
    pub enum ListQType: u8 {
        /// Receive queues.
        RQ = 0,
        /// Virtqueues of a network device.
        VIRTIO_NET_Q = 1,
    }
}

crate::layout! {
    /// An entry of a table.
    pub struct RqNum = "rq_num", 0x4 {
        /// The number of a queue.
        rq_num: u32 @ 0x08, 24;
    }

    /// The context of a table. Its entries follow, one [`RqNum`] each.
    pub struct RqtContext = "rqtc", 0xf0 {
        /// What the entries are numbers of.
        list_q_type: ListQType @ 0xa5, 3;
        /// How many entries there can ever be.
        rqt_max_size: u16 @ 0xb0, 16;
        /// Whether an entry also names a function.
        rq_vhca_id_format: bool @ 0xc0, 1;
        /// How many entries there are.
        rqt_actual_size: u16 @ 0xd0, 16;
    }

    /// Input of CREATE_RQT. The entries follow.
    pub struct CreateRqtIn = "create_rqt_in", 0x110 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// What to make.
        rqt_context: &RqtContext @ 0x100;
    }

    /// Output of CREATE_RQT.
    pub struct CreateRqtOut = "create_rqt_out", 0x10 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// The number of the table.
        rqtn: u32 @ 0x48, 24;
    }

    /// What MODIFY_RQT changes.
    pub struct RqtBitmask = "rqt_bitmask", 0x8 {
        /// The entries and how many there are.
        rqn_list: bool @ 0x3f, 1;
    }

    /// Input of MODIFY_RQT. The entries follow.
    pub struct ModifyRqtIn = "modify_rqt_in", 0x110 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the table.
        rqtn: u32 @ 0x48, 24;
        /// What to change.
        bitmask: &RqtBitmask @ 0x80;
        /// The values.
        ctx: &RqtContext @ 0x100;
    }

    /// Input of DESTROY_RQT.
    pub struct DestroyRqtIn = "destroy_rqt_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the table.
        rqtn: u32 @ 0x48, 24;
    }

    /// Input of QUERY_RQT.
    pub struct QueryRqtIn = "query_rqt_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the table.
        rqtn: u32 @ 0x48, 24;
    }

    /// Output of QUERY_RQT. The entries follow.
    pub struct QueryRqtOut = "query_rqt_out", 0x110 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// What it is.
        rqt_context: &RqtContext @ 0x100;
    }
}

crate::commands! {
    /// Makes a table of receive queues.
    pub CreateRqt = CREATE_RQT: CreateRqtIn => CreateRqtOut;
    /// Changes its entries.
    pub ModifyRqt = MODIFY_RQT: ModifyRqtIn => OutputHeader;
    /// Takes it away.
    pub DestroyRqt = DESTROY_RQT: DestroyRqtIn => OutputHeader;
    /// Reads it.
    pub QueryRqt = QUERY_RQT: QueryRqtIn => QueryRqtOut;
}

/// The structures of this module.
pub const LAYOUTS: &[Info] = &[
    RqNum::INFO,
    RqtContext::INFO,
    CreateRqtIn::INFO,
    CreateRqtOut::INFO,
    RqtBitmask::INFO,
    ModifyRqtIn::INFO,
    DestroyRqtIn::INFO,
    QueryRqtIn::INFO,
    QueryRqtOut::INFO,
];
