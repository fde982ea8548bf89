// SPDX-License-Identifier: GPL-2.0

//! Event queues: how the driver hears of what it did not wait for.
//!
//! An entry belongs to the driver when its owner bit equals the parity of the driver's rounds
//! through the queue. The device writes the entry, its owner bit last, and raises the queue's
//! interrupt if the queue is armed. An interrupt disarms it. The driver arms it again through its
//! page of doorbells, with the number of entries it has consumed; if others were written meanwhile
//! the interrupt is raised at once.

use std::sync::Arc;

use parking_lot::Mutex;
use prm::{
    cap::CmdHcaCap,
    command::OutputHeader,
    eq::{
        CreateEq,
        CreateEqIn,
        CreateEqOut,
        DestroyEq,
        DestroyEqIn,
        EqState,
        EqStatus,
        Eqe,
        EqeCmd,
        EqeComp,
        EqeCqErr,
        EqeObjChange,
        EqePageReq,
        EqePortState,
        EqeQpSrq,
        EventType,
        PortChange,
        QueryEq,
        QueryEqIn,
        QueryEqOut, //
    },
    uar::EqDoorbell,
    Layout,
    ObjectType, //
};
use virtio::memory::Fault;

use crate::{
    buffer::Buffer,
    command::{
        handler,
        Execute,
        Handler,
        Reply, //
    },
    hca::Hca,
    memory::DmaSpace,
    object::{
        self,
        Census,
        Handle,
        Shared,
        Table, //
    },
    platform::Interrupts,
    refusal::Refusal,
    trace::Journal,
    uar::Uar, //
};

/// The logarithm of the largest queue, in entries.
const LOG_MAX_SIZE: u8 = 22;

/// Counters of entries have 24 bits.
const COUNTER: u32 = (1 << 24) - 1;

/// The size of an entry in bytes.
const ENTRY: u64 = 64;

/// What is wrong with a completion queue, as [`Event::CqError`] tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CqFault {
    /// A completion found no room.
    Overrun = 1,
    /// The queue or its doorbell record is not there.
    Access = 2,
}

/// Something the driver is told of through an event queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Commands are complete: a bit for each slot.
    Command(u32),
    /// A completion queue has entries and was armed.
    Completion {
        /// The event queue it is bound to.
        eqn: u32,
        /// Its number.
        cqn: u32,
    },
    /// The link went up or down.
    PortChange {
        /// Whether it is up.
        up: bool,
    },
    /// The firmware wants pages (positive) or gives them back (negative).
    PageRequest(i32),
    /// A general object changed by itself: a virtqueue in error.
    ObjectChange {
        /// The type of the object.
        obj_type: ObjectType,
        /// Its id.
        obj_id: u32,
    },
    /// A completion queue is in error.
    CqError {
        /// Its number.
        cqn: u32,
        /// What happened.
        fault: CqFault,
    },
    /// A queue pair cannot reach its receive queue or its doorbell record.
    QpError {
        /// Its number.
        qpn: u32,
    },
}

impl Event {
    /// The type of the event.
    pub fn event_type(self) -> EventType {
        match self {
            Self::Command(_) => EventType::CMD,
            Self::Completion { .. } => EventType::COMP,
            Self::PortChange { .. } => EventType::PORT_CHANGE,
            Self::PageRequest(_) => EventType::PAGE_REQUEST,
            Self::ObjectChange { .. } => EventType::OBJECT_CHANGE,
            Self::CqError { .. } => EventType::CQ_ERROR,
            Self::QpError { .. } => EventType::WQ_ACCESS_ERROR,
        }
    }

    /// The entry that tells of it, but for the owner.
    pub fn entry(self) -> Eqe {
        let mut entry = Eqe::new();
        entry.set_event_type(self.event_type());
        match self {
            Self::Command(slots) => {
                put(&mut entry, EqeCmd::new().set_vector(slots));
            }
            Self::Completion { cqn, .. } => {
                put(&mut entry, EqeComp::new().set_cqn(cqn));
            }
            Self::PortChange { up } => {
                let change = if up {
                    PortChange::ACTIVE
                } else {
                    PortChange::DOWN
                };
                entry.set_sub_type(change as u8);
                put(&mut entry, EqePortState::new().set_port(1 << 4));
            }
            Self::PageRequest(pages) => {
                put(&mut entry, EqePageReq::new().set_num_pages(pages as u32));
            }
            Self::ObjectChange { obj_type, obj_id } => {
                let mut data = EqeObjChange::new();
                data.set_obj_type(obj_type as u16).set_obj_id(obj_id);
                put(&mut entry, &data);
            }
            Self::CqError { cqn, fault } => {
                let mut data = EqeCqErr::new();
                data.set_cqn(cqn).set_syndrome(fault as u8);
                put(&mut entry, &data);
            }
            Self::QpError { qpn } => {
                put(&mut entry, EqeQpSrq::new().set_qp_srq_n(qpn));
            }
        }
        entry
    }
}

