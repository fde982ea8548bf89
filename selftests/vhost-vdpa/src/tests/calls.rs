// SPDX-License-Identifier: GPL-2.0
//! Calls about the device as a whole.

use super::{Context, Tests};
use crate::device::{Event, Vhost};
use crate::ktap::{ensure, ensure_eq, ensure_errno, require, Outcome};
use crate::memory::PAGE;
use crate::rig::{Plan, Port};
use crate::uapi::{self, ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK};

pub(super) const TESTS: Tests = &[
    ("open: one at a time, reset by closing", open),
    ("GET_DEVICE_ID", device_id),
    ("GET_STATUS, SET_STATUS", status),
    (
        "SET_STATUS: FEATURES_OK without VERSION_1's companions",
        features_ok_unmet,
    ),
    ("GET_FEATURES, SET_FEATURES", features),
    ("SET_FEATURES: nothing, again and again", features_none),
    (
        "GET_BACKEND_FEATURES, SET_BACKEND_FEATURES",
        backend_features,
    ),
    ("SET_OWNER: once, and before anything about queues", owner),
    ("GET_VQS_COUNT, GET_VRING_NUM", counts),
    ("GET_GROUP_NUM, GET_AS_NUM", groups),
    ("GET_VRING_GROUP, GET_VRING_DESC_GROUP", vring_groups),
    ("SET_GROUP_ASID", group_asid),
    ("GET_IOVA_RANGE", iova_range),
    ("SET_CONFIG_CALL", config_call),
    (
        "SUSPEND, RESUME: nothing to do before DRIVER_OK",
        suspend_idle,
    ),
    ("calls that vhost-vdpa does not serve", not_served),
    ("addresses that are none", bad_addresses),
    ("mmap: refused without a notification area", mmap),
];

fn open(context: &Context) -> Outcome {
    let (device, vhost) = context.open()?;
    vhost.add_status(ACKNOWLEDGE)?;
    ensure_errno!(Vhost::open(&device.path()?), EBUSY);
    drop(vhost);
    let vhost = device.open()?;
    ensure_eq!(vhost.status()?, 0);
    Ok(())
}

fn device_id(context: &Context) -> Outcome {
    let (_device, vhost) = context.open()?;
    // A network card.
    ensure_eq!(vhost.half(uapi::GET_DEVICE_ID, 0)?, 1);
    Ok(())
}

