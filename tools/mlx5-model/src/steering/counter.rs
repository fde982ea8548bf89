// SPDX-License-Identifier: GPL-2.0

//! Flow counters: what entries of flow tables count.

use std::sync::atomic::{
    AtomicU64,
    Ordering, //
};

use prm::{
    command::OutputHeader,
    flow::{
        AllocFlowCounter,
        AllocFlowCounterIn,
        AllocFlowCounterOut,
        DeallocFlowCounter,
        DeallocFlowCounterIn,
        QueryFlowCounter,
        QueryFlowCounterIn,
        QueryFlowCounterOut,
        TrafficCounter, //
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

/// A flow counter.
#[derive(Default)]
pub struct FlowCounter {
    packets: AtomicU64,
    octets: AtomicU64,
}

impl FlowCounter {
    /// Counts a frame of `octets` bytes.
    pub(super) fn count(&self, octets: usize) {
        self.packets.fetch_add(1, Ordering::Relaxed);
        self.octets.fetch_add(octets as u64, Ordering::Relaxed);
    }

    /// What was counted; from then on it begins again from 0 if `clear`.
    pub(super) fn value(&self, clear: bool) -> TrafficCounter {
        let read = |counter: &AtomicU64| {
            if clear {
                counter.swap(0, Ordering::Relaxed)
            } else {
                counter.load(Ordering::Relaxed)
            }
        };
        let mut value = TrafficCounter::new();
        value
            .set_packets(read(&self.packets))
            .set_octets(read(&self.octets));
        value
    }
}

impl Execute for AllocFlowCounter {
    fn execute(
        hca: &mut Hca,
        input: &AllocFlowCounterIn,
        _tail: &[u8],
    ) -> Result<Reply<AllocFlowCounterOut>, Refusal> {
        if input.flow_counter_bulk() != 0 || input.flow_counter_bulk_log_size() != 0 {
            return Err(Refusal::FlowCounterBulk);
        }
        let id = hca.steering.flow_counters.add(FlowCounter::default())?;
        let mut output = AllocFlowCounterOut::new();
        output.set_flow_counter_id(id);
        Ok(output.into())
    }
}

impl Execute for DeallocFlowCounter {
    fn execute(
        hca: &mut Hca,
        input: &DeallocFlowCounterIn,
        _tail: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        hca.steering.flow_counters.remove(input.flow_counter_id())?;
        Ok(Reply::done())
    }
}

impl Execute for QueryFlowCounter {
    fn execute(
        hca: &mut Hca,
        input: &QueryFlowCounterIn,
        _tail: &[u8],
    ) -> Result<Reply<QueryFlowCounterOut>, Refusal> {
        let mut counters = Vec::new();
        for offset in 0..u32::from(input.num_of_counters().max(1)) {
            let id = input.flow_counter_id().saturating_add(offset);
            counters.push(hca.steering.flow_counters.get(id)?);
        }
        let mut reply = Reply::from(QueryFlowCounterOut::new());
        for counter in counters {
            let value = counter.value(input.clear());
            reply.tail.extend_from_slice(value.as_bytes());
        }
        Ok(reply)
    }
}

/// The commands of this area.
pub const COMMANDS: &[Handler] = &[
    handler::<AllocFlowCounter>(),
    handler::<DeallocFlowCounter>(),
    handler::<QueryFlowCounter>(),
];