/// Puts the data of an event into its entry.
fn put(entry: &mut Eqe, data: &impl Layout) {
    let data = data.as_bytes();
    if let Some(to) = entry.data_mut().get_mut(..data.len()) {
        to.copy_from_slice(data);
    }
}

/// An event queue.
#[derive(Debug)]
pub struct Eq {
    buffer: Buffer,
    log_size: u8,
    log_page_size: u8,
    page_offset: u8,
    vector: u16,
    /// A bit for each type of event it is told of.
    mask: u64,
    uar: Handle<Uar>,
    ring: Mutex<Ring>,
}

/// Where an event queue stands.
#[derive(Debug, Default)]
struct Ring {
    producer: u32,
    consumer: u32,
    armed: bool,
    /// Whether there was an event that could not be written.
    lost: bool,
    /// The queue is gone: nothing is written any more.
    closed: bool,
}

impl Ring {
    /// How many entries the driver has not consumed.
    fn pending(&self) -> u32 {
        self.producer.wrapping_sub(self.consumer) & COUNTER
    }
}

impl Eq {
    /// The vector it interrupts by.
    pub(crate) fn vector(&self) -> u16 {
        self.vector
    }

    /// Writes an entry. Returns whether the interrupt must be raised, or nothing if the entry could
    /// not be written.
    fn write(&self, memory: &DmaSpace, mut entry: Eqe) -> Option<bool> {
        let mut ring = self.ring.lock();
        if ring.closed {
            return None;
        }
        let index = u64::from(ring.producer) & ((1 << self.log_size) - 1);
        let room = ring.pending() < 1 << self.log_size;
        entry.set_owner((ring.producer >> self.log_size) as u8 & 1);
        let addr = self.buffer.addr(ENTRY * index, ENTRY);
        match addr
            .filter(|_| room)
            .map(|addr| write_entry(memory, addr, &entry))
        {
            Some(Ok(())) => {
                ring.producer = (ring.producer + 1) & COUNTER;
                Some(std::mem::take(&mut ring.armed))
            }
            _ => {
                // An entry that the driver has not consumed must not be overwritten, and a hole
                // in memory not be counted as an entry: the event is lost, and the queue says so.
                // Said once, as there may be no end to it.
                if !std::mem::replace(&mut ring.lost, true) {
                    let event = entry.event_type();
                    tracing::warn!(?event, "an event finds no room in its queue");
                }
                None
            }
        }
    }

    /// The driver has consumed entries. Returns whether the interrupt must be raised.
    fn consumed(&self, consumer: u32, arm: bool) -> bool {
        let mut ring = self.ring.lock();
        // Who counts back, or further than was written, is not believed.
        let step = consumer.wrapping_sub(ring.consumer) & COUNTER;
        if step <= ring.pending() {
            ring.consumer = consumer;
        }
        if arm {
            ring.armed = ring.pending() == 0;
        }
        arm && !ring.armed && !ring.closed
    }

    /// Writes nothing from now on.
    fn close(&self) {
        self.ring.lock().closed = true;
    }

    fn query(&self) -> QueryEqOut {
        let ring = self.ring.lock();
        let mut output = QueryEqOut::new();
        output
            .eq_context_entry_mut()
            .set_status(if ring.lost {
                EqStatus::EQ_WRITE_FAILURE
            } else {
                EqStatus::OK
            })
            .set_st(if ring.armed {
                EqState::ARMED
            } else {
                EqState::FIRED
            })
            .set_page_offset(self.page_offset)
            .set_log_eq_size(self.log_size)
            .set_uar_page(self.uar.id())
            .set_intr(self.vector)
            .set_log_page_size(self.log_page_size)
            .set_consumer_counter(ring.consumer)
            .set_producer_counter(ring.producer);
        output.set_event_bitmask(self.mask);
        output
    }
}

/// Writes a 64-byte entry of a queue whose last byte says that it is there.
///
/// # Errors
///
/// A [`Fault`] if the queue is not there.
pub(crate) fn write_entry(memory: &DmaSpace, addr: u64, entry: &impl Layout) -> Result<(), Fault> {
    let memory = memory.snapshot();
    let Some((owner, rest)) = entry.as_bytes().split_last() else {
        return Ok(());
    };
    memory.write(addr, rest)?;
    memory.store(addr + rest.len() as u64, *owner)
}

/// The event queues of a function.
pub struct Events {
    memory: Arc<DmaSpace>,
    interrupts: Arc<dyn Interrupts>,
    journal: Arc<Journal>,
    queues: Shared<Eq>,
}

