// SPDX-License-Identifier: GPL-2.0

//! Long random lives of a device with as many queues as the sample has, and of a small one.

use proptest::prelude::*;

use super::monitor::{Monitor, Step};
use super::{device, LEGACY, MODERN, OFFERED};
use crate::byte_order::ByteOrder;
use crate::features::Features;
use crate::lifecycle::{Config, Event, Legacy, Lifecycle};

fn features() -> impl Strategy<Value = Features> {
    prop_oneof![
        2 => Just(LEGACY),
        3 => Just(MODERN),
        1 => Just(Features::NONE),
        3 => any::<u64>().prop_map(|bits| Features::from_bits(bits) & OFFERED),
        1 => any::<u64>().prop_map(Features::from_bits),
    ]
}

fn order() -> impl Strategy<Value = ByteOrder> {
    prop_oneof![Just(ByteOrder::Little), Just(ByteOrder::Big)]
}

/// A device of any kind.
fn kind(queues: u16) -> impl Strategy<Value = Lifecycle> {
    any::<[bool; 3]>().prop_map(move |[legacy, big_endian, modern]| {
        let version = match modern {
            true => Features::VERSION_1,
            false => Features::NONE,
        };
        Lifecycle::new(Config {
            // One that serves nobody is made by nobody.
            legacy: legacy || !modern,
            big_endian,
            offered: (OFFERED - Features::VERSION_1) | version,
            ..device(queues).config
        })
    })
}

fn step(queues: u16) -> impl Strategy<Value = Step> {
    // Now and then a queue that is not there.
    let queue = || prop_oneof![20 => 0..queues, 1 => queues..=u16::MAX];
    let event = prop_oneof![
        1 => Just(Event::Reset),
        4 => features().prop_map(Event::SetFeatures),
        1 => any::<u8>().prop_map(Event::SetStatus),
        8 => (queue(), any::<bool>()).prop_map(|(queue, ready)| Event::SetReady(queue, ready)),
        4 => queue().prop_map(Event::Configure),
        1 => order().prop_map(Event::SetByteOrder),
        1 => (queue(), order()).prop_map(|(queue, order)| Event::SetQueueByteOrder(queue, order)),
        1 => prop_oneof![Just(Legacy::Off), Just(Legacy::Allow), Just(Legacy::Require)]
            .prop_map(Event::SetLegacy),
        1 => any::<bool>().prop_map(Event::Mapped),
        3 => Just(Event::Suspend),
        3 => Just(Event::Resume),
        4 => Just(Event::StopDone),
        2 => Just(Event::StopFailed),
        1 => Just(Event::Fault),
        1 => Just(Event::StartFailed),
        1 => Just(Event::ConfigChange),
    ];
    prop_oneof![
        6 => event.prop_map(Step::Event),
        2 => queue().prop_map(Step::Kick),
        1 => (0u32..8).prop_map(|bit| Step::AddStatus(1 << bit)),
        1 => Just(Step::AddStatus(0x0f)),
        1 => (0u32..8).prop_map(|bit| Step::ClearStatus(1 << bit)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn many_queues_live_long(first in kind(33), steps in prop::collection::vec(step(33), 1..400)) {
        let mut monitor = Monitor::new(first);
        for step in steps {
            monitor.step(step);
        }
    }

    #[test]
    fn few_queues_live_long(first in kind(1), steps in prop::collection::vec(step(1), 1..400)) {
        let mut monitor = Monitor::new(first);
        for step in steps {
            monitor.step(step);
        }
    }
}
