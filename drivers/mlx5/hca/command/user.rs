// SPDX-License-Identifier: GPL-2.0

//! Which commands are about what user contexts own.

use prm::Opcode;

/// Returns whether a command makes, changes, reads or ends an object that belongs to a user
/// context, and says to which in its header. Others have no such field: flow tables and the port
/// are the function's own.
pub(crate) fn is_owned(opcode: Opcode) -> bool {
    matches!(
        opcode,
        Opcode::ALLOC_PD
            | Opcode::DEALLOC_PD
            | Opcode::ALLOC_TRANSPORT_DOMAIN
            | Opcode::DEALLOC_TRANSPORT_DOMAIN
            | Opcode::CREATE_MKEY
            | Opcode::DESTROY_MKEY
            | Opcode::CREATE_UMEM
            | Opcode::DESTROY_UMEM
            | Opcode::CREATE_GENERAL_OBJECT
            | Opcode::MODIFY_GENERAL_OBJECT
            | Opcode::QUERY_GENERAL_OBJECT
            | Opcode::DESTROY_GENERAL_OBJECT
            | Opcode::CREATE_CQ
            | Opcode::DESTROY_CQ
            | Opcode::CREATE_QP
            | Opcode::RST2INIT_QP
            | Opcode::INIT2RTR_QP
            | Opcode::RTR2RTS_QP
            | Opcode::_2RST_QP
            | Opcode::_2ERR_QP
            | Opcode::DESTROY_QP
            | Opcode::CREATE_TIS
            | Opcode::DESTROY_TIS
            | Opcode::CREATE_TIR
            | Opcode::MODIFY_TIR
            | Opcode::DESTROY_TIR
            | Opcode::CREATE_RQT
            | Opcode::MODIFY_RQT
            | Opcode::DESTROY_RQT
    )
}
