// SPDX-License-Identifier: GPL-2.0

//! The function as a whole, for as long as its device is bound.
//!
//! A thread looks after the firmware: [`life`]. What happens to the device (it sleeps, is reset, or
//! the system goes down) and what the administrator asks for comes in here.

pub(crate) mod condition;
mod life;

use core::fmt;

use hardware::{
    Device,
    Views, //
};
use kernel::{
    debugfs::Dir,
    device::Core,
    new_mutex,
    pci,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};
use vdpa::worker::Worker;

use self::{
    condition::{
        Condition,
        Stage, //
    },
    life::Life, //
};
use super::{
    clients::{
        Client,
        Clients,
        Membership, //
    },
    command::{
        tally::Tally,
        Failure, //
    },
    era::Era,
    init_segment::InitSegment,
    interrupts::{
        Interrupts,
        Taken, //
    },
    registers::Registers, //
};
use crate::show::Show;

/// A function, from the binding of its device to its end.
///
/// It outlives the lives of its firmware: who needs that asks for the [`Era`] of the time.
#[pin_data(PinnedDrop)]
pub(crate) struct Function {
    /// `None` behind the end: nothing is brought up any more.
    #[pin]
    worker: Mutex<Option<Worker>>,
    /// Where debugfs shows it.
    #[pin]
    dir: Mutex<Option<Dir>>,
    life: Arc<Life>,
}

/// Brings a function up, with no command taking longer than `timeout_ms` milliseconds. What failed
/// is in the log.
///
/// # Errors
///
/// What the failure of a command is as a number; what C reports otherwise.
pub(crate) fn bring_up(pdev: &pci::Device<Core<'_>>, timeout_ms: u32) -> Result<Arc<Function>> {
    let device = Device::enable::<64>(pdev)?;
    let registers = Registers::map(pdev)?;
    let segment = InitSegment::new(&registers);
    clear(pdev, &segment);
    segment.wait().inspect_err(|_| {
        dev_err!(pdev, "the firmware does not start\n");
    })?;
    let interrupts = Interrupts::new(&device, pdev).inspect_err(|error| {
        dev_err!(pdev, "no interrupt vector: error {}\n", -error.to_errno());
    })?;
    device.save()?;
    let clients = Clients::new()?;
    let tally = Tally::new()?;
    let life = Life::new(
        clients, interrupts, device, registers, segment, tally, timeout_ms,
    )?;
    let version = life.version();
    life.begin().map_err(|trouble| {
        dev_err!(
            pdev,
            "firmware {}: bring-up failed: {}\n",
            Show(version),
            Show(&trouble)
        );
        Error::from(trouble)
    })?;
    let worker = Worker::new(c"mlx5-vdpa-health", life.clone())?;
    life.attend(worker.handle());
    Arc::pin_init(
        pin_init!(Function {
            worker <- new_mutex!(Some(worker)),
            dir <- new_mutex!(Views::dir(pdev.as_ref().name())),
            life,
        }),
        GFP_KERNEL,
    )
}

/// Sees to it that the firmware uses nothing that another driver, or another kernel, gave it: memory
/// is not to be reached by a device whose firmware goes on where it was.
fn clear(pdev: &pci::Device<Core<'_>>, segment: &InitSegment) {
    if segment.is_disabled() {
        // By its own words, which are those to this driver's last.
        return;
    }
    if let Err(error) = Device::reset(pdev) {
        dev_warn!(
            pdev,
            "it cannot be reset (error {}): what its last driver left is not known\n",
            -error.to_errno()
        );
        segment.disable();
    }
}

impl Function {
    /// The firmware that runs; `None` while there is none.
    pub(crate) fn era(&self) -> Option<Arc<Era>> {
        self.life.era()
    }

    /// Tells `client` of the firmware's death and life from now on, until the membership is dropped.
    ///
    /// Firmware that died before is not told of: who has an era looks behind this whether it [is
    /// over](Era::is_over).
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn join(&self, client: Arc<dyn Client>) -> Result<Membership> {
        Clients::join(self.life.clients(), client)
    }

