// SPDX-License-Identifier: GPL-2.0

//! The life of a virtio device, as one state machine.
//!
//! Events go in, [`Actions`] or a [`Refusal`] come out; a device only carries the actions out. It
//! decides here, and nowhere else, who the driver is (legacy or not), in which byte order it is
//! served, when virtqueues run, what becomes of early kicks, and how the device stops and goes on.
//!
//! The machine is a plain value: whoever executes its actions keeps it under a lock. Its rules:
//!
//! - A virtqueue runs if and only if DRIVER_OK was accepted, the queue is ready, and the device is
//!   neither stopping, stopped nor broken.
//! - A driver is legacy if it did not acknowledge VERSION_1 (virtio 1.3, 2.2.3). That is decided
//!   by FEATURES_OK, or by DRIVER_OK for legacy drivers, which know no FEATURES_OK; neither reads
//!   of the configuration nor a `SetFeatures` of nothing decide it.
//! - What cannot be served is refused: features with an error, FEATURES_OK and DRIVER_OK by not
//!   showing the bit. A refused DRIVER_OK leaves the device in need of a reset.
//! - STOP is shown once the executor has confirmed it, never before; DRIVER_OK stays visible.
//!   Stopping by a call ([`Event::Suspend`]) reports through that call, not in the status.
//! - A reset brings everything back but what was provisioned: the offer, which drivers are let in,
//!   and the byte order of legacy drivers.

mod event;
mod queues;

#[cfg(test)]
mod tests;

pub use event::{
    status, Actions, ConfigWrite, Driver, Event, Kick, Legacy, LegacySupport, Refusal, RefusalKind,
};
pub use queues::{QueueSet, MAX_QUEUES};

use crate::byte_order::ByteOrder;
use crate::features::{Features, Unmet};

/// What is fixed when the device is made.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The number of virtqueues, at most [`MAX_QUEUES`].
    pub queues: u16,
    /// The features the device offers.
    pub offered: Features,
    /// The features without which device and platform cannot serve a driver: for instance
    /// ORDER_PLATFORM where memory accesses are not ordered as processors see them.
    pub required: Features,
    /// Whether the device can serve legacy drivers.
    pub legacy: bool,
    /// Whether the device can serve legacy drivers of big-endian guests.
    pub big_endian: bool,
    /// Checks that the features a driver acknowledged make sense together for this class of
    /// device, as [`crate::net::features::check`] does.
    pub check: fn(Features) -> Result<(), Unmet>,
}

/// How far the device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// DRIVER_OK was not written since the last reset.
    Idle,
    /// Queues that are ready run.
    Running,
    /// The executor is stopping the device; `show` tells whether the status shall tell so.
    Stopping {
        /// The stop was asked for by the status field.
        show: bool,
    },
    /// The device has stopped and can go on.
    Stopped,
    /// Only a reset helps.
    Broken,
}

/// The state of a device.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    config: Config,
    legacy: Legacy,
    byte_order: ByteOrder,
    /// The queues whose byte order, for a legacy driver, is big-endian.
    big: QueueSet,
    mapped: bool,
    phase: Phase,
    status: u8,
    acknowledged: Features,
    ready: QueueSet,
    /// Queues to be looked at when they start.
    latched: QueueSet,
}

impl Lifecycle {
    /// Makes the state of a new device that lets any driver in that it can serve, little-endian
    /// ones if legacy.
    pub fn new(config: Config) -> Self {
        let legacy = match config.legacy {
            true => Legacy::Allow,
            false => Legacy::Off,
        };
        Self {
            config,
            legacy,
            byte_order: ByteOrder::Little,
            big: QueueSet::EMPTY,
            mapped: false,
            phase: Phase::Idle,
            status: 0,
            acknowledged: Features::NONE,
            ready: QueueSet::EMPTY,
            latched: QueueSet::EMPTY,
        }
    }

