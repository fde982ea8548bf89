// SPDX-License-Identifier: GPL-2.0

//! The initialization segment: the registers in front of BAR 0.

use crate::{
    layout::Info,
    Layout, //
};

crate::values! {
    /// Who may use the function: bits 10 to 8 of `cmdq_addr_l_sz`. Both ends write them.
    pub enum NicInterface: u8 {
        /// A driver, through the command queue.
        FULL_DRIVER = 0,
        /// Nobody: there is no command queue.
        DISABLED = 1,
        /// A driver that needs none of the function's memory.
        NO_DRAM_NIC = 2,
        /// Nobody, for the firmware is being reset.
        SW_RESET = 7,
    }

    /// What is wrong with the firmware: `synd` of the health buffer.
    pub enum HealthSyndrome: u8 {
        /// An error inside the firmware.
        FW_INTERNAL_ERR = 0x1,
        /// A processor of the device does not respond.
        DEAD_IRISC = 0x7,
        /// The hardware failed for good.
        HW_FATAL_ERR = 0x8,
        /// The firmware's image is damaged.
        FW_CRC_ERR = 0x9,
        /// The function's pages could not be read.
        ICM_FETCH_PCI_ERR = 0xa,
        /// One of the function's pages is not there.
        ICM_PAGE_ERR = 0xb,
        /// An event queue overran.
        ASYNCHRONOUS_EQ_BUF_OVERRUN = 0xc,
        /// An event queue is in error.
        EQ_IN_ERR = 0xd,
        /// An event queue that does not exist was referred to.
        EQ_INV = 0xe,
        /// The transceiver failed.
        FFSER_ERR = 0xf,
        /// The device is too hot.
        HIGH_TEMP_ERR = 0x10,
        /// The function's pages are poisoned.
        ICM_PCI_POISONED_ERR = 0x12,
        /// The device is locked down.
        TRUST_LOCKDOWN_ERR = 0x13,
    }
}

crate::layout! {
    /// What the firmware says of its own health.
    pub struct HealthBuffer = "health_buffer", 0x40 {
        /// Numbers for the firmware's makers.
        assert_var: [u8; 24] @ 0x0;
        /// Where the firmware stopped.
        assert_exit_ptr: u32 @ 0x100, 32;
        /// From where it was called.
        assert_callra: u32 @ 0x120, 32;
        /// When it did, in seconds.
        time: u32 @ 0x160, 32;
        /// The version of the firmware; all ones if the device cannot be reached.
        fw_ver: u32 @ 0x180, 32;
        /// The identity of the hardware.
        hw_id: u32 @ 0x1a0, 32;
        /// In bit 7 whether a reset is asked for, in bit 3 whether bits 2 to 0 are a severity.
        rfr_severity: u8 @ 0x1c0, 8;
        /// Which processor it was.
        irisc_index: u8 @ 0x1e0, 8;
        /// What is wrong; 0 if nothing is. See [`HealthSyndrome`].
        synd: u8 @ 0x1e8, 8;
        /// More of it.
        ext_synd: u16 @ 0x1f0, 16;
    }

    /// The registers in front of BAR 0.
    pub struct InitSegment = "mlx5_init_seg", 0x2010 {
        /// The version of the firmware: minor in the high half, major in the low one.
        fw_rev: u32 @ 0x0, 32;
        /// The revision of the command interface, and the firmware's sub-minor version.
        cmdif_rev_fw_sub: u32 @ 0x20, 32;
        /// The high half of the command queue's address.
        cmdq_addr_h: u32 @ 0x80, 32;
        /// The low half of it, page by page, with the [`NicInterface`] in bits 10 to 8; read, bits
        /// 7 to 4 are the logarithm of the number of entries and bits 3 to 0 of their size.
        cmdq_addr_l_sz: u32 @ 0xa0, 32;
        /// Written, one bit for each entry that is to be executed.
        cmd_dbell: u32 @ 0xc0, 32;
        /// In bit 31 whether the firmware is still starting.
        initializing: u32 @ 0xfe0, 32;
        /// What the firmware says of its own health.
        health: &HealthBuffer @ 0x1000;
        /// How long commands may take, if the firmware says so here.
        cmd_exec_to: u32 @ 0x7fc0, 32;
        /// How long the firmware may take to start, if it says so here; other time limits are to
        /// be asked for then.
        cmd_q_init_to: u32 @ 0x7fe0, 32;
        /// The high half of the device's clock.
        internal_timer_h: u32 @ 0x8000, 32;
        /// The low half of it.
        internal_timer_l: u32 @ 0x8020, 32;
        /// Changes as long as the firmware is well.
        health_counter: u32 @ 0x8080, 32;
        /// The time of day: seconds.
        real_time_h: u32 @ 0x8200, 32;
        /// The time of day: nanoseconds.
        real_time_l: u32 @ 0x8220, 32;
        /// A clock for time stamps.
        ieee1588_clk: u64 @ 0x10000, 64;
        /// What it counts.
        ieee1588_clk_type: u32 @ 0x10040, 32;
        /// Written to take back an INTx interrupt.
        clr_intx: u32 @ 0x10060, 32;
    }
}

/// The revision of the command interface, in the high half of `cmdif_rev_fw_sub`.
pub const CMDIF_REV: u16 = 5;

/// The structures of this module.
pub const LAYOUTS: &[Info] = &[HealthBuffer::INFO, InitSegment::INFO];
