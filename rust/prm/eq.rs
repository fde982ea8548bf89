// SPDX-License-Identifier: GPL-2.0

//! Event queues and the events in them.

use crate::{
    command::OutputHeader,
    layout::Info,
    Layout,
    Opcode,
    Status, //
};

crate::values! {
    /// The type of an event. The names are those of the C headers, without `MLX5_EVENT_TYPE_`.
    pub enum EventType: u8 {
        /// A completion queue has entries. Not to be subscribed to: the queue names its event
        /// queue.
        COMP = 0x00,
        /// A completion queue is in error.
        CQ_ERROR = 0x04,
        /// A send or receive queue is in error.
        WQ_CATAS_ERROR = 0x05,
        /// An error inside the firmware.
        INTERNAL_ERROR = 0x08,
        /// The state of a port changed.
        PORT_CHANGE = 0x09,
        /// Commands are complete.
        CMD = 0x0a,
        /// The firmware wants pages or gives them back.
        PAGE_REQUEST = 0x0b,
        /// A queue asked for something that it must not.
        WQ_INVAL_REQ_ERROR = 0x10,
        /// A queue touched memory that it must not.
        WQ_ACCESS_ERROR = 0x11,
        /// A general object changed by itself.
        OBJECT_CHANGE = 0x27,
    }

    /// How a port changed: the sub-type of PORT_CHANGE. The names are those of the C headers,
    /// without `MLX5_PORT_CHANGE_SUBTYPE_`.
    pub enum PortChange: u8 {
        /// The link went down.
        DOWN = 1,
        /// It came up.
        ACTIVE = 4,
        /// It is there, but not up.
        INITIALIZED = 5,
    }

    /// Whether an event queue is sound. The names are those of the C headers, without
    /// `MLX5_EQC_STATUS_`.
    pub enum EqStatus: u8 {
        /// It is.
        OK = 0x0,
        /// An event could not be written.
        EQ_WRITE_FAILURE = 0xa,
    }

    /// Whether the next event raises the interrupt. The names are those of the C headers, without
    /// `MLX5_EQC_ST_`.
    pub enum EqState: u8 {
        /// It does.
        ARMED = 0x9,
        /// It was raised, and is not until the queue is armed again.
        FIRED = 0xa,
    }
}

crate::layout! {
    /// The context of an event queue.
    pub struct EqContext = "eqc", 0x40 {
        /// Whether it is sound.
        status: EqStatus @ 0x00, 4;
        /// Whether it is allowed to overrun.
        oi: bool @ 0x0e, 1;
        /// Whether it is armed.
        st: EqState @ 0x14, 4;
        /// Where in its first page it begins, in units of 64 bytes.
        page_offset: u8 @ 0x54, 6;
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
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the queue.
        eq_number: u8 @ 0x58, 8;
    }

    /// Input of QUERY_EQ.
    pub struct QueryEqIn = "query_eq_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the queue.
        eq_number: u8 @ 0x58, 8;
    }

    /// Output of QUERY_EQ. The addresses of the queue's pages follow, 64 bits each.
    pub struct QueryEqOut = "query_eq_out", 0x110 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// How it is.
        eq_context_entry: &EqContext @ 0x80;
        /// One bit for each type of event it is told of; the first 64 types.
        event_bitmask: u64 @ 0x2c0, 64;
    }

    /// An entry of an event queue.
    pub struct Eqe = "mlx5_eqe", 0x40 {
        /// The type of the event.
        event_type("type"): EventType @ 0x08, 8;
        /// A variant of the type.
        sub_type: u8 @ 0x18, 8;
        /// What the type has to say.
        data: [u8; 28] @ 0x100;
        /// A signature, if signatures are used.
        signature: u8 @ 0x1f0, 8;
        /// In bit 0 the parity of the firmware's rounds through the queue.
        owner: u8 @ 0x1f8, 8;
    }

    /// The data of CMD.
    pub struct EqeCmd = "mlx5_eqe_cmd", 0x1c {
        /// One bit for each entry of the command queue that is complete.
        vector: u32 @ 0x00, 32;
    }

    /// The data of COMP.
    pub struct EqeComp = "mlx5_eqe_comp", 0x1c {
        /// The number of the completion queue.
        cqn: u32 @ 0xc0, 32;
    }

    /// The data of CQ_ERROR.
    pub struct EqeCqErr = "mlx5_eqe_cq_err", 0xc {
        /// The number of the completion queue.
        cqn: u32 @ 0x00, 32;
        /// What happened to it: 1 is an overrun, 2 an access that failed.
        syndrome: u8 @ 0x58, 8;
    }

    /// The data of WQ_CATAS_ERROR, WQ_INVAL_REQ_ERROR and WQ_ACCESS_ERROR.
    pub struct EqeQpSrq = "mlx5_eqe_qp_srq", 0x1c {
        /// What kind of queue it is: 0 is a queue pair.
        queue_type("type"): u8 @ 0xa0, 8;
        /// Its number.
        qp_srq_n: u32 @ 0xc0, 32;
    }

    /// The data of PORT_CHANGE.
    pub struct EqePortState = "mlx5_eqe_port_state", 0x9 {
        /// In the upper four bits the number of the port, from 1.
        port: u8 @ 0x40, 8;
    }

    /// The data of PAGE_REQUEST.
    pub struct EqePageReq = "mlx5_eqe_page_req", 0x1c {
        /// In bit 15 whether it is for the embedded processor.
        ec_function: u16 @ 0x00, 16;
        /// For which function it is; 0 is the one asked.
        func_id: u16 @ 0x10, 16;
        /// How many pages are wanted, in two's complement: negative ones are given back.
        num_pages: u32 @ 0x20, 32;
    }

    /// The data of OBJECT_CHANGE.
    pub struct EqeObjChange = "mlx5_eqe_obj_change", 0x8 {
        /// The type of the object.
        obj_type: u16 @ 0x10, 16;
        /// Its id.
        obj_id: u32 @ 0x20, 32;
    }
}

crate::commands! {
    /// Makes an event queue.
    pub CreateEq = CREATE_EQ: CreateEqIn => CreateEqOut;
    /// Takes it away.
    pub DestroyEq = DESTROY_EQ: DestroyEqIn => OutputHeader;
    /// Reads its context.
    pub QueryEq = QUERY_EQ: QueryEqIn => QueryEqOut;
}

/// The structures of this module.
pub const LAYOUTS: &[Info] = &[
    EqContext::INFO,
    CreateEqIn::INFO,
    CreateEqOut::INFO,
    DestroyEqIn::INFO,
    QueryEqIn::INFO,
    QueryEqOut::INFO,
    Eqe::INFO,
    EqeCmd::INFO,
    EqeComp::INFO,
    EqeCqErr::INFO,
    EqeQpSrq::INFO,
    EqePortState::INFO,
    EqePageReq::INFO,
    EqeObjChange::INFO,
];
