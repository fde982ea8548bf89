// SPDX-License-Identifier: GPL-2.0

//! Queue pairs.

use crate::{
    command::OutputHeader,
    layout::Info,
    Layout,
    Opcode,
    Status, //
};

crate::values! {
    /// The state of a queue pair. The names are those of the C headers, without
    /// `MLX5_QPC_STATE_`.
    pub enum QpState: u8 {
        /// Reset.
        RST = 0x0,
        /// Initialized: entries can be posted, nothing moves.
        INIT = 0x1,
        /// Ready to receive.
        RTR = 0x2,
        /// Ready to send, too.
        RTS = 0x3,
        /// The send queue is in error.
        SQER = 0x4,
        /// In error.
        ERR = 0x6,
        /// The send queue drains.
        SQD = 0x7,
        /// Suspended.
        SUSPENDED = 0x9,
    }

    /// The service of a queue pair. The names are those of the C headers, without `MLX5_QPC_ST_`.
    pub enum QpService: u8 {
        /// A reliable connection.
        RC = 0x0,
        /// An unreliable connection.
        UC = 0x1,
        /// Unreliable datagrams.
        UD = 0x2,
    }

    /// Where the receive entries of a queue pair come from. The names are those of the C headers,
    /// without `MLX5_`.
    pub enum RqType: u8 {
        /// From a receive queue of its own.
        NON_ZERO_RQ = 0x0,
        /// From a shared one.
        SRQ_RQ = 0x1,
        /// It never needs any.
        ZERO_LEN_RQ = 0x3,
    }
}

