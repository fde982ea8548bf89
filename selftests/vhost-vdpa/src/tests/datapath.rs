// SPDX-License-Identifier: GPL-2.0
//! Frames from one device to another, by every kind of ring.

use std::time::{Duration, Instant};

use driver::Shape;

use super::{mac, Context, Tests};
use crate::device::Device;
use crate::ktap::{ensure, ensure_eq, require, Outcome, Stop};
use crate::rig::{exchange, frame, Plan, Port, FRAME, PATIENCE, TX};
use crate::uapi::{self, NEEDS_RESET};

pub(super) const TESTS: Tests = &[
    ("frames: split", split),
    ("frames: split, EVENT_IDX", split_event),
    ("frames: split, indirect descriptors", split_indirect),
    ("frames: split, mixed chains of both", split_mixed),
    ("frames: split, merged receive buffers", split_merge),
    ("frames: legacy, EVENT_IDX, indirect, merged", legacy_all),
    ("frames: packed", packed),
    ("frames: packed, EVENT_IDX", packed_event),
    ("frames: packed, indirect descriptors", packed_indirect),
    ("frames: packed, merged receive buffers", packed_merge),
    ("frames: packed to split and back", packed_to_split),
    ("frames: many pieces", many_pieces),
    ("frames: too short, too long, of no length", odd_lengths),
    ("frames: to nobody, to all, to oneself", addresses),
    ("frames: a receiver without buffers", no_buffers),
    ("frames: notifications that were not asked for", suppressed),
    ("frames: memory unmapped under the device", unmapped),
    ("frames: closed and opened again under load", reopened),
];

/// A plan with more features.
fn with(features: u64) -> Plan {
    Plan {
        features,
        ..Plan::MODERN
    }
}

/// Frames both ways between two drivers of one kind.
fn try_plan(devices: &[Device], plan: Plan) -> Outcome {
    try_plans(devices, plan, plan)
}

fn try_plans(devices: &[Device], first: Plan, second: Plan) -> Outcome {
    let mut a = Port::start(&devices[0], first)?;
    let mut b = Port::start(&devices[1], second)?;
    // Several times around the rings.
    exchange(&mut a, &mut b, 200)?;
    exchange(&mut b, &mut a, 200)?;
    for port in [&a, &b] {
        ensure_eq!(port.vhost.status()? & NEEDS_RESET, 0);
    }
    Ok(())
}

fn devices(context: &Context) -> Result<Vec<Device>, Stop> {
    context.require_switch()?;
    Ok(vec![context.device(0)?, context.device(1)?])
}

fn packed_devices(context: &Context) -> Result<Vec<Device>, Stop> {
    context.require_switch()?;
    context.provisioned(uapi::F_RING_PACKED, 2)
}

fn split(context: &Context) -> Outcome {
    try_plan(&devices(context)?, Plan::MODERN)
}

fn split_event(context: &Context) -> Outcome {
    try_plan(&devices(context)?, with(uapi::F_EVENT_IDX))
}

fn indirect(features: u64) -> Plan {
    Plan {
        shape: Shape::Indirect,
        pieces: 3,
        ..with(features | uapi::F_INDIRECT_DESC)
    }
}

fn split_indirect(context: &Context) -> Outcome {
    try_plan(&devices(context)?, indirect(0))
}

fn split_mixed(context: &Context) -> Outcome {
    let devices = devices(context)?;
    let plan = Plan {
        shape: Shape::Mixed(2),
        ..indirect(uapi::F_EVENT_IDX)
    };
    // A receive buffer is one piece, which cannot be mixed.
    let mut a = Port::start(
        &devices[0],
        Plan {
            shape: Shape::Direct,
            ..plan
        },
    )?;
    let mut b = Port::start(&devices[1], Plan::MODERN)?;
    a.plan = plan;
    exchange(&mut a, &mut b, 200)
}

fn merge(features: u64) -> Plan {
    Plan {
        receive: 256,
        ..with(features | uapi::NET_F_MRG_RXBUF)
    }
}

fn split_merge(context: &Context) -> Outcome {
    try_plan(&devices(context)?, merge(0))
}

fn legacy_all(context: &Context) -> Outcome {
    let features = uapi::NET_F_MRG_RXBUF | uapi::F_EVENT_IDX | uapi::F_INDIRECT_DESC;
    let plan = Plan {
        features,
        shape: Shape::Indirect,
        receive: 300,
        ..Plan::LEGACY
    };
    try_plan(&devices(context)?, plan)
}

fn packed(context: &Context) -> Outcome {
    try_plan(&packed_devices(context)?, with(uapi::F_RING_PACKED))
}

fn packed_event(context: &Context) -> Outcome {
    let features = uapi::F_RING_PACKED | uapi::F_EVENT_IDX;
    try_plan(&packed_devices(context)?, with(features))
}

fn packed_indirect(context: &Context) -> Outcome {
    try_plan(&packed_devices(context)?, indirect(uapi::F_RING_PACKED))
}

fn packed_merge(context: &Context) -> Outcome {
    let plan = merge(uapi::F_RING_PACKED | uapi::F_EVENT_IDX);
    try_plan(&packed_devices(context)?, plan)
}

fn packed_to_split(context: &Context) -> Outcome {
    let devices = packed_devices(context)?;
    try_plans(&devices, with(uapi::F_RING_PACKED), Plan::LEGACY)?;
    try_plans(&devices, merge(0), with(uapi::F_RING_PACKED))
}

