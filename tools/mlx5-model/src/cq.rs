// SPDX-License-Identifier: GPL-2.0

//! Completion queues: where the driver reads what is done.
//!
//! An entry belongs to the driver when its owner bit equals the parity of the driver's rounds
//! through the queue. How far the driver has come it writes to a doorbell record in its own
//! memory, which is read when the queue seems to be full. An event is sent for the next completion
//! after the queue was armed, or at once if the driver armed it before it saw the last one.
//!
//! Moderation is accepted and told again, but every event is sent at once.

use std::{
    collections::BTreeMap,
    sync::Weak, //
};

use parking_lot::Mutex;
use prm::{
    cap::CmdHcaCap,
    command::OutputHeader,
    cq::{
        CqContext,
        CqState,
        CqStatus,
        Cqe,
        CreateCq,
        CreateCqIn,
        CreateCqOut,
        DestroyCq,
        DestroyCqIn,
        ModifyCq,
        ModifyCqIn,
        QueryCq,
        QueryCqIn,
        QueryCqOut,
        MODIFY_COUNT,
        MODIFY_OVERRUN,
        MODIFY_PERIOD,
        MODIFY_PERIOD_MODE, //
    },
    uar::CqDoorbell,
    Layout, //
};

use crate::{
    buffer::Buffer,
    command::{
        handler,
        Execute,
        Handler,
        Reply, //
    },
    eq::{
        write_entry,
        CqFault,
        Eq,
        Event, //
    },
    hca::Hca,
    object::{
        self,
        Handle,
        Shared,
        Table, //
    },
    platform::Platform,
    qp::Qp,
    refusal::Refusal,
    uar::Uar, //
};

/// The logarithm of the largest queue, in entries.
const LOG_MAX_SIZE: u8 = 22;

/// Counters of entries have 24 bits.
const COUNTER: u32 = (1 << 24) - 1;

/// The size of an entry in bytes.
const ENTRY: u64 = 64;

/// The size of a doorbell record in bytes.
pub(crate) const RECORD: u64 = 8;

/// A completion queue.
#[derive(Debug)]
pub struct Cq {
    number: u32,
    buffer: Buffer,
    log_size: u8,
    /// The address of the doorbell record.
    record: u64,
    uar: Handle<Uar>,
    eq: Handle<Eq>,
    ring: Mutex<Ring>,
    /// Queue pairs, by number, that wait for the driver to post receive entries, which it does
    /// before it arms their queue.
    starved: Mutex<BTreeMap<u32, Weak<Qp>>>,
}

/// Where a completion queue stands.
#[derive(Debug)]
struct Ring {
    context: CqContext,
    producer: u32,
    consumer: u32,
    armed: bool,
    /// How many events were sent. The driver counts too: with an older number it arms the queue
    /// for an event that it was sent since.
    events: u8,
    status: CqStatus,
    /// The queue is gone: nothing is written any more.
    closed: bool,
}

impl Ring {
    /// The driver has consumed entries. Who counts what was never there is not believed.
    fn consumed(&mut self, consumer: u32) {
        let step = consumer.wrapping_sub(self.consumer) & COUNTER;
        if step <= self.producer.wrapping_sub(self.consumer) & COUNTER {
            self.consumer = consumer;
        }
    }

    /// How many entries the driver has not consumed.
    fn pending(&self) -> u32 {
        self.producer.wrapping_sub(self.consumer) & COUNTER
    }
}

impl Cq {
    /// The vector it interrupts by.
    pub(crate) fn vector(&self) -> u16 {
        self.eq.vector()
    }

