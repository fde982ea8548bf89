// SPDX-License-Identifier: GPL-2.0
//! What happens while the relay has a turn, between any two of its accesses to memory.

use std::cell::{
    Cell,
    RefCell, //
};

use driver::{
    Buffer,
    Shape, //
};
use virtio::{
    memory::{
        Fault,
        Memory, //
    },
    net::relay::Direction,
};

use super::bench::{
    Bench,
    Shaped,
    Taken,
    View,
    DATA, //
};

/// Memory that something happens to before the `at`th access of any kind, of all that count by
/// `count`.
struct Meddling<'a> {
    view: View<'a>,
    count: &'a Cell<usize>,
    at: usize,
    act: &'a dyn Fn(),
}

impl Meddling<'_> {
    fn access(&self) {
        let count = self.count.get();
        self.count.set(count + 1);
        if count == self.at {
            (self.act)();
        }
    }
}

impl Memory for Meddling<'_> {
    fn read(&self, addr: u64, to: &mut [u8]) -> Result<(), Fault> {
        self.access();
        self.view.read(addr, to)
    }

    fn write(&self, addr: u64, from: &[u8]) -> Result<(), Fault> {
        self.access();
        self.view.write(addr, from)
    }

    fn load_u16(&self, addr: u64) -> Result<u16, Fault> {
        self.access();
        self.view.load_u16(addr)
    }

    fn store_u16(&self, addr: u64, value: u16) -> Result<(), Fault> {
        self.access();
        self.view.store_u16(addr, value)
    }
}

/// Has a turn, before the `at`th access of which the guest adds a buffer, or the hardware uses the
/// one it has. Returns whether the turn had as many accesses; if so, somebody saw to what happened,
/// or is called to.
fn holds(shaped: Shaped, hardware_acts: bool, at: usize) -> bool {
    let mut bench = Bench::new(shaped);
    let add = |token: u64| {
        [Buffer {
            addr: DATA + 64 * token,
            len: 64,
        }]
    };
    assert!(bench.add(&add(0), Shape::Direct, 0));
    bench.publish();
    bench.turn(8).unwrap();
    bench.nic_take(2);
    assert!(!bench.relay_called && bench.taken.len() == 1);
    // It looks once more, as the guest of an interrupt does.
    assert!(!bench.ring.enable_interrupts(1));

    let Bench {
        guest,
        shadow,
        ring,
        mut relay,
        nic,
        taken,
        ..
    } = bench;
    let (ring, nic, called) = (RefCell::new(ring), RefCell::new(nic), Cell::new(false));
    let Some(&Taken { chain, .. }) = taken.first() else {
        unreachable!()
    };
    let act = || {
        if hardware_acts {
            let regions = [&guest, &shadow];
            let mem = View(&regions);
            let mut nic = nic.borrow_mut();
            nic.complete(&mem, chain, 0).unwrap();
            nic.publish(&mem).unwrap();
            called.set(nic.should_notify(&mem).unwrap());
        } else {
            let mut ring = ring.borrow_mut();
            let (out, into) = match shaped.direction {
                Direction::Transmit => (&add(1)[..], &[][..]),
                Direction::Receive => (&[][..], &add(1)[..]),
            };
            ring.add(out, into, Shape::Direct, 1).unwrap();
            called.set(ring.publish());
        }
    };
    let count = Cell::new(0);
    let memory = |regions| Meddling {
        view: View(regions),
        count: &count,
        at,
        act: &act,
    };
    let turn = relay
        .turn(&memory(&[&guest]), &memory(&[&shadow]), 8)
        .unwrap();
    if count.get() <= at {
        return false;
    }
    let is_seen_to = if hardware_acts {
        // The guest was told as well.
        ring.borrow_mut().used().unwrap().is_some() && turn.notify
    } else {
        relay.in_flight() == 2 && turn.kick
    };
    assert!(
        is_seen_to || turn.again || called.get(),
        "lost before access {at} of {shaped:?}"
    );
    true
}

#[test]
fn nothing_that_happens_during_a_turn_is_lost() {
    for direction in [Direction::Transmit, Direction::Receive] {
        for event_index in [false, true] {
            for hardware_acts in [false, true] {
                let shaped = Shaped {
                    event_index,
                    ..Shaped::new(direction)
                };
                let accesses = (0..).take_while(|at| holds(shaped, hardware_acts, *at));
                assert!(accesses.count() > 5);
            }
        }
    }
}
