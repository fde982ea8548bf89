// SPDX-License-Identifier: GPL-2.0

//! What every object in the firmware holds on to: a way to speak to it, and a place for what it may
//! still use when it does not listen any more.

use hardware::{
    Device,
    Memory, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    }, //
};
use prm::Command;

use super::{
    command::{
        queue::{
            Outcome,
            Queue, //
        },
        Failure,
        Reason,
        Reply,
        Request, //
    },
    init_segment::InitSegment,
    registers::Registers, //
};
use crate::show::Show;

/// What the firmware may use after its owner let go of it: memory, mappings, pages that are held. It
/// is kept until the firmware is stopped, and then dropped.
pub(crate) trait Remains: Send + Sync {}

impl Remains for Memory {}

/// The firmware of a function.
#[pin_data]
pub(crate) struct Firmware {
    /// Dropped before what its commands may use yet.
    queue: Arc<Queue>,
    registers: Arc<Registers>,
    segment: InitSegment,
    device: Arc<Device>,
    /// Whether it is up, and others than who brings it up and down use it.
    in_use: Atomic<bool>,
    /// Whether something in the firmware could not be ended.
    unclean: Atomic<bool>,
    #[pin]
    buried: Mutex<KVec<Arc<dyn Remains>>>,
}

impl Firmware {
    /// The firmware behind `queue`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(
        device: &Arc<Device>,
        registers: &Arc<Registers>,
        segment: &InitSegment,
        queue: Arc<Queue>,
    ) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                queue,
                registers: registers.clone(),
                segment: segment.clone(),
                device: device.clone(),
                in_use: Atomic::new(false),
                unclean: Atomic::new(false),
                buried <- new_mutex!(KVec::new()),
            }),
            GFP_KERNEL,
        )
    }

    /// The function's device.
    pub(crate) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// The function's device, as what messages are about.
    pub(crate) fn log(&self) -> &Device {
        &self.device
    }

    /// The function's registers.
    pub(crate) fn registers(&self) -> &Arc<Registers> {
        &self.registers
    }

    /// The registers that all functions have.
    pub(crate) fn segment(&self) -> &InitSegment {
        &self.segment
    }

    /// The command queue.
    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Says whether others than who brings the firmware up and down use it. As long as nobody does,
    /// it is given up with the first command that does not come back: nobody is to wait once more
    /// for each step of a teardown.
    pub(crate) fn set_in_use(&self, in_use: bool) {
        self.in_use.store(in_use, Relaxed);
    }

    /// Has one command executed, the input of which is filled in by `fill`.
    ///
    /// # Errors
    ///
    /// The [`Failure`], the firmware's refusal among them.
    pub(crate) fn execute<C: Command>(
        &self,
        fill: impl FnOnce(&mut C::Input),
    ) -> Result<Reply, Failure> {
        self.execute_with::<C>(fill, &[], 0)
    }

    /// As [`Self::execute`], with `tail` behind the fixed part of the input and `room` bytes behind
    /// that of the output.
    ///
    /// # Errors
    ///
    /// As [`Self::execute`].
    pub(crate) fn execute_with<C: Command>(
        &self,
        fill: impl FnOnce(&mut C::Input),
        tail: &[u8],
        room: usize,
    ) -> Result<Reply, Failure> {
        let request = Request::with_tail::<C>(fill, tail, room)?;
        self.execute_request(&request)
    }

    /// Has one command executed that is there already.
    ///
    /// # Errors
    ///
    /// As [`Self::execute`].
    pub(crate) fn execute_request(&self, request: &Request) -> Outcome {
        let outcomes = self.execute_all(core::slice::from_ref(request))?;
        let nothing = Reason::Garbled.of(request.opcode());
        outcomes.into_iter().next().unwrap_or(Err(nothing))
    }

    /// Has many commands executed at once, in no order. Returns the outcome of each.
    ///
    /// # Errors
    ///
    /// A [`Failure`] without memory for outcomes; none was executed then.
    pub(crate) fn execute_all<R: AsRef<Request>>(
        &self,
        requests: &[R],
    ) -> Result<KVec<Outcome>, Failure> {
        let outcomes = self.queue.execute(requests)?;
        let is_late = |outcome: &Outcome| {
            outcome
                .as_ref()
                .is_err_and(|failure| matches!(failure.reason, Reason::Timeout(_)))
        };
        if !self.in_use.load(Relaxed) && outcomes.iter().any(is_late) {
            self.distrust();
            self.queue.kill();
        }
        Ok(outcomes)
    }

    /// Has a command executed that ends something, whose owner cannot do more than try. Returns
    /// whether it did.
    pub(crate) fn end<C: Command>(&self, fill: impl FnOnce(&mut C::Input)) -> bool {
        match self.execute::<C>(fill) {
            Ok(_) => true,
            Err(failure) => {
                self.failed(&failure);
                false
            }
        }
    }

    /// Something may be left in the firmware that nobody can end.
    pub(crate) fn distrust(&self) {
        self.unclean.store(true, Relaxed);
    }

    /// Returns whether there may be something in the firmware that nobody can end any more.
    pub(crate) fn is_unclean(&self) -> bool {
        self.unclean.load(Relaxed)
    }

    /// Something in the firmware could not be ended.
    pub(crate) fn failed(&self, failure: &Failure) {
        self.distrust();
        // That it is dead was said once.
        if failure.reason != Reason::Dead {
            dev_err!(self.log(), "{}\n", Show(failure));
        }
    }

    /// Keeps what the firmware may still use, until it is stopped.
    pub(crate) fn bury(&self, what: Arc<dyn Remains>) {
        self.distrust();
        let mut buried = self.buried.lock();
        if buried.reserve(1, GFP_KERNEL).is_err() {
            // Better lost for good than used twice.
            core::mem::forget(what);
            return;
        }
        // There is room now.
        let _ = buried.push_within_capacity(what);
    }

    /// As [`Self::bury`], many at once.
    pub(crate) fn bury_all(&self, all: KVec<Arc<dyn Remains>>) {
        for what in all {
            self.bury(what);
        }
    }

    /// Returns whether nothing is asked of it any more.
    pub(crate) fn is_dead(&self) -> bool {
        self.queue.is_dead()
    }

    /// Keeps the firmware from using any memory, however it was left.
    pub(crate) fn stop(&self) {
        self.queue.kill();
        self.segment.disable();
        self.device.stop_dma();
    }
}
