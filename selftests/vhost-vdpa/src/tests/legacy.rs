// SPDX-License-Identifier: GPL-2.0
//! Drivers of before virtio 1.0, and what all drivers may do too early.

use std::time::Duration;

use super::{mac, Context, Tests};
use crate::ktap::{ensure, ensure_eq, require, Outcome};
use crate::rig::{exchange, frame, Plan, Port, RX, TX};
use crate::uapi::{self, ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET};

pub(super) const TESTS: Tests = &[
    ("legacy: DRIVER_OK alone starts the device", driver_ok_alone),
    (
        "legacy: bits above 31 do not make a driver modern",
        high_bits,
    ),
    ("legacy: kicks and buffers before DRIVER_OK", early_kicks),
    ("kick before the queue is enabled", kick_before_enable),
    (
        "legacy: reads of the configuration at any time",
        early_config,
    ),
    ("legacy: header of 10 and of 12 bytes", headers),
    ("legacy: address written byte by byte", mac_bytes),
    ("legacy: queue size is the device's", queue_size),
    ("legacy and modern drivers in turn on one device", in_turn),
    ("legacy and modern drivers talk to each other", together),
    (
        "a driver without ACCESS_PLATFORM has its memory mapped",
        no_access_platform,
    ),
];

fn driver_ok_alone(context: &Context) -> Outcome {
    context.require_switch()?;
    let (a, b) = (context.device(0)?, context.device(1)?);
    let mut b = Port::start(&b, Plan::MODERN)?;
    // As QEMU: ACKNOWLEDGE and DRIVER never set. And as a driver would.
    for status in [DRIVER_OK, ACKNOWLEDGE | DRIVER | DRIVER_OK] {
        let mut a = Port::prepare(&a, Plan::LEGACY)?;
        a.enable()?;
        a.vhost.set_status(status)?;
        ensure_eq!(a.vhost.status()?, status);
        a.fill()?;
        exchange(&mut a, &mut b, 10)?;
        exchange(&mut b, &mut a, 10)?;
        ensure_eq!(a.vhost.status()?, status);
    }
    // FEATURES_OK is no harm, though: QEMU may set it for any driver.
    let mut a = Port::prepare(&a, Plan::LEGACY)?;
    a.vhost.add_status(FEATURES_OK)?;
    a.run()?;
    exchange(&mut a, &mut b, 10)
}

fn high_bits(context: &Context) -> Outcome {
    context.require_switch()?;
    let (a, b) = (context.device(0)?, context.device(1)?);
    // Plan::LEGACY has ACCESS_PLATFORM, bit 33, and not bit 32.
    let (mut a, mut b) = (
        Port::start(&a, Plan::LEGACY)?,
        Port::start(&b, Plan::LEGACY)?,
    );
    ensure!(a.features >> 32 == 2, "features {:#x}", a.features);
    // The header shows who is served: 10 bytes.
    ensure_eq!(a.header(), 10);
    exchange(&mut a, &mut b, 10)?;
    exchange(&mut b, &mut a, 10)
}

fn early_kicks(context: &Context) -> Outcome {
    context.require_switch()?;
    let (a, b) = (context.device(0)?, context.device(1)?);
    for plan in [Plan::LEGACY, Plan::MODERN] {
        let mut b = Port::start(&b, plan)?;
        let mut a = Port::prepare(&a, plan)?;
        // Everything is posted and kicked before the device may look.
        a.fill()?;
        let early = frame(mac(1), mac(0), 300, 1);
        a.send(&early)?;
        for queue in &a.queues {
            queue.kick.signal()?;
        }
        b.expect_nothing()?;
        ensure_eq!(a.vhost.status()? & (DRIVER_OK | NEEDS_RESET), 0);
        a.enable()?;
        a.vhost.add_status(DRIVER_OK)?;
        // No kick follows.
        b.expect(&early)?;
        exchange(&mut b, &mut a, 20)?;
        exchange(&mut a, &mut b, 20)?;
    }
    Ok(())
}

fn kick_before_enable(context: &Context) -> Outcome {
    context.require_switch()?;
    let (a, b) = (context.device(0)?, context.device(1)?);
    let mut b = Port::start(&b, Plan::MODERN)?;
    let mut a = Port::prepare(&a, Plan::MODERN)?;
    // QEMU's order: DRIVER_OK, then the queues one by one.
    a.vhost.add_status(DRIVER_OK)?;
    a.fill()?;
    let early = frame(mac(1), mac(0), 300, 2);
    a.send(&early)?;
    b.expect_nothing()?;
    a.vhost.vring(uapi::SET_VRING_ENABLE, TX as u32, 1)?;
    b.expect(&early)?;
    a.vhost.vring(uapi::SET_VRING_ENABLE, RX as u32, 1)?;
    exchange(&mut b, &mut a, 10)
}

fn early_config(context: &Context) -> Outcome {
    let device = context.device(0)?;
    let vhost = device.open()?;
    let size = vhost.config_size()? as usize;
    let first = vhost.config(0, 6)?;
    ensure_eq!(first, mac(0).to_vec());
    for _ in 0..10 {
        ensure_eq!(vhost.config(0, 6)?, first);
        vhost.config(0, size)?;
    }
    ensure_eq!(vhost.status()?, 0);
    drop(vhost);
    let port = Port::start(&device, Plan::LEGACY)?;
    ensure_eq!(port.vhost.config(0, 6)?, first);
    Ok(())
}

