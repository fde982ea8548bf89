// SPDX-License-Identifier: GPL-2.0
//! Calls about a virtqueue.

use std::os::fd::AsRawFd;

use super::{Context, Tests};
use crate::device::Event;
use crate::ktap::{ensure, ensure_eq, ensure_errno, require, Outcome};
use crate::log::Log;
use crate::rig::{exchange, Plan, Port, RX, TX};
use crate::uapi::{self, VringAddr, DRIVER_OK, NEEDS_RESET};

pub(super) const TESTS: Tests = &[
    ("SET_VRING_NUM", num),
    ("SET_VRING_ADDR", address),
    ("SET_VRING_BASE, GET_VRING_BASE: split", base_split),
    ("SET_VRING_BASE, GET_VRING_BASE: packed", base_packed),
    ("SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR", files),
    ("SET_VRING_ENABLE", enable),
    ("GET_VRING_SIZE", size),
    ("SET_VRING_BUSYLOOP_TIMEOUT", busyloop),
    ("queues that are none", no_queue),
    (
        "SET_VRING_ADDR, SET_VRING_BASE: refused while running",
        while_running,
    ),
    ("queues that cannot run: DRIVER_OK is not shown", cannot_run),
    ("queues that cannot run: enabled later", cannot_run_later),
];

fn num(context: &Context) -> Outcome {
    let (_device, vhost) = context.open_owned()?;
    let max = u32::from(vhost.queue_max()?);
    let mut num = 1;
    while num <= max {
        vhost.vring(uapi::SET_VRING_NUM, 0, num)?;
        num *= 2;
    }
    for bad in [0, 3, max + 1, 2 * max, 65536, u32::MAX] {
        ensure_errno!(vhost.vring(uapi::SET_VRING_NUM, 0, bad), EINVAL);
    }
    Ok(())
}

fn address(context: &Context) -> Outcome {
    let (_device, vhost) = context.open_owned()?;
    let good = VringAddr {
        index: 0,
        desc: 0x1000,
        avail: 0x2000,
        used: 0x3000,
        ..VringAddr::default()
    };
    vhost.set_vring_addr(good)?;
    ensure_errno!(
        vhost.set_vring_addr(VringAddr {
            avail: 0x2001,
            ..good
        }),
        EINVAL
    );
    ensure_errno!(
        vhost.set_vring_addr(VringAddr {
            used: 0x3002,
            ..good
        }),
        EINVAL
    );
    ensure_errno!(
        vhost.set_vring_addr(VringAddr { flags: 2, ..good }),
        EOPNOTSUPP
    );
    // Alignment of descriptors is the device's to check, at once or when it
    // starts; the end of the address space likewise.
    for desc in [0x1008, u64::MAX - 15] {
        let result = vhost.set_vring_addr(VringAddr { desc, ..good });
        if let Err(error) = result {
            ensure_eq!(error.raw_os_error(), Some(libc::EINVAL));
        }
    }
    vhost.set_vring_addr(good)?;
    Ok(())
}

fn base_split(context: &Context) -> Outcome {
    let (_device, vhost) = context.open_owned()?;
    vhost.set_features(uapi::F_VERSION_1 | uapi::F_ACCESS_PLATFORM)?;
    for queue in 0..2 {
        ensure_eq!(vhost.vring(uapi::GET_VRING_BASE, queue, 0)?, 0);
        for base in [1, 255, 256, 32767, 32768, 65535, 0] {
            vhost.vring(uapi::SET_VRING_BASE, queue, base)?;
            ensure_eq!(vhost.vring(uapi::GET_VRING_BASE, queue, 0)?, base);
        }
        for bad in [65536, u32::MAX] {
            ensure_errno!(vhost.vring(uapi::SET_VRING_BASE, queue, bad), EINVAL);
        }
        vhost.vring(uapi::SET_VRING_BASE, queue, 77)?;
    }
    vhost.reset()?;
    ensure_eq!(vhost.vring(uapi::GET_VRING_BASE, 0, 0)?, 0);
    Ok(())
}

fn base_packed(context: &Context) -> Outcome {
    let devices = context.provisioned(uapi::F_RING_PACKED, 1)?;
    let vhost = devices[0].open()?;
    require!(
        vhost.features()? & uapi::F_RING_PACKED != 0,
        "no packed rings"
    );
    vhost.set_owner()?;
    let features = uapi::F_VERSION_1 | uapi::F_ACCESS_PLATFORM | uapi::F_RING_PACKED;
    vhost.set_features(features)?;
    vhost.vring(uapi::SET_VRING_NUM, 0, 64)?;
    for position in [0x8000, 0x0000, 0x8001, 0x003f, 0x803f] {
        let base = position | (position << 16);
        vhost.vring(uapi::SET_VRING_BASE, 0, base)?;
        ensure_eq!(vhost.vring(uapi::GET_VRING_BASE, 0, 0)?, base);
    }
    Ok(())
}

fn files(context: &Context) -> Outcome {
    let (_device, vhost) = context.open_owned()?;
    let event = Event::new()?;
    let null = std::fs::File::open("/dev/null")?;
    for call in [
        uapi::SET_VRING_KICK,
        uapi::SET_VRING_CALL,
        uapi::SET_VRING_ERR,
    ] {
        for _ in 0..2 {
            vhost.vring_file(call, 0, event.fd())?;
        }
        vhost.vring_file(call, 0, Event::new()?.fd())?;
        ensure_errno!(vhost.vring_file(call, 0, null.as_raw_fd()), EINVAL);
        ensure_errno!(vhost.vring_file(call, 0, 1_000_000), EBADF);
        vhost.vring_file(call, 0, -1)?;
        vhost.vring_file(call, 0, -1)?;
    }
    // A kick of a queue that is nowhere yet.
    vhost.vring_file(uapi::SET_VRING_KICK, 1, event.fd())?;
    event.signal()?;
    Ok(())
}

