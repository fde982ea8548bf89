// SPDX-License-Identifier: GPL-2.0

//! Pages of the driver's memory that the firmware keeps its state in, each of 4096 bytes.

use crate::{
    layout::Info,
    Layout,
    Opcode,
    Status, //
};

crate::values! {
    /// What QUERY_PAGES asks about: its `op_mod`.
    pub enum PagesWanted: u16 {
        /// Pages to answer commands with, before SET_HCA_CAP.
        BOOT_PAGES = 0x1,
        /// Pages to start with, before INIT_HCA.
        INIT_PAGES = 0x2,
        /// Pages that are missing, or too many, by now.
        REGULAR_PAGES = 0x3,
    }

    /// What MANAGE_PAGES does: its `op_mod`.
    pub enum PagesMove: u16 {
        /// The driver has none to give.
        CANT_GIVE = 0,
        /// The driver gives pages.
        GIVE = 1,
        /// The driver takes pages back.
        TAKE = 2,
    }
}

crate::layout! {
    /// Input of QUERY_PAGES.
    pub struct QueryPagesIn = "query_pages_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// What it asks about.
        op_mod: PagesWanted @ 0x30, 16;
        /// Whether the driver runs on the board itself.
        embedded_cpu_function: bool @ 0x40, 1;
        /// Which function; 0 is the caller.
        function_id: u16 @ 0x50, 16;
    }

    /// Output of QUERY_PAGES.
    pub struct QueryPagesOut = "query_pages_out", 0x10 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// Whether the driver runs on the board itself.
        embedded_cpu_function: bool @ 0x40, 1;
        /// Which function they are for.
        function_id: u16 @ 0x50, 16;
        /// How many, in two's complement: below 0, how many the firmware wants to be rid of.
        num_pages: u32 @ 0x60, 32;
    }

    /// Input of MANAGE_PAGES. When pages are given, their addresses follow, 64 bits each.
    pub struct ManagePagesIn = "manage_pages_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// What to do.
        op_mod: PagesMove @ 0x30, 16;
        /// Whether the driver runs on the board itself.
        embedded_cpu_function: bool @ 0x40, 1;
        /// Which function; 0 is the caller.
        function_id: u16 @ 0x50, 16;
        /// How many pages are given, or at most taken back.
        input_num_entries: u32 @ 0x60, 32;
    }

    /// Output of MANAGE_PAGES. When pages are taken back, their addresses follow, 64 bits each.
    pub struct ManagePagesOut = "manage_pages_out", 0x10 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// How many pages were taken back.
        output_num_entries: u32 @ 0x40, 32;
    }
}

crate::commands! {
    /// Asks how many pages of memory the firmware wants.
    pub QueryPages = QUERY_PAGES: QueryPagesIn => QueryPagesOut;
    /// Gives pages, or takes them back.
    pub ManagePages = MANAGE_PAGES: ManagePagesIn => ManagePagesOut;
}

/// The structures of this module.
pub const LAYOUTS: &[Info] = &[
    QueryPagesIn::INFO,
    QueryPagesOut::INFO,
    ManagePagesIn::INFO,
    ManagePagesOut::INFO,
];