fn status(context: &Context) -> Outcome {
    let (_device, vhost) = context.open()?;
    ensure_eq!(vhost.status()?, 0);
    vhost.set_status(ACKNOWLEDGE)?;
    vhost.set_status(ACKNOWLEDGE | DRIVER)?;
    ensure_eq!(vhost.status()?, ACKNOWLEDGE | DRIVER);
    // Bits go only all at once.
    ensure_errno!(vhost.set_status(DRIVER), EINVAL);
    ensure_eq!(vhost.status()?, ACKNOWLEDGE | DRIVER);
    vhost.set_features(vhost.features()?)?;
    vhost.add_status(FEATURES_OK)?;
    ensure_eq!(vhost.status()?, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    ensure_errno!(vhost.set_status(ACKNOWLEDGE | DRIVER), EINVAL);
    vhost.reset()?;
    ensure_eq!(vhost.status()?, 0);
    vhost.reset()?;
    Ok(())
}

fn features_ok_unmet(context: &Context) -> Outcome {
    let (_device, vhost) = context.open()?;
    let offered = vhost.features()?;
    require!(
        offered & uapi::NET_F_CTRL_RX != 0,
        "the device does not offer CTRL_RX"
    );
    // CTRL_RX needs CTRL_VQ (virtio 1.3, 5.1.3.1).
    let features = uapi::F_VERSION_1 | uapi::F_ACCESS_PLATFORM | uapi::NET_F_CTRL_RX;
    vhost.set_status(ACKNOWLEDGE | DRIVER)?;
    if vhost.set_features(features).is_ok() {
        vhost.add_status(FEATURES_OK)?;
        ensure_eq!(vhost.status()? & FEATURES_OK, 0);
    }
    // It is no dead end.
    vhost.reset()?;
    vhost.set_status(ACKNOWLEDGE | DRIVER)?;
    vhost.set_features(offered)?;
    vhost.add_status(FEATURES_OK)?;
    ensure_eq!(vhost.status()? & FEATURES_OK, FEATURES_OK);
    Ok(())
}

fn features(context: &Context) -> Outcome {
    let (_device, vhost) = context.open()?;
    let offered = vhost.features()?;
    for bit in [uapi::F_VERSION_1, uapi::F_ACCESS_PLATFORM, uapi::NET_F_MAC] {
        ensure!(offered & bit != 0, "feature {bit:#x} is not offered");
    }
    // Offered, these stop a transitional guest or QEMU's migration.
    let harmful = (1 << 24) | (1 << 30) | uapi::F_RING_PACKED | (0b111 << 41);
    ensure_eq!(offered & harmful, 0);
    for wanted in [offered, uapi::F_VERSION_1 | uapi::F_ACCESS_PLATFORM] {
        vhost.set_features(wanted)?;
        vhost.add_status(FEATURES_OK)?;
        ensure!(
            vhost.status()? & FEATURES_OK != 0,
            "{wanted:#x} was refused"
        );
        ensure_errno!(vhost.set_features(uapi::F_VERSION_1), EBUSY);
        vhost.reset()?;
    }
    // What was not offered is refused, now or by FEATURES_OK.
    let missing = !offered & ((1 << 62) | (1 << 39));
    if vhost.set_features(offered | missing).is_ok() {
        vhost.add_status(FEATURES_OK)?;
        require!(
            !context.simulated(),
            "the simulator takes features that it did not offer"
        );
        ensure_eq!(vhost.status()? & FEATURES_OK, 0);
    }
    Ok(())
}

fn features_none(context: &Context) -> Outcome {
    require!(
        !context.simulated(),
        "the simulator insists on ACCESS_PLATFORM"
    );
    let (device, vhost) = context.open()?;
    for _ in 0..3 {
        vhost.set_features(0)?;
    }
    // The core does the same behind a read of the configuration.
    vhost.config(0, 6)?;
    let offered = vhost.features()?;
    vhost.set_features(offered)?;
    vhost.set_features(0)?;
    drop(vhost);
    // Nothing of it was a decision.
    let port = Port::start(&device, Plan::MODERN)?;
    ensure!(port.vhost.status()? & DRIVER_OK != 0, "does not start");
    Ok(())
}

fn backend_features(context: &Context) -> Outcome {
    let (_device, vhost) = context.open()?;
    let offered = vhost.backend_features()?;
    for bit in [uapi::F_MSG_V2, uapi::F_BATCH, uapi::F_ASID] {
        ensure!(offered & bit != 0, "backend feature {bit:#x} is missing");
    }
    // The device tells of itself whom it serves; the stock core knows no more of that.
    let told = uapi::F_LEGACY | uapi::F_LEGACY_BE;
    vhost.set_backend_features(offered & !(1 << 6) & !told)?;
    vhost.set_backend_features(0)?;
    ensure_errno!(vhost.set_backend_features(1 << 40), EOPNOTSUPP);
    ensure_errno!(vhost.set_backend_features(uapi::F_DESC_ASID), EINVAL);
    if offered & uapi::F_SUSPEND == 0 {
        ensure_errno!(vhost.set_backend_features(uapi::F_SUSPEND), EOPNOTSUPP);
    }
    if !context.simulated() {
        let wanted = uapi::F_SUSPEND | uapi::F_RESUME | uapi::F_DESC_ASID | uapi::F_PERSIST;
        ensure_eq!(offered & wanted, wanted);
    }
    Ok(())
}

fn owner(context: &Context) -> Outcome {
    let (_device, vhost) = context.open()?;
    ensure_errno!(vhost.vring(uapi::SET_VRING_NUM, 0, 64), EPERM);
    ensure_errno!(vhost.vring(uapi::SET_VRING_ENABLE, 0, 1), EPERM);
    ensure_errno!(vhost.iotlb(0, uapi::INVALIDATE, 0, 4096), EFAULT);
    vhost.set_owner()?;
    ensure_errno!(vhost.set_owner(), EBUSY);
    vhost.vring(uapi::SET_VRING_NUM, 0, 64)?;
    Ok(())
}

fn counts(context: &Context) -> Outcome {
    let (_device, vhost) = context.open()?;
    let offered = vhost.features()?;
    let control = u32::from(offered & uapi::NET_F_CTRL_VQ != 0);
    let pairs = match offered & uapi::NET_F_MQ {
        0 => 1,
        _ => {
            let bytes = vhost.config(8, 2)?;
            u32::from(u16::from_le_bytes([bytes[0], bytes[1]]))
        }
    };
    let queues = vhost.queues()?;
    ensure!(
        queues >= 2 * pairs + control,
        "{queues} queues for {pairs} pairs"
    );
    ensure!(vhost.queue_max()? >= 64, "queues of {}", vhost.queue_max()?);
    Ok(())
}

fn groups(context: &Context) -> Outcome {
    let (_device, vhost) = context.open()?;
    let groups = vhost.half(uapi::GET_GROUP_NUM, 0)?;
    let spaces = vhost.half(uapi::GET_AS_NUM, 0)?;
    ensure!(
        groups >= 1 && spaces >= 1,
        "{groups} groups, {spaces} spaces"
    );
    Ok(())
}

fn vring_groups(context: &Context) -> Outcome {
    let (_device, vhost) = context.open_owned()?;
    let groups = vhost.half(uapi::GET_GROUP_NUM, 0)?;
    let queues = vhost.queues()?;
    let data = vhost.vring(uapi::GET_VRING_GROUP, 0, 0)?;
    for queue in 0..queues {
        let group = vhost.vring(uapi::GET_VRING_GROUP, queue, 0)?;
        ensure!(
            group < groups,
            "queue {queue} is in group {group} of {groups}"
        );
    }
    ensure_errno!(vhost.vring(uapi::GET_VRING_GROUP, queues, 0), ENOBUFS);
    if vhost.features()? & uapi::NET_F_CTRL_VQ != 0 {
        // Or QEMU could not shadow the control queue alone.
        let control = vhost.vring(uapi::GET_VRING_GROUP, queues - 1, 0)?;
        ensure!(control != data, "the control queue has no group of its own");
    }
    if vhost.backend_features()? & uapi::F_DESC_ASID == 0 {
        ensure_errno!(vhost.vring(uapi::GET_VRING_DESC_GROUP, 0, 0), EOPNOTSUPP);
        return Ok(());
    }
    for queue in 0..queues {
        let group = vhost.vring(uapi::GET_VRING_DESC_GROUP, queue, 0)?;
        ensure!(group < groups, "descriptors of {queue} in group {group}");
    }
    ensure_errno!(vhost.vring(uapi::GET_VRING_DESC_GROUP, queues, 0), ENOBUFS);
    Ok(())
}

fn group_asid(context: &Context) -> Outcome {
    let (device, vhost) = context.open_owned()?;
    let groups = vhost.half(uapi::GET_GROUP_NUM, 0)?;
    let spaces = vhost.half(uapi::GET_AS_NUM, 0)?;
    ensure_errno!(
        vhost.vring(uapi::SET_GROUP_ASID, groups, 0),
        EINVAL | ENOBUFS
    );
    ensure_errno!(vhost.vring(uapi::SET_GROUP_ASID, 0, spaces), EINVAL);
    for group in 0..groups {
        for space in (0..spaces).rev() {
            vhost.vring(uapi::SET_GROUP_ASID, group, space)?;
        }
    }
    drop(vhost);
    let port = Port::start(&device, Plan::MODERN)?;
    ensure_errno!(port.vhost.vring(uapi::SET_GROUP_ASID, 0, 0), EBUSY);
    Ok(())
}

fn iova_range(context: &Context) -> Outcome {
    let (_device, vhost) = context.open()?;
    let range = vhost.iova_range()?;
    ensure!(
        range.first < range.last,
        "range {:#x}..={:#x}",
        range.first,
        range.last
    );
    Ok(())
}

fn config_call(context: &Context) -> Outcome {
    let (_device, vhost) = context.open()?;
    let event = Event::new()?;
    vhost.half(uapi::SET_CONFIG_CALL, event.fd() as u32)?;
    vhost.half(uapi::SET_CONFIG_CALL, event.fd() as u32)?;
    let null = std::fs::File::open("/dev/null")?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&null);
    ensure_errno!(vhost.half(uapi::SET_CONFIG_CALL, fd as u32), EINVAL);
    ensure_errno!(vhost.half(uapi::SET_CONFIG_CALL, 1_000_000), EBADF);
    vhost.half(uapi::SET_CONFIG_CALL, u32::MAX)?;
    Ok(())
}

