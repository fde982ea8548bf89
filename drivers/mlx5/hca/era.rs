// SPDX-License-Identifier: GPL-2.0

//! One life of the firmware, for who makes objects in it.
//!
//! The word "life" is taken, by the function's thread and by the lifecycle of a virtio device.

use hardware::Device;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};
use prm::{
    eq::CreateEq,
    uar::{
        CqDoorbell,
        CQ_ARM, //
    },
    Layout, //
};

use super::{
    batch::Batch,
    capability::Capabilities,
    command::Failure,
    doorbell::Doorbell,
    eq::Eq,
    events::{
        Listener,
        Listeners,
        Listening,
        Subject, //
    },
    firmware::Firmware,
    interrupts::Line,
    registers::{
        Registers,
        UAR_BYTES, //
    }, //
};

/// The logarithm of the entries of an event queue for completions: each completion queue has one at
/// most, until it is armed again.
const LOG_COMPLETIONS: u8 = 8;

/// One life of the firmware: what there is from its start to its end. It ends with the firmware,
/// and is of no use then: each command fails at once. A new one comes by
/// [`Client::lives`](super::clients::Client::lives).
#[pin_data]
pub(crate) struct Era {
    /// Before what the queues are told by.
    #[pin]
    completions: Mutex<KVec<Arc<CompletionEq>>>,
    firmware: Arc<Firmware>,
    capabilities: Arc<Capabilities>,
    null_mkey: u32,
    uid: u16,
    uar: UarPage,
    doorbell: Option<Doorbell>,
    listeners: Arc<Listeners>,
}

impl Era {
    /// What the firmware said of itself, and gave.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(
        firmware: &Arc<Firmware>,
        capabilities: Arc<Capabilities>,
        null_mkey: u32,
        uid: u16,
        uar: u32,
        listeners: Arc<Listeners>,
    ) -> Result<Arc<Self>> {
        let uar = UarPage {
            registers: firmware.registers().clone(),
            number: uar,
        };
        let doorbell = Doorbell::new(firmware.registers(), &capabilities, uar.number).ok();
        Arc::pin_init(
            pin_init!(Self {
                completions <- new_mutex!(KVec::new()),
                firmware: firmware.clone(),
                capabilities,
                null_mkey,
                uid,
                uar,
                doorbell,
                listeners,
            }),
            GFP_KERNEL,
        )
    }

    /// The function's device: what DMA memory is made for, and messages are about.
    pub(crate) fn device(&self) -> &Arc<Device> {
        self.firmware.device()
    }

    /// What the firmware can do.
    pub(crate) fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The key of holes: what is read through it is zero, what is written is dropped.
    pub(crate) fn null_mkey(&self) -> u32 {
        self.null_mkey
    }

    /// Commands to be executed at once. They carry the [user context](Self::uid) by themselves where
    /// they have one: who fills them in leaves that field alone.
    pub(crate) fn batch(&self) -> Batch {
        Batch::new(&self.firmware, self.uid)
    }

    /// The user context of all objects, for firmware that registers memory (umems) for no other;
    /// 0 else, which is the driver itself.
    pub(crate) fn uid(&self) -> u16 {
        self.uid
    }

    /// The page of doorbells.
    pub(crate) fn uar(&self) -> &UarPage {
        &self.uar
    }

    /// The doorbells of virtqueues; `None` where there are no virtqueues.
    pub(crate) fn doorbell(&self) -> Option<&Doorbell> {
        self.doorbell.as_ref()
    }

    /// Returns whether nothing is asked of the firmware any more.
    pub(crate) fn is_over(&self) -> bool {
        self.firmware.is_dead()
    }

    /// Tells `listener` what the firmware reports about `subject`, until the value that is returned
    /// is dropped. An object's number may be another's when it is gone: drop the value before.
    ///
    /// Completions are told by the event queue of their completion queue instead:
    /// [`CompletionEq::listen`].
    ///
    /// # Errors
    ///
    /// `EBUSY` if somebody is told of it already, `ENOMEM`.
    pub(crate) fn listen(
        &self,
        subject: Subject,
        listener: Arc<dyn Listener>,
    ) -> Result<Listening> {
        Listeners::add(&self.listeners, subject, listener)
    }

    /// The event queue for completions that interrupts by `line`. It is made when it is first asked
    /// for, and lasts as long as the firmware.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the command, and of want of memory.
    pub(crate) fn completion_eq(&self, line: &Arc<Line>) -> Result<Arc<CompletionEq>, Failure> {
        let no_memory = |error| Failure::not_sent::<CreateEq>(error);
        let mut all = self.completions.lock();
        let is_it = |eq: &&Arc<CompletionEq>| Arc::ptr_eq(eq.eq.line(), line);
        if let Some(eq) = all.iter().find(is_it) {
            return Ok(eq.clone());
        }
        all.reserve(1, GFP_KERNEL)
            .map_err(|error| no_memory(error.into()))?;
        let listeners = Listeners::new().map_err(no_memory)?;
        // Completions are in no mask: a completion queue names its event queue.
        let sink = listeners.clone();
        let uar = self.uar.number;
        let eq = Eq::new(&self.firmware, uar, line, LOG_COMPLETIONS, 0, sink)?;
        let eq = Arc::new(CompletionEq { eq, listeners }, GFP_KERNEL)
            .map_err(|error| no_memory(error.into()))?;
        // There is room now.
        let _ = all.push_within_capacity(eq.clone());
        Ok(eq)
    }

    /// The firmware ends: what belongs to the era is destroyed. Its users are gone.
    pub(super) fn end(&self) {
        let completions = core::mem::take(&mut *self.completions.lock());
        drop(completions);
    }
}

/// An event queue for completions.
pub(crate) struct CompletionEq {
    eq: Eq,
    listeners: Arc<Listeners>,
}

impl CompletionEq {
    /// Its number: `c_eqn` of completion queues.
    pub(crate) fn number(&self) -> u8 {
        self.eq.number()
    }

    /// Tells `listener` of completions of the queue `cqn`, whenever that was armed, until the value
    /// that is returned is dropped.
    ///
    /// # Errors
    ///
    /// `EBUSY` if somebody is told of it already, `ENOMEM`.
    pub(crate) fn listen(&self, cqn: u32, listener: Arc<dyn Listener>) -> Result<Listening> {
        Listeners::add(&self.listeners, Subject::Completions(cqn), listener)
    }
}

/// The page of doorbells of this life.
pub(crate) struct UarPage {
    registers: Arc<Registers>,
    number: u32,
}

impl UarPage {
    /// Its number: `uar_page` of completion queues and queue pairs.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Has completion queue `cqn` report the next completion behind the first `consumed` ones by an
    /// event. `arm_sn` counts such reports; both are to be in the doorbell record already. Any
    /// context.
    pub(crate) fn arm_cq(&self, cqn: u32, arm_sn: u8, consumed: u32) {
        let mut doorbell = CqDoorbell::new();
        doorbell
            .set_arm_sn(arm_sn & 3)
            .set_consumer_counter(consumed & 0xff_ffff)
            .set_cqn(cqn & 0xff_ffff);
        // No more than 24 bits of pages.
        let at = self.number as usize * UAR_BYTES + CQ_ARM as usize;
        self.registers
            .write_pair(at, zerocopy::transmute!(doorbell));
    }
}
