// SPDX-License-Identifier: GPL-2.0
//! Stopping, going on, and the state of rings.

use super::{mac, Context, Tests};
use crate::ktap::{ensure, ensure_eq, require, Outcome, Stop};
use crate::rig::{exchange, frame, Plan, Port, PATIENCE, QUIET, RX, TX};
use crate::uapi::{self, DRIVER_OK, NEEDS_RESET, STOP};

pub(super) const TESTS: Tests = &[
    (
        "SUSPEND: nothing moves, RESUME: all of it does",
        suspend_resume,
    ),
    (
        "SUSPEND: nothing moves, and what waits goes with the next kick",
        suspend_kick,
    ),
    ("SUSPEND: twice, and RESUME twice", suspend_twice),
    ("SUSPEND: rings move to other places", suspend_move),
    ("STOP by status bit: shown, told, and resumed", stop_bit),
    ("STOP by status bit: before DRIVER_OK", stop_early),
    ("STOP and RESET: rings go on where they were", stop_reset),
    ("ring state: split, saved and restored", state_split),
    ("ring state: split, 65535 to 0", state_wrap),
    ("ring state: packed, saved and restored", state_packed),
    ("reset while frames are under way", reset_busy),
    ("reset: rings start at 0 again", reset_state),
    ("queue disabled and enabled again", disable_queue),
    (
        "announcement: asked of a driver that comes from elsewhere",
        announce,
    ),
];

/// Two devices with a driver on each.
fn pair(context: &Context, plan: Plan) -> Result<[(crate::device::Device, Port); 2], Stop> {
    context.require_switch()?;
    let (a, b) = (context.device(0)?, context.device(1)?);
    let (pa, pb) = (Port::start(&a, plan)?, Port::start(&b, plan)?);
    Ok([(a, pa), (b, pb)])
}

fn require_suspend(port: &Port) -> Outcome {
    require!(
        port.vhost.backend_features()? & uapi::F_SUSPEND != 0,
        "the device cannot be suspended"
    );
    Ok(())
}

/// Sends frames while `a` is stopped, both ways, and checks that none goes;
/// then calls `resume` and checks that all of them do.
fn nothing_moves(a: &mut Port, b: &mut Port, resume: impl Fn(&Port) -> Outcome) -> Outcome {
    let out: Vec<_> = (0..5).map(|n| frame(mac(1), mac(0), 100, n)).collect();
    let base = (a.base(RX)?, a.base(TX)?);
    for frame in &out {
        a.send(frame)?;
    }
    a.queues[TX].kick.signal()?;
    a.queues[RX].kick.signal()?;
    // What is sent to a stopped device may be lost.
    b.send(&frame(mac(0), mac(1), 100, 99))?;
    b.expect_nothing()?;
    a.expect_nothing()?;
    ensure_eq!(a.reap()?, 0);
    ensure_eq!((a.base(RX)?, a.base(TX)?), base);
    resume(a)?;
    for frame in &out {
        b.expect(frame)?;
    }
    a.drain()?;
    // That lost frame may also have been kept.
    while a.receive(QUIET)?.is_some() {}
    exchange(a, b, 20)?;
    exchange(b, a, 20)
}

fn suspend_resume(context: &Context) -> Outcome {
    for plan in [Plan::MODERN, Plan::LEGACY] {
        let [(_a, mut a), (_b, mut b)] = pair(context, plan)?;
        require_suspend(&a)?;
        exchange(&mut a, &mut b, 20)?;
        a.vhost.plain(uapi::SUSPEND)?;
        ensure!(a.vhost.status()? & DRIVER_OK != 0, "DRIVER_OK went away");
        nothing_moves(&mut a, &mut b, |a| Ok(a.vhost.plain(uapi::RESUME)?))?;
    }
    Ok(())
}

/// What a device must do at the least: the driver kicks once more after RESUME.
fn suspend_kick(context: &Context) -> Outcome {
    let [(_a, mut a), (_b, mut b)] = pair(context, Plan::MODERN)?;
    require_suspend(&a)?;
    exchange(&mut a, &mut b, 20)?;
    a.vhost.plain(uapi::SUSPEND)?;
    nothing_moves(&mut a, &mut b, |a| {
        a.vhost.plain(uapi::RESUME)?;
        for queue in [RX, TX] {
            a.queues[queue].kick.signal()?;
        }
        Ok(())
    })
}

fn suspend_twice(context: &Context) -> Outcome {
    let device = context.device(0)?;
    let port = Port::start(&device, Plan::MODERN)?;
    require_suspend(&port)?;
    for call in [uapi::SUSPEND, uapi::RESUME] {
        port.vhost.plain(call)?;
        port.vhost.plain(call)?;
    }
    for _ in 0..20 {
        port.vhost.plain(uapi::SUSPEND)?;
        port.vhost.plain(uapi::RESUME)?;
    }
    ensure_eq!(port.vhost.status()? & NEEDS_RESET, 0);
    // Suspended, it is reset like any other.
    port.vhost.plain(uapi::SUSPEND)?;
    port.vhost.reset()?;
    ensure_eq!(port.vhost.status()?, 0);
    Ok(())
}