fn suspend_idle(context: &Context) -> Outcome {
    let (_device, vhost) = context.open()?;
    for call in [uapi::SUSPEND, uapi::RESUME] {
        vhost.plain(call)?;
    }
    ensure_eq!(vhost.status()?, 0);
    Ok(())
}

fn not_served(context: &Context) -> Outcome {
    let (_device, vhost) = context.open_owned()?;
    ensure_errno!(vhost.word(uapi::SET_LOG_BASE, 0), ENOTTY);
    ensure_errno!(vhost.half(uapi::SET_LOG_FD, u32::MAX), ENOTTY);
    ensure_errno!(vhost.plain(uapi::RESET_OWNER), ENOTTY);
    // Debian has no CONFIG_VHOST_CROSS_ENDIAN_LEGACY.
    ensure_errno!(vhost.vring(uapi::SET_VRING_ENDIAN, 0, 0), ENOTTY);
    ensure_errno!(vhost.vring(uapi::GET_VRING_ENDIAN, 0, 0), ENOTTY);
    // A number that vhost has never given out.
    ensure_errno!(vhost.word(0xaffe, 0), ENOTTY);
    Ok(())
}

fn bad_addresses(context: &Context) -> Outcome {
    let (_device, vhost) = context.open_owned()?;
    let calls = [
        uapi::GET_FEATURES,
        uapi::SET_FEATURES,
        uapi::SET_VRING_NUM,
        uapi::SET_VRING_ADDR,
        uapi::SET_VRING_BASE,
        uapi::GET_VRING_BASE,
        uapi::SET_VRING_KICK,
        uapi::SET_VRING_CALL,
        uapi::SET_VRING_ERR,
        uapi::SET_BACKEND_FEATURES,
        uapi::GET_BACKEND_FEATURES,
        uapi::GET_DEVICE_ID,
        uapi::GET_STATUS,
        uapi::SET_STATUS,
        uapi::GET_CONFIG,
        uapi::SET_CONFIG,
        uapi::SET_VRING_ENABLE,
        uapi::GET_VRING_NUM,
        uapi::SET_CONFIG_CALL,
        uapi::GET_IOVA_RANGE,
        uapi::GET_CONFIG_SIZE,
        uapi::GET_AS_NUM,
        uapi::GET_VRING_GROUP,
        uapi::SET_GROUP_ASID,
        uapi::GET_VRING_DESC_GROUP,
        uapi::GET_VQS_COUNT,
        uapi::GET_GROUP_NUM,
        uapi::GET_VRING_SIZE,
    ];
    for call in calls {
        let result = vhost.call_bad_address(call);
        ensure!(
            matches!(&result, Err(error) if error.raw_os_error() == Some(libc::EFAULT)),
            "call {call:#x}: {result:?}, expected EFAULT"
        );
    }
    Ok(())
}

fn mmap(context: &Context) -> Outcome {
    let (_device, vhost) = context.open()?;
    let map = |length: usize, protection: i32, flags: i32, page: usize| -> std::io::Result<()> {
        // SAFETY: A new mapping at an address of the kernel's choice.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                protection,
                flags,
                vhost.fd(),
                (page * PAGE) as libc::off_t,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: It was mapped just now.
        unsafe { libc::munmap(address, length) };
        Ok(())
    };
    let (write, read) = (libc::PROT_WRITE, libc::PROT_READ);
    ensure_errno!(map(2 * PAGE, write, libc::MAP_SHARED, 0), EINVAL);
    ensure_errno!(map(PAGE, write, libc::MAP_PRIVATE, 0), EINVAL);
    ensure_errno!(map(PAGE, read | write, libc::MAP_SHARED, 0), EINVAL);
    // A device in software has no doorbell. The kernel says ENOTSUPP, which
    // has no name in user space.
    for page in [0, 1, vhost.queues()? as usize, 70_000] {
        let result = map(PAGE, write, libc::MAP_SHARED, page);
        ensure!(result.is_err(), "queue {page} has a page to map");
    }
    Ok(())
}
