// SPDX-License-Identifier: GPL-2.0

//! Memory that the driver registers for the firmware to keep an object's state in (umem).

use crate::{
    command::OutputHeader,
    layout::Info,
    Layout,
    Opcode,
    Status, //
};

crate::layout! {
    /// A umem. The addresses of its pages follow, as [`Mtt`](crate::mkey::Mtt)s.
    pub struct Umem = "umem", 0x20 {
        /// Whether addresses are to be translated by the bus.
        ats: bool @ 0x80, 1;
        /// The logarithm of the page size in units of 4096 bytes.
        log_page_size: u8 @ 0x9b, 5;
        /// Where in its first page it begins, in bytes.
        page_offset: u32 @ 0xa0, 32;
        /// The number of pages.
        num_of_mtt: u64 @ 0xc0, 64;
    }

    /// Input of CREATE_UMEM. The addresses of the pages follow.
    pub struct CreateUmemIn = "create_umem_in", 0x30 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// What to make.
        umem: &Umem @ 0x80;
    }

    /// Output of CREATE_UMEM.
    pub struct CreateUmemOut = "create_umem_out", 0x10 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// The number of the umem.
        umem_id: u32 @ 0x48, 24;
    }

    /// Input of DESTROY_UMEM.
    pub struct DestroyUmemIn = "destroy_umem_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the umem.
        umem_id: u32 @ 0x48, 24;
    }
}

crate::commands! {
    /// Registers memory for the firmware to keep an object's state in.
    pub CreateUmem = CREATE_UMEM: CreateUmemIn => CreateUmemOut;
    /// Takes it back.
    pub DestroyUmem = DESTROY_UMEM: DestroyUmemIn => OutputHeader;
}

/// The structures of this module.
pub const LAYOUTS: &[Info] = &[
    Umem::INFO,
    CreateUmemIn::INFO,
    CreateUmemOut::INFO,
    DestroyUmemIn::INFO,
];
