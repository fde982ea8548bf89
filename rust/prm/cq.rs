// SPDX-License-Identifier: GPL-2.0

//! Completion queues and the completions in them.

use crate::{
    command::OutputHeader,
    layout::Info,
    Layout,
    Opcode,
    Status, //
};

crate::values! {
    /// Whether a completion queue is sound. The names are those of the C headers, without
    /// `MLX5_CQC_STATUS_`.
    pub enum CqStatus: u8 {
        /// It is.
        OK = 0x0,
        /// A completion found no room.
        CQ_OVERFLOW = 0x9,
        /// A completion could not be written.
        CQ_WRITE_FAIL = 0xa,
    }

    /// Whether the next completion is worth an event. The names are those of the C headers,
    /// without `MLX5_CQC_ST_`.
    pub enum CqState: u8 {
        /// If it asks for it.
        SOLICITED_NOTIFICATION_REQUEST_ARMED = 0x6,
        /// It is.
        NOTIFICATION_REQUEST_ARMED = 0x9,
        /// There was one, and is none until the queue is armed again.
        FIRED = 0xa,
    }

    /// What a completion is of. The names are those of the C headers, without `MLX5_CQE_`.
    pub enum CqeOpcode: u8 {
        /// An entry of a send queue.
        REQ = 0,
        /// A receive entry, by a write with immediate data.
        RESP_WR_IMM = 1,
        /// A receive entry, by a send.
        RESP_SEND = 2,
        /// An entry of a send queue, which failed.
        REQ_ERR = 13,
        /// A receive entry, which failed.
        RESP_ERR = 14,
        /// None: the entry was never written.
        INVALID = 15,
    }
}

