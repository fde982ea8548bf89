// SPDX-License-Identifier: GPL-2.0

//! The switch against a naive one, and what it promises besides forwarding.

use std::{
    mem,
    sync::{
        Arc,
        Mutex, //
    },
    thread, //
};

use proptest::prelude::*;

use super::{
    fdb::{
        AGE,
        CAPACITY, //
    },
    Amount,
    Connection,
    Eswitch,
    Port, //
};
use crate::frame::Frame;

const MTU: u16 = 1500;

/// Keeps what it receives.
#[derive(Default)]
pub(super) struct Sink(Mutex<Vec<Frame>>);

impl Sink {
    pub(super) fn take(&self) -> Vec<Frame> {
        mem::take(&mut self.0.lock().unwrap())
    }
}

impl Port for Sink {
    fn receive(&self, frames: &[&Frame]) {
        let frames = frames.iter().map(|&frame| frame.clone());
        self.0.lock().unwrap().extend(frames);
    }
}

/// An address: small numbers are of one, 0xfe of many, 0xff of all.
fn mac(number: u8) -> [u8; 6] {
    match number {
        0xff => [0xff; 6],
        0xfe => [1, 0, 0x5e, 0, 0, 1],
        number => [2, 0, 0, 0, 0, number],
    }
}

/// A frame of `len` bytes of payload.
pub(super) fn frame(to: u8, from: u8, vlan: Option<u16>, len: usize) -> Frame {
    let mut bytes = [mac(to), mac(from)].concat();
    if let Some(vlan) = vlan {
        bytes.extend([0x81, 0x00]);
        bytes.extend(vlan.to_be_bytes());
    }
    bytes.extend([0x88, 0xb5]);
    bytes.resize(bytes.len() + len, 0);
    Frame { bytes }
}

fn attach(eswitch: &Arc<Eswitch>) -> (Arc<Sink>, Connection) {
    let sink = Arc::<Sink>::default();
    let connection = eswitch.attach(sink.clone(), MTU);
    (sink, connection)
}

#[derive(Clone, Debug)]
enum Step {
    /// Through which port, to whom, from whom, in which VLAN.
    Send(u8, u8, u8, Option<u16>),
    Link(u8, bool),
    Configure(u8, Vec<u8>),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let to = prop_oneof![8 => 0..5u8, 1 => Just(0xfe), 1 => Just(0xff)];
    let from = prop_oneof![9 => 0..5u8, 1 => Just(0xfe)];
    let vlan = prop_oneof![Just(None), Just(Some(0)), Just(Some(1)), Just(Some(0x2001))];
    prop_oneof![
        16 => (0..4u8, to, from, vlan).prop_map(|(a, b, c, d)| Step::Send(a, b, c, d)),
        2 => (0..4u8, any::<bool>()).prop_map(|(a, b)| Step::Link(a, b)),
        1 => (0..4u8, prop::collection::vec(0..5u8, 0..3)).prop_map(|(a, b)| Step::Configure(a, b)),
        2 => prop_oneof![1..10u64, AGE - 5..AGE + 5].prop_map(Step::Wait),
    ]
}

/// The same, without any haste.
#[derive(Default)]
struct Naive {
    /// Address, VLAN, port and when it was heard of.
    heard: Vec<(u8, u16, u8, u64)>,
    configured: [Vec<u8>; 4],
    down: [bool; 4],
}

