// SPDX-License-Identifier: GPL-2.0

//! The life of a function: enabled, started, stopped, disabled; and what it is asked besides.

use crate::{
    command::OutputHeader,
    layout::Info,
    Layout,
    Opcode,
    Status, //
};

crate::values! {
    /// How TEARDOWN_HCA ends the function.
    pub enum TeardownProfile: u16 {
        /// In order: the driver has taken its objects away.
        GRACEFUL_CLOSE = 0x0,
        /// At once: the firmware takes them away.
        FORCE_CLOSE = 0x1,
        /// It gets ready to be ended by a register.
        PREPARE_FAST_TEARDOWN = 0x2,
    }
}

crate::layout! {
    /// Input of ENABLE_HCA.
    pub struct EnableHcaIn = "enable_hca_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// Whether the driver runs on the board itself.
        embedded_cpu_function: bool @ 0x40, 1;
        /// Which function; 0 is the caller.
        function_id: u16 @ 0x50, 16;
    }

    /// Input of DISABLE_HCA.
    pub struct DisableHcaIn = "disable_hca_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// Whether the driver runs on the board itself.
        embedded_cpu_function: bool @ 0x40, 1;
        /// Which function; 0 is the caller.
        function_id: u16 @ 0x50, 16;
    }

    /// Input of INIT_HCA.
    pub struct InitHcaIn = "init_hca_in", 0x20 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number the driver gives the function.
        sw_vhca_id: u16 @ 0x62, 14;
        /// Who owns it.
        sw_owner_id: [u8; 16] @ 0x80;
    }

    /// Input of TEARDOWN_HCA.
    pub struct TeardownHcaIn = "teardown_hca_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// How.
        profile: TeardownProfile @ 0x50, 16;
    }

    /// Output of TEARDOWN_HCA.
    pub struct TeardownHcaOut = "teardown_hca_out", 0x10 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// Whether a forced end failed.
        state: bool @ 0x7f, 1;
    }

    /// Input of QUERY_ISSI.
    pub struct QueryIssiIn = "query_issi_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
    }

    /// Output of QUERY_ISSI.
    pub struct QueryIssiOut = "query_issi_out", 0x70 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// The version of the interface in use.
        current_issi: u16 @ 0x50, 16;
        /// The versions there are, a bit each, from 0 in the lowest.
        supported_issi_dw0: u32 @ 0x360, 32;
    }

    /// Input of SET_ISSI.
    pub struct SetIssiIn = "set_issi_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The version to use.
        current_issi: u16 @ 0x50, 16;
    }

    /// Input of SET_DRIVER_VERSION.
    pub struct SetDriverVersionIn = "set_driver_version_in", 0x50 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// Operating system, driver and version, with commas between; 0 ends it.
        driver_version: [u8; 64] @ 0x80;
    }

    /// Input of NOP.
    pub struct NopIn = "", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
    }

    /// Input of QUERY_ADAPTER.
    pub struct QueryAdapterIn = "query_adapter_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
    }

    /// What a board is.
    pub struct QueryAdapterParamBlock = "query_adapter_param_block", 0x100 {
        /// The vendor as the IEEE numbers them.
        ieee_vendor_id: u32 @ 0xc8, 24;
        /// The vendor of the data that follows.
        vsd_vendor_id: u16 @ 0xf0, 16;
        /// The vendor's data.
        vsd: [u8; 208] @ 0x100;
        /// The end of it: the set of parameters of the board, text that 0 ends.
        vsd_contd_psid: [u8; 16] @ 0x780;
    }

    /// Output of QUERY_ADAPTER.
    pub struct QueryAdapterOut = "query_adapter_out", 0x110 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// What the board is.
        query_adapter_struct: &QueryAdapterParamBlock @ 0x80;
    }

    /// What a user context is made of.
    pub struct Uctx = "uctx", 0x30 {
        /// What it is allowed, a bit each.
        cap: u32 @ 0x00, 32;
    }

    /// Input of CREATE_UCTX.
    pub struct CreateUctxIn = "create_uctx_in", 0x40 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// What to make.
        uctx: &Uctx @ 0x80;
    }

    /// Output of CREATE_UCTX.
    pub struct CreateUctxOut = "create_uctx_out", 0x10 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// The number of the context.
        uid: u16 @ 0x50, 16;
    }

    /// Input of DESTROY_UCTX.
    pub struct DestroyUctxIn = "destroy_uctx_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the context.
        uid: u16 @ 0x50, 16;
    }
}

crate::commands! {
    /// Enables the function, before anything else.
    pub EnableHca = ENABLE_HCA: EnableHcaIn => OutputHeader;
    /// Disables it, after everything else.
    pub DisableHca = DISABLE_HCA: DisableHcaIn => OutputHeader;
    /// Starts it.
    pub InitHca = INIT_HCA: InitHcaIn => OutputHeader;
    /// Stops it.
    pub TeardownHca = TEARDOWN_HCA: TeardownHcaIn => TeardownHcaOut;
    /// Asks for the versions of the interface.
    pub QueryIssi = QUERY_ISSI: QueryIssiIn => QueryIssiOut;
    /// Chooses one.
    pub SetIssi = SET_ISSI: SetIssiIn => OutputHeader;
    /// Tells the firmware the driver's name.
    pub SetDriverVersion = SET_DRIVER_VERSION: SetDriverVersionIn => OutputHeader;
    /// Does nothing.
    pub Nop = NOP: NopIn => OutputHeader;
    /// Reads the board's identity.
    pub QueryAdapter = QUERY_ADAPTER: QueryAdapterIn => QueryAdapterOut;
    /// Makes a user context.
    pub CreateUctx = CREATE_UCTX: CreateUctxIn => CreateUctxOut;
    /// Takes it away.
    pub DestroyUctx = DESTROY_UCTX: DestroyUctxIn => OutputHeader;
}

/// The structures of this module.
pub const LAYOUTS: &[Info] = &[
    EnableHcaIn::INFO,
    DisableHcaIn::INFO,
    InitHcaIn::INFO,
    TeardownHcaIn::INFO,
    TeardownHcaOut::INFO,
    QueryIssiIn::INFO,
    QueryIssiOut::INFO,
    SetIssiIn::INFO,
    SetDriverVersionIn::INFO,
    NopIn::INFO,
    QueryAdapterIn::INFO,
    QueryAdapterParamBlock::INFO,
    QueryAdapterOut::INFO,
    Uctx::INFO,
    CreateUctxIn::INFO,
    CreateUctxOut::INFO,
    DestroyUctxIn::INFO,
];
