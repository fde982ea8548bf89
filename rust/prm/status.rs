// SPDX-License-Identifier: GPL-2.0

//! How a command ended.

crate::values! {
    /// The outcome of a command that the firmware executed.
    pub enum Status: u8 {
        /// It was done.
        OK = 0x0,
        /// An error inside the firmware.
        INT_ERR = 0x1,
        /// The opcode is not known, or not supported.
        BAD_OP_ERR = 0x2,
        /// A parameter is not acceptable.
        BAD_PARAM_ERR = 0x3,
        /// The function is not in a state for it.
        BAD_SYS_STATE_ERR = 0x4,
        /// A resource does not exist or is not the caller's.
        BAD_RES_ERR = 0x5,
        /// The resource is in use.
        RES_BUSY = 0x6,
        /// The function is not ready.
        NOT_READY = 0x7,
        /// A limit is exceeded.
        LIM_ERR = 0x8,
        /// The resource is not in a state for it.
        BAD_RES_STATE_ERR = 0x9,
        /// An index is out of range.
        IX_ERR = 0xa,
        /// There are no resources left.
        NO_RES_ERR = 0xf,
        /// The input is too short or too long.
        BAD_INP_LEN_ERR = 0x50,
        /// There is not enough room for the output.
        BAD_OUTP_LEN_ERR = 0x51,
        /// A queue pair is in the wrong state.
        BAD_QP_STATE_ERR = 0x10,
        /// A packet cannot be sent.
        BAD_PKT_ERR = 0x30,
        /// The size does not match outstanding completions.
        BAD_SIZE_OUTS_CQES_ERR = 0x40,
    }
}