impl Naive {
    fn send(&mut self, port: u8, to: u8, from: u8, vlan: u16, now: u64) -> Vec<u8> {
        if self.down[usize::from(port)] {
            return Vec::new();
        }
        if from < 0xfe {
            self.heard
                .retain(|heard| (heard.0, heard.1) != (from, vlan));
            self.heard.push((from, vlan, port, now));
        }
        let fresh =
            |heard: &&(u8, u16, u8, u64)| (heard.0, heard.1) == (to, vlan) && now - heard.3 <= AGE;
        let heard = self.heard.iter().find(fresh);
        let configured = (0..4).filter(|port| self.configured[usize::from(*port)].contains(&to));
        let mut ports: Vec<u8> = match heard {
            Some(heard) => vec![heard.2],
            None => configured.collect(),
        };
        if ports.is_empty() {
            ports.extend(0..4);
        }
        ports.retain(|other| *other != port && !self.down[usize::from(*other)]);
        ports
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn it_forwards_as_a_naive_one(steps in prop::collection::vec(step(), 1..60)) {
        let eswitch = Arc::<Eswitch>::default();
        let ports: Vec<_> = (0..4).map(|_| attach(&eswitch)).collect();
        let mut naive = Naive::default();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Send(port, to, from, vlan) => {
                    let frame = frame(to, from, vlan, 46);
                    let expected = naive.send(port, to, from, vlan.unwrap_or(0) & 0xfff, now);
                    eswitch.send(ports[usize::from(port)].1.index, &[frame.clone()], now);
                    for (number, (sink, _)) in ports.iter().enumerate() {
                        let count = usize::from(expected.contains(&(number as u8)));
                        prop_assert_eq!(sink.take(), vec![frame.clone(); count]);
                    }
                }
                Step::Link(port, up) => {
                    ports[usize::from(port)].1.set_link(up);
                    naive.down[usize::from(port)] = !up;
                    if !up {
                        naive.heard.retain(|heard| heard.2 != port);
                    }
                }
                Step::Configure(port, addresses) => {
                    let macs: Vec<_> = addresses.iter().copied().map(mac).collect();
                    ports[usize::from(port)].1.set_addresses(&macs);
                    naive.configured[usize::from(port)] = addresses;
                }
                Step::Wait(seconds) => now += seconds,
            }
        }
    }

    #[test]
    fn a_batch_arrives_in_order(to in prop::collection::vec(0..4u8, 1..64)) {
        let eswitch = Arc::<Eswitch>::default();
        let ports: Vec<_> = (0..4).map(|_| attach(&eswitch)).collect();
        for (number, (_, connection)) in ports.iter().enumerate() {
            connection.set_addresses(&[mac(number as u8)]);
        }
        let batch: Vec<_> = (0..).zip(&to).map(|(n, to)| frame(*to, 9, None, n)).collect();
        ports[0].1.send(&batch);
        for (number, (sink, _)) in ports.iter().enumerate() {
            let mut expected = batch.clone();
            expected.retain(|frame| number != 0 && frame.destination() == mac(number as u8));
            prop_assert_eq!(sink.take(), expected);
        }
    }
}

#[test]
fn addresses_are_learned_up_to_a_bound() {
    let mut fdb = super::fdb::Fdb::default();
    let source = |n: usize| {
        let mut frame = frame(0, 0, None, 0);
        frame.bytes[7..11].copy_from_slice(&(n as u32 + 1).to_be_bytes());
        super::fdb::Address::of_source(&frame)
    };
    for n in 0..CAPACITY {
        fdb.learn(source(n), 0, 0);
    }
    assert!(!fdb.knows(source(CAPACITY), 1, 1));
    fdb.learn(source(CAPACITY), 1, 1);
    assert_eq!(fdb.way(source(CAPACITY), 1), super::Way::ToAll);
    // It is not tried again within the same second.
    assert!(fdb.knows(source(CAPACITY), 1, 1));
    assert!(!fdb.knows(source(CAPACITY), 1, 2));
    // Room comes with age.
    assert!(fdb.knows(source(7), 0, AGE));
    fdb.learn(source(CAPACITY), 1, AGE + 1);
    assert_eq!(fdb.way(source(CAPACITY), AGE + 1), super::Way::To(1));
    assert_eq!(fdb.way(source(7), AGE + 1), super::Way::To(0));
    assert_eq!(fdb.way(source(8), AGE + 1), super::Way::ToAll);
}