impl Events {
    /// Makes a function's event queues, none yet, that write to `memory`, raise `interrupts` and
    /// tell `journal`.
    pub fn new(
        general: &CmdHcaCap,
        memory: Arc<DmaSpace>,
        interrupts: Arc<dyn Interrupts>,
        journal: Arc<Journal>,
    ) -> Self {
        let count = match general.max_num_eqs() {
            0 => object::count(general.log_max_eq()),
            count => count.into(),
        };
        Self {
            memory,
            interrupts,
            journal,
            // Numbers have 8 bits.
            queues: Table::new("event queue", 1, count.min(255)).into(),
        }
    }

    /// Writes an event into every queue that wants its type (a completion: into the one it names),
    /// and raises the queue's interrupt if it is armed. Returns whether it was written at all.
    ///
    /// May be called from any thread, with any lock held but that of the event queues.
    pub fn post(&self, event: Event) -> bool {
        let queues = self.queues.read();
        let entry = event.entry();
        let post = |eq: &Eq| {
            let Some(raise) = eq.write(&self.memory, entry.clone()) else {
                return false;
            };
            self.journal.event(event);
            if raise {
                self.interrupts.raise(eq.vector);
            }
            true
        };
        match event {
            Event::Completion { eqn, .. } => queues.get(eqn).is_ok_and(|eq| post(eq)),
            _ => {
                let bit = 1 << event.event_type() as u8;
                let wanting = queues.iter().filter(|(_, eq)| eq.mask & bit != 0);
                wanting.fold(false, |written, (_, eq)| post(eq) || written)
            }
        }
    }

    /// Returns whether a queue is told of events of this type: without one for commands the driver
    /// polls.
    pub fn wanted(&self, event_type: EventType) -> bool {
        let bit = 1 << event_type as u8;
        let queues = self.queues.read();
        let wanted = queues.iter().any(|(_, eq)| eq.mask & bit != 0);
        wanted
    }

    /// The driver wrote to the doorbell of an event queue in page `uar`.
    pub fn doorbell(&self, uar: u32, doorbell: &EqDoorbell, arm: bool) {
        let queues = self.queues.read();
        let Ok(eq) = queues.get(doorbell.eqn().into()) else {
            return;
        };
        if eq.uar.id() == uar && eq.consumed(doorbell.consumer_counter(), arm) {
            self.interrupts.raise(eq.vector);
        }
    }

    /// Uses a queue: it is not destroyed until the handle is dropped.
    ///
    /// # Errors
    ///
    /// As [`Table::hold`].
    pub fn hold(&self, eqn: u32) -> Result<Handle<Eq>, Refusal> {
        self.queues.hold(eqn)
    }

    /// Takes every queue away, used or not. Nothing is written when this returns.
    pub fn clear(&self) {
        self.queues.clear_with(Eq::close);
    }
}

impl Census for Events {
    fn count(&self, add: &mut dyn FnMut(&'static str, usize)) {
        self.queues.count(add);
    }
}

impl Execute for CreateEq {
    fn execute(
        hca: &mut Hca,
        input: &CreateEqIn,
        tail: &[u8],
    ) -> Result<Reply<CreateEqOut>, Refusal> {
        let context = input.eq_context_entry();
        let general = &hca.platform.profile.general;
        if context.log_eq_size() > general.log_max_eq_sz().min(LOG_MAX_SIZE) {
            return Err(Refusal::QueueTooLarge);
        }
        let eq = Eq {
            buffer: Buffer::new(
                tail,
                context.log_page_size(),
                64 * u64::from(context.page_offset()),
                ENTRY << context.log_eq_size(),
            )?,
            log_size: context.log_eq_size(),
            log_page_size: context.log_page_size(),
            page_offset: context.page_offset(),
            vector: hca.platform.vector(context.intr().into())?,
            mask: input.event_bitmask(),
            uar: hca.uars.hold(context.uar_page())?,
            ring: Mutex::default(),
        };
        let eqn = hca.platform.events.queues.write().add(eq)?;
        let mut output = CreateEqOut::new();
        output.set_eq_number(eqn as u8);
        Ok(output.into())
    }
}

impl Execute for DestroyEq {
    fn execute(
        hca: &mut Hca,
        input: &DestroyEqIn,
        _: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        let events = &hca.platform.events;
        events.queues.write().remove(input.eq_number().into())?;
        Ok(Reply::done())
    }
}

impl Execute for QueryEq {
    fn execute(hca: &mut Hca, input: &QueryEqIn, _: &[u8]) -> Result<Reply<QueryEqOut>, Refusal> {
        let queues = hca.platform.events.queues.read();
        let eq = queues.get(input.eq_number().into())?;
        Ok(Reply {
            output: eq.query(),
            tail: eq.buffer.list(),
        })
    }
}

/// The commands of this area.
pub const COMMANDS: &[Handler] = &[
    handler::<CreateEq>(),
    handler::<DestroyEq>(),
    handler::<QueryEq>(),
];

#[cfg(test)]
mod tests;
