// SPDX-License-Identifier: GPL-2.0
//! What a parent relies on besides its operations: how devices are added and
//! taken away, what its threads do, and who gets memory.  With the test parent.

use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::{Context, Tests};
use crate::device::Device;
use crate::ktap::{ensure, ensure_eq, Outcome, Stop};
use crate::notes::wire::{command, Op};
use crate::notes::{record, Module, Noted, Record, NAME, WHOLE};
use crate::rig::{PATIENCE, QUIET};
use crate::uapi::{ACKNOWLEDGE, DRIVER, FAILED, FEATURES_OK};

pub(super) const TESTS: Tests = &[
    ("parent: a worker dropped by its own thread", retire),
    ("parent: bad ring alignment is refused", alignment),
    ("parent: a name that is taken", taken_name),
    ("parent: no memory for the kernel's driver", kernel_driver),
    ("parent: module unloaded with a device open", unload),
];

fn retire(context: &Context) -> Outcome {
    let noted = Noted::new(context, WHOLE)?;
    for _ in 0..3 {
        noted.tell(command::RETIRE, 0, 0)?;
        noted.wait(Op::Retired)?;
        noted.take()?;
    }
    // The module is unloaded now, which waits until the threads are gone.
    Ok(())
}

/// Tries to add a device, which fails with this text.
fn refused(attributes: &[&str], why: &str) -> Outcome {
    match Device::new(WHOLE, NAME, attributes) {
        Err(Stop::Fail(text)) => ensure!(text.contains(why), "{text}, expected {why}"),
        _ => return Err(Stop::Fail(format!("added with {attributes:?}"))),
    }
    Ok(())
}

fn alignment(context: &Context) -> Outcome {
    let module = Module::load(context)?;
    // The device takes the MTU for the alignment of rings.
    for bad in ["68", "96", "8192"] {
        refused(&["mtu", bad], "Invalid argument")?;
    }
    drop(Device::new(WHOLE, NAME, &["mtu", "512"])?);
    drop(module);
    let noted = Noted::new(context, WHOLE)?;
    ensure_eq!(noted.counts()?.freed, 0);
    Ok(())
}

fn taken_name(context: &Context) -> Outcome {
    let noted = Noted::new(context, WHOLE)?;
    refused(&[], "File exists")?;
    refused(&["mtu", "68"], "Invalid argument")?;
    // They were taken down like one that was there, and nothing is left.
    let counts = noted.counts()?;
    ensure_eq!((counts.removed, counts.freed), (2, 2));
    // The one that was there is unharmed.
    noted.vhost.set_status(ACKNOWLEDGE)?;
    ensure_eq!(noted.vhost.status()?, ACKNOWLEDGE);
    let noted = noted.reopen_after(|device| {
        drop(device);
        Device::new(WHOLE, NAME, &[])
    })?;
    let counts = noted.counts()?;
    ensure_eq!((counts.removed, counts.freed), (3, 3));
    Ok(())
}

fn kernel_driver(context: &Context) -> Outcome {
    let driver = |name: &str, what: &str| -> io::Result<()> {
        std::fs::write(format!("/sys/bus/vdpa/drivers/{name}/{what}"), NAME)
    };
    let noted = Noted::new(context, WHOLE)?.reopen_after(|device| {
        driver("vhost_vdpa", "unbind")?;
        driver("virtio_vdpa", "bind")?;
        driver("virtio_vdpa", "unbind")?;
        driver("vhost_vdpa", "bind")?;
        Ok(device)
    })?;
    // The driver was there, and got no memory for its rings.
    let records = noted.take()?;
    let gave_up = ACKNOWLEDGE | DRIVER | FEATURES_OK | FAILED;
    let gave_up = record(Op::SetStatus, 0, &[u64::from(gave_up)]);
    ensure!(
        records.contains(&gave_up),
        "no driver that gave up: {records:x?}"
    );
    let rings = |noted: &Record| noted.0 == Op::SetVqAddress as u32;
    ensure!(!records.iter().any(rings), "it has rings: {records:x?}");
    Ok(())
}

/// Whether the module is being unloaded.
fn is_going() -> bool {
    let state = std::fs::read_to_string("/sys/module/rust_vdpa_ops/initstate");
    state.is_ok_and(|state| state.trim() == "going")
}

fn unload(context: &Context) -> Outcome {
    let Noted {
        module,
        device,
        vhost,
    } = Noted::new(context, WHOLE)?;
    // Unloading deletes it.
    std::mem::forget(device);
    let mut rmmod = module.unload()?;
    let end = Instant::now() + PATIENCE;
    while rmmod.try_wait()?.is_none() && !is_going() {
        ensure!(Instant::now() < end, "the module does not begin to go");
        thread::sleep(Duration::from_millis(5));
    }
    thread::sleep(QUIET);
    ensure!(rmmod.try_wait()?.is_none(), "unloaded with a device open");
    ensure!(is_going(), "the module stays");
    vhost.set_status(ACKNOWLEDGE)?;
    ensure_eq!(vhost.status()?, ACKNOWLEDGE);
    drop(vhost);
    ensure!(rmmod.wait()?.success(), "the module is not unloaded");
    ensure!(
        !Path::new("/sys/bus/vdpa/devices").join(NAME).exists(),
        "the device is there without its module"
    );
    Ok(())
}
