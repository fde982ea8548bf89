// SPDX-License-Identifier: GPL-2.0
//! Guest, relay and hardware at once, each asleep whenever it has nothing to do.
//!
//! If a call is ever lost all of them sleep, and the test fails by a time-out.

use std::{
    sync::mpsc::{
        sync_channel,
        Receiver,
        SyncSender, //
    },
    thread, //
};

use driver::{
    Buffer,
    Region,
    Ring,
    Shape, //
};
use virtio::{
    net::{
        header::Header,
        relay::Direction, //
    },
    ring::{
        Queue,
        Segment,
        Slot, //
    },
};

use super::{
    bell::{
        ring_up,
        sleep, //
    },
    bench::{
        Bench,
        Shaped,
        Vectors,
        View,
        DATA, //
    }, //
};

const SIZE: u16 = 16;
const PACKETS: u64 = 20_000;

/// The header of packet `number`.
fn header(number: u64) -> Header {
    Header {
        gso_size: number as u16,
        csum_start: (number >> 8) as u16,
        ..Header::default()
    }
}

fn hardware(
    regions: [&Region; 2],
    shaped: &Shaped,
    mut nic: Queue<Vec<Slot>>,
    bell: &Receiver<()>,
    irq: &SyncSender<()>,
) {
    let mem = View(&regions);
    let mut segments = [Segment::default(); 8];
    let mut done = 0u64;
    while done < PACKETS {
        let mut batch = 0;
        while let Some(chain) = nic.pop(&mem, &mut segments).unwrap() {
            let little = header(done).to_bytes(virtio::byte_order::ByteOrder::Little);
            let little = &little[..shaped.header];
            let segments = &segments[..chain.segments()];
            let written = match shaped.direction {
                Direction::Transmit => {
                    let mut bytes = [0; 10];
                    virtio::memory::Memory::read(&mem, segments[0].addr, &mut bytes).unwrap();
                    assert_eq!(bytes, little);
                    0
                }
                Direction::Receive => {
                    virtio::memory::Memory::write(&mem, segments[0].addr, little).unwrap();
                    little.len() as u32
                }
            };
            nic.complete(&mem, chain, written).unwrap();
            done += 1;
            batch += 1;
            if batch == 5 {
                break;
            }
        }
        nic.publish(&mem).unwrap();
        if nic.should_notify(&mem).unwrap() {
            ring_up(irq);
        }
        if batch == 0 && !nic.enable_kicks(&mem).unwrap() {
            assert!(sleep(bell, "hardware"));
        }
    }
}

fn relay(
    regions: [&Region; 2],
    mut relay: Vectors,
    called: &Receiver<()>,
    kick: &SyncSender<()>,
    interrupt: &SyncSender<()>,
) {
    let [guest, shadow] = regions;
    loop {
        let turn = relay.turn(&View(&[guest]), &View(&[shadow]), 7).unwrap();
        if turn.kick {
            ring_up(kick);
        }
        if turn.notify {
            ring_up(interrupt);
        }
        if !turn.again && !sleep(called, "relay") {
            return;
        }
    }
}

fn guest(
    region: &Region,
    shaped: &Shaped,
    mut ring: Ring,
    irq: &Receiver<()>,
    bell: &SyncSender<()>,
) {
    let (mut added, mut done) = (0, 0);
    let place = |n: u64| DATA + n % u64::from(SIZE) * 64;
    while done < PACKETS {
        ring.disable_interrupts();
        while added < PACKETS && added - done < u64::from(SIZE) {
            let piece = [Buffer {
                addr: place(added),
                len: 64,
            }];
            let result = match shaped.direction {
                Direction::Transmit => {
                    let bytes = header(added).to_bytes(shaped.order());
                    region.write(place(added), &bytes);
                    ring.add(&piece, &[], Shape::Direct, added)
                }
                Direction::Receive => ring.add(&[], &piece, Shape::Direct, added),
            };
            if result.is_err() {
                break;
            }
            added += 1;
            if added % 3 == 0 && ring.publish() {
                ring_up(bell);
            }
        }
        if ring.publish() {
            ring_up(bell);
        }
        let mut taken = 0;
        while let Some(used) = ring.used().unwrap() {
            assert_eq!(used.token, done);
            if shaped.direction == Direction::Receive {
                let big = &header(done).to_bytes(shaped.order())[..shaped.header];
                assert_eq!(region.get(place(done), shaped.header), big);
            }
            done += 1;
            taken += 1;
        }
        // Not for more than the device has.
        let wait = (1 + done % 3 * 2).min(added - done) as u16;
        if taken == 0 && !ring.enable_interrupts(wait) {
            assert!(sleep(irq, "guest"));
        }
    }
}

#[test]
fn nobody_sleeps_for_ever() {
    for case in 0..4 {
        let shaped = Shaped {
            size: SIZE,
            // With room for half of what the guest may transmit at once.
            shadow: SIZE,
            event_index: case & 1 != 0,
            ..Shaped::new(if case & 2 != 0 {
                Direction::Receive
            } else {
                Direction::Transmit
            })
        };
        let Bench {
            guest: region,
            shadow,
            ring,
            relay: middle,
            nic,
            ..
        } = Bench::new(shaped);
        let (call, called) = sync_channel(1);
        let (kick, kicked) = sync_channel(1);
        let (interrupt, interrupted) = sync_channel(1);
        let irq = call.clone();
        thread::scope(|scope| {
            let regions = [&region, &shadow];
            let shaped = &shaped;
            scope.spawn(move || hardware(regions, shaped, nic, &kicked, &irq));
            scope.spawn(move || relay(regions, middle, &called, &kick, &interrupt));
            guest(&region, shaped, ring, &interrupted, &call);
            // Whoever called the relay is gone now, and it ends.
            drop(call);
        });
    }
}