fn enable(context: &Context) -> Outcome {
    let (_device, vhost) = context.open_owned()?;
    // Without address and size, and in any order: nothing runs yet.
    for num in [1, 1, 0, 0, 1, 2, u32::MAX, 0] {
        vhost.vring(uapi::SET_VRING_ENABLE, 0, num)?;
    }
    Ok(())
}

fn size(context: &Context) -> Outcome {
    let (_device, vhost) = context.open_owned()?;
    let max = u32::from(vhost.queue_max()?);
    match vhost.vring(uapi::GET_VRING_SIZE, 0, 0) {
        Ok(size) => ensure!(size > 0 && size <= max, "size {size} of {max}"),
        Err(error) => {
            require!(
                error.raw_os_error() != Some(libc::EOPNOTSUPP),
                "the device has no get_vq_size"
            );
            return Err(error.into());
        }
    }
    Ok(())
}

fn busyloop(context: &Context) -> Outcome {
    let (_device, vhost) = context.open_owned()?;
    vhost.vring(uapi::SET_VRING_BUSYLOOP_TIMEOUT, 0, 5)?;
    ensure_eq!(vhost.vring(uapi::GET_VRING_BUSYLOOP_TIMEOUT, 0, 0)?, 5);
    Ok(())
}

fn no_queue(context: &Context) -> Outcome {
    let (_device, vhost) = context.open_owned()?;
    for index in [vhost.queues()?, 65536, u32::MAX] {
        for call in [
            uapi::SET_VRING_NUM,
            uapi::SET_VRING_BASE,
            uapi::GET_VRING_BASE,
            uapi::SET_VRING_ENABLE,
            uapi::GET_VRING_GROUP,
            uapi::GET_VRING_SIZE,
        ] {
            ensure_errno!(vhost.vring(call, index, 0), ENOBUFS);
        }
        for call in [uapi::SET_VRING_KICK, uapi::SET_VRING_CALL] {
            ensure_errno!(vhost.vring_file(call, index, -1), ENOBUFS);
        }
        let address = VringAddr {
            index,
            ..VringAddr::default()
        };
        ensure_errno!(vhost.set_vring_addr(address), ENOBUFS);
    }
    Ok(())
}

fn while_running(context: &Context) -> Outcome {
    let device = context.device(0)?;
    let port = Port::start(&device, Plan::MODERN)?;
    let layout = port.queues[0].ring.layout();
    let address = VringAddr {
        index: 0,
        desc: layout.desc,
        avail: layout.driver,
        used: layout.device,
        ..VringAddr::default()
    };
    ensure_errno!(port.vhost.set_vring_addr(address), EINVAL);
    ensure_errno!(port.vhost.vring(uapi::SET_VRING_BASE, 0, 0), EINVAL);
    // Reading it is always allowed.
    port.vhost.vring(uapi::GET_VRING_BASE, 0, 0)?;
    Ok(())
}

/// Makes a queue one that cannot run: its descriptors begin at half of one.
fn misalign(port: &Port, index: usize) -> Outcome {
    let layout = port.queues[index].ring.layout();
    port.vhost.set_vring_addr(VringAddr {
        index: index as u32,
        desc: layout.desc + 8,
        avail: layout.driver,
        used: layout.device,
        ..VringAddr::default()
    })?;
    Ok(())
}

fn cannot_run(context: &Context) -> Outcome {
    context.require_switch()?;
    let devices = context.provisioned(uapi::F_RING_PACKED, 2)?;
    let mut b = Port::start(&devices[1], Plan::MODERN)?;
    let packed = Plan {
        features: uapi::F_RING_PACKED,
        ..Plan::MODERN
    };
    let mut log = Log::follow()?;
    for plan in [Plan::LEGACY, Plan::MODERN, packed] {
        let mut port = Port::prepare(&devices[0], plan)?;
        if plan.packed() {
            // A place beyond the end of the ring.
            let place = 0x8000 | u32::from(plan.size);
            let base = place | (place << 16);
            port.vhost.vring(uapi::SET_VRING_BASE, TX as u32, base)?;
        } else {
            misalign(&port, TX)?;
        }
        port.enable()?;
        port.vhost.add_status(DRIVER_OK)?;
        ensure_eq!(
            port.vhost.status()? & (DRIVER_OK | NEEDS_RESET),
            NEEDS_RESET
        );
        // A reset mends it.
        port.restart(None)?;
        exchange(&mut port, &mut b, 5)?;
        exchange(&mut b, &mut port, 5)?;
    }
    // Once at least; more often only if they are far apart.
    ensure!(log.says("cannot start")?, "nothing in the log");
    Ok(())
}

fn cannot_run_later(context: &Context) -> Outcome {
    context.require_switch()?;
    let device = context.device(0)?;
    let port = Port::prepare(&device, Plan::MODERN)?;
    misalign(&port, TX)?;
    port.vhost.vring(uapi::SET_VRING_ENABLE, RX as u32, 1)?;
    port.vhost.add_status(DRIVER_OK)?;
    ensure_eq!(port.vhost.status()? & (DRIVER_OK | NEEDS_RESET), DRIVER_OK);
    // The driver has seen DRIVER_OK, so it is told.
    port.vhost.vring(uapi::SET_VRING_ENABLE, TX as u32, 1)?;
    ensure_eq!(
        port.vhost.status()? & (DRIVER_OK | NEEDS_RESET),
        DRIVER_OK | NEEDS_RESET
    );
    ensure!(
        port.config_call.wait(crate::rig::PATIENCE),
        "no configuration interrupt"
    );
    Ok(())
}
