// SPDX-License-Identifier: GPL-2.0

//! Counters of the port, and sets of counters that queues share.

use prm::{
    command::OutputHeader,
    vport::{
        AllocQCounter,
        AllocQCounterIn,
        AllocQCounterOut,
        DeallocQCounter,
        DeallocQCounterIn,
        QueryQCounter,
        QueryQCounterIn,
        QueryQCounterOut,
        QueryVnicEnv,
        QueryVnicEnvIn,
        QueryVnicEnvOut,
        QueryVportCounter,
        QueryVportCounterIn,
        QueryVportCounterOut,
        TrafficCounter, //
    },
    Layout, //
};

use super::context::own_vport;
use crate::{
    command::{
        handler,
        Execute,
        Handler,
        Reply, //
    },
    eswitch::Amount,
    hca::Hca,
    object::Table,
    refusal::Refusal, //
};

/// Writes an amount as the reference has it.
fn tell(amount: Amount, to: &mut TrafficCounter) {
    to.set_packets(amount.frames).set_octets(amount.octets);
}

impl Execute for QueryVportCounter {
    fn execute(
        hca: &mut Hca,
        input: &QueryVportCounterIn,
        _: &[u8],
    ) -> Result<Reply<QueryVportCounterOut>, Refusal> {
        own_vport(input.other_vport(), input.vport_number())?;
        if !hca.platform.profile.general.vport_counters() {
            return Err(Refusal::NotOfVport);
        }
        let (received, sent) = hca.vport.counters(input.clear());
        let mut output = QueryVportCounterOut::new();
        tell(received.unicast, output.received_eth_unicast_mut());
        tell(received.multicast, output.received_eth_multicast_mut());
        tell(received.broadcast, output.received_eth_broadcast_mut());
        tell(sent.unicast, output.transmitted_eth_unicast_mut());
        tell(sent.multicast, output.transmitted_eth_multicast_mut());
        tell(sent.broadcast, output.transmitted_eth_broadcast_mut());
        Ok(output.into())
    }
}

impl Execute for QueryVnicEnv {
    fn execute(
        hca: &mut Hca,
        input: &QueryVnicEnvIn,
        _: &[u8],
    ) -> Result<Reply<QueryVnicEnvOut>, Refusal> {
        own_vport(input.other_vport(), input.vport_number())?;
        if !hca.platform.profile.general.vnic_env_queue_counters() {
            return Err(Refusal::NotOfVport);
        }
        // What is cleared by the other query stays here.
        let port = hca.platform.port.counters();
        let mut output = QueryVnicEnvOut::new();
        let counters = output.vport_env_mut();
        if hca.platform.profile.general.invalid_command_count() {
            // The counter has 32 bits, and wraps.
            counters.set_invalid_command(hca.platform.journal.stats.refused() as u32);
        }
        counters
            .set_nic_receive_steering_discard(hca.platform.receiver.discarded())
            .set_receive_discard_vport_down(port.to_port_down)
            .set_transmit_discard_vport_down(port.from_port_down);
        Ok(output.into())
    }
}

/// A set of counters that queues share. No queue of a virtual function that has no Ethernet queues
/// of its own counts in one, so it stays 0.
#[derive(Debug)]
pub struct QCounter;

/// A function's table of sets of queue counters, empty.
pub(crate) fn q_counters() -> Table<QCounter> {
    Table::new("set of queue counters", 1, u8::MAX.into())
}

impl Execute for AllocQCounter {
    fn execute(
        hca: &mut Hca,
        _: &AllocQCounterIn,
        _: &[u8],
    ) -> Result<Reply<AllocQCounterOut>, Refusal> {
        if hca.q_counters.len() >= usize::from(hca.platform.profile.general.max_qp_cnt()) {
            return Err(Refusal::NoResources);
        }
        let id = hca.q_counters.add(QCounter)?;
        let mut output = AllocQCounterOut::new();
        // The numbers of the table are of 8 bits.
        output.set_counter_set_id(id as u8);
        Ok(output.into())
    }
}

impl Execute for DeallocQCounter {
    fn execute(
        hca: &mut Hca,
        input: &DeallocQCounterIn,
        _: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        hca.q_counters.remove(input.counter_set_id().into())?;
        Ok(Reply::done())
    }
}

impl Execute for QueryQCounter {
    fn execute(
        hca: &mut Hca,
        input: &QueryQCounterIn,
        _: &[u8],
    ) -> Result<Reply<QueryQCounterOut>, Refusal> {
        own_vport(input.other_vport(), input.vport_number())?;
        hca.q_counters.get(input.counter_set_id().into())?;
        Ok(Reply::done())
    }
}

/// The commands of this area.
pub(crate) const COMMANDS: &[Handler] = &[
    handler::<QueryVportCounter>(),
    handler::<QueryVnicEnv>(),
    handler::<AllocQCounter>(),
    handler::<DeallocQCounter>(),
    handler::<QueryQCounter>(),
];
