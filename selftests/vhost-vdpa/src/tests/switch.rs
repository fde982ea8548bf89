// SPDX-License-Identifier: GPL-2.0
//! Which of several devices a frame goes to.

use super::{mac, Context, Tests};
use crate::device::Device;
use crate::ktap::{ensure, ensure_eq, Outcome, Stop};
use crate::rig::{exchange, frame, Plan, Port, QUIET, TX};
use crate::uapi::{self, NEEDS_RESET};

pub(super) const TESTS: Tests = &[
    ("switch: to a device that never sent", silent),
    ("switch: another device's address as the source", spoofed),
    ("switch: one address on two devices", twins),
    ("switch: an address that changes", changed),
    ("switch: VLAN tags and the filter for them", tags),
    ("switch: many frames to all", to_all),
    ("switch: nobody's address, and one who takes it", stranger),
];

/// Drivers that receive everything they get, on the first `N` devices.
fn ports<const N: usize>(context: &Context) -> Result<(Vec<Device>, [Port; N]), Stop> {
    context.require_switch()?;
    let mut devices = Vec::new();
    let mut ports = Vec::new();
    for number in 0..N {
        let device = context.device(number as u8)?;
        ports.push(Port::start(&device, Plan::MODERN)?);
        devices.push(device);
    }
    match ports.try_into() {
        Ok(ports) => Ok((devices, ports)),
        Err(_) => Err(Stop::Fail("not as many ports as devices".into())),
    }
}

/// Sends from one port to `to`, which only one of the others may receive.
fn reaches(from: &mut Port, to: [u8; 6], this: &mut Port, others: &mut [&mut Port]) -> Outcome {
    let bytes = frame(to, from.mac()?, 100, u32::from(to[5]));
    from.send(&bytes)?;
    this.expect(&bytes)?;
    for other in others {
        other.expect_nothing()?;
    }
    from.drain()
}

fn silent(context: &Context) -> Outcome {
    let (_devices, [mut a, mut b, mut c]) = ports(context)?;
    reaches(&mut a, mac(2), &mut c, &mut [&mut b])?;
    reaches(&mut a, mac(1), &mut b, &mut [&mut c])
}

fn spoofed(context: &Context) -> Outcome {
    let (_devices, [mut a, mut b, mut c]) = ports(context)?;
    for pretended in [mac(2), mac(0)] {
        let bytes = frame(mac(0), pretended, 100, 1);
        b.send(&bytes)?;
        b.drain()?;
        while a.receive(QUIET)?.is_some() {}
        reaches(&mut a, mac(2), &mut c, &mut [&mut b])?;
        reaches(&mut c, mac(0), &mut a, &mut [&mut b])?;
    }
    Ok(())
}

fn twins(context: &Context) -> Outcome {
    let (_devices, [mut a, mut b]) = ports(context)?;
    let second = context.twin(1, "test2")?;
    reaches(&mut a, mac(1), &mut b, &mut [])?;
    // The driver that started last has the address, then the one heard last.
    let mut c = Port::start(&second, Plan::MODERN)?;
    reaches(&mut a, mac(1), &mut c, &mut [&mut b])?;
    exchange(&mut b, &mut a, 1)?;
    reaches(&mut a, mac(1), &mut b, &mut [&mut c])?;
    exchange(&mut c, &mut a, 1)?;
    reaches(&mut a, mac(1), &mut c, &mut [&mut b])?;
    // A driver that stops does not keep it.
    c.vhost.reset()?;
    reaches(&mut a, mac(1), &mut b, &mut [])?;
    b.restart(None)?;
    reaches(&mut a, mac(1), &mut b, &mut [])?;
    ensure_eq!(a.vhost.status()? & NEEDS_RESET, 0);
    Ok(())
}

