// SPDX-License-Identifier: GPL-2.0

//! An executor that does nothing but remember, and checks that what it is told makes sense.

use crate::byte_order::ByteOrder;
use crate::features::Features;
use crate::lifecycle::{
    status, Actions, ConfigWrite, Driver, Event, Kick, Legacy, LegacySupport, Lifecycle, Phase,
    QueueSet, Refusal, RefusalKind,
};

/// One step in the life of a device.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// An event as it is.
    Event(Event),
    /// The driver adds these bits to the status it reads.
    AddStatus(u8),
    /// The driver takes these bits from the status it reads, if anything remains.
    ClearStatus(u8),
    /// The driver kicks a queue.
    Kick(u16),
}

/// A machine and what its executor knows.
#[derive(Clone, Debug)]
pub(super) struct Monitor {
    pub(super) machine: Lifecycle,
    /// The queues that the executor runs.
    running: QueueSet,
    /// The executor owes the outcome of a stop.
    halting: bool,
    /// That stop was asked for by the status field, at least in the end.
    asked: bool,
    /// Queues whose rings have to be looked at when they start next: kicked while they did not
    /// run, configured, or stopped by anything but a reset.
    pub(super) owed: QueueSet,
}

impl Monitor {
    pub(super) fn new(machine: Lifecycle) -> Self {
        Self {
            machine,
            running: QueueSet::EMPTY,
            halting: false,
            asked: false,
            owed: QueueSet::EMPTY,
        }
    }

    /// Takes a step and checks what comes of it.
    pub(super) fn step(&mut self, step: Step) {
        let event = match step {
            Step::Event(event) => event,
            Step::AddStatus(bits) => Event::SetStatus(self.machine.status() | bits),
            Step::ClearStatus(bits) => match self.machine.status() & !bits {
                0 => return,
                value => Event::SetStatus(value),
            },
            Step::Kick(queue) => return self.kick(queue),
        };
        let before = self.machine.clone();
        let answer = self.machine.handle(event);
        if let Some(expected) = administered(event, &before) {
            let kind = answer.as_ref().map(drop).map_err(|refusal| refusal.kind());
            assert_eq!(kind, expected, "{event:?}: {before:?}");
        }
        match answer {
            Ok(actions) => {
                self.check_actions(event, &before, &actions);
                self.check_status(event, &before, &actions);
            }
            Err(refusal) => self.check_refusal(event, &before, refusal),
        }
        self.check_state(event, &before);
    }

    fn kick(&mut self, queue: u16) {
        let answer = self.machine.kick(queue);
        let there = queue < self.machine.queues() && !self.machine.broken();
        assert_eq!(answer == Kick::Drop, !there);
        assert_eq!(answer == Kick::Deliver, self.running.contains(queue));
        if answer == Kick::Latch {
            self.owed.set(queue, true);
        }
    }

    /// Carries the actions out, in order.
    fn check_actions(&mut self, event: Event, before: &Lifecycle, actions: &Actions) {
        let resets = matches!(event, Event::Reset | Event::SetStatus(0));
        assert_eq!(actions.reset, resets);

        // Only what runs is stopped, but for what a stop under way has not come to yet.
        if !self.halting {
            assert!(actions.stop.without(self.running).is_empty());
        } else if resets || event == Event::Fault {
            assert_eq!(actions.stop, before.ready);
        }
        let stopped = actions.stop.intersection(self.running);
        self.running = self.running.without(stopped);
        self.owed = if resets {
            QueueSet::EMPTY
        } else {
            self.owed.union(stopped)
        };
        if matches!(event, Event::StopDone | Event::StopFailed) {
            assert!(self.halting, "nobody asked for that outcome");
        }
        if resets || matches!(event, Event::StopDone | Event::StopFailed | Event::Fault) {
            self.halting = false;
        }
        if actions.halt {
            assert!(!self.halting, "stopped twice");
            assert!(self.running.is_empty(), "a stopped device runs nothing");
            self.halting = true;
            self.asked = false;
        }
        if let Event::SetStatus(value) = event {
            self.asked |= self.halting && value & status::STOP != 0;
        }

        assert!(
            actions.start.intersection(self.running).is_empty(),
            "started twice"
        );
        self.running = self.running.union(actions.start);
        // Each reason to look at a ring leads to one look, once the queue runs.
        assert_eq!(actions.kick, self.owed.intersection(actions.start));
        self.owed = self.owed.without(actions.kick);

        if let Event::Configure(queue) = event {
            assert!(!before.runs(queue));
            self.owed.set(queue, true);
        }
        if actions.notify_config {
            assert_ne!(self.machine.status() & status::DRIVER_OK, 0);
        }
    }