    /// An interrupt vector that nobody else has; or if all are taken, one that the fewest share.
    pub(crate) fn take_vector(&self) -> Taken {
        Interrupts::take(self.life.interrupts())
    }

    /// The function's device, as what messages are about as well.
    pub(crate) fn device(&self) -> &Arc<Device> {
        self.life.device()
    }

    /// Where debugfs shows it; `None` where nobody could see that, and behind the end.
    pub(crate) fn dir(&self) -> Option<Dir> {
        self.dir.lock().clone()
    }

    /// What became of its commands.
    pub(crate) fn tally(&self) -> &Tally {
        self.life.tally()
    }

    /// How it is.
    pub(crate) fn condition(&self) -> Condition {
        self.life.condition()
    }

    /// Takes the firmware down and brings it up again, as if it had died. For who could not take
    /// something away. Returns at once; from then on nothing is used that the firmware was given.
    pub(crate) fn recover(&self, why: &Failure) {
        if why.is_for_death() {
            // It is being done already, or was.
            return;
        }
        self.start_anew(why);
    }

    /// As [`Self::recover`], if there is something in the firmware that nobody can end any more, and
    /// that keeps memory. For who has nothing there that he would miss.
    pub(crate) fn tidy(&self) {
        let is_left = |era: Arc<Era>| era.is_unclean() && !era.is_over();
        if !self.life.is_anew() && self.era().is_some_and(is_left) && self.life.count_anew() {
            self.start_anew("something is left in it");
        }
    }

    /// Something was made in the firmware, which works: it is worth while again to
    /// [tidy](Self::tidy).
    pub(crate) fn has_served(&self) {
        self.life.has_served();
    }

    /// Waits for firmware that is well and is being [started anew](Self::recover), but not for long.
    /// For who is about to begin with it.
    pub(crate) fn wait_anew(&self) {
        self.life.wait_anew();
    }

    fn start_anew(&self, why: impl fmt::Display) {
        self.life.begin_anew();
        self.life.quiesce();
        // Once is enough.
        if !self.life.want_anew() {
            let device: &Device = self.device();
            dev_err!(device, "the firmware is started anew: {}\n", Show(why));
        }
    }

    /// Brings firmware that died up, as the administrator asks for it, even if it was given up.
    /// Returns at once.
    ///
    /// # Errors
    ///
    /// `EBUSY` while the device sleeps or is reset.
    pub(crate) fn revive(&self) -> Result {
        if self.condition().stage == Stage::Paused {
            return Err(EBUSY);
        }
        self.life.revive();
        Ok(())
    }

    /// Leaves firmware that died alone until it is to be [revived](Self::revive).
    pub(crate) fn hold(&self) {
        self.life.hold();
    }

    /// Takes the firmware down, for the device is about to be reset or to lose its power. When this
    /// returns nothing is used that it was given.
    pub(crate) fn pause(&self) {
        self.life.pause();
    }

    /// Brings it up again.
    pub(crate) fn resume(&self) {
        self.life.resume();
    }

    /// The system goes down: nothing is used any more that the firmware was given. Its users, and
    /// all else, are left as they are.
    pub(crate) fn shutdown(&self) {
        self.life.end();
        self.life.pause();
    }

    /// Takes the firmware down for good. Its users are gone.
    ///
    /// May be called more than once.
    pub(crate) fn end(&self) {
        // First: nothing is brought up behind the end.
        self.life.end();
        let worker = self.worker.lock().take();
        drop(worker);
        self.life.finish();
        // Another function may be called the same from here on.
        let dir = self.dir.lock().take();
        drop(dir);
    }
}

#[pinned_drop]
impl PinnedDrop for Function {
    fn drop(self: Pin<&mut Self>) {
        self.end();
    }
}