fn suspend_move(context: &Context) -> Outcome {
    let [(_a, mut a), (_b, mut b)] = pair(context, Plan::MODERN)?;
    require_suspend(&a)?;
    exchange(&mut a, &mut b, 10)?;
    a.vhost.plain(uapi::SUSPEND)?;
    // Addresses and indices may change now, here to what they are.
    for index in [RX, TX] {
        let base = a.base(index)?;
        a.plan.start = Some(base as u16);
        let layout = a.queues[index].ring.layout();
        a.vhost.vring(uapi::SET_VRING_BASE, index as u32, base)?;
        a.vhost.set_vring_addr(uapi::VringAddr {
            index: index as u32,
            desc: layout.desc,
            avail: layout.driver,
            used: layout.device,
            ..uapi::VringAddr::default()
        })?;
    }
    a.vhost.plain(uapi::RESUME)?;
    exchange(&mut a, &mut b, 20)?;
    exchange(&mut b, &mut a, 20)
}

fn stop_bit(context: &Context) -> Outcome {
    for plan in [Plan::MODERN, Plan::LEGACY] {
        let [(_a, mut a), (_b, mut b)] = pair(context, plan)?;
        exchange(&mut a, &mut b, 20)?;
        a.vhost.add_status(STOP)?;
        a.wait_status(STOP)?;
        ensure!(a.config_call.wait(PATIENCE), "no configuration interrupt");
        ensure!(a.vhost.status()? & DRIVER_OK != 0, "DRIVER_OK went away");
        nothing_moves(&mut a, &mut b, |a| {
            a.vhost.plain(uapi::RESUME)?;
            ensure_eq!(a.vhost.status()? & STOP, 0);
            Ok(())
        })?;
        // Again, for the bit is free again.
        a.vhost.add_status(STOP)?;
        a.wait_status(STOP)?;
        a.vhost.plain(uapi::RESUME)?;
        exchange(&mut a, &mut b, 10)?;
    }
    Ok(())
}

fn stop_early(context: &Context) -> Outcome {
    context.require_switch()?;
    let (device, vhost) = context.open()?;
    vhost.add_status(STOP)?;
    ensure_eq!(vhost.status()? & STOP, 0);
    drop(vhost);
    let port = Port::start(&device, Plan::MODERN)?;
    ensure_eq!(port.vhost.status()? & (STOP | NEEDS_RESET), 0);
    Ok(())
}

fn stop_reset(context: &Context) -> Outcome {
    let [(_a, mut a), (_b, mut b)] = pair(context, Plan::MODERN)?;
    exchange(&mut a, &mut b, 40)?;
    a.vhost.add_status(STOP)?;
    a.wait_status(STOP)?;
    let base = a.base(TX)? as u16;
    ensure_eq!(base, 40);
    a.restart(Some(base))?;
    exchange(&mut a, &mut b, 20)?;
    ensure_eq!(a.base(TX)?, 60);
    Ok(())
}

/// Runs, stops, saves and goes on a few times from `start`.
fn save_and_restore(a: &mut Port, b: &mut Port, count: u32) -> Outcome {
    require_suspend(a)?;
    for _ in 0..4 {
        exchange(a, b, count)?;
        exchange(b, a, count)?;
        a.vhost.plain(uapi::SUSPEND)?;
        // Everything sent is used and taken back, so both agree.
        let (available, used) = a.queues[TX].ring.position();
        ensure_eq!(available, used);
        let base = a.base(TX)?;
        match a.plan.packed() {
            false => ensure_eq!(base, u32::from(used)),
            true => ensure_eq!(base, u32::from(used) | (u32::from(used) << 16)),
        }
        a.restart(Some(used))?;
    }
    exchange(a, b, count)
}

fn state_split(context: &Context) -> Outcome {
    let [(_a, mut a), (_b, mut b)] = pair(context, Plan::MODERN)?;
    save_and_restore(&mut a, &mut b, 30)
}

fn state_wrap(context: &Context) -> Outcome {
    context.require_switch()?;
    let (a, b) = (context.device(0)?, context.device(1)?);
    let plan = Plan {
        start: Some(65535 - 20),
        ..Plan::MODERN
    };
    let (mut a, mut b) = (Port::start(&a, plan)?, Port::start(&b, Plan::LEGACY)?);
    exchange(&mut a, &mut b, 100)?;
    exchange(&mut b, &mut a, 100)?;
    ensure_eq!(a.base(TX)?, (65535 - 20 + 100) & 0xffff);
    save_and_restore(&mut a, &mut b, 10)
}