crate::layout! {
    /// The context of a completion queue.
    pub struct CqContext = "cqc", 0x40 {
        /// Whether it is sound.
        status: CqStatus @ 0x00, 4;
        /// Whether its doorbell record lies in a umem.
        dbr_umem_valid: bool @ 0x06, 1;
        /// The size of an entry: 0 is 64 bytes, others are larger.
        cqe_sz: u8 @ 0x08, 3;
        /// Whether it collapses: every entry is written to the first place.
        cc: bool @ 0x0b, 1;
        /// Whether it is allowed to overrun.
        oi: bool @ 0x0e, 1;
        /// From when on the moderation's time counts.
        cq_period_mode: u8 @ 0x0f, 2;
        /// Whether it is armed.
        st: CqState @ 0x14, 4;
        /// Where in its first page it begins, in units of 64 bytes.
        page_offset: u8 @ 0x54, 6;
        /// The logarithm of the number of entries.
        log_cq_size: u8 @ 0x63, 5;
        /// The page of doorbells it is armed through.
        uar_page: u32 @ 0x68, 24;
        /// How long an event waits for more completions, in microseconds.
        cq_period: u16 @ 0x84, 12;
        /// How many completions an event waits for.
        cq_max_count: u16 @ 0x90, 16;
        /// The event queue its events go to.
        c_eqn_or_apu_element: u32 @ 0xa0, 32;
        /// The logarithm of the page size in units of 4096 bytes.
        log_page_size: u8 @ 0xc3, 5;
        /// The entries there were at the last event.
        last_notified_index: u32 @ 0x108, 24;
        /// The entries there were at the last completion that asked for an event.
        last_solicit_index: u32 @ 0x128, 24;
        /// The entries the driver has consumed.
        consumer_counter: u32 @ 0x148, 24;
        /// The entries the firmware has written.
        producer_counter: u32 @ 0x168, 24;
        /// The address of its doorbell record.
        dbr_addr: u64 @ 0x1c0, 64;
    }

    /// Input of CREATE_CQ. The addresses of the queue's pages follow, 64 bits each.
    pub struct CreateCqIn = "create_cq_in", 0x110 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// What to make.
        cq_context: &CqContext @ 0x80;
        /// Whether the queue lies in a umem.
        cq_umem_valid: bool @ 0x2e0, 1;
    }

    /// Output of CREATE_CQ.
    pub struct CreateCqOut = "create_cq_out", 0x10 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// The number of the queue.
        cqn: u32 @ 0x48, 24;
    }

    /// Input of DESTROY_CQ.
    pub struct DestroyCqIn = "destroy_cq_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the queue.
        cqn: u32 @ 0x48, 24;
    }

    /// Input of QUERY_CQ.
    pub struct QueryCqIn = "query_cq_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the queue.
        cqn: u32 @ 0x48, 24;
    }

    /// Output of QUERY_CQ. The addresses of the queue's pages follow, 64 bits each.
    pub struct QueryCqOut = "query_cq_out", 0x110 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// How it is.
        cq_context: &CqContext @ 0x80;
    }

    /// Input of MODIFY_CQ.
    pub struct ModifyCqIn = "modify_cq_in", 0x110 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the queue.
        cqn: u32 @ 0x48, 24;
        /// What to change: see [`MODIFY_PERIOD`] and its kin.
        modify_field_select_resize_field_select: u32 @ 0x60, 32;
        /// To what.
        cq_context: &CqContext @ 0x80;
    }

    /// The doorbell record of a completion queue, in the driver's memory.
    pub struct CqRecord = "", 0x8 {
        /// The entries the driver has consumed.
        consumer_counter: u32 @ 0x08, 24;
        /// Counts the completion events of the queue.
        arm_sn: u8 @ 0x22, 2;
        /// Whether only completions that ask for it are worth an event.
        solicited: bool @ 0x27, 1;
        /// The entries the driver had consumed when it armed the queue.
        arm_counter: u32 @ 0x28, 24;
    }

    /// An entry of a completion queue.
    pub struct Cqe = "mlx5_cqe64", 0x40 {
        /// In the lower 24 bits the queue pair.
        flags_rqpn: u32 @ 0xc0, 32;
        /// In the lower 24 bits the shared receive queue.
        srqn: u32 @ 0x100, 32;
        /// The number of bytes received.
        byte_cnt: u32 @ 0x160, 32;
        /// The upper half of the time it was written.
        timestamp_h: u32 @ 0x180, 32;
        /// The lower half.
        timestamp_l: u32 @ 0x1a0, 32;
        /// In the lower 24 bits the queue pair whose entry is complete.
        sop_drop_qpn: u32 @ 0x1c0, 32;
        /// Which entry of the queue pair's queue is complete.
        wqe_counter: u16 @ 0x1e0, 16;
        /// A signature, if signatures are used.
        signature: u8 @ 0x1f0, 8;
        /// In bit 0 the parity of the firmware's rounds through the queue, in the upper four bits
        /// a [`CqeOpcode`].
        op_own: u8 @ 0x1f8, 8;
    }
}

/// MODIFY_CQ changes how long an event waits.
pub const MODIFY_PERIOD: u32 = 1 << 0;

/// MODIFY_CQ changes how many completions an event waits for.
pub const MODIFY_COUNT: u32 = 1 << 1;

/// MODIFY_CQ changes whether the queue may overrun.
pub const MODIFY_OVERRUN: u32 = 1 << 2;

/// MODIFY_CQ changes from when on the time counts.
pub const MODIFY_PERIOD_MODE: u32 = 1 << 4;

crate::commands! {
    /// Makes a completion queue.
    pub CreateCq = CREATE_CQ: CreateCqIn => CreateCqOut;
    /// Takes it away.
    pub DestroyCq = DESTROY_CQ: DestroyCqIn => OutputHeader;
    /// Reads its context.
    pub QueryCq = QUERY_CQ: QueryCqIn => QueryCqOut;
    /// Changes its moderation.
    pub ModifyCq = MODIFY_CQ: ModifyCqIn => OutputHeader;
}

/// The structures of this module.
pub const LAYOUTS: &[Info] = &[
    CqContext::INFO,
    CreateCqIn::INFO,
    CreateCqOut::INFO,
    DestroyCqIn::INFO,
    QueryCqIn::INFO,
    QueryCqOut::INFO,
    ModifyCqIn::INFO,
    CqRecord::INFO,
    Cqe::INFO,
];
