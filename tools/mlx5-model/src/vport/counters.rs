// SPDX-License-Identifier: GPL-2.0

//! Counters of the port, and sets of counters that queues share.

use std::sync::atomic::{
    AtomicU64,
    Ordering::Relaxed, //
};

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
    hca::Hca,
    object::Table,
    refusal::Refusal, //
};

/// Which way frames went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the switch to the function.
    Received,
    /// From the function to the switch.
    Transmitted,
}

/// Why frames were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// No flow table entry led to a queue.
    Steering,
    /// Received while the port was down.
    ReceiveDown,
    /// Sent while the port was down.
    TransmitDown,
    /// A receive queue had no buffer.
    OutOfBuffer,
}

/// Frames and bytes.
#[derive(Debug, Default)]
struct Traffic {
    packets: AtomicU64,
    octets: AtomicU64,
}

impl Traffic {
    fn read(&self, clear: bool, to: &mut TrafficCounter) {
        to.set_packets(read(&self.packets, clear))
            .set_octets(read(&self.octets, clear));
    }
}

fn read(counter: &AtomicU64, clear: bool) -> u64 {
    if clear {
        counter.swap(0, Relaxed)
    } else {
        counter.load(Relaxed)
    }
}

/// To how many a frame is sent.
const UNICAST: usize = 0;
const MULTICAST: usize = 1;
const BROADCAST: usize = 2;

/// The counters of a port.
#[derive(Debug, Default)]
pub(super) struct Counters {
    received: [Traffic; 3],
    transmitted: [Traffic; 3],
    steering: AtomicU64,
    receive_down: AtomicU64,
    transmit_down: AtomicU64,
    out_of_buffer: AtomicU64,
}

impl Counters {
    pub(super) fn count<'a>(&self, way: Way, frames: impl IntoIterator<Item = &'a [u8]>) {
        // Counted up first: shared counters are slow.
        let mut sums = [(0u64, 0u64); 3];
        for frame in frames {
            let class = match frame {
                [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, ..] => BROADCAST,
                [first, ..] if first & 1 == 1 => MULTICAST,
                _ => UNICAST,
            };
            sums[class].0 += 1;
            sums[class].1 += frame.len() as u64;
        }
        let totals = match way {
            Way::Received => &self.received,
            Way::Transmitted => &self.transmitted,
        };
        for (total, (packets, octets)) in totals.iter().zip(sums) {
            if packets != 0 {
                total.packets.fetch_add(packets, Relaxed);
                total.octets.fetch_add(octets, Relaxed);
            }
        }
    }

    pub(super) fn discard(&self, why: Discard, frames: u64) {
        let counter = match why {
            Discard::Steering => &self.steering,
            Discard::ReceiveDown => &self.receive_down,
            Discard::TransmitDown => &self.transmit_down,
            Discard::OutOfBuffer => &self.out_of_buffer,
        };
        counter.fetch_add(frames, Relaxed);
    }
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
        let counters = &hca.vport.counters;
        let clear = input.clear();
        let mut output = QueryVportCounterOut::new();
        let [unicast, multicast, broadcast] = &counters.received;
        unicast.read(clear, output.received_eth_unicast_mut());
        multicast.read(clear, output.received_eth_multicast_mut());
        broadcast.read(clear, output.received_eth_broadcast_mut());
        let [unicast, multicast, broadcast] = &counters.transmitted;
        unicast.read(clear, output.transmitted_eth_unicast_mut());
        multicast.read(clear, output.transmitted_eth_multicast_mut());
        broadcast.read(clear, output.transmitted_eth_broadcast_mut());
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
        let counters = &hca.vport.counters;
        let mut output = QueryVnicEnvOut::new();
        output
            .vport_env_mut()
            .set_nic_receive_steering_discard(read(&counters.steering, false))
            .set_receive_discard_vport_down(read(&counters.receive_down, false))
            .set_transmit_discard_vport_down(read(&counters.transmit_down, false))
            .set_internal_rq_out_of_buffer(read(&counters.out_of_buffer, false) as u32);
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