    /// Checks how the status may change in one event.
    fn check_status(&self, event: Event, before: &Lifecycle, actions: &Actions) {
        let (old, new) = (before.status(), self.machine.status());
        let came = new & !old;
        let went = old & !new;
        let written = match event {
            Event::SetStatus(value) => value,
            _ => 0,
        };

        if matches!(event, Event::Reset | Event::SetStatus(0)) {
            assert_eq!(new, 0);
            return;
        }
        let driver = status::ACKNOWLEDGE | status::DRIVER | status::FAILED;
        assert_eq!(came & driver & !written, 0);
        assert_eq!(went & driver, 0);
        assert_eq!(went & (status::FEATURES_OK | status::NEEDS_RESET), 0);
        if came & (status::FEATURES_OK | status::DRIVER_OK) != 0 {
            assert!(acceptable(&self.machine), "{:?}", self.machine);
        }
        if came & status::FEATURES_OK != 0 {
            assert_ne!(written & status::FEATURES_OK, 0);
        }
        if came & status::DRIVER_OK != 0 {
            assert_ne!(written & status::DRIVER_OK, 0);
            assert!(
                self.machine.mapped
                    || self
                        .machine
                        .acknowledged()
                        .contains(Features::ACCESS_PLATFORM)
            );
            assert_eq!(new & status::STOP, 0);
        }
        assert_eq!(actions.begin, came & status::DRIVER_OK != 0);
        if went & status::DRIVER_OK != 0 {
            assert_eq!(event, Event::StartFailed);
        }
        if came & status::NEEDS_RESET != 0 {
            let refused = written & status::DRIVER_OK != 0 && actions.refused.is_some();
            assert!(refused || matches!(event, Event::Fault | Event::StartFailed));
        }
        if came & status::STOP != 0 {
            let late = before.stopped() && written & status::STOP != 0;
            assert!(event == Event::StopDone || late);
            assert!(actions.notify_config && self.machine.stopped());
        }
        if event == Event::StopDone {
            assert_eq!(came & status::STOP != 0, self.asked);
        }
        if event == Event::StopFailed {
            assert_eq!(came & status::STOP_FAILED != 0, self.asked);
        }
        if went & status::STOP != 0 {
            let cleared = written & (status::STOP | status::DRIVER_OK) == status::DRIVER_OK;
            assert!(event == Event::Resume || cleared);
            assert!(!self.machine.stopped());
        }
        if came & status::STOP_FAILED != 0 {
            assert!(event == Event::StopFailed && actions.notify_config);
        }
        if went & status::STOP_FAILED != 0 {
            assert!(event == Event::Resume || written & status::STOP_FAILED == 0);
        }
        // While a failure is shown, the device runs on or breaks.
        if new & status::STOP_FAILED != 0 {
            assert!(!actions.halt && new & status::STOP == 0);
            assert!(self.machine.broken() || self.machine.phase == Phase::Running);
        }
        if actions.refused.is_some() {
            let wanted = status::FEATURES_OK | status::DRIVER_OK;
            assert_ne!(
                written & wanted & !new,
                0,
                "refused, and nothing is missing"
            );
        }
    }

    /// Checks that a refusal changes nothing and has a reason.
    fn check_refusal(&self, event: Event, before: &Lifecycle, refusal: Refusal) {
        assert_eq!(fingerprint(&self.machine), fingerprint(before), "{event:?}");
        match event {
            Event::Reset | Event::SetStatus(_) | Event::Fault | Event::Mapped(_) => {
                panic!("{event:?} was refused: {refusal}")
            }
            Event::SetFeatures(features) => {
                let fixed = before.driver().is_some() || before.phase != Phase::Idle;
                assert!(
                    !features.is_empty() || fixed,
                    "a reset to nothing was refused"
                );
            }
            _ => {}
        }
    }