crate::layout! {
    /// The path to the other end of a connection.
    pub struct Ads = "ads", 0x2c {
        /// Whether the other end is in the same function, so that there is no path.
        fl: bool @ 0x00, 1;
        /// Which partition.
        pkey_index: u16 @ 0x10, 16;
        /// The other end's local id.
        rlid: u16 @ 0x30, 16;
        /// How long to wait for an acknowledgement: 4.096 microseconds times a power of 2.
        ack_timeout: u8 @ 0x40, 5;
        /// Which of the port's addresses is the source.
        src_addr_index: u8 @ 0x48, 8;
        /// How many routers it may pass.
        hop_limit: u8 @ 0x58, 8;
        /// The other end's address.
        rgid_rip: [u8; 16] @ 0x80;
        /// The port.
        vhca_port_num: u8 @ 0x128, 8;
        /// The upper part of the other end's MAC address.
        rmac_47_32: u16 @ 0x130, 16;
        /// The lower part.
        rmac_31_0: u32 @ 0x140, 32;
    }

    /// The context of a queue pair.
    pub struct QpContext = "qpc", 0xe8 {
        /// Where it stands.
        state: QpState @ 0x00, 4;
        /// Its service.
        st: QpService @ 0x08, 8;
        /// Whether it has moved to its other path.
        pm_state: u8 @ 0x13, 2;
        /// The protection domain.
        pd: u32 @ 0x28, 24;
        /// The largest packet: 1 is 256 bytes, each step doubles it.
        mtu: u8 @ 0x40, 3;
        /// The logarithm of the longest message in bytes.
        log_msg_max: u8 @ 0x43, 5;
        /// The logarithm of the number of receive entries.
        log_rq_size: u8 @ 0x49, 4;
        /// The logarithm of the size of a receive entry in units of 16 bytes.
        log_rq_stride: u8 @ 0x4d, 3;
        /// Whether it has no send queue.
        no_sq: bool @ 0x50, 1;
        /// The logarithm of the number of send entries in units of 64 bytes.
        log_sq_size: u8 @ 0x51, 4;
        /// The queue counters that count for it.
        counter_set_id: u8 @ 0x60, 8;
        /// The page of doorbells.
        uar_page: u32 @ 0x68, 24;
        /// What completions name it by, if asked to.
        user_index: u32 @ 0x88, 24;
        /// The logarithm of the page size in units of 4096 bytes.
        log_page_size: u8 @ 0xa3, 5;
        /// The queue pair at the other end.
        remote_qpn: u32 @ 0xa8, 24;
        /// The path to the other end.
        primary_address_path: &Ads @ 0xc0;
        /// Another path.
        secondary_address_path: &Ads @ 0x220;
        /// How often to try again.
        retry_count: u8 @ 0x38d, 3;
        /// How often to try again when the other end has no receive entry; 7 is for ever.
        rnr_retry: u8 @ 0x390, 3;
        /// The next packet to send.
        next_send_psn: u32 @ 0x3c8, 24;
        /// The completion queue of the send queue.
        cqn_snd: u32 @ 0x3e8, 24;
        /// Whether the other end may read.
        rre: bool @ 0x490, 1;
        /// Whether the other end may write.
        rwe: bool @ 0x491, 1;
        /// Whether the other end may do atomic operations.
        rae: bool @ 0x492, 1;
        /// Where in its first page it begins, in units of 64 bytes.
        page_offset: u8 @ 0x494, 6;
        /// How long the other end is to wait when there is no receive entry.
        min_rnr_nak: u8 @ 0x4a3, 5;
        /// The next packet to receive.
        next_rcv_psn: u32 @ 0x4a8, 24;
        /// The completion queue of the receive queue.
        cqn_rcv: u32 @ 0x4e8, 24;
        /// The address of its doorbell record.
        dbr_addr: u64 @ 0x500, 64;
        /// Where receive entries come from.
        rq_type: RqType @ 0x565, 3;
        /// The shared receive queue.
        srqn_rmpn_xrqn: u32 @ 0x568, 24;
        /// The receive entries the firmware has taken.
        hw_rq_counter: u32 @ 0x5c0, 32;
        /// The receive entries the driver has posted.
        sw_rq_counter: u32 @ 0x5e0, 32;
        /// Whether its doorbell record lies in a umem.
        dbr_umem_valid: bool @ 0x683, 1;
    }

    /// Input of CREATE_QP. The addresses of the queue's pages follow, 64 bits each.
    pub struct CreateQpIn = "create_qp_in", 0x110 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// Which number is wanted; 0 for any.
        input_qpn: u32 @ 0x48, 24;
        /// Which optional fields to take from the context.
        opt_param_mask: u32 @ 0x80, 32;
        /// Extensions of the connection.
        ece: u32 @ 0xa0, 32;
        /// What to make.
        qpc: &QpContext @ 0xc0;
        /// Where in its umem the queue begins.
        wq_umem_offset: u64 @ 0x800, 64;
        /// The umem the queue lies in.
        wq_umem_id: u32 @ 0x840, 32;
        /// Whether the queue lies in a umem.
        wq_umem_valid: bool @ 0x860, 1;
    }

    /// Output of CREATE_QP.
    pub struct CreateQpOut = "create_qp_out", 0x10 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// The number of the queue pair.
        qpn: u32 @ 0x48, 24;
        /// Extensions of the connection.
        ece: u32 @ 0x60, 32;
    }

    /// Input of DESTROY_QP.
    pub struct DestroyQpIn = "destroy_qp_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the queue pair.
        qpn: u32 @ 0x48, 24;
    }

    /// Input of QUERY_QP.
    pub struct QueryQpIn = "query_qp_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the queue pair.
        qpn: u32 @ 0x48, 24;
    }

    /// Output of QUERY_QP. The addresses of the queue's pages follow, 64 bits each.
    pub struct QueryQpOut = "query_qp_out", 0x110 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// Which optional fields are in the context.
        opt_param_mask: u32 @ 0x80, 32;
        /// Extensions of the connection.
        ece: u32 @ 0xa0, 32;
        /// How it is.
        qpc: &QpContext @ 0xc0;
    }

    /// Input of RST2INIT_QP.
    pub struct Rst2initQpIn = "rst2init_qp_in", 0x110 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the queue pair.
        qpn: u32 @ 0x48, 24;
        /// Which optional fields to take from the context.
        opt_param_mask: u32 @ 0x80, 32;
        /// Extensions of the connection.
        ece: u32 @ 0xa0, 32;
        /// What to take over.
        qpc: &QpContext @ 0xc0;
    }

    /// Output of RST2INIT_QP.
    pub struct Rst2initQpOut = "rst2init_qp_out", 0x10 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// Extensions of the connection.
        ece: u32 @ 0x60, 32;
    }

    /// Input of INIT2RTR_QP.
    pub struct Init2rtrQpIn = "init2rtr_qp_in", 0x110 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the queue pair.
        qpn: u32 @ 0x48, 24;
        /// Which optional fields to take from the context.
        opt_param_mask: u32 @ 0x80, 32;
        /// Extensions of the connection.
        ece: u32 @ 0xa0, 32;
        /// What to take over.
        qpc: &QpContext @ 0xc0;
    }

    /// Output of INIT2RTR_QP.
    pub struct Init2rtrQpOut = "init2rtr_qp_out", 0x10 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// Extensions of the connection.
        ece: u32 @ 0x60, 32;
    }

    /// Input of RTR2RTS_QP.
    pub struct Rtr2rtsQpIn = "rtr2rts_qp_in", 0x110 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the queue pair.
        qpn: u32 @ 0x48, 24;
        /// Which optional fields to take from the context.
        opt_param_mask: u32 @ 0x80, 32;
        /// Extensions of the connection.
        ece: u32 @ 0xa0, 32;
        /// What to take over.
        qpc: &QpContext @ 0xc0;
    }

    /// Output of RTR2RTS_QP.
    pub struct Rtr2rtsQpOut = "rtr2rts_qp_out", 0x10 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// Extensions of the connection.
        ece: u32 @ 0x60, 32;
    }

    /// Input of RTS2RTS_QP.
    pub struct Rts2rtsQpIn = "rts2rts_qp_in", 0x110 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the queue pair.
        qpn: u32 @ 0x48, 24;
        /// Which optional fields to take from the context.
        opt_param_mask: u32 @ 0x80, 32;
        /// Extensions of the connection.
        ece: u32 @ 0xa0, 32;
        /// What to take over.
        qpc: &QpContext @ 0xc0;
    }

    /// Output of RTS2RTS_QP.
    pub struct Rts2rtsQpOut = "rts2rts_qp_out", 0x10 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// Extensions of the connection.
        ece: u32 @ 0x60, 32;
    }

    /// Input of 2ERR_QP.
    pub struct Qp2errIn = "qp_2err_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the queue pair.
        qpn: u32 @ 0x48, 24;
    }

    /// Input of 2RST_QP.
    pub struct Qp2rstIn = "qp_2rst_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the queue pair.
        qpn: u32 @ 0x48, 24;
    }

    /// The doorbell record of a queue pair, in the driver's memory.
    pub struct QpRecord = "", 0x8 {
        /// The receive entries the driver has posted.
        rq_counter: u16 @ 0x10, 16;
        /// The send entries the driver has posted.
        sq_counter: u16 @ 0x30, 16;
    }

    /// A piece of memory in an entry of a queue.
    pub struct DataSegment = "mlx5_wqe_data_seg", 0x10 {
        /// The number of bytes.
        byte_count: u32 @ 0x00, 32;
        /// The memory key.
        lkey: u32 @ 0x20, 32;
        /// The first address.
        addr: u64 @ 0x40, 64;
    }
}

