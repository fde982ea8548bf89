// SPDX-License-Identifier: GPL-2.0

//! Port and management registers, reached by ACCESS_REG.

use crate::{
    layout::Info,
    Layout,
    Opcode,
    Status, //
};

crate::values! {
    /// A register.
    pub enum RegisterId: u16 {
        /// The MTU of the port: [`PmtuReg`].
        PMTU = 0x5003,
        /// The state of the port: [`PaosReg`].
        PAOS = 0x5006,
        /// Default time limits: [`DtorReg`].
        DTOR = 0xc00e,
    }

    /// What ACCESS_REG does: its `op_mod`.
    pub enum RegisterAccess: u16 {
        /// Writes the register.
        WRITE = 0,
        /// Reads it.
        READ = 1,
    }
}

crate::layout! {
    /// Input of ACCESS_REG. The register follows; it says which instance when it is read.
    pub struct AccessRegisterIn = "access_register_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// What to do.
        op_mod: RegisterAccess @ 0x30, 16;
        /// Which register.
        register_id: u16 @ 0x50, 16;
        /// What some registers need besides.
        argument: u32 @ 0x60, 32;
    }

    /// Output of ACCESS_REG. The register follows.
    pub struct AccessRegisterOut = "access_register_out", 0x10 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
    }

    /// The MTU of the port, in bytes, with Ethernet header and check sequence.
    pub struct PmtuReg = "pmtu_reg", 0x10 {
        /// Which port of the board, from 1.
        local_port: u8 @ 0x08, 8;
        /// The largest there can be.
        max_mtu: u16 @ 0x20, 16;
        /// The one that was asked for.
        admin_mtu: u16 @ 0x40, 16;
        /// The one in use.
        oper_mtu: u16 @ 0x60, 16;
    }

    /// The state of the port: 1 is up, 2 is down.
    pub struct PaosReg = "paos_reg", 0x10 {
        /// Which port of the board, from 1.
        local_port: u8 @ 0x08, 8;
        /// What it is to be.
        admin_status: u8 @ 0x14, 4;
        /// What it is.
        oper_status: u8 @ 0x1c, 4;
    }

    /// A time limit.
    pub struct DefaultTimeout = "default_timeout", 0x4 {
        /// Its unit: 0 is a millisecond, 1 a second, 2 a minute, 3 an hour.
        to_multiplier: u8 @ 0x00, 3;
        /// How many of them.
        to_value: u32 @ 0x0c, 20;
    }

    /// Default time limits.
    pub struct DtorReg = "dtor_reg", 0x40 {
        /// For the link to the host to come back.
        pcie_toggle_to: &DefaultTimeout @ 0x20;
        /// Between looks at the health counter.
        health_poll_to: &DefaultTimeout @ 0xa0;
        /// For a dump after a crash.
        full_crdump_to: &DefaultTimeout @ 0xc0;
        /// For a reset of the firmware.
        fw_reset_to: &DefaultTimeout @ 0xe0;
        /// For what is on its way to be flushed after an error.
        flush_on_err_to: &DefaultTimeout @ 0x100;
        /// For functions to agree on an update of the firmware.
        pci_sync_update_to: &DefaultTimeout @ 0x120;
        /// For TEARDOWN_HCA.
        tear_down_to: &DefaultTimeout @ 0x140;
        /// For the firmware's state machine to be active again.
        fsm_reactivate_to: &DefaultTimeout @ 0x160;
        /// For pages to be given back.
        reclaim_pages_to: &DefaultTimeout @ 0x180;
        /// The same with virtual functions.
        reclaim_vfs_pages_to: &DefaultTimeout @ 0x1a0;
        /// For the driver to unload before a reset.
        reset_unload_to: &DefaultTimeout @ 0x1c0;
    }
}

crate::commands! {
    /// Reads or writes a register.
    pub AccessRegister = ACCESS_REG: AccessRegisterIn => AccessRegisterOut;
}

/// The structures of this module.
pub const LAYOUTS: &[Info] = &[
    AccessRegisterIn::INFO,
    AccessRegisterOut::INFO,
    PmtuReg::INFO,
    PaosReg::INFO,
    DefaultTimeout::INFO,
    DtorReg::INFO,
];