    /// Writes an entry, but for its owner bit, and sends an event if the queue is armed.
    pub(crate) fn complete(&self, platform: &Platform, mut entry: Cqe) {
        let mut ring = self.ring.lock();
        if ring.closed || ring.status != CqStatus::OK {
            return;
        }
        if ring.pending() >= 1 << self.log_size {
            match platform.memory.snapshot().load::<u32>(self.record) {
                Ok(consumer) => ring.consumed(u32::from_be(consumer) & COUNTER),
                Err(_) => return self.fail(platform, &mut ring, CqFault::Access),
            }
        }
        if ring.pending() >= 1 << self.log_size {
            if !ring.context.oi() {
                return self.fail(platform, &mut ring, CqFault::Overrun);
            }
            ring.consumer = (ring.consumer + 1) & COUNTER;
        }
        let owner = ((ring.producer >> self.log_size) as u8) & 1;
        entry.set_op_own((entry.op_own() & !1) | owner);
        let index = u64::from(ring.producer) & ((1 << self.log_size) - 1);
        let written = self
            .buffer
            .addr(ENTRY * index, ENTRY)
            .is_some_and(|addr| write_entry(&platform.memory, addr, &entry).is_ok());
        if !written {
            return self.fail(platform, &mut ring, CqFault::Access);
        }
        ring.producer = (ring.producer + 1) & COUNTER;
        if ring.armed {
            self.send(platform, &mut ring);
        }
    }

    /// Sends an event. One that found no place is tried again with the next completion.
    fn send(&self, platform: &Platform, ring: &mut Ring) {
        let event = Event::Completion {
            eqn: self.eq.id(),
            cqn: self.number,
        };
        let is_lost = platform.faults.loses_event(self.vector());
        ring.armed = !is_lost && !platform.events.post(event);
        if !ring.armed {
            ring.events = (ring.events + 1) & 3;
            let producer = ring.producer;
            ring.context.set_last_notified_index(producer);
        }
    }

    /// Takes the queue out of service, and says so.
    fn fail(&self, platform: &Platform, ring: &mut Ring, fault: CqFault) {
        ring.status = match fault {
            CqFault::Overrun => CqStatus::CQ_OVERFLOW,
            CqFault::Access => CqStatus::CQ_WRITE_FAIL,
        };
        platform.events.post(Event::CqError {
            cqn: self.number,
            fault,
        });
    }

    /// Takes the queue out of service as if it had overrun. Returns whether it was in service.
    pub(crate) fn overrun(&self, platform: &Platform) -> bool {
        let mut ring = self.ring.lock();
        let was_in_service = ring.status == CqStatus::OK;
        if was_in_service {
            self.fail(platform, &mut ring, CqFault::Overrun);
        }
        was_in_service
    }

    /// The driver armed the queue.
    fn arm(&self, platform: &Platform, doorbell: &CqDoorbell) {
        let mut ring = self.ring.lock();
        ring.consumed(doorbell.consumer_counter());
        // Entries that ask for an event are not told from others: none does.
        if ring.closed || doorbell.arm_sn() != ring.events || doorbell.solicited() {
            return;
        }
        ring.armed = true;
        if ring.producer != doorbell.consumer_counter() {
            self.send(platform, &mut ring);
        }
    }

    /// Tries `pair`, the one with `number`, again when the driver arms the queue: once, however
    /// often it waits.
    pub(crate) fn wait(&self, number: u32, pair: Weak<Qp>) {
        self.starved.lock().insert(number, pair);
    }

    /// Writes nothing from now on.
    fn close(&self) {
        self.ring.lock().closed = true;
    }

    fn query(&self) -> QueryCqOut {
        let ring = self.ring.lock();
        let mut output = QueryCqOut::new();
        let context = output.cq_context_mut();
        *context = ring.context.clone();
        context
            .set_status(ring.status)
            .set_st(if ring.armed {
                CqState::NOTIFICATION_REQUEST_ARMED
            } else {
                CqState::FIRED
            })
            .set_consumer_counter(ring.consumer)
            .set_producer_counter(ring.producer);
        output
    }

    fn modify(&self, select: u32, from: &CqContext) -> Result<(), Refusal> {
        if select & !(MODIFY_PERIOD | MODIFY_COUNT | MODIFY_OVERRUN | MODIFY_PERIOD_MODE) != 0 {
            return Err(Refusal::NotOffered);
        }
        let mut ring = self.ring.lock();
        if select & MODIFY_PERIOD != 0 {
            ring.context.set_cq_period(from.cq_period());
        }
        if select & MODIFY_COUNT != 0 {
            ring.context.set_cq_max_count(from.cq_max_count());
        }
        if select & MODIFY_OVERRUN != 0 {
            ring.context.set_oi(from.oi());
        }
        if select & MODIFY_PERIOD_MODE != 0 {
            ring.context.set_cq_period_mode(from.cq_period_mode());
        }
        Ok(())
    }
}

