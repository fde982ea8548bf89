// SPDX-License-Identifier: GPL-2.0
//! Receivers that take not everything, not all at once or not at all, and
//! senders that make the most of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use driver::{Buffer, Shape};

use super::{mac, Context, Tests};
use crate::device::Device;
use crate::ktap::{ensure, ensure_eq, Outcome, Stop};
use crate::memory::{Pages, PAGE};
use crate::rig::{exchange, frame, make_tcp, Plan, Port, FRAME, PATIENCE, RX, TCP_HEADERS, TX};
use crate::uapi::{self, INVALIDATE, NEEDS_RESET};

pub(super) const TESTS: Tests = &[
    ("receivers: a VLAN that changes under the device", vlan),
    (
        "receivers: an address that changes under the device",
        address,
    ),
    (
        "receivers: a large frame, cut, and a small ring",
        small_ring,
    ),
    (
        "receivers: a frame that no ring of buffers holds",
        never_fits,
    ),
    ("receivers: a buffer now and then", now_and_then),
    (
        "receivers: buffers in memory that was just mapped",
        just_mapped,
    ),
];

/// Where a queue's memory is free behind its slots, which begin at a quarter
/// of a queue's MiB.
const SPARE: u64 = 512 << 10;

/// Where queue `index` has memory for large buffers.
fn spare(port: &Port, index: usize) -> u64 {
    port.region.base() + ((index as u64) << 20) + SPARE
}

/// A header that leaves the checksum of a TCP frame to be completed.
fn partial() -> Vec<u8> {
    let mut header = vec![1, 0, 0, 0, 0, 0];
    header.extend_from_slice(&34u16.to_le_bytes());
    header.extend_from_slice(&16u16.to_le_bytes());
    header.extend_from_slice(&[0; 2]);
    header
}

/// Puts a frame with its header into spare memory, and returns the buffer.
fn lay(port: &Port, header: &[u8], frame: &[u8]) -> Buffer {
    let addr = spare(port, TX);
    port.region.write(addr, header);
    port.region.write(addr + header.len() as u64, frame);
    Buffer {
        addr,
        len: (header.len() + frame.len()) as u32,
    }
}

/// Sends `buffer` as often as `count` says, and waits for its return.
fn send(port: &mut Port, buffer: Buffer, count: usize) -> Outcome {
    let queue = &mut port.queues[TX];
    for _ in 0..count {
        queue.ring.add(&[buffer], &[], Shape::Direct, buffer.addr)?;
    }
    queue.publish()?;
    for _ in 0..count {
        ensure!(
            queue.used(PATIENCE)?.is_some(),
            "a sent buffer does not come back"
        );
    }
    Ok(())
}

/// Makes `count` devices.
fn devices(context: &Context, count: u8) -> Result<Vec<Device>, Stop> {
    context.require_switch()?;
    (0..count).map(|number| context.device(number)).collect()
}

/// A sender and two receivers that filter addresses and VLANs.
fn trio(devices: &[Device]) -> Result<(Port, [Port; 2]), Stop> {
    let plan = |features| Plan {
        features,
        ..Plan::MODERN
    };
    let sender = Port::start(&devices[0], plan(uapi::NET_F_CSUM))?;
    let mut receivers = [
        Port::start(&devices[1], plan(uapi::NET_F_CTRL_VLAN))?,
        Port::start(&devices[2], plan(uapi::NET_F_CTRL_VLAN))?,
    ];
    for receiver in &mut receivers {
        receiver.filter()?;
    }
    Ok((sender, receivers))
}

/// So many of the frames that change were seen often enough.
const ENOUGH: u32 = 50;

/// Sends `buffer` 640 times, and on until enough was received or patience is over: whoever changes
/// it may be held up between two values. Returns how many were received.
fn try_often(
    sender: &mut Port,
    receivers: &mut [Port],
    buffer: Buffer,
    at: usize,
    values: [[u8; 2]; 2],
) -> Result<u32, Stop> {
    let (mut rounds, mut seen) = (0, 0);
    let end = Instant::now() + PATIENCE;
    while rounds < 40 || seen < ENOUGH && Instant::now() < end {
        send(sender, buffer, 16)?;
        for (receiver, value) in receivers.iter_mut().zip(values) {
            while let Some(got) = receiver.receive_raw(Duration::ZERO)? {
                let place = receiver.header() + at;
                ensure_eq!(got[place..place + 2], value);
                seen += 1;
            }
        }
        rounds += 1;
    }
    Ok(seen)
}

