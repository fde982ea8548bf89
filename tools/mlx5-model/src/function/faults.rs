// SPDX-License-Identifier: GPL-2.0

//! What faults do to a function at once, and how it recovers from them.

use prm::init_segment::NicInterface;
use serde_json::json;

use super::Function;
use crate::{
    eq::Event,
    fault::{
        health_syndrome,
        Fault,
        FaultError,
        Link,
        Listed, //
    },
    health,
    virtq::ring::Failure, //
};

impl Function {
    /// Has something go wrong, and returns the number of the fault.
    ///
    /// # Errors
    ///
    /// A [`FaultError`] that says what is allowed.
    pub fn inject(&self, fault: Fault) -> Result<u32, FaultError> {
        let id = self.platform.faults.add(fault.clone())?;
        if let Err(error) = self.happen(id, &fault) {
            let _ = self.platform.faults.remove(id);
            return Err(error);
        }
        let fields = || json!({ "id": id, "fault": fault });
        self.platform.journal.note("fault", fields);
        Ok(id)
    }

    /// The faults there are.
    pub fn faults(&self) -> Vec<Listed> {
        self.platform.faults.list()
    }

    /// Takes a fault away, and puts right what it did if that can be.
    ///
    /// # Errors
    ///
    /// A [`FaultError`] that says which faults there are.
    pub fn clear_fault(&self, id: u32) -> Result<(), FaultError> {
        let faults = &self.platform.faults;
        if faults.is_dead() {
            // What was asked of a device that did not hear it is not done later.
            self.commands.reset();
        }
        let fault = faults.remove(id)?;
        match fault {
            Fault::Delay { .. } => self.commands.hurry(),
            Fault::Health { fatal, .. } => {
                self.tell_health();
                if fatal && !faults.is_dead() {
                    // After a reset, no driver has the function.
                    self.registers.set_interface(NicInterface::DISABLED);
                    self.renew("firmware reset");
                }
            }
            Fault::Link { state: Link::Down } => {
                // Another one may still hold it down.
                if !self.faults().iter().any(|listed| listed.fault == fault) {
                    self.set_link(true);
                }
            }
            // Another one may still keep it away.
            Fault::Gone {} if !faults.is_gone() => {
                self.reset();
                self.platform.memory.set_reachable(true);
            }
            _ => {}
        }
        self.platform
            .journal
            .note("fault cleared", || json!({ "id": id }));
        Ok(())
    }

    /// Has the registers say what is wrong with the firmware: of several things the worst, and of
    /// those the last.
    fn tell_health(&self) {
        let faults = self.faults();
        let ills = faults.iter().filter_map(|listed| match &listed.fault {
            Fault::Health { syndrome, fatal } => Some((*fatal, health_syndrome(syndrome).ok()?)),
            _ => None,
        });
        match ills.max_by_key(|(fatal, _)| *fatal) {
            Some((fatal, syndrome)) => health::fall_ill(&self.registers, syndrome, fatal),
            None => health::recover(&self.registers),
        }
    }

    /// What the port is connected to comes up or goes down; the driver is told if its link does.
    fn set_link(&self, up: bool) {
        let hca = self.hca();
        if hca.vport.set_uplink(up) {
            self.platform.events.post(Event::PortChange { up });
        }
    }

    /// Does what happens at once.
    fn happen(&self, number: u32, fault: &Fault) -> Result<(), FaultError> {
        let platform = &self.platform;
        match fault {
            // These lie in wait.
            Fault::Delay { .. }
            | Fault::Lose { .. }
            | Fault::Fail { .. }
            | Fault::Garbage { .. }
            | Fault::LoseInterrupts { .. }
            | Fault::LoseEvents { .. }
            | Fault::CompletionOpcode { .. } => return Ok(()),
            Fault::SpuriousInterrupt { vector, count } => {
                if platform.vector((*vector).into()).is_err() {
                    let reason = format!("there is no vector {vector}");
                    return Err(FaultError::NotNow(reason));
                }
                (0..*count).for_each(|_| platform.interrupts.raise(*vector));
            }
            Fault::QueueError { queue: id } => {
                let hca = self.hca();
                let Ok(queue) = hca.virtqs.get(*id) else {
                    let reason = format!("there is no virtqueue {id:#x}");
                    return Err(FaultError::NotNow(reason));
                };
                if !queue.fail(Failure::Internal) {
                    let reason = format!("virtqueue {id:#x} is in error already");
                    return Err(FaultError::NotNow(reason));
                }
            }
            Fault::EventError { queue: id, part } => {
                let hca = self.hca();
                let queue = hca.virtqs.get(*id).ok();
                if !queue.is_some_and(|queue| queue.fail_events(*part)) {
                    let reason =
                        format!("there is no virtqueue {id:#x} that tells by a queue pair");
                    return Err(FaultError::NotNow(reason));
                }
            }
            Fault::Link { state } => match state {
                Link::Down => self.set_link(false),
                Link::Up => self.set_link(true),
                Link::Flap => {
                    self.set_link(false);
                    self.set_link(true);
                }
            },
            Fault::PageRequest { pages } => {
                if self.hca().request_pages(*pages).is_err() {
                    let why = "no driver has started the function: it would not hear it";
                    return Err(FaultError::NotNow(why.to_owned()));
                }
            }
            Fault::Health { .. } => self.tell_health(),
            Fault::Gone {} => {
                platform.memory.set_reachable(false);
                self.commands.reset();
            }
        }
        platform.faults.hit(number);
        Ok(())
    }
}
