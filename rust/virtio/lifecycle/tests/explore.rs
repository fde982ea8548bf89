// SPDX-License-Identifier: GPL-2.0

//! Takes every step of an alphabet in every state the machine can reach from the first.
//!
//! With two queues and this alphabet the states are finite: some 50 000 of a transitional device, the
//! farthest 14 steps from the first. The search ends when there are no new ones, so that sequences of
//! any length are covered. It is made for each kind of device: transitional with both byte orders and
//! with one, modern only, and legacy only.

use super::monitor::{Monitor, Step};
use super::{device, LEGACY, MODERN, OFFERED};
use crate::byte_order::ByteOrder;
use crate::features::Features;
use crate::lifecycle::{status, Config, Event, Legacy, Lifecycle, Phase};
use crate::net;

/// Modern, with MQ but without the CTRL_VQ that it needs.
const SENSELESS: Features = MODERN.union(net::features::MQ);
/// Modern, with physical addresses.
const PHYSICAL: Features = Features::VERSION_1;
/// With a bit that is not offered.
const ALIEN: Features = MODERN.union(Features::BAD_FEATURE);

/// The feature sets of the alphabet; at most eight that may be acknowledged.
const FEATURES: [Features; 6] = [Features::NONE, LEGACY, MODERN, SENSELESS, PHYSICAL, ALIEN];

fn alphabet() -> Vec<Step> {
    let mut steps = vec![
        Step::Kick(0),
        Step::Kick(1),
        Step::Kick(2),
        Step::AddStatus(status::ACKNOWLEDGE | status::DRIVER),
        Step::AddStatus(status::FEATURES_OK),
        Step::AddStatus(status::DRIVER_OK),
        Step::AddStatus(status::FEATURES_OK | status::DRIVER_OK),
        Step::AddStatus(status::DRIVER_OK | status::STOP),
        Step::AddStatus(status::STOP),
        Step::AddStatus(status::STOP_FAILED | status::NEEDS_RESET),
        Step::ClearStatus(status::STOP),
        Step::ClearStatus(status::STOP_FAILED),
        Step::ClearStatus(status::STOP | status::DRIVER_OK),
        Step::ClearStatus(status::DRIVER_OK | status::FEATURES_OK),
        Step::Event(Event::SetReady(2, true)),
        Step::Event(Event::Configure(2)),
        Step::Event(Event::SetByteOrder(ByteOrder::Little)),
        Step::Event(Event::SetByteOrder(ByteOrder::Big)),
        Step::Event(Event::SetQueueByteOrder(1, ByteOrder::Big)),
        Step::Event(Event::SetQueueByteOrder(2, ByteOrder::Big)),
        Step::Event(Event::SetLegacy(Legacy::Off)),
        Step::Event(Event::SetLegacy(Legacy::Allow)),
        Step::Event(Event::SetLegacy(Legacy::Require)),
        Step::Event(Event::Mapped(false)),
        Step::Event(Event::Mapped(true)),
    ];
    for queue in 0..2 {
        steps.push(Step::Event(Event::Configure(queue)));
        steps.push(Step::Event(Event::SetReady(queue, true)));
        steps.push(Step::Event(Event::SetReady(queue, false)));
    }
    for features in FEATURES {
        steps.push(Step::Event(Event::SetFeatures(features)));
    }
    for event in [
        Event::Reset,
        Event::Suspend,
        Event::Resume,
        Event::StopDone,
        Event::StopFailed,
        Event::StartFailed,
        Event::Fault,
        Event::ConfigChange,
    ] {
        steps.push(Step::Event(event));
    }
    steps
}

/// Numbers a state: two monitors with the same number behave alike from then on.
fn number(monitor: &Monitor) -> usize {
    let machine = &monitor.machine;
    let mut number = usize::from(machine.status);
    let mut push = |value: usize, bits: u32| {
        assert!(value < 1 << bits);
        number = (number << bits) | value;
    };
    let acknowledged = FEATURES
        .iter()
        .position(|&features| features == machine.acknowledged);
    push(acknowledged.expect("features of the alphabet"), 3);
    push(
        match machine.phase {
            Phase::Idle => 0,
            Phase::Running => 1,
            Phase::Stopping { show: false } => 2,
            Phase::Stopping { show: true } => 3,
            Phase::Stopped => 4,
            Phase::Broken => 5,
        },
        3,
    );
    push(machine.legacy as usize, 2);
    push(usize::from(machine.mapped), 1);
    push(usize::from(machine.byte_order.is_big()), 1);
    for set in [machine.ready, machine.latched, machine.big, monitor.owed] {
        push(usize::from(set.contains(0)), 1);
        push(usize::from(set.contains(1)), 1);
    }
    number
}

/// Takes every step in every state that is reached from `first`. Returns the number of states, and
/// the number of steps to the farthest of them.
fn explore(first: Lifecycle) -> (usize, usize) {
    let alphabet = alphabet();
    let mut seen = vec![0u64; 1 << (8 + 3 + 3 + 2 + 1 + 1 + 8 - 6)];
    let mut new_to = |monitor: &Monitor| {
        let number = number(monitor);
        let (word, bit) = (&mut seen[number / 64], 1 << (number % 64));
        let new = *word & bit == 0;
        *word |= bit;
        new
    };

    let first = Monitor::new(first);
    assert!(new_to(&first));
    let mut frontier = vec![first];
    let (mut states, mut steps, mut depth) = (1, 0, 0);
    while !frontier.is_empty() {
        let mut next = Vec::new();
        for monitor in &frontier {
            for &step in &alphabet {
                let mut after = monitor.clone();
                after.step(step);
                steps += 1;
                if new_to(&after) {
                    next.push(after);
                }
            }
        }
        states += next.len();
        depth += usize::from(!next.is_empty());
        frontier = next;
    }

    println!("{states} states, {steps} steps taken, the farthest state {depth} steps away");
    (states, depth)
}

#[test]
fn every_reachable_state_keeps_the_rules() {
    let transitional = device(2).config;
    let little = Config {
        big_endian: false,
        ..transitional
    };
    let modern = Config {
        legacy: false,
        ..little
    };
    let old = Config {
        offered: OFFERED - Features::VERSION_1,
        ..transitional
    };
    for (config, least) in [
        (transitional, 10_000),
        (little, 2_000),
        (modern, 1_000),
        (old, 2_000),
    ] {
        let (states, depth) = explore(Lifecycle::new(config));
        // A search that has found little has checked little.
        assert!(
            states > least && depth >= 10,
            "{states} states, {depth} steps"
        );
    }
}