fn changed(context: &Context) -> Outcome {
    let (_devices, [mut a, mut b]) = ports(context)?;
    let device = context.device(2)?;
    let plan = Plan {
        features: uapi::NET_F_CTRL_MAC_ADDR,
        ..Plan::MODERN
    };
    let mut c = Port::start(&device, plan)?;
    let other = [0x02, 0, 0, 0, 0, 0x55];
    // VIRTIO_NET_CTRL_MAC_ADDR_SET
    ensure_eq!(c.control(1, 1, &[&other])?, 0);
    reaches(&mut a, other, &mut c, &mut [&mut b])?;
    // It is gone with the driver.
    c.restart(None)?;
    reaches(&mut a, mac(2), &mut c, &mut [&mut b])?;
    ensure!(c.mac()? == mac(2), "the address did not come back");
    // A legacy driver writes it into the configuration space.
    drop(c);
    let mut c = Port::start(&device, Plan::LEGACY)?;
    c.vhost.set_config(0, &other)?;
    reaches(&mut a, other, &mut c, &mut [&mut b])
}

fn tags(context: &Context) -> Outcome {
    let (_devices, [mut a]) = ports(context)?;
    let device = context.device(1)?;
    let plan = Plan {
        features: uapi::NET_F_CTRL_VLAN,
        ..Plan::MODERN
    };
    let mut b = Port::start(&device, plan)?;
    let mut try_tag = |b: &mut Port, tag: [u8; 4], wanted: bool| -> Outcome {
        let mut bytes = frame(mac(1), mac(0), 100, 1);
        bytes.splice(12..12, tag);
        a.send(&bytes)?;
        let header = b.header();
        let mut got = false;
        while let Some(raw) = b.receive_raw(QUIET)? {
            got |= raw[header..] == bytes;
        }
        ensure!(got == wanted, "tag {tag:02x?}: received is {got}");
        a.drain()
    };
    let customer = [0x81, 0x00, 0x00, 0x07];
    let service = [0x88, 0xa8, 0x00, 0x07];
    // A promiscuous driver adds no VLANs and gets them all.
    try_tag(&mut b, customer, true)?;
    b.filter()?;
    try_tag(&mut b, customer, false)?;
    try_tag(&mut b, [0x81, 0x00, 0xe0, 0x00], true)?;
    // The driver has no way to add service VLANs.
    try_tag(&mut b, service, true)?;
    // VIRTIO_NET_CTRL_VLAN_ADD
    ensure_eq!(b.control(2, 0, &[&7u16.to_le_bytes()])?, 0);
    try_tag(&mut b, customer, true)
}

fn to_all(context: &Context) -> Outcome {
    let (_devices, [mut a, mut b, mut c]) = ports(context)?;
    let header = vec![0; a.header()];
    for round in 0..4 {
        let frames: Vec<_> = (0..48)
            .map(|number| {
                // From several stations, to all and to a group in turn.
                let to = if number / 5 % 2 == 0 {
                    [0xff; 6]
                } else {
                    [1, 0, 0x5e, 0, 0, 1]
                };
                let from = [2, 0, 0, 0, 1, number as u8 % 3];
                frame(to, from, 60 + 29 * number as usize, 100 * round + number)
            })
            .collect();
        for bytes in &frames {
            a.queue_frame(&header, bytes)?;
        }
        a.queues[TX].publish()?;
        for bytes in &frames {
            b.expect(bytes)?;
            c.expect(bytes)?;
        }
    }
    a.drain()
}

fn stranger(context: &Context) -> Outcome {
    let (_devices, [mut a]) = ports(context)?;
    let device = context.device(1)?;
    let plan = Plan {
        size: 16,
        ..Plan::MODERN
    };
    let mut b = Port::start(&device, plan)?;
    let header = vec![0; a.header()];
    // More than the receiver has buffers for: they wait for it.  Not for long, so a busy machine
    // may need several attempts.
    let mut most = 0;
    for _ in 0..5 {
        for number in 0..40 {
            let bytes = frame([2, 9, 9, 9, 9, 9], mac(0), 100, number);
            a.queue_frame(&header, &bytes)?;
        }
        a.queues[TX].publish()?;
        let mut count = 0;
        while b.receive(QUIET)?.is_some() {
            count += 1;
        }
        a.drain()?;
        most = most.max(count);
        if most == 40 {
            return Ok(());
        }
    }
    Err(Stop::Fail(format!("only {most} of 40 frames arrived")))
}