    /// Takes an event and says what follows from it.
    ///
    /// # Errors
    ///
    /// Why the event was refused; nothing changed then.
    pub fn handle(&mut self, event: Event) -> Result<Actions, Refusal> {
        match event {
            Event::Reset => Ok(self.reset()),
            Event::SetFeatures(features) => self.set_features(features),
            Event::SetStatus(0) => Ok(self.reset()),
            Event::SetStatus(value) => Ok(self.set_status(value)),
            Event::SetReady(queue, ready) => self.set_ready(queue, ready),
            Event::Configure(queue) => self.configure(queue),
            Event::SetByteOrder(order) => self.set_byte_order(order),
            Event::SetQueueByteOrder(queue, order) => self.set_queue_byte_order(queue, order),
            Event::SetLegacy(legacy) => self.set_legacy(legacy),
            Event::Mapped(mapped) => {
                self.mapped = mapped;
                Ok(Actions::NONE)
            }
            Event::Suspend => self.suspend(),
            Event::Resume => self.resume(),
            Event::StopDone => self.stop_done(),
            Event::StopFailed => self.stop_failed(),
            Event::StartFailed => self.start_failed(),
            Event::Fault => Ok(self.fault()),
            Event::ConfigChange => self.config_change(),
        }
    }

    /// Takes a kick of `queue` by the driver, which may come at any time.
    ///
    /// An executor that remembers which queues it has started need not ask for those: the answer
    /// is [`Kick::Deliver`] exactly for them.
    pub fn kick(&mut self, queue: u16) -> Kick {
        if queue >= self.queues() || self.phase == Phase::Broken {
            Kick::Drop
        } else if self.runs(queue) {
            Kick::Deliver
        } else {
            self.latched.set(queue, true);
            Kick::Latch
        }
    }

    /// Returns what becomes of a write to the configuration space now.
    pub fn config_write(&self) -> ConfigWrite {
        match (self.phase, self.driver()) {
            (Phase::Idle, _) => ConfigWrite::ApplyUnlessProvisioned,
            (Phase::Running, Some(Driver::Legacy)) => ConfigWrite::Apply,
            _ => ConfigWrite::Ignore,
        }
    }

    /// Returns the number of virtqueues.
    pub fn queues(&self) -> u16 {
        self.config.queues.min(MAX_QUEUES)
    }

    /// Returns the status field.
    pub fn status(&self) -> u8 {
        self.status
    }

    /// Returns the features offered to drivers, given which of them are let in.
    pub fn offered(&self) -> Features {
        match self.legacy {
            Legacy::Off | Legacy::Allow => self.config.offered,
            // ACCESS_PLATFORM stays, since VMMs look for it whoever their guest's driver is.
            Legacy::Require => {
                self.config.offered & (Features::LEGACY_RANGE | Features::ACCESS_PLATFORM)
            }
        }
    }

    /// Returns the features as acknowledged, for those who ask for that very value.
    pub fn acknowledged(&self) -> Features {
        self.acknowledged
    }

    /// Returns the features in use: what was acknowledged, and means something to this driver.
    pub fn features(&self) -> Features {
        self.acknowledged.effective()
    }

    /// Returns who the driver is, or nothing while that is undecided.
    pub fn driver(&self) -> Option<Driver> {
        if self.status & (status::FEATURES_OK | status::DRIVER_OK) == 0 {
            None
        } else if self.acknowledged.legacy() {
            Some(Driver::Legacy)
        } else {
            Some(Driver::Modern)
        }
    }

    /// Returns which drivers are let in.
    pub fn legacy(&self) -> Legacy {
        self.legacy
    }

    /// Returns which legacy drivers the device can serve.
    pub fn legacy_support(&self) -> LegacySupport {
        match (self.legacy, self.config.big_endian) {
            (Legacy::Off, _) => LegacySupport::None,
            (_, false) => LegacySupport::LittleEndian,
            (_, true) => LegacySupport::AnyEndian,
        }
    }

    /// Returns the byte order legacy drivers have, as it was set.
    pub fn legacy_byte_order(&self) -> ByteOrder {
        self.byte_order
    }

    /// Returns the byte order legacy drivers have in a virtqueue, as it was set; that of the
    /// device for a virtqueue that is not there.
    pub fn legacy_queue_byte_order(&self, queue: u16) -> ByteOrder {
        if queue >= self.queues() {
            self.byte_order
        } else if self.big.contains(queue) {
            ByteOrder::Big
        } else {
            ByteOrder::Little
        }
    }

