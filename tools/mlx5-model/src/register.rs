// SPDX-License-Identifier: GPL-2.0

//! Registers of port and management, those a virtual function may read.

use prm::{
    register::{
        AccessRegister,
        AccessRegisterIn,
        AccessRegisterOut,
        DefaultTimeout,
        DtorReg,
        PaosReg,
        PmtuReg,
        RegisterAccess,
        RegisterId, //
    },
    Layout, //
};
use zerocopy::IntoBytes;

use crate::{
    command::{
        handler,
        Execute,
        Handler,
        Reply, //
    },
    hca::Hca,
    refusal::Refusal, //
};

/// What PAOS calls up and down.
const PORT_UP: u8 = 1;
const PORT_DOWN: u8 = 2;

/// The unit of a time limit that is a second.
const SECONDS: u8 = 1;

impl Execute for AccessRegister {
    fn execute(
        hca: &mut Hca,
        input: &AccessRegisterIn,
        _: &[u8],
    ) -> Result<Reply<AccessRegisterOut>, Refusal> {
        let register =
            RegisterId::try_from(input.register_id()).map_err(|_| Refusal::UnknownRegister)?;
        if input.op_mod() != Ok(RegisterAccess::READ) {
            return Err(Refusal::RegisterReadOnly);
        }
        let tail = match register {
            RegisterId::PMTU => {
                let mtu = hca.vport.mtu();
                let mut pmtu = PmtuReg::new();
                pmtu.set_local_port(1)
                    .set_max_mtu(mtu)
                    .set_admin_mtu(mtu)
                    .set_oper_mtu(mtu);
                pmtu.as_bytes().to_vec()
            }
            RegisterId::PAOS => {
                let status = if hca.vport.is_up() {
                    PORT_UP
                } else {
                    PORT_DOWN
                };
                let mut paos = PaosReg::new();
                paos.set_local_port(1)
                    .set_admin_status(PORT_UP)
                    .set_oper_status(status);
                paos.as_bytes().to_vec()
            }
            RegisterId::DTOR => time_limits().as_bytes().to_vec(),
        };
        let mut reply = Reply::done();
        reply.tail = tail;
        Ok(reply)
    }
}

/// How long a driver had better wait.
fn time_limits() -> DtorReg {
    let mut limits = DtorReg::new();
    let seconds = |limit: &mut DefaultTimeout, value| {
        limit.set_to_multiplier(SECONDS).set_to_value(value);
    };
    seconds(limits.pcie_toggle_to_mut(), 2);
    seconds(limits.health_poll_to_mut(), 2);
    seconds(limits.full_crdump_to_mut(), 60);
    seconds(limits.fw_reset_to_mut(), 60);
    seconds(limits.flush_on_err_to_mut(), 2);
    seconds(limits.pci_sync_update_to_mut(), 10);
    seconds(limits.tear_down_to_mut(), 3);
    seconds(limits.fsm_reactivate_to_mut(), 5);
    seconds(limits.reclaim_pages_to_mut(), 5);
    seconds(limits.reclaim_vfs_pages_to_mut(), 120);
    seconds(limits.reset_unload_to_mut(), 300);
    limits
}

/// The commands of this area.
pub const COMMANDS: &[Handler] = &[handler::<AccessRegister>()];
