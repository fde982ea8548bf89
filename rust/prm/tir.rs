// SPDX-License-Identifier: GPL-2.0

//! Transport interface receive (TIR): where frames are received, and how they are spread.

use crate::{
    command::OutputHeader,
    layout::Info,
    Layout,
    Opcode,
    Status, //
};

crate::values! {
    /// How a receive interface chooses the queue.
    pub enum DispType: u8 {
        /// It has one queue.
        DIRECT = 0,
        /// It has a table of queues.
        INDIRECT = 1,
    }

    /// How frames are spread over a table of queues.
    pub enum RxHashFn: u8 {
        /// They are not.
        NONE = 0,
        /// By an exclusive or.
        INVERTED_XOR8 = 1,
        /// By a Toeplitz hash.
        TOEPLITZ = 2,
    }

    /// The network protocol whose fields are hashed.
    pub enum L3ProtType: u8 {
        /// IPv4.
        IPV4 = 0,
        /// IPv6.
        IPV6 = 1,
    }

    /// The transport protocol whose fields are hashed.
    pub enum L4ProtType: u8 {
        /// TCP.
        TCP = 0,
        /// UDP.
        UDP = 1,
    }
}

/// A bit of [`RxHashFieldSelect`]: the source address.
pub const HASH_SRC_IP: u32 = 1 << 0;
/// A bit of [`RxHashFieldSelect`]: the destination address.
pub const HASH_DST_IP: u32 = 1 << 1;
/// A bit of [`RxHashFieldSelect`]: the source port.
pub const HASH_L4_SPORT: u32 = 1 << 2;
/// A bit of [`RxHashFieldSelect`]: the destination port.
pub const HASH_L4_DPORT: u32 = 1 << 3;

crate::layout! {
    /// What of a frame is hashed.
    pub struct RxHashFieldSelect = "rx_hash_field_select", 0x4 {
        /// The network protocol.
        l3_prot_type: L3ProtType @ 0x00, 1;
        /// The transport protocol.
        l4_prot_type: L4ProtType @ 0x01, 1;
        /// Which fields: `HASH_*`.
        selected_fields: u32 @ 0x02, 30;
    }

    /// The context of a receive interface.
    pub struct TirContext = "tirc", 0xf0 {
        /// How the queue is chosen.
        disp_type: DispType @ 0x20, 4;
        /// Whether it decrypts.
        tls_en: bool @ 0x24, 1;
        /// How long merged packets wait, in microseconds.
        lro_timeout_period_usecs: u16 @ 0x84, 16;
        /// Which packets are merged.
        packet_merge_mask: u8 @ 0x94, 4;
        /// How large they grow, in units of 256 bytes.
        lro_max_ip_payload_size: u8 @ 0x98, 8;
        /// The queue, if there is one.
        inline_rqn: u32 @ 0xe8, 24;
        /// Whether both directions of a flow have the same hash.
        rx_hash_symmetric: bool @ 0x100, 1;
        /// Whether it looks into tunnels.
        tunneled_offload_en: bool @ 0x102, 1;
        /// The table of queues, if there is one.
        indirect_table: u32 @ 0x108, 24;
        /// How frames are spread over it.
        rx_hash_fn: RxHashFn @ 0x120, 4;
        /// Which frames of its own transport domain it does not receive.
        self_lb_block: u8 @ 0x126, 2;
        /// The transport domain it belongs to.
        transport_domain: u32 @ 0x128, 24;
        /// The key of the Toeplitz hash.
        rx_hash_toeplitz_key: [u8; 40] @ 0x140;
        /// What is hashed.
        rx_hash_field_selector_outer: &RxHashFieldSelect @ 0x280;
        /// What is hashed of a frame within a tunnel.
        rx_hash_field_selector_inner: &RxHashFieldSelect @ 0x2a0;
    }

    /// Input of CREATE_TIR.
    pub struct CreateTirIn = "create_tir_in", 0x110 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// What to make.
        ctx: &TirContext @ 0x100;
    }

    /// Output of CREATE_TIR.
    pub struct CreateTirOut = "create_tir_out", 0x10 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// The number of the interface.
        tirn: u32 @ 0x48, 24;
    }

    /// Which fields MODIFY_TIR changes.
    pub struct ModifyTirBitmask = "modify_tir_bitmask", 0x8 {
        /// Which frames of its own it does not receive.
        self_lb_en: bool @ 0x3b, 1;
        /// Everything about the hash.
        hash: bool @ 0x3d, 1;
        /// Everything about merging.
        packet_merge: bool @ 0x3f, 1;
    }

    /// Input of MODIFY_TIR.
    pub struct ModifyTirIn = "modify_tir_in", 0x110 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the interface.
        tirn: u32 @ 0x48, 24;
        /// Which fields to change.
        bitmask: &ModifyTirBitmask @ 0x80;
        /// Their values.
        ctx: &TirContext @ 0x100;
    }

    /// Input of DESTROY_TIR.
    pub struct DestroyTirIn = "destroy_tir_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the interface.
        tirn: u32 @ 0x48, 24;
    }

    /// Input of QUERY_TIR.
    pub struct QueryTirIn = "query_tir_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the interface.
        tirn: u32 @ 0x48, 24;
    }

    /// Output of QUERY_TIR.
    pub struct QueryTirOut = "query_tir_out", 0x110 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// What it is.
        tir_context: &TirContext @ 0x100;
    }
}

crate::commands! {
    /// Makes a receive interface.
    pub CreateTir = CREATE_TIR: CreateTirIn => CreateTirOut;
    /// Changes it.
    pub ModifyTir = MODIFY_TIR: ModifyTirIn => OutputHeader;
    /// Takes it away.
    pub DestroyTir = DESTROY_TIR: DestroyTirIn => OutputHeader;
    /// Reads its context.
    pub QueryTir = QUERY_TIR: QueryTirIn => QueryTirOut;
}

/// The structures of this module.
pub const LAYOUTS: &[Info] = &[
    RxHashFieldSelect::INFO,
    TirContext::INFO,
    CreateTirIn::INFO,
    CreateTirOut::INFO,
    ModifyTirBitmask::INFO,
    ModifyTirIn::INFO,
    DestroyTirIn::INFO,
    QueryTirIn::INFO,
    QueryTirOut::INFO,
];