#[test]
fn what_does_not_fit_is_dropped_and_counted() {
    let eswitch = Arc::<Eswitch>::default();
    let (sink, receiver) = attach(&eswitch);
    let (_, sender) = attach(&eswitch);
    let largest = [
        frame(1, 2, None, MTU.into()),
        frame(1, 2, Some(3), MTU.into()),
    ];
    let too_large = [
        frame(1, 2, None, usize::from(MTU) + 1),
        frame(1, 2, Some(3), usize::from(MTU) + 1),
        Frame { bytes: vec![0; 13] },
    ];
    sender.send(&[&too_large[..], &largest[..]].concat());
    assert_eq!(sink.take(), largest);
    assert_eq!(sender.counters().dropped, 3);
    assert_eq!(sender.counters().from_port.unicast.frames, 2);

    receiver.set_mtu(100);
    sender.send(&[
        frame(1, 2, None, 100),
        frame(1, 2, None, 101),
        frame(1, 2, None, 99),
    ]);
    assert_eq!(sink.take(), [frame(1, 2, None, 100), frame(1, 2, None, 99)]);
    assert_eq!(receiver.counters().dropped, 1);
    receiver.set_link(false);
    sender.send(&[frame(1, 2, None, 1)]);
    assert_eq!(sink.take(), []);
    assert_eq!(receiver.counters().to_port_down, 1);
    receiver.send(&[frame(2, 1, None, 1)]);
    assert_eq!(receiver.counters().from_port_down, 1);
    assert_eq!(receiver.counters().dropped, 1);
}

#[test]
fn frames_are_counted_by_kind() {
    let eswitch = Arc::<Eswitch>::default();
    let (_sink, receiver) = attach(&eswitch);
    let (_, sender) = attach(&eswitch);
    let frames = [1, 0xff, 0xfe, 0xff].map(|to| frame(to, 2, None, 50));
    sender.send(&frames);
    let amount = |frames| Amount {
        frames,
        octets: 64 * frames,
    };
    let counted = receiver.counters().to_port;
    assert_eq!(counted.unicast, amount(1));
    assert_eq!(counted.multicast, amount(1));
    assert_eq!(counted.broadcast, amount(2));
    assert_eq!(sender.counters().from_port, counted);
    assert_eq!(receiver.counters().from_port, Default::default());
}

#[test]
fn a_port_that_is_gone_leaves_nothing_behind() {
    let eswitch = Arc::<Eswitch>::default();
    let (sink, gone) = attach(&eswitch);
    let (others_sink, other) = attach(&eswitch);
    let (_, sender) = attach(&eswitch);
    gone.set_addresses(&[mac(1)]);
    gone.send(&[frame(0xff, 4, None, 0)]);
    sender.send(&[frame(4, 2, None, 0), frame(1, 2, None, 0)]);
    assert_eq!(sink.take().len(), 2);
    others_sink.take();
    drop(gone);
    assert_eq!(Arc::strong_count(&sink), 1);
    sender.send(&[frame(4, 2, None, 0), frame(1, 2, None, 0)]);
    assert_eq!(sink.take(), []);
    assert_eq!(others_sink.take().len(), 2);

    // The number is another port's now, and so is what is learned.
    let (new_sink, new) = attach(&eswitch);
    assert_eq!(new.counters(), Default::default());
    new.send(&[frame(0xff, 5, None, 0)]);
    other.send(&[frame(5, 6, None, 0)]);
    assert_eq!(new_sink.take().len(), 1);
}

#[test]
fn many_senders_lose_nothing() {
    const THREADS: u8 = 4;
    const BATCHES: usize = 200;

    let eswitch = Arc::<Eswitch>::default();
    let (sink, receiver) = attach(&eswitch);
    receiver.set_addresses(&[mac(1)]);
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (_, sender) = attach(&eswitch);
            scope.spawn(move || {
                for batch in 0..BATCHES {
                    // New addresses all the time, so that there is something to learn.
                    let from = 10 + number * 50 + (batch % 50) as u8;
                    sender.send(&vec![frame(1, from, None, 46); 8]);
                }
            });
        }
    });
    assert_eq!(sink.take().len(), usize::from(THREADS) * BATCHES * 8);
}