fn headers(context: &Context) -> Outcome {
    context.require_switch()?;
    let (a, b) = (context.device(0)?, context.device(1)?);
    let merge = Plan {
        features: uapi::NET_F_MRG_RXBUF,
        ..Plan::LEGACY
    };
    for (plan_a, plan_b) in [
        (Plan::LEGACY, merge),
        (merge, Plan::LEGACY),
        (merge, Plan::MODERN),
    ] {
        let (mut a, mut b) = (Port::start(&a, plan_a)?, Port::start(&b, plan_b)?);
        exchange(&mut a, &mut b, 20)?;
        exchange(&mut b, &mut a, 20)?;
    }
    Ok(())
}

fn mac_bytes(context: &Context) -> Outcome {
    context.require_switch()?;
    let (a, b) = (context.device(0)?, context.device(1)?);
    let mut b = Port::start(&b, Plan::MODERN)?;
    let mut port = Port::start(&a, Plan::LEGACY)?;
    exchange(&mut b, &mut port, 5)?;
    let new = [0x02, 0x11, 0x22, 0x33, 0x44, 0x55];
    for (offset, byte) in new.iter().enumerate() {
        // QEMU writes the whole space each time, one byte of it changed.
        port.vhost.set_config(offset as u32, &[*byte])?;
    }
    ensure_eq!(port.vhost.config(0, 6)?, new.to_vec());
    // It receives what is for the new address, and no more for the old one.
    port.filter()?;
    let wanted = frame(new, mac(1), 200, 3);
    b.send(&wanted)?;
    port.expect(&wanted)?;
    b.send(&frame(mac(0), mac(1), 200, 4))?;
    port.expect_nothing()?;
    // A reset brings back what was provisioned.
    drop(port);
    let mut port = Port::start(&a, Plan::LEGACY)?;
    ensure_eq!(port.vhost.config(0, 6)?, mac(0).to_vec());
    exchange(&mut b, &mut port, 5)
}

fn queue_size(context: &Context) -> Outcome {
    context.require_switch()?;
    let (a, b) = (context.device(0)?, context.device(1)?);
    let mut b = Port::start(&b, Plan::LEGACY)?;
    let max = a.open()?.queue_max()?;
    for size in [max.min(256), 2, 4] {
        let plan = Plan {
            size,
            ..Plan::LEGACY
        };
        let mut a = Port::start(&a, plan)?;
        exchange(&mut a, &mut b, 10)?;
        exchange(&mut b, &mut a, 10)?;
    }
    Ok(())
}

fn in_turn(context: &Context) -> Outcome {
    context.require_switch()?;
    let (a, b) = (context.device(0)?, context.device(1)?);
    let mut b = Port::start(&b, Plan::MODERN)?;
    for plan in [Plan::LEGACY, Plan::MODERN, Plan::LEGACY, Plan::MODERN] {
        let mut port = Port::start(&a, plan)?;
        exchange(&mut port, &mut b, 10)?;
        exchange(&mut b, &mut port, 10)?;
        ensure_eq!(port.vhost.config(0, 6)?, mac(0).to_vec());
    }
    // Without closing in between, by reset alone.
    let mut port = Port::start(&a, Plan::MODERN)?;
    for legacy in [true, false, true] {
        let plan = if legacy { Plan::LEGACY } else { Plan::MODERN };
        port.plan = plan;
        port.features = match legacy {
            true => port.features & !uapi::F_VERSION_1,
            false => port.features | uapi::F_VERSION_1,
        };
        port.restart(None)?;
        exchange(&mut port, &mut b, 10)?;
        exchange(&mut b, &mut port, 10)?;
    }
    Ok(())
}

fn together(context: &Context) -> Outcome {
    context.require_switch()?;
    let (a, b) = (context.device(0)?, context.device(1)?);
    let (mut a, mut b) = (
        Port::start(&a, Plan::LEGACY)?,
        Port::start(&b, Plan::MODERN)?,
    );
    for _ in 0..5 {
        exchange(&mut a, &mut b, 50)?;
        exchange(&mut b, &mut a, 50)?;
    }
    Ok(())
}

fn no_access_platform(context: &Context) -> Outcome {
    context.require_switch()?;
    let device = context.device(0)?;
    let vhost = device.open()?;
    require!(
        vhost.features()? & uapi::F_ACCESS_PLATFORM != 0,
        "ACCESS_PLATFORM is not offered"
    );
    // Without a map, physical addresses would be meant: that must not start.
    vhost.set_owner()?;
    if vhost.set_features(uapi::NET_F_MAC).is_ok() {
        vhost.vring(uapi::SET_VRING_NUM, 0, 64)?;
        vhost.vring(uapi::SET_VRING_ENABLE, 0, 1)?;
        vhost.add_status(DRIVER_OK)?;
        std::thread::sleep(Duration::from_millis(20));
        ensure_eq!(vhost.status()? & DRIVER_OK, 0);
    }
    vhost.reset()?;
    drop(vhost);
    Port::start(&device, Plan::LEGACY)?;
    Ok(())
}
