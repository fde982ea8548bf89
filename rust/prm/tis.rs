// SPDX-License-Identifier: GPL-2.0

//! Transport interface send (TIS): what sends, and in which transport domain.

use crate::{
    command::OutputHeader,
    layout::Info,
    Layout,
    Opcode,
    Status, //
};

crate::layout! {
    /// The context of a transmit interface.
    pub struct TisContext = "tisc", 0xa0 {
        /// Whether the port of a bond is binding.
        strict_lag_tx_port_affinity: bool @ 0x00, 1;
        /// Whether it encrypts.
        tls_en: bool @ 0x01, 1;
        /// The port of a bond it sends through; 0 for any.
        lag_tx_port_affinity: u8 @ 0x04, 4;
        /// The priority of what it sends.
        prio: u8 @ 0x0c, 4;
        /// The transport domain it belongs to.
        transport_domain: u32 @ 0x128, 24;
        /// The queue pair beneath it, on InfiniBand.
        underlay_qpn: u32 @ 0x148, 24;
        /// The protection domain, of one that encrypts.
        pd: u32 @ 0x168, 24;
    }

    /// Input of CREATE_TIS.
    pub struct CreateTisIn = "create_tis_in", 0xc0 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// What to make.
        ctx: &TisContext @ 0x100;
    }

    /// Output of CREATE_TIS.
    pub struct CreateTisOut = "create_tis_out", 0x10 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// The number of the interface.
        tisn: u32 @ 0x48, 24;
    }

    /// Which fields MODIFY_TIS changes.
    pub struct ModifyTisBitmask = "modify_tis_bitmask", 0x8 {
        /// The port of a bond.
        lag_tx_port_affinity: bool @ 0x3d, 1;
        /// Whether it is binding.
        strict_lag_tx_port_affinity: bool @ 0x3e, 1;
        /// The priority.
        prio: bool @ 0x3f, 1;
    }

    /// Input of MODIFY_TIS.
    pub struct ModifyTisIn = "modify_tis_in", 0xc0 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the interface.
        tisn: u32 @ 0x48, 24;
        /// Which fields to change.
        bitmask: &ModifyTisBitmask @ 0x80;
        /// Their values.
        ctx: &TisContext @ 0x100;
    }

    /// Input of DESTROY_TIS.
    pub struct DestroyTisIn = "destroy_tis_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the interface.
        tisn: u32 @ 0x48, 24;
    }

    /// Input of QUERY_TIS.
    pub struct QueryTisIn = "query_tis_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the interface.
        tisn: u32 @ 0x48, 24;
    }

    /// Output of QUERY_TIS.
    pub struct QueryTisOut = "query_tis_out", 0xb0 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// What it is.
        tis_context: &TisContext @ 0x80;
    }
}

crate::commands! {
    /// Makes a transmit interface.
    pub CreateTis = CREATE_TIS: CreateTisIn => CreateTisOut;
    /// Changes it.
    pub ModifyTis = MODIFY_TIS: ModifyTisIn => OutputHeader;
    /// Takes it away.
    pub DestroyTis = DESTROY_TIS: DestroyTisIn => OutputHeader;
    /// Reads its context.
    pub QueryTis = QUERY_TIS: QueryTisIn => QueryTisOut;
}

/// The structures of this module.
pub const LAYOUTS: &[Info] = &[
    TisContext::INFO,
    CreateTisIn::INFO,
    CreateTisOut::INFO,
    ModifyTisBitmask::INFO,
    ModifyTisIn::INFO,
    DestroyTisIn::INFO,
    QueryTisIn::INFO,
    QueryTisOut::INFO,
];