    /// Returns the byte order of the configuration space as the driver sees it.
    ///
    /// While it is undecided who the driver is, that is little-endian unless it can only be, or
    /// by the features acknowledged so far seems to be, a legacy driver.
    pub fn config_byte_order(&self) -> ByteOrder {
        let legacy = match self.driver() {
            Some(driver) => driver == Driver::Legacy,
            None if self.acknowledged.is_empty() => self.legacy == Legacy::Require,
            None => self.acknowledged.legacy(),
        };
        if legacy {
            self.byte_order
        } else {
            ByteOrder::Little
        }
    }

    /// Returns the byte order of a virtqueue, and of the headers and commands that go through it.
    pub fn queue_byte_order(&self, queue: u16) -> ByteOrder {
        if self.acknowledged.legacy() {
            self.legacy_queue_byte_order(queue)
        } else {
            ByteOrder::Little
        }
    }

    /// Returns whether a virtqueue is enabled, whether or not it runs.
    pub fn ready(&self, queue: u16) -> bool {
        self.ready.contains(queue)
    }

    /// Returns whether a virtqueue runs.
    pub fn runs(&self, queue: u16) -> bool {
        self.phase == Phase::Running && self.ready.contains(queue)
    }

    /// Returns the virtqueues that run.
    pub fn running(&self) -> QueueSet {
        match self.phase {
            Phase::Running => self.ready,
            _ => QueueSet::EMPTY,
        }
    }

    /// Returns whether the device has stopped on request and can go on.
    pub fn stopped(&self) -> bool {
        self.phase == Phase::Stopped
    }

    /// Returns whether the device needs a reset.
    pub fn broken(&self) -> bool {
        self.phase == Phase::Broken
    }

    /// Returns the queues whose rings the executor may be touching.
    fn active(&self) -> QueueSet {
        match self.phase {
            Phase::Running | Phase::Stopping { .. } => self.ready,
            Phase::Idle | Phase::Stopped | Phase::Broken => QueueSet::EMPTY,
        }
    }

    fn reset(&mut self) -> Actions {
        let stop = self.active();
        *self = Self {
            phase: Phase::Idle,
            status: 0,
            acknowledged: Features::NONE,
            ready: QueueSet::EMPTY,
            latched: QueueSet::EMPTY,
            ..*self
        };
        Actions {
            stop,
            reset: true,
            ..Actions::NONE
        }
    }

    fn set_features(&mut self, features: Features) -> Result<Actions, Refusal> {
        if features == self.acknowledged {
            return Ok(Actions::NONE);
        }
        if self.phase != Phase::Idle || self.driver().is_some() {
            return Err(Refusal::FeaturesFixed);
        }
        if !features.is_empty() {
            self.admit(features)?;
            // VMMs force ACCESS_PLATFORM, which only says that they map memory themselves.
            let unknown = features - self.offered() - Features::ACCESS_PLATFORM;
            if !unknown.is_empty() {
                return Err(Refusal::NotOffered(unknown));
            }
        }
        self.acknowledged = features;
        Ok(Actions::NONE)
    }

    /// Checks that a driver with these features is let in.
    fn admit(&self, features: Features) -> Result<(), Refusal> {
        match (self.legacy, features.legacy()) {
            (Legacy::Off, true) => Err(Refusal::LegacyOff),
            (Legacy::Require, false) => Err(Refusal::LegacyRequired),
            _ => Ok(()),
        }
    }

    /// Checks that the features acknowledged can be served.
    fn negotiate(&self) -> Result<(), Refusal> {
        let features = self.acknowledged;
        self.admit(features)?;
        let missing = self.config.required - features;
        if !missing.is_empty() {
            return Err(Refusal::Required(missing));
        }
        // Legacy drivers were written before these rules were.
        if !features.legacy() {
            (self.config.check)(features).map_err(Refusal::Unmet)?;
        }
        Ok(())
    }