fn state_packed(context: &Context) -> Outcome {
    context.require_switch()?;
    let devices = context.provisioned(uapi::F_RING_PACKED, 2)?;
    let plan = Plan {
        features: uapi::F_RING_PACKED,
        ..Plan::MODERN
    };
    let (mut a, mut b) = (
        Port::start(&devices[0], plan)?,
        Port::start(&devices[1], plan)?,
    );
    // 50 and 64 have no common round: every wrap comes at another place.
    save_and_restore(&mut a, &mut b, 50)
}

fn reset_busy(context: &Context) -> Outcome {
    let [(_a, mut a), (_b, mut b)] = pair(context, Plan::MODERN)?;
    for round in 0..20 {
        let header = vec![0; a.header()];
        for number in 0..32 {
            a.queue_frame(&header, &frame(mac(1), mac(0), 1000, round * 32 + number))?;
        }
        a.queues[TX].publish()?;
        // Whatever is under way, the reset ends it.
        let _ = if round % 2 == 0 { &a } else { &b }.vhost.reset();
        let port = if round % 2 == 0 { &mut a } else { &mut b };
        port.restart(None)?;
        while b.receive(QUIET / 10)?.is_some() {}
        if round % 2 == 1 {
            a.drain()?;
        }
    }
    exchange(&mut a, &mut b, 20)?;
    exchange(&mut b, &mut a, 20)
}

fn reset_state(context: &Context) -> Outcome {
    let [(_a, mut a), (_b, mut b)] = pair(context, Plan::MODERN)?;
    exchange(&mut a, &mut b, 10)?;
    a.vhost.reset()?;
    for index in 0..a.queues.len() {
        ensure_eq!(a.base(index)?, 0);
    }
    a.restart(None)?;
    exchange(&mut a, &mut b, 10)
}

fn disable_queue(context: &Context) -> Outcome {
    let [(_a, mut a), (_b, mut b)] = pair(context, Plan::MODERN)?;
    exchange(&mut a, &mut b, 10)?;
    for _ in 0..5 {
        a.vhost.vring(uapi::SET_VRING_ENABLE, TX as u32, 0)?;
        let held = frame(mac(1), mac(0), 200, 4711);
        a.send(&held)?;
        b.expect_nothing()?;
        ensure_eq!(a.reap()?, 0);
        a.vhost.vring(uapi::SET_VRING_ENABLE, TX as u32, 1)?;
        b.expect(&held)?;
        a.drain()?;
    }
    exchange(&mut a, &mut b, 10)
}

/// Whether the driver is asked to announce itself.
fn asked(port: &Port) -> Result<bool, Stop> {
    const ANNOUNCE: u8 = 2;
    let status = port.vhost.config(6, 2)?;
    Ok(status[0] & ANNOUNCE != 0)
}

fn announce(context: &Context) -> Outcome {
    context.require_switch()?;
    let devices = context.provisioned(uapi::NET_F_GUEST_ANNOUNCE, 2)?;
    let plan = Plan {
        features: uapi::NET_F_GUEST_ANNOUNCE | uapi::NET_F_CTRL_VQ,
        ..Plan::MODERN
    };
    let mut a = Port::start(&devices[0], plan)?;
    let mut b = Port::start(&devices[1], Plan::MODERN)?;
    require_suspend(&a)?;
    exchange(&mut a, &mut b, 10)?;
    exchange(&mut b, &mut a, 10)?;
    // It stays where it is.
    a.vhost.plain(uapi::SUSPEND)?;
    a.vhost.plain(uapi::RESUME)?;
    for on in [0, 1] {
        a.vhost.vring(uapi::SET_VRING_ENABLE, TX as u32, on)?;
    }
    ensure!(!asked(&a)?, "asked after a stop");
    ensure!(
        !a.config_call.wait(QUIET),
        "a configuration interrupt for nothing"
    );
    // A VMM gives it rings that are in use.
    a.vhost.plain(uapi::SUSPEND)?;
    let base = a.base(TX)? as u16;
    a.restart(Some(base))?;
    ensure!(asked(&a)?, "not asked");
    ensure!(a.config_call.wait(PATIENCE), "no configuration interrupt");
    ensure_eq!(a.control(3, 0, &[])?, 0);
    ensure!(!asked(&a)?, "asked for ever");
    exchange(&mut a, &mut b, 10)?;
    // A driver that begins is nothing new to anybody.
    a.restart(None)?;
    ensure!(!asked(&a)?, "asked at the beginning");
    // And without STATUS there is nothing to ask by.
    a.features &= !uapi::NET_F_STATUS;
    a.restart(Some(base))?;
    ensure!(!asked(&a)?, "asked in a field that is not there");
    ensure!(
        !a.config_call.wait(QUIET),
        "a configuration interrupt for nothing"
    );
    exchange(&mut a, &mut b, 10)
}
