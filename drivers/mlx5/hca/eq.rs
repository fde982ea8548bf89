// SPDX-License-Identifier: GPL-2.0

//! Event queues: what the firmware has to say by itself.
//!
//! An [`Eq`] is the queue in the firmware: dropping it destroys it. What its interrupt needs is in
//! [`Events`], which a [`Line`] looks at when its vector is raised. What an event means is the
//! business of a [`Sink`].

pub(crate) mod ring;

use hardware::Memory;
use kernel::{
    new_spinlock_irq,
    prelude::*,
    sync::{
        Arc,
        SpinLockIrq, //
    }, //
};
use prm::{
    eq::{
        CreateEq,
        CreateEqIn,
        DestroyEq,
        Eqe, //
    },
    uar::{
        AllocUar,
        DeallocUar,
        EQ_ARM,
        EQ_UPDATE, //
    }, //
};
use zerocopy::FromBytes;

use self::ring::{
    Ring,
    ENTRY,
    OWNER, //
};
use super::{
    command::{
        queue::Outcome,
        Failure, //
    },
    firmware::Firmware,
    interrupts::Line,
    registers::UAR_BYTES, //
};

/// A page of the queue, whatever the host's pages are.
const PAGE: usize = 4096;

/// Who is told of events.
pub(crate) trait Sink: Send + Sync {
    /// An event came. Called with interrupts off.
    fn event(&self, entry: &Eqe);

    /// Looks whether there was something that no event told of. Called every second, in any context.
    fn look(&self) {}
}

/// A page of doorbells.
pub(crate) struct Uar {
    firmware: Arc<Firmware>,
    number: u32,
}

impl Uar {
    /// Takes the page that `outcome`, of ALLOC_UAR, gives.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the command.
    pub(crate) fn new(firmware: &Arc<Firmware>, outcome: Outcome) -> Result<Self, Failure> {
        Ok(Self {
            firmware: firmware.clone(),
            number: outcome?.read::<AllocUar>()?.0.uar(),
        })
    }

    /// Its number.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Uar {
    fn drop(&mut self) {
        self.firmware.end::<DeallocUar>(|input| {
            input.set_uar(self.number);
        });
    }
}

/// What there is to read of an event queue.
#[pin_data]
pub(crate) struct Events {
    firmware: Arc<Firmware>,
    memory: Arc<Memory>,
    /// Where its doorbells are in the BAR: the one by which it is armed, and the one that just says
    /// how far it was read.
    arm: usize,
    update: usize,
    sink: Arc<dyn Sink>,
    #[pin]
    state: SpinLockIrq<State>,
}

struct State {
    ring: Ring,
    /// The number of the queue, as long as there is one.
    eqn: Option<u8>,
}

impl Events {
    /// Passes on the events there are, and has the firmware interrupt for the next.
    pub(crate) fn take(&self) {
        // Its doorbells are others' when the firmware lives again.
        if self.firmware.is_dead() {
            return;
        }
        let mut state = self.state.lock();
        let Some(eqn) = state.eqn else {
            return;
        };
        // A firmware that writes as fast as this is read is interrupted for again.
        for count in 0..state.ring.len() {
            if count % state.ring.quarter() == 0 && count > 0 {
                // There is room again for what comes while others are passed on.
                let doorbell = state.ring.doorbell(eqn);
                self.firmware.registers().write(self.update, doorbell);
            }
            let at = state.ring.place();
            let is_new = |owner| state.ring.is_new(owner);
            if !self.memory.load(at + OWNER).is_ok_and(is_new) {
                break;
            }
            let mut bytes = [0; ENTRY];
            if self.memory.read(at, &mut bytes).is_err() {
                break;
            }
            state.ring.advance();
            if let Ok(entry) = Eqe::read_from_bytes(&bytes) {
                self.sink.event(&entry);
            }
        }
        let doorbell = state.ring.doorbell(eqn);
        self.firmware.registers().write(self.arm, doorbell);
    }

    /// Passes on the events there are, and has looked for what none of them told of.
    pub(crate) fn look(&self) {
        self.take();
        if !self.firmware.is_dead() {
            self.sink.look();
        }
    }
}

