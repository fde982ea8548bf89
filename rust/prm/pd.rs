// SPDX-License-Identifier: GPL-2.0

//! Domains: what objects must share to be used together.

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
    /// Output of ALLOC_PD.
    pub struct AllocPdOut = "alloc_pd_out", 0x10 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// The number of the protection domain.
        pd: u32 @ 0x48, 24;
    }

    /// Input of DEALLOC_PD.
    pub struct DeallocPdIn = "dealloc_pd_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the protection domain.
        pd: u32 @ 0x48, 24;
    }

    /// Output of ALLOC_TRANSPORT_DOMAIN.
    pub struct AllocTransportDomainOut = "alloc_transport_domain_out", 0x10 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// The number of the transport domain.
        transport_domain: u32 @ 0x48, 24;
    }

    /// Input of DEALLOC_TRANSPORT_DOMAIN.
    pub struct DeallocTransportDomainIn = "dealloc_transport_domain_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the transport domain.
        transport_domain: u32 @ 0x48, 24;
    }
}

crate::commands! {
    /// Makes a protection domain.
    pub AllocPd = ALLOC_PD: InputHeader => AllocPdOut;
    /// Takes it away.
    pub DeallocPd = DEALLOC_PD: DeallocPdIn => OutputHeader;
    /// Makes a transport domain.
    pub AllocTransportDomain = ALLOC_TRANSPORT_DOMAIN: InputHeader => AllocTransportDomainOut;
    /// Takes it away.
    pub DeallocTransportDomain = DEALLOC_TRANSPORT_DOMAIN: DeallocTransportDomainIn
        => OutputHeader;
}

/// The structures of this module.
pub const LAYOUTS: &[Info] = &[
    AllocPdOut::INFO,
    DeallocPdIn::INFO,
    AllocTransportDomainOut::INFO,
    DeallocTransportDomainIn::INFO,
];