/// Sends `frame` again and again while the 16 bits at its byte `at` change
/// between two `values`. Receiver `n` may see `values[n]` only, if any.
fn try_changing(
    sender: &mut Port,
    receivers: &mut [Port],
    frame: &[u8],
    at: usize,
    values: [[u8; 2]; 2],
) -> Outcome {
    for header in [vec![0; sender.header()], partial()] {
        let buffer = lay(sender, &header, frame);
        let word = buffer.addr + (header.len() + at) as u64;
        let (region, stop) = (sender.region.clone(), AtomicBool::new(false));
        let seen = thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for value in values {
                        region.store_u16(word, u16::from_ne_bytes(value));
                    }
                }
            });
            let seen = try_often(sender, receivers, buffer, at, values);
            stop.store(true, Ordering::Relaxed);
            seen
        })?;
        ensure!(seen >= ENOUGH, "only {seen} frames were received");
    }
    Ok(())
}

fn vlan(context: &Context) -> Outcome {
    let devices = devices(context, 3)?;
    let (mut sender, mut receivers) = trio(&devices)?;
    ensure_eq!(receivers[0].control(2, 0, &[&5u16.to_le_bytes()])?, 0);
    let mut tagged = frame(mac(1), mac(0), 100, 1);
    tagged[12..16].copy_from_slice(&[0x81, 0x00, 0, 5]);
    try_changing(
        &mut sender,
        &mut receivers[..1],
        &tagged,
        14,
        [[0, 5], [0, 6]],
    )
}

fn address(context: &Context) -> Outcome {
    let devices = devices(context, 3)?;
    let (mut sender, mut receivers) = trio(&devices)?;
    let plain = frame(mac(1), mac(0), 100, 1);
    let ends = [mac(1), mac(2)].map(|mac| [mac[4], mac[5]]);
    try_changing(&mut sender, &mut receivers, &plain, 4, ends)
}

/// A TCP frame with so many bytes of payload, and the header to have it cut.
fn tcp(payload: usize, size: u16) -> (Vec<u8>, Vec<u8>) {
    let mut bytes = frame(mac(1), mac(0), TCP_HEADERS + payload, 7);
    make_tcp(&mut bytes, 0);
    let mut header = partial();
    header[1] = 1; // GSO_TCPV4
    header[2..4].copy_from_slice(&(TCP_HEADERS as u16).to_le_bytes());
    header[4..6].copy_from_slice(&size.to_le_bytes());
    (header, bytes)
}

fn small_ring(context: &Context) -> Outcome {
    let devices = devices(context, 2)?;
    let mut a = Port::start(
        &devices[0],
        Plan {
            features: uapi::NET_F_CSUM | uapi::NET_F_HOST_TSO4,
            ..Plan::MODERN
        },
    )?;
    let mut b = Port::start(
        &devices[1],
        Plan {
            size: 16,
            ..Plan::MODERN
        },
    )?;
    exchange(&mut b, &mut a, 1)?;
    // 43 segments, and then more than are handed over at once.
    for size in [1400, 500] {
        let (header, bytes) = tcp(60_000, size);
        let buffer = lay(&a, &header, &bytes);
        let sent = &bytes[TCP_HEADERS..];
        a.queues[TX]
            .ring
            .add(&[buffer], &[], Shape::Direct, buffer.addr)?;
        a.queues[TX].publish()?;
        let mut got = Vec::new();
        while got.len() < sent.len() {
            let Some(piece) = b.receive_raw(PATIENCE)? else {
                return Err(Stop::Fail(format!("only {} bytes came", got.len())));
            };
            got.extend_from_slice(&piece[b.header() + TCP_HEADERS..]);
        }
        ensure!(got == sent, "the segments are not the frame");
        ensure!(
            a.queues[TX].used(PATIENCE)?.is_some(),
            "a sent buffer does not come back"
        );
    }
    exchange(&mut a, &mut b, 20)
}

/// How often something is done that may cost a sender its patience.
const ROUNDS: u32 = 50;

/// Fails if a sender waits in each round that is `hard`: that is 20 ms. The other rounds are the
/// same work for a receiver with room. They take turns, and the fastest of each kind are compared,
/// so that a machine that is slow or busy makes no difference.
fn ensure_not_held(mut round: impl FnMut(bool) -> Outcome) -> Outcome {
    let mut fastest = [Duration::MAX; 2];
    for _ in 0..ROUNDS {
        for (hard, fastest) in [false, true].into_iter().zip(&mut fastest) {
            let start = Instant::now();
            round(hard)?;
            *fastest = start.elapsed().min(*fastest);
        }
    }
    let [easy, hard] = fastest;
    ensure!(
        hard < easy + Duration::from_millis(10),
        "the sender was held for {hard:?}, and else for {easy:?}"
    );
    Ok(())
}