    fn set_status(&mut self, value: u8) -> Actions {
        let mut actions = Actions::NONE;
        self.status |= value & (status::ACKNOWLEDGE | status::DRIVER | status::FAILED);

        if self.phase == Phase::Idle && self.rises(value, status::FEATURES_OK) {
            match self.negotiate() {
                Ok(()) => self.status |= status::FEATURES_OK,
                Err(refusal) => actions.refused = Some(refusal),
            }
        }

        match self.phase {
            Phase::Idle if value & status::DRIVER_OK != 0 => match self.may_start() {
                // STOP in the same write is not taken: there is nothing to stop yet.
                Ok(()) => {
                    self.status |= status::DRIVER_OK;
                    self.run(&mut actions);
                    actions.begin = true;
                }
                Err(refusal) => {
                    self.phase = Phase::Broken;
                    self.status |= status::NEEDS_RESET;
                    actions.refused = Some(refusal);
                }
            },
            Phase::Running => {
                self.status &= value | !status::STOP_FAILED;
                if value & status::STOP != 0 && !self.stop_failure_shown() {
                    self.halt(true, &mut actions);
                }
            }
            Phase::Stopping { .. } if value & status::STOP != 0 => {
                self.phase = Phase::Stopping { show: true };
            }
            Phase::Stopped if self.rises(value, status::STOP) => {
                self.status |= status::STOP;
                actions.notify_config = true;
            }
            // Only a write that takes away STOP and leaves DRIVER_OK is meant to resume.
            Phase::Stopped
                if self.status & status::STOP != 0
                    && value & status::STOP == 0
                    && value & status::DRIVER_OK != 0 =>
            {
                self.run(&mut actions);
            }
            _ => {}
        }
        actions
    }

    /// Returns whether `bit` is written and not shown.
    fn rises(&self, value: u8, bit: u8) -> bool {
        value & !self.status & bit != 0
    }

    /// Returns whether the driver has yet to clear a failure, before which nothing stops the
    /// device but a reset.
    fn stop_failure_shown(&self) -> bool {
        self.status & status::STOP_FAILED != 0
    }

    /// Checks that the device can run.
    fn may_start(&self) -> Result<(), Refusal> {
        self.negotiate()?;
        if !self.mapped && !self.acknowledged.contains(Features::ACCESS_PLATFORM) {
            return Err(Refusal::NoMap);
        }
        Ok(())
    }

    /// Runs every queue that is ready.
    fn run(&mut self, actions: &mut Actions) {
        self.phase = Phase::Running;
        self.status &= !status::STOP;
        actions.start = self.ready;
        actions.kick = self.unlatch(self.ready);
    }

    /// Takes the latched kicks of queues that start.
    fn unlatch(&mut self, started: QueueSet) -> QueueSet {
        let kicked = self.latched.intersection(started);
        self.latched = self.latched.without(started);
        kicked
    }

    /// Has the executor stop the device.
    fn halt(&mut self, show: bool, actions: &mut Actions) {
        actions.stop = self.running();
        actions.halt = true;
        self.latched = self.latched.union(actions.stop);
        self.phase = Phase::Stopping { show };
    }

    fn set_ready(&mut self, queue: u16, ready: bool) -> Result<Actions, Refusal> {
        self.check_queue(queue)?;
        let mut actions = Actions::NONE;
        let ran = self.runs(queue);
        self.ready.set(queue, ready);
        let runs = self.runs(queue);
        if runs && !ran {
            actions.start = QueueSet::one(queue);
            actions.kick = self.unlatch(actions.start);
        } else if ran && !runs {
            // What was available stays so, and is not announced again when the queue comes back.
            actions.stop = QueueSet::one(queue);
            self.latched.set(queue, true);
        }
        Ok(actions)
    }

    fn configure(&mut self, queue: u16) -> Result<Actions, Refusal> {
        self.check_queue(queue)?;
        if self.runs(queue) {
            return Err(Refusal::Running);
        }
        if matches!(self.phase, Phase::Stopping { .. }) {
            return Err(Refusal::Stopping);
        }
        // A ring taken over from elsewhere may hold buffers that were announced there.
        self.latched.set(queue, true);
        Ok(Actions::NONE)
    }

    fn check_queue(&self, queue: u16) -> Result<(), Refusal> {
        if queue < self.queues() {
            Ok(())
        } else {
            Err(Refusal::NoSuchQueue(queue))
        }
    }

    fn check_byte_order(&self, order: ByteOrder) -> Result<(), Refusal> {
        if self.phase != Phase::Idle {
            Err(Refusal::Running)
        } else if order.is_big() && !self.config.big_endian {
            Err(Refusal::BigEndian)
        } else {
            Ok(())
        }
    }