crate::commands! {
    /// Makes a queue pair.
    pub CreateQp = CREATE_QP: CreateQpIn => CreateQpOut;
    /// Takes it away.
    pub DestroyQp = DESTROY_QP: DestroyQpIn => OutputHeader;
    /// Reads its context.
    pub QueryQp = QUERY_QP: QueryQpIn => QueryQpOut;
    /// From reset to initialized.
    pub Rst2initQp = RST2INIT_QP: Rst2initQpIn => Rst2initQpOut;
    /// From initialized to ready to receive.
    pub Init2rtrQp = INIT2RTR_QP: Init2rtrQpIn => Init2rtrQpOut;
    /// From ready to receive to ready to send.
    pub Rtr2rtsQp = RTR2RTS_QP: Rtr2rtsQpIn => Rtr2rtsQpOut;
    /// Changes a queue pair that can send.
    pub Rts2rtsQp = RTS2RTS_QP: Rts2rtsQpIn => Rts2rtsQpOut;
    /// To error from any state.
    pub Qp2err = _2ERR_QP: Qp2errIn => OutputHeader;
    /// To reset from any state.
    pub Qp2rst = _2RST_QP: Qp2rstIn => OutputHeader;
}

/// The structures of this module.
pub const LAYOUTS: &[Info] = &[
    Ads::INFO,
    QpContext::INFO,
    CreateQpIn::INFO,
    CreateQpOut::INFO,
    DestroyQpIn::INFO,
    QueryQpIn::INFO,
    QueryQpOut::INFO,
    Rst2initQpIn::INFO,
    Rst2initQpOut::INFO,
    Init2rtrQpIn::INFO,
    Init2rtrQpOut::INFO,
    Rtr2rtsQpIn::INFO,
    Rtr2rtsQpOut::INFO,
    Rts2rtsQpIn::INFO,
    Rts2rtsQpOut::INFO,
    Qp2errIn::INFO,
    Qp2rstIn::INFO,
    QpRecord::INFO,
    DataSegment::INFO,
];
