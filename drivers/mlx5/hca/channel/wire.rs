// SPDX-License-Identifier: GPL-2.0

//! Commands for the completion queue and the two queue pairs of a channel.

use prm::{
    cq::CreateCqIn,
    qp::{
        CreateQpIn,
        Init2rtrQpIn,
        QpContext,
        QpService,
        RqType,
        Rst2initQpIn,
        Rtr2rtsQpIn, //
    }, //
};

use super::ring::LOG_SIZE;

/// The largest packet: 256 bytes. Messages are empty.
const MTU_256: u8 = 1;

/// The path of a pair that never had another.
const MIGRATED: u8 = 3;

/// The logarithm of the longest message, as it has to be said.
const LOG_MESSAGE: u8 = 30;

/// To be tried again for ever where there is no entry to receive, and as often as can be otherwise.
const RETRIES: u8 = 7;

/// How long the firmware's pair is to wait where there is no entry to receive, before it tries again:
/// 10 microseconds, the shortest time. 0 is the longest, 655 milliseconds.
const RNR_TIMER: u8 = 1;

/// How long to wait for an acknowledgement: 4.096 microseconds times 2 to this, 67 milliseconds.
const LOG_TIMEOUT: u8 = 14;

/// Fills in CREATE of a completion queue, the doorbell record of which is at `record`; events of it
/// go to event queue `eqn`, and it is armed by the page of doorbells `uar`.
pub(crate) fn completions(input: &mut CreateCqIn, eqn: u8, uar: u32, record: u64) {
    input
        .cq_context_mut()
        .set_log_cq_size(LOG_SIZE)
        .set_uar_page(uar)
        .set_c_eqn_or_apu_element(eqn.into())
        .set_dbr_addr(record);
}

/// Fills in CREATE of the pair that is the firmware's, which sends.
pub(crate) fn sender(input: &mut CreateQpIn, pd: u32) {
    connected(input.qpc_mut(), pd).set_rq_type(RqType::ZERO_LEN_RQ);
}

/// Fills in CREATE of the pair that is the driver's, which receives. What is received completes in
/// completion queue `cqn`; how many entries were posted is at `record`.
pub(crate) fn receiver(input: &mut CreateQpIn, pd: u32, uar: u32, cqn: u32, record: u64) {
    connected(input.qpc_mut(), pd)
        .set_rq_type(RqType::NON_ZERO_RQ)
        .set_log_rq_size(LOG_SIZE)
        .set_uar_page(uar)
        .set_cqn_rcv(cqn)
        .set_dbr_addr(record);
}

fn connected(context: &mut QpContext, pd: u32) -> &mut QpContext {
    context
        .set_st(QpService::RC)
        .set_pm_state(MIGRATED)
        .set_pd(pd)
        .set_mtu(MTU_256)
        .set_no_sq(true)
}

/// Fills in what takes pair `qpn` from reset to initialized, for a connection with pair `other`.
pub(crate) fn initialize(input: &mut Rst2initQpIn, qpn: u32, other: u32) {
    let context = input.set_qpn(qpn).qpc_mut();
    context.set_remote_qpn(other).set_rwe(true);
    context.primary_address_path_mut().set_vhca_port_num(1);
}

/// Fills in what has pair `qpn` receive from pair `other` of the same function.
pub(crate) fn receive(input: &mut Init2rtrQpIn, qpn: u32, other: u32) {
    let context = input.set_qpn(qpn).qpc_mut();
    context
        .set_mtu(MTU_256)
        .set_log_msg_max(LOG_MESSAGE)
        .set_min_rnr_nak(RNR_TIMER)
        .set_remote_qpn(other);
    context.primary_address_path_mut().set_fl(true);
}

/// Fills in what lets pair `qpn` send.
pub(crate) fn send(input: &mut Rtr2rtsQpIn, qpn: u32) {
    let context = input.set_qpn(qpn).qpc_mut();
    context.set_retry_count(RETRIES).set_rnr_retry(RETRIES);
    context
        .primary_address_path_mut()
        .set_ack_timeout(LOG_TIMEOUT);
}