fn many_pieces(context: &Context) -> Outcome {
    let plan = Plan {
        pieces: 7,
        ..Plan::MODERN
    };
    try_plan(&devices(context)?, plan)
}

fn odd_lengths(context: &Context) -> Outcome {
    let devices = devices(context)?;
    let mut a = Port::start(&devices[0], Plan::MODERN)?;
    let mut b = Port::start(&devices[1], Plan::MODERN)?;
    // No frame is so short; the device may drop these but must use them.
    for length in [0, 1, 13, 14] {
        a.send(&frame(mac(1), mac(0), FRAME, 1)[..length])?;
        a.drain()?;
    }
    // Not even a header.
    a.send_with(&[0; 4], &[])?;
    a.drain()?;
    // Longer than the receiver's buffers and its MTU.
    a.send(&frame(mac(1), mac(0), 2000, 1))?;
    a.drain()?;
    while b.receive(crate::rig::QUIET)?.is_some() {}
    ensure_eq!(a.vhost.status()? & NEEDS_RESET, 0);
    ensure_eq!(b.vhost.status()? & NEEDS_RESET, 0);
    exchange(&mut a, &mut b, 10)
}

fn addresses(context: &Context) -> Outcome {
    context.require_switch()?;
    let devices = [context.device(0)?, context.device(1)?, context.device(2)?];
    let mut ports = Vec::new();
    for device in &devices {
        let mut port = Port::start(device, Plan::MODERN)?;
        port.filter()?;
        ports.push(port);
    }
    let everybody = [0xff; 6];
    let broadcast = frame(everybody, mac(0), 100, 1);
    ports[0].send(&broadcast)?;
    ports[1].expect(&broadcast)?;
    ports[2].expect(&broadcast)?;
    // Not back to the sender.
    ports[0].expect_nothing()?;
    let unicast = frame(mac(2), mac(0), 100, 2);
    ports[0].send(&unicast)?;
    ports[2].expect(&unicast)?;
    ports[1].expect_nothing()?;
    // To an address that nobody has, and to one's own.
    for to in [[2, 9, 9, 9, 9, 9], mac(0)] {
        ports[0].send(&frame(to, mac(0), 100, 3))?;
        for port in &mut ports {
            port.expect_nothing()?;
        }
    }
    ports[0].drain()
}

fn no_buffers(context: &Context) -> Outcome {
    let devices = devices(context)?;
    let mut a = Port::start(&devices[0], Plan::MODERN)?;
    let mut b = Port::prepare(&devices[1], Plan::MODERN)?;
    b.enable()?;
    b.vhost.add_status(uapi::DRIVER_OK)?;
    // Nowhere to put them: the sender must get its buffers back all the same.
    let start = Instant::now();
    for number in 0..40 {
        a.send(&frame(mac(1), mac(0), 500, number))?;
    }
    a.drain()?;
    ensure!(
        start.elapsed() < PATIENCE,
        "a receiver without buffers holds its sender for {:?}",
        start.elapsed()
    );
    b.fill()?;
    while b.receive(Duration::from_millis(300))?.is_some() {}
    exchange(&mut a, &mut b, 20)
}

fn suppressed(context: &Context) -> Outcome {
    let devices = devices(context)?;
    for features in [0, uapi::F_EVENT_IDX] {
        let mut a = Port::start(&devices[0], with(features))?;
        let mut b = Port::start(&devices[1], with(features))?;
        exchange(&mut a, &mut b, 10)?;
        let queue = &mut a.queues[TX];
        while queue.call.wait(Duration::ZERO) {}
        queue.ring.disable_interrupts();
        for number in 0..10 {
            let wanted = frame(mac(1), mac(0), 100, number);
            a.send(&wanted)?;
            b.expect(&wanted)?;
        }
        let queue = &mut a.queues[TX];
        let interrupted = queue.call.wait(crate::rig::QUIET);
        // EVENT_IDX has no way to say never, only not before.
        ensure!(!interrupted, "a notification that was not wanted");
        a.drain()?;
    }
    Ok(())
}

fn unmapped(context: &Context) -> Outcome {
    let devices = devices(context)?;
    let mut a = Port::start(&devices[0], Plan::MODERN)?;
    let mut b = Port::start(&devices[1], Plan::MODERN)?;
    exchange(&mut a, &mut b, 10)?;
    a.vhost
        .iotlb(0, uapi::INVALIDATE, a.region.base(), a.region.len() as u64)?;
    a.send(&frame(mac(1), mac(0), 100, 1))?;
    a.queues[TX].kick.signal()?;
    // The ring is not there: that is the end, but of this device only.
    a.wait_status(NEEDS_RESET)?;
    ensure_eq!(b.vhost.status()? & NEEDS_RESET, 0);
    a.restart(None)?;
    exchange(&mut a, &mut b, 10)?;
    exchange(&mut b, &mut a, 10)
}

fn reopened(context: &Context) -> Outcome {
    let devices = devices(context)?;
    let mut b = Port::start(&devices[1], Plan::MODERN)?;
    for round in 0..10 {
        let mut a = Port::start(&devices[0], Plan::MODERN)?;
        let header = vec![0; a.header()];
        for number in 0..32 {
            a.queue_frame(&header, &frame(mac(1), mac(0), 1000, round * 32 + number))?;
        }
        a.queues[TX].publish()?;
        drop(a);
        while b.receive(Duration::from_millis(20))?.is_some() {}
    }
    require!(b.vhost.status()? & NEEDS_RESET == 0, "the receiver broke");
    let mut a = Port::start(&devices[0], Plan::MODERN)?;
    exchange(&mut a, &mut b, 20)
}