    fn set_byte_order(&mut self, order: ByteOrder) -> Result<Actions, Refusal> {
        self.check_byte_order(order)?;
        self.byte_order = order;
        for queue in 0..self.queues() {
            self.big.set(queue, order.is_big());
        }
        Ok(Actions::NONE)
    }

    fn set_queue_byte_order(&mut self, queue: u16, order: ByteOrder) -> Result<Actions, Refusal> {
        self.check_queue(queue)?;
        self.check_byte_order(order)?;
        self.big.set(queue, order.is_big());
        Ok(Actions::NONE)
    }

    fn set_legacy(&mut self, legacy: Legacy) -> Result<Actions, Refusal> {
        if self.phase != Phase::Idle || self.driver().is_some() {
            return Err(Refusal::Running);
        }
        match legacy {
            Legacy::Off if self.config.offered.legacy() => return Err(Refusal::NoModern),
            Legacy::Allow | Legacy::Require if !self.config.legacy => {
                return Err(Refusal::NoLegacy)
            }
            _ => {}
        }
        self.legacy = legacy;
        Ok(Actions::NONE)
    }

    fn suspend(&mut self) -> Result<Actions, Refusal> {
        let mut actions = Actions::NONE;
        match self.phase {
            Phase::Idle => return Err(Refusal::NotRunning),
            Phase::Running if self.stop_failure_shown() => return Err(Refusal::StopFailed),
            Phase::Running => self.halt(false, &mut actions),
            Phase::Stopping { .. } => return Err(Refusal::Stopping),
            Phase::Stopped => {}
            Phase::Broken => return Err(Refusal::Broken),
        }
        Ok(actions)
    }

    fn resume(&mut self) -> Result<Actions, Refusal> {
        let mut actions = Actions::NONE;
        match self.phase {
            Phase::Idle => return Err(Refusal::NotRunning),
            Phase::Running => self.status &= !status::STOP_FAILED,
            Phase::Stopping { .. } => return Err(Refusal::Stopping),
            Phase::Stopped => self.run(&mut actions),
            Phase::Broken => return Err(Refusal::Broken),
        }
        Ok(actions)
    }

    fn stop_done(&mut self) -> Result<Actions, Refusal> {
        let Phase::Stopping { show } = self.phase else {
            return Err(Refusal::NotRunning);
        };
        self.phase = Phase::Stopped;
        if show {
            self.status |= status::STOP;
        }
        Ok(Actions {
            notify_config: show,
            ..Actions::NONE
        })
    }

    fn stop_failed(&mut self) -> Result<Actions, Refusal> {
        let Phase::Stopping { show } = self.phase else {
            return Err(Refusal::NotRunning);
        };
        let mut actions = Actions::NONE;
        self.run(&mut actions);
        if show {
            self.status |= status::STOP_FAILED;
            actions.notify_config = true;
        }
        Ok(actions)
    }

    fn start_failed(&mut self) -> Result<Actions, Refusal> {
        if self.phase != Phase::Running {
            return Err(Refusal::NotRunning);
        }
        let actions = Actions {
            stop: self.running(),
            ..Actions::NONE
        };
        self.phase = Phase::Broken;
        self.status = self.status & !status::DRIVER_OK | status::NEEDS_RESET;
        Ok(actions)
    }

    fn fault(&mut self) -> Actions {
        if self.phase == Phase::Broken {
            return Actions::NONE;
        }
        let stop = self.active();
        self.phase = Phase::Broken;
        self.status |= status::NEEDS_RESET;
        Actions {
            stop,
            notify_config: self.status & status::DRIVER_OK != 0,
            ..Actions::NONE
        }
    }

    fn config_change(&mut self) -> Result<Actions, Refusal> {
        match self.phase {
            Phase::Stopping { .. } => Err(Refusal::Stopping),
            Phase::Stopped => Err(Refusal::Stopped),
            Phase::Idle | Phase::Running | Phase::Broken => Ok(Actions {
                notify_config: self.status & status::DRIVER_OK != 0,
                ..Actions::NONE
            }),
        }
    }
}