/// The completion queues of a function.
pub type Cqs = Shared<Cq>;

/// Makes a function's completion queues, none yet.
pub fn cqs(general: &CmdHcaCap) -> Cqs {
    let count = object::count(general.log_max_cq());
    Table::new("completion queue", 1, count).into()
}

impl Cqs {
    /// The driver wrote to the doorbell of completion queues in page `uar`.
    pub fn doorbell(&self, platform: &Platform, uar: u32, doorbell: &CqDoorbell) {
        let starved = {
            let queues = self.read();
            match queues.get(doorbell.cqn()) {
                Ok(cq) if cq.uar.id() == uar => {
                    cq.arm(platform, doorbell);
                    std::mem::take(&mut *cq.starved.lock())
                }
                _ => return,
            }
        };
        for pair in starved.values().filter_map(Weak::upgrade) {
            pair.retry(platform);
        }
    }

    /// Takes every queue away, used or not. Nothing is written when this returns.
    pub fn clear(&self) {
        self.clear_with(Cq::close);
    }
}

impl Execute for CreateCq {
    fn execute(
        hca: &mut Hca,
        input: &CreateCqIn,
        tail: &[u8],
    ) -> Result<Reply<CreateCqOut>, Refusal> {
        let context = input.cq_context();
        let general = &hca.platform.profile.general;
        if context.log_cq_size() > general.log_max_cq_sz().min(LOG_MAX_SIZE) {
            return Err(Refusal::QueueTooLarge);
        }
        let elsewhere = input.cq_umem_valid() || context.dbr_umem_valid();
        if elsewhere || context.cqe_sz() != 0 || context.cc() {
            return Err(Refusal::NotOffered);
        }
        if context.dbr_addr() % RECORD != 0 {
            return Err(Refusal::PageNotAligned);
        }
        let buffer = Buffer::new(
            tail,
            context.log_page_size(),
            64 * u64::from(context.page_offset()),
            ENTRY << context.log_cq_size(),
        )?;
        let platform = &hca.platform;
        let uar = hca.uars.hold(context.uar_page())?;
        let eq = platform.events.hold(context.c_eqn_or_apu_element())?;
        let cqn = platform.cqs.write().add_with(|number| Cq {
            number,
            buffer,
            log_size: context.log_cq_size(),
            record: context.dbr_addr(),
            uar,
            eq,
            ring: Mutex::new(Ring {
                context: context.clone(),
                producer: 0,
                consumer: 0,
                armed: false,
                events: 0,
                status: CqStatus::OK,
                closed: false,
            }),
            starved: Mutex::default(),
        })?;
        let mut output = CreateCqOut::new();
        output.set_cqn(cqn);
        Ok(output.into())
    }
}

impl Execute for DestroyCq {
    fn execute(
        hca: &mut Hca,
        input: &DestroyCqIn,
        _: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        hca.platform.cqs.write().remove(input.cqn())?;
        Ok(Reply::done())
    }
}

impl Execute for QueryCq {
    fn execute(hca: &mut Hca, input: &QueryCqIn, _: &[u8]) -> Result<Reply<QueryCqOut>, Refusal> {
        let queues = hca.platform.cqs.read();
        let cq = queues.get(input.cqn())?;
        Ok(Reply {
            output: cq.query(),
            tail: cq.buffer.list(),
        })
    }
}

impl Execute for ModifyCq {
    fn execute(
        hca: &mut Hca,
        input: &ModifyCqIn,
        _: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        let queues = hca.platform.cqs.read();
        let cq = queues.get(input.cqn())?;
        // A variant of the command resizes the queue.
        if input.op_mod() != 0 {
            return Err(Refusal::NotOffered);
        }
        let select = input.modify_field_select_resize_field_select();
        cq.modify(select, input.cq_context())?;
        Ok(Reply::done())
    }
}

/// The commands of this area.
pub const COMMANDS: &[Handler] = &[
    handler::<CreateCq>(),
    handler::<DestroyCq>(),
    handler::<QueryCq>(),
    handler::<ModifyCq>(),
];
