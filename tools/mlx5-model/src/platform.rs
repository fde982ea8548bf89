// SPDX-License-Identifier: GPL-2.0

//! What everything inside one function stands on.

use std::sync::Arc;

use crate::{
    cq::Cqs,
    eq::Events,
    eswitch::Connection,
    fault::Faults,
    memory::DmaSpace,
    mkey::Mkeys,
    object::Census,
    profile::Profile,
    qp::Qps,
    refusal::Refusal,
    steering::receiver::Receiver,
    trace::Journal,
    virtq::{
        Doorbells,
        Workers, //
    }, //
};

/// The interrupt vectors of a function.
pub trait Interrupts: Send + Sync {
    /// How many vectors there are.
    fn count(&self) -> u16;

    /// Raises a vector, if it is there, not masked and connected; it is lost or remembered
    /// otherwise, as MSI-X has it.
    fn raise(&self, vector: u16);
}

/// What everything inside one function stands on: shared by the objects of [`Hca`](crate::hca::Hca)
/// and by traffic, each with a lock of its own or none.
pub struct Platform {
    /// The function's name in messages and traces.
    pub name: String,
    /// The driver's memory.
    pub memory: Arc<DmaSpace>,
    /// The interrupt vectors.
    pub interrupts: Arc<dyn Interrupts>,
    /// What the firmware can do.
    pub profile: Arc<Profile>,
    /// What is to go wrong.
    pub faults: Arc<Faults>,
    /// Who is told what happens.
    pub journal: Arc<Journal>,
    /// The event queues.
    pub events: Events,
    /// The completion queues.
    pub cqs: Cqs,
    /// The queue pairs.
    pub qps: Qps,
    /// The memory keys.
    pub mkeys: Arc<Mkeys>,
    /// Who hears the doorbell of which virtqueue.
    pub doorbells: Doorbells,
    /// The threads that move traffic, of all functions together.
    pub workers: Arc<Workers>,
    /// Where the function hangs on the switch.
    pub port: Arc<Connection>,
    /// What the switch sends to the function comes in here.
    pub receiver: Arc<Receiver>,
}

impl Platform {
    /// The interrupt vector with this number.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoVector`] if there is none.
    pub fn vector(&self, number: u32) -> Result<u16, Refusal> {
        u16::try_from(number)
            .ok()
            .filter(|number| *number < self.interrupts.count())
            .ok_or(Refusal::NoVector)
    }

    /// Takes away every object that is shared with traffic, used or not: nothing touches the
    /// driver's memory for it when this returns.
    pub fn clear(&self) {
        self.qps.clear();
        self.cqs.clear();
        self.mkeys.clear();
        self.events.clear();
    }
}

impl Census for Platform {
    fn count(&self, add: &mut dyn FnMut(&'static str, usize)) {
        self.qps.count(add);
        self.cqs.count(add);
        self.events.count(add);
        add("memory key", self.mkeys.len());
    }
}