    /// Checks what must hold at any time.
    fn check_state(&self, event: Event, before: &Lifecycle) {
        let machine = &self.machine;
        let shown = machine.status();
        assert_eq!(machine.running(), self.running, "{event:?}");
        assert_eq!(
            self.halting,
            matches!(machine.phase, Phase::Stopping { .. })
        );
        assert_eq!(machine.broken(), shown & status::NEEDS_RESET != 0);

        if !self.running.is_empty() {
            assert_ne!(shown & status::DRIVER_OK, 0);
            assert_eq!(shown & (status::STOP | status::NEEDS_RESET), 0);
            assert!(!self.halting && !machine.stopped());
        }
        for queue in 0..machine.queues() {
            assert_eq!(self.running.contains(queue), machine.runs(queue));
            assert!(machine.ready(queue) || !machine.runs(queue));
        }

        // Who the driver is follows from its features alone, and does not change any more.
        match (before.driver(), machine.driver()) {
            (_, Some(driver)) => {
                let legacy = !machine.acknowledged().contains(Features::VERSION_1);
                assert_eq!(driver == Driver::Legacy, legacy);
                if before.driver().is_some() {
                    assert_eq!(before.driver(), machine.driver());
                    assert_eq!(before.acknowledged(), machine.acknowledged());
                }
            }
            (Some(_), None) => assert!(matches!(
                event,
                Event::Reset | Event::SetStatus(0) | Event::StartFailed
            )),
            (None, None) => {}
        }
        if machine.acknowledged() != before.acknowledged() {
            assert!(matches!(
                event,
                Event::Reset | Event::SetStatus(0) | Event::SetFeatures(_)
            ));
        }

        // What the device cannot do it never does, whoever asked.
        let config = &machine.config;
        if !config.legacy {
            assert_ne!(machine.driver(), Some(Driver::Legacy));
            assert_eq!(machine.legacy_support(), LegacySupport::None);
        }
        if config.offered.legacy() {
            assert_ne!(machine.driver(), Some(Driver::Modern));
        }
        if !config.big_endian {
            assert_eq!(machine.config_byte_order(), ByteOrder::Little);
            assert_ne!(machine.legacy_support(), LegacySupport::AnyEndian);
            for queue in 0..machine.queues() {
                assert_eq!(machine.queue_byte_order(queue), ByteOrder::Little);
            }
        }
        // A legacy driver is served in the order that was set, and no other.
        if machine.driver() == Some(Driver::Legacy) {
            assert_eq!(machine.config_byte_order(), machine.legacy_byte_order());
            for queue in 0..machine.queues() {
                let set = machine.legacy_queue_byte_order(queue);
                assert_eq!(machine.queue_byte_order(queue), set);
            }
        }
        if machine.driver() == Some(Driver::Modern) {
            assert_eq!(machine.config_byte_order(), ByteOrder::Little);
            for queue in 0..machine.queues() {
                assert_eq!(machine.queue_byte_order(queue), ByteOrder::Little);
            }
            assert_ne!(machine.config_write(), ConfigWrite::Apply);
        }
        if shown & status::DRIVER_OK != 0 && before.status() & status::DRIVER_OK != 0 {
            assert_eq!(machine.legacy_byte_order(), before.legacy_byte_order());
            assert_eq!(machine.big, before.big);
            assert_eq!(machine.legacy(), before.legacy());
        }

        // A reset brings back the state of a new device but for what was provisioned.
        if matches!(event, Event::Reset | Event::SetStatus(0)) {
            let mut new = Lifecycle::new(machine.config);
            new.legacy = before.legacy;
            new.byte_order = before.byte_order;
            new.big = before.big;
            new.mapped = before.mapped;
            assert_eq!(fingerprint(machine), fingerprint(&new));
        }
    }
}

/// Says independently what becomes of an administrator's or a VMM's wish about legacy drivers:
/// nothing if `event` is none.
fn administered(event: Event, before: &Lifecycle) -> Option<Result<(), RefusalKind>> {
    let there = |queue| queue < before.queues();
    let driven = before.status() & (status::FEATURES_OK | status::DRIVER_OK) != 0;
    let busy = before.phase != Phase::Idle;
    let refusal = match event {
        Event::SetLegacy(_) if busy || driven => Some(RefusalKind::Busy),
        Event::SetLegacy(Legacy::Off) => {
            let modern = (before.config.offered.bits() >> 32) & 1 == 1;
            (!modern).then_some(RefusalKind::Unsupported)
        }
        Event::SetLegacy(_) => (!before.config.legacy).then_some(RefusalKind::Unsupported),
        Event::SetQueueByteOrder(queue, _) if !there(queue) => Some(RefusalKind::Invalid),
        Event::SetByteOrder(_) | Event::SetQueueByteOrder(..) if busy => Some(RefusalKind::Busy),
        Event::SetByteOrder(order) | Event::SetQueueByteOrder(_, order) => {
            let can = order == ByteOrder::Little || before.config.big_endian;
            (!can).then_some(RefusalKind::Unsupported)
        }
        _ => return None,
    };
    Some(refusal.map_or(Ok(()), Err))
}

/// Says independently whether the features acknowledged can be served.
fn acceptable(machine: &Lifecycle) -> bool {
    let acknowledges = |bit: u32| (machine.acknowledged().bits() >> bit) & 1 == 1;
    let legacy = !acknowledges(32);
    let can = !legacy || machine.config.legacy;
    let let_in = match machine.legacy() {
        Legacy::Off => !legacy,
        Legacy::Allow => true,
        Legacy::Require => legacy,
    };
    let offers = |bit: u32| bit == 33 || (machine.config.offered.bits() >> bit) & 1 == 1;
    let offered = (0..64).all(|bit| offers(bit) || !acknowledges(bit));
    // MQ without CTRL_VQ is the one choice that these tests make and the standard forbids.
    let sensible = legacy || acknowledges(17) || !acknowledges(22);
    can && let_in && offered && sensible
}

/// Everything in a machine that can change.
pub(super) fn fingerprint(machine: &Lifecycle) -> impl PartialEq + std::fmt::Debug {
    (
        (machine.phase, machine.status, machine.acknowledged),
        (machine.ready, machine.latched, machine.big),
        (machine.legacy, machine.byte_order, machine.mapped),
    )
}
