// SPDX-License-Identifier: GPL-2.0
//! Both sides at once, each asleep whenever it has nothing to do.
//!
//! If a notification is ever lost both sleep, and the test fails by a time-out.

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
use virtio::ring::{
    Queue,
    Segment,
    Slot,
    State, //
};

use super::{
    bell::{
        ring_up,
        sleep, //
    },
    guest::{
        config,
        Guest, //
    }, //
};

const BASE: u64 = 0x1000;
const DATA: u64 = 0x10000;
const SIZE: u16 = 16;
const BUFFERS: u64 = 30_000;

fn device(guest: &Guest, mut queue: Queue<Vec<Slot>>, bell: &Receiver<()>, irq: &SyncSender<()>) {
    let mut done = 0;
    while done < BUFFERS {
        queue.disable_kicks(guest).unwrap();
        let mut segments = [Segment::default(); 2];
        let mut batch = 0;
        while let Some(chain) = queue.pop(guest, &mut segments).unwrap() {
            // What was written before the buffer was made available is there.
            let mut number = [0; 8];
            virtio::memory::Memory::read(guest, segments[0].addr, &mut number).unwrap();
            virtio::memory::Memory::write(guest, segments[1].addr, &number).unwrap();
            queue.complete(guest, chain, 8).unwrap();
            done += 1;
            batch += 1;
            if batch == 5 {
                break;
            }
        }
        queue.publish(guest).unwrap();
        if queue.should_notify(guest).unwrap() {
            ring_up(irq);
        }
        if batch == 0 && !queue.enable_kicks(guest).unwrap() {
            assert!(sleep(bell, "device"));
        }
    }
}

fn driver_side(region: &Region, mut ring: Ring, irq: &Receiver<()>, bell: &SyncSender<()>) {
    let (mut added, mut done) = (0u64, 0);
    let buffer = |n: u64, half: u64| Buffer {
        addr: DATA + n % u64::from(SIZE) * 16 + half,
        len: 8,
    };
    while done < BUFFERS {
        ring.disable_interrupts();
        // The buffers rotate with the ring: the cells of the oldest are the next to be free.
        while added < BUFFERS && added - done < u64::from(SIZE) / 2 {
            let (out, into) = (buffer(added, 0), buffer(added, 8));
            region.write(out.addr, &added.to_ne_bytes());
            if ring.add(&[out], &[into], Shape::Direct, added).is_err() {
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
            let echo = region.get(buffer(done, 8).addr, 8);
            assert_eq!(echo, done.to_ne_bytes());
            done += 1;
            taken += 1;
        }
        // Not for more than the device has.
        let wait = (1 + done % 3 * 2).min(added - done) as u16;
        if taken == 0 && !ring.enable_interrupts(wait) {
            assert!(sleep(irq, "driver"));
        }
    }
}

#[test]
fn nobody_sleeps_for_ever() {
    for flags in 0..4 {
        let options = driver::Options {
            packed: flags & 1 != 0,
            event_index: flags & 2 != 0,
            ..Default::default()
        };
        let region = Region::new(BASE, 0x10000);
        let ring = Ring::new(&region, BASE, SIZE, options);
        let config = config(&ring.layout(), SIZE, &options);
        let state = State::initial(options.packed);
        let queue = Queue::new(config, state, vec![Slot::default(); SIZE.into()]).unwrap();
        let (kick, kicked) = sync_channel(1);
        let (interrupt, interrupted) = sync_channel(1);
        let shared = region.clone();
        let worker = thread::spawn(move || {
            device(&Guest::new(&shared), queue, &kicked, &interrupt);
        });
        driver_side(&region, ring, &interrupted, &kick);
        worker.join().unwrap();
    }
}
