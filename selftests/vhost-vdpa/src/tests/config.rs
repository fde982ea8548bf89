// SPDX-License-Identifier: GPL-2.0
//! The configuration space.

use super::{mac, Context, Tests};
use crate::ktap::{ensure, ensure_eq, ensure_errno, require, Outcome};
use crate::rig::{Plan, Port};
use crate::uapi;

pub(super) const TESTS: Tests = &[
    ("GET_CONFIG: bad ranges", bad_ranges),
    ("GET_CONFIG: every width at every offset", widths),
    (
        "GET_CONFIG: what was provisioned, before features",
        provisioned,
    ),
    ("SET_CONFIG: bad ranges", set_bad_ranges),
    (
        "SET_CONFIG: a VMM's address does not replace a provisioned one",
        provisioned_mac_stays,
    ),
    ("SET_CONFIG: every byte, nothing breaks", set_everything),
];

fn bad_ranges(context: &Context) -> Outcome {
    let (_device, vhost) = context.open()?;
    let size = vhost.config_size()?;
    ensure!((12..=256).contains(&size), "config of {size} bytes");
    vhost.config_call(0, size)?;
    for (offset, length) in [
        (0, 0),
        (size, 0),
        (size, 1),
        (0, size + 1),
        (size - 1, 2),
        (u32::MAX, 1),
        (u32::MAX, u32::MAX),
        (1, u32::MAX),
    ] {
        ensure_errno!(vhost.config_call(offset, length), EINVAL);
    }
    Ok(())
}

fn widths(context: &Context) -> Outcome {
    let (_device, vhost) = context.open()?;
    let size = vhost.config_size()? as usize;
    let all = vhost.config(0, size)?;
    for offset in 0..size {
        for length in 1..=size - offset {
            let part = vhost.config(offset as u32, length)?;
            ensure!(
                part == all[offset..offset + length],
                "{length} bytes at {offset} read differently"
            );
        }
    }
    Ok(())
}

fn provisioned(context: &Context) -> Outcome {
    let device = context.device_with(0, &["mtu", "1400"])?;
    let vhost = device.open()?;
    ensure_eq!(vhost.config(0, 6)?, mac(0).to_vec());
    let offered = vhost.features()?;
    if offered & uapi::NET_F_MTU != 0 {
        ensure_eq!(vhost.config(10, 2)?, 1400u16.to_le_bytes().to_vec());
    }
    if offered & uapi::NET_F_STATUS != 0 {
        // Link up; the simulator waits for features before it says so.
        let status = vhost.config(6, 2)?;
        ensure!(status == [1, 0] || context.simulated(), "status {status:?}");
    }
    // Nor did that decide anything.
    ensure_eq!(vhost.status()?, 0);
    vhost.set_features(offered)?;
    ensure_eq!(vhost.config(0, 6)?, mac(0).to_vec());
    Ok(())
}

fn set_bad_ranges(context: &Context) -> Outcome {
    let (_device, vhost) = context.open()?;
    let size = vhost.config_size()?;
    ensure_errno!(vhost.set_config(0, &[]), EINVAL);
    ensure_errno!(vhost.set_config(size, &[0]), EINVAL);
    ensure_errno!(vhost.set_config(size - 1, &[0, 0]), EINVAL);
    ensure_errno!(vhost.set_config(u32::MAX, &[0]), EINVAL);
    Ok(())
}

fn provisioned_mac_stays(context: &Context) -> Outcome {
    require!(
        !context.simulated(),
        "the simulator lets a VMM replace the address"
    );
    let (_device, vhost) = context.open()?;
    // What QEMU does with its own mac= before it starts a guest.
    vhost.set_config(0, &[2, 2, 2, 2, 2, 2])?;
    ensure_eq!(vhost.config(0, 6)?, mac(0).to_vec());
    Ok(())
}

fn set_everything(context: &Context) -> Outcome {
    let (device, vhost) = context.open()?;
    let size = vhost.config_size()?;
    for offset in 0..size {
        vhost.set_config(offset, &[0xff])?;
    }
    for offset in 0..size {
        vhost.set_config(offset, &vec![0x55; (size - offset) as usize])?;
    }
    // Only the address may have changed.
    let config = vhost.config(0, size as usize)?;
    ensure!(
        config[8..12] != [0x55; 4] || context.simulated(),
        "queue pairs and MTU were overwritten"
    );
    drop(vhost);
    Port::start(&device, Plan::MODERN)?;
    Ok(())
}