fn never_fits(context: &Context) -> Outcome {
    let devices = devices(context, 2)?;
    let mut a = Port::start(&devices[0], Plan::MODERN)?;
    let mut b = Port::start(
        &devices[1],
        Plan {
            features: uapi::NET_F_MRG_RXBUF,
            size: 16,
            receive: 256,
            ..Plan::MODERN
        },
    )?;
    exchange(&mut b, &mut a, 1)?;
    let header = vec![0; a.header()];
    let small = frame(mac(1), mac(0), 100, 1);
    let large = frame(mac(1), mac(0), 6000, 2);
    ensure_not_held(|hard| {
        let first = if hard { &large } else { &small };
        let buffer = lay(&a, &header, first);
        send(&mut a, buffer, 1)?;
        if !hard {
            b.expect(&small)?;
        }
        let buffer = lay(&a, &header, &small);
        send(&mut a, buffer, 1)?;
        b.expect(&small)
    })
}

fn now_and_then(context: &Context) -> Outcome {
    let devices = devices(context, 2)?;
    let mut a = Port::start(&devices[0], Plan::MODERN)?;
    let mut b = Port::prepare(&devices[1], Plan::MODERN)?;
    b.enable()?;
    b.vhost.add_status(uapi::DRIVER_OK)?;
    let hello = frame(mac(0), mac(1), 100, 0);
    b.send(&hello)?;
    a.expect(&hello)?;
    let buffer = lay(&a, &vec![0; a.header()], &frame(mac(1), mac(0), 100, 1));
    let room = Buffer {
        addr: spare(&b, RX),
        len: (b.header() + FRAME) as u32,
    };
    // The first ones cost the sender its patience.
    send(&mut a, buffer, 4)?;
    ensure_not_held(|hard| {
        let queue = &mut b.queues[RX];
        let buffers = if hard { 1 } else { 4 };
        for _ in 0..buffers {
            queue.ring.add(&[], &[room], Shape::Direct, room.addr)?;
        }
        queue.publish()?;
        send(&mut a, buffer, 4)?;
        for _ in 0..buffers {
            ensure!(queue.used(PATIENCE)?.is_some(), "a buffer was not used");
        }
        Ok(())
    })
}

fn just_mapped(context: &Context) -> Outcome {
    let devices = devices(context, 2)?;
    let mut a = Port::start(
        &devices[0],
        Plan {
            features: uapi::NET_F_CSUM,
            ..Plan::MODERN
        },
    )?;
    let mut b = Port::prepare(&devices[1], Plan::MODERN)?;
    b.enable()?;
    b.vhost.add_status(uapi::DRIVER_OK)?;
    let hello = frame(mac(0), mac(1), 100, 0);
    b.send(&hello)?;
    a.expect(&hello)?;

    let pages = Pages::new(PAGE)?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // Frames that the receiver can take, and such that it cannot take as they are.
        let sender = scope.spawn(|| {
            let wanted = frame(mac(1), mac(0), 100, 1);
            let headers = [vec![0; a.header()], partial()];
            while !stop.load(Ordering::Relaxed) {
                for header in &headers {
                    a.queue_frame(header, &wanted)?;
                }
                a.queues[TX].publish()?;
            }
            a.drain()
        });
        let received = (1..=80).try_for_each(|number| {
            // Until the sender's patience is over and it sends without a pause.
            thread::sleep(Duration::from_millis(25));
            let room = Buffer {
                addr: number << 32,
                len: PAGE as u32,
            };
            let (vhost, size) = (&b.vhost, PAGE as u64);
            vhost.map(0, room.addr, size, pages.address(), uapi::RW)?;
            let queue = &mut b.queues[RX];
            queue.ring.add(&[], &[room], Shape::Direct, room.addr)?;
            queue.publish()?;
            let used = queue.used(PATIENCE)?;
            ensure!(used.is_some(), "buffer {number} was not used");
            vhost.iotlb(0, INVALIDATE, room.addr, size)?;
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        let sent: Outcome = sender
            .join()
            .unwrap_or_else(|_| Err(Stop::Fail("the sender panicked".into())));
        received.and(sent)
    })?;
    for port in [&a, &b] {
        ensure_eq!(port.vhost.status()? & NEEDS_RESET, 0);
    }
    Ok(())
}