/// An event queue in the firmware.
pub(crate) struct Eq {
    events: Arc<Events>,
    line: Arc<Line>,
    eqn: u8,
}

impl Eq {
    /// Makes a queue of `1 << log_size` entries for the types of events of which `mask` has a bit,
    /// that interrupts by `line`, and is told of by the page of doorbells `uar`.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of a command, and of want of memory.
    pub(crate) fn new(
        firmware: &Arc<Firmware>,
        uar: u32,
        line: &Arc<Line>,
        log_size: u8,
        mask: u64,
        sink: Arc<dyn Sink>,
    ) -> Result<Self, Failure> {
        let not_made = |error| Failure::not_sent::<CreateEq>(error);
        let ring = Ring::new(log_size).ok_or(EINVAL).map_err(not_made)?;
        let len = ring.len() * ENTRY;
        let memory = Memory::new(firmware.device(), len).map_err(not_made)?;
        for at in (0..len).step_by(ENTRY) {
            memory
                .write(at + OWNER, &[Ring::NOT_WRITTEN])
                .map_err(not_made)?;
        }
        let memory = Arc::new(memory, GFP_KERNEL).map_err(|error| not_made(error.into()))?;
        let state = State { ring, eqn: None };
        let shared = memory.clone();
        let events = Arc::pin_init(
            pin_init!(Events {
                firmware: firmware.clone(),
                memory: shared,
                // No more than 24 bits of pages, and one page.
                arm: uar as usize * UAR_BYTES + EQ_ARM as usize,
                update: uar as usize * UAR_BYTES + EQ_UPDATE as usize,
                sink,
                state <- new_spinlock_irq!(state),
            }),
            GFP_KERNEL,
        )
        .map_err(not_made)?;
        let fill = |input: &mut CreateEqIn| {
            input.set_event_bitmask(mask);
            input
                .eq_context_entry_mut()
                .set_log_eq_size(log_size)
                .set_uar_page(uar)
                .set_intr(line.number());
        };
        let mut pages = KVec::new();
        for at in (0..len).step_by(PAGE) {
            let addr = memory.addr() + at as u64;
            pages
                .extend_from_slice(&addr.to_be_bytes(), GFP_KERNEL)
                .map_err(|error| not_made(error.into()))?;
        }
        let created = firmware
            .execute_with::<CreateEq>(fill, &pages, 0)
            .and_then(|reply| Ok(reply.read::<CreateEq>()?.0.eq_number()));
        let eqn = match created {
            Ok(eqn) => eqn,
            Err(failure) => {
                if failure.is_in_doubt() {
                    firmware.bury(memory);
                }
                return Err(failure);
            }
        };
        events.state.lock().eqn = Some(eqn);
        // Destroyed if there is no memory for the line to know it.
        let this = Self {
            events,
            line: line.clone(),
            eqn,
        };
        if line.add_events(&this.events).is_err() {
            return Err(not_made(ENOMEM));
        }
        // Events that came meanwhile are passed on, and it is armed for others.
        this.events.take();
        Ok(this)
    }
}

impl Eq {
    /// Its number: `c_eqn` of completion queues.
    pub(crate) fn number(&self) -> u8 {
        self.eqn
    }

    /// The vector it interrupts by.
    pub(crate) fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// What there is to read of it.
    pub(crate) fn events(&self) -> &Arc<Events> {
        &self.events
    }

    /// Passes on nothing any more, and writes to no doorbell. Who does so has ended when this
    /// returns.
    pub(crate) fn retire(&self) {
        self.line.remove_events(&self.events);
        // Who is in `take` has ended when the lock can be had.
        self.events.state.lock().eqn = None;
    }
}

impl Drop for Eq {
    fn drop(&mut self) {
        self.retire();
        let firmware = &self.events.firmware;
        let is_gone = firmware.end::<DestroyEq>(|input| {
            input.set_eq_number(self.eqn);
        });
        if !is_gone {
            firmware.bury(self.events.memory.clone());
        }
    }
}
