// SPDX-License-Identifier: GPL-2.0
//! Which legacy drivers a device serves: what an administrator reads and writes
//! in sysfs, what a VMM is told, and who is refused.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{Context, Tests};
use crate::device::{drop_spare, Device, Vhost};
use crate::ktap::{ensure, ensure_eq, ensure_errno, require, Outcome, Stop};
use crate::log::Log;
use crate::notes::wire::Op;
use crate::notes::{record, Noted, BARE, WHOLE};
use crate::rig::{Plan, Port};
use crate::uapi::{self, ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET};

pub(super) const TESTS: Tests = &[
    ("legacy attributes: words", words),
    ("legacy attributes: not while a driver runs", while_running),
    ("legacy attributes: they outlive drivers", kept),
    ("legacy off: a legacy driver is refused, and why", off),
    (
        "legacy require: a modern driver is refused, and why",
        require_legacy,
    ),
    ("legacy: features that were taken before", changed_between),
    ("legacy: what VMMs are told", told),
    ("legacy attributes: concurrent with drivers", concurrent),
    (
        "legacy attributes: the device is deleted meanwhile",
        deleted,
    ),
    ("operations: legacy drivers", operations),
];

const LEGACY: &str = "legacy";
const ORDER: &str = "legacy_byte_order";

/// What a legacy driver acknowledges at the least, as QEMU has it for any guest.
const OLD: u64 = uapi::NET_F_MAC | uapi::F_ACCESS_PLATFORM;
const NEW: u64 = OLD | uapi::F_VERSION_1;

/// A device that no other test had, so that its messages are not held back for
/// those that came before.
fn fresh(context: &Context) -> Result<Device, Stop> {
    require!(!context.simulated(), "the simulator has no such attributes");
    drop_spare();
    context.device(0)
}

/// Whether the device serves drivers of big-endian guests.
fn knows_big(vhost: &Vhost) -> Result<bool, Stop> {
    Ok(vhost.backend_features()? & uapi::F_LEGACY_BE != 0)
}

fn words(context: &Context) -> Outcome {
    let mut device = fresh(context)?;
    let big = knows_big(&device.open()?)?;
    ensure_eq!(device.attribute(LEGACY)?, "allow");
    ensure_eq!(device.attribute(ORDER)?, "little");
    for word in ["off", "require", "allow", "off\n", "allow\n"] {
        device.set_attribute(LEGACY, word)?;
        ensure_eq!(device.attribute(LEGACY)?, word.trim_end());
    }
    for word in [
        "\n",
        "on",
        "OFF",
        "off ",
        " off",
        "allow\n\n",
        "require\0",
        "little",
    ] {
        ensure_errno!(device.set_attribute(LEGACY, word), EINVAL);
        ensure_eq!(device.attribute(LEGACY)?, "allow");
    }
    for word in ["\n", "bi", "bigger", "Big", "0", "require"] {
        ensure_errno!(device.set_attribute(ORDER, word), EINVAL);
        ensure_eq!(device.attribute(ORDER)?, "little");
    }
    if big {
        for word in ["big", "little\n", "big\n"] {
            device.set_attribute(ORDER, word)?;
            ensure_eq!(device.attribute(ORDER)?, word.trim_end());
        }
        return Ok(());
    }
    let mut log = Log::follow()?;
    for word in ["big", "big\n"] {
        ensure_errno!(device.set_attribute(ORDER, word), EOPNOTSUPP);
        ensure_eq!(device.attribute(ORDER)?, "little");
    }
    ensure!(
        log.says("attribute legacy_byte_order stays little")?,
        "the reason is not in the log"
    );
    device.set_attribute(ORDER, "little")?;
    Ok(())
}

fn while_running(context: &Context) -> Outcome {
    let mut device = fresh(context)?;
    for plan in [Plan::LEGACY, Plan::MODERN] {
        let port = Port::prepare(&device, plan)?;
        port.enable()?;
        port.vhost.add_status(FEATURES_OK)?;
        // Who the driver is has been decided.
        ensure_errno!(device.set_attribute(LEGACY, "allow"), EBUSY);
        port.vhost.add_status(DRIVER_OK)?;
        for word in ["off", "allow", "require"] {
            ensure_errno!(device.set_attribute(LEGACY, word), EBUSY);
        }
        ensure_errno!(device.set_attribute(ORDER, "little"), EBUSY);
        // What is no word at all is that first.
        ensure_errno!(device.set_attribute(LEGACY, "on"), EINVAL);
        port.vhost.plain(uapi::SUSPEND)?;
        ensure_errno!(device.set_attribute(LEGACY, "allow"), EBUSY);
        ensure_errno!(device.set_attribute(ORDER, "little"), EBUSY);
        ensure_eq!(device.attribute(LEGACY)?, "allow");
        ensure_eq!(device.attribute(ORDER)?, "little");
        port.vhost.reset()?;
        device.set_attribute(LEGACY, "allow")?;
        device.set_attribute(ORDER, "little")?;
    }
    Ok(())
}

fn kept(context: &Context) -> Outcome {
    let mut device = fresh(context)?;
    let big = knows_big(&device.open()?)?;
    let order = if big { "big" } else { "little" };
    device.set_attribute(LEGACY, "require")?;
    device.set_attribute(ORDER, order)?;
    for _ in 0..3 {
        let vhost = device.open()?;
        vhost.set_features(OLD)?;
        vhost.add_status(FEATURES_OK)?;
        vhost.reset()?;
        ensure_eq!(device.attribute(LEGACY)?, "require");
        ensure_eq!(device.attribute(ORDER)?, order);
    }
    // Only a legacy driver can come, so the configuration has its order even
    // before it says so.
    if big {
        let device = {
            drop(device);
            let mut device = context.device_with(0, &["mtu", "1400"])?;
            device.set_attribute(LEGACY, "require")?;
            device.set_attribute(ORDER, "big")?;
            device
        };
        let vhost = device.open()?;
        ensure_eq!(vhost.config(10, 2)?, 1400u16.to_be_bytes().to_vec());
    }
    Ok(())
}

fn off(context: &Context) -> Outcome {
    let mut device = fresh(context)?;
    device.set_attribute(LEGACY, "off")?;
    let mut log = Log::follow()?;
    {
        let vhost = device.open()?;
        for features in [OLD, uapi::NET_F_MAC] {
            ensure_errno!(vhost.set_features(features), EINVAL);
        }
        ensure!(
            log.says("attribute legacy is off, and a legacy driver came")?,
            "the reason is not in the log"
        );
        // To set nothing is no driver; to go on with nothing is a legacy one.
        vhost.set_features(0)?;
        vhost.add_status(ACKNOWLEDGE | DRIVER)?;
        vhost.add_status(FEATURES_OK)?;
        ensure_eq!(vhost.status()?, ACKNOWLEDGE | DRIVER);
        vhost.add_status(DRIVER_OK)?;
        ensure_eq!(vhost.status()?, ACKNOWLEDGE | DRIVER | NEEDS_RESET);
        ensure_errno!(device.set_attribute(LEGACY, "allow"), EBUSY);
    }
    Port::start(&device, Plan::MODERN)?;
    device.set_attribute(LEGACY, "allow")?;
    Port::start(&device, Plan::LEGACY)?;
    Ok(())
}

fn require_legacy(context: &Context) -> Outcome {
    let mut device = fresh(context)?;
    let before = device.open()?.features()?;
    device.set_attribute(LEGACY, "require")?;
    let mut log = Log::follow()?;
    {
        let vhost = device.open()?;
        // Of a transitional device, what a legacy driver can see is left.
        let offered = vhost.features()?;
        let range = 0xffff_ffff | uapi::F_ACCESS_PLATFORM;
        ensure_eq!(offered, before & range);
        ensure_errno!(vhost.set_features(NEW), EINVAL);
        ensure!(
            log.says("attribute legacy is require, and a modern driver came")?,
            "the reason is not in the log"
        );
    }
    Port::start(&device, Plan::LEGACY)?;
    device.set_attribute(LEGACY, "allow")?;
    ensure_eq!(device.open()?.features()?, before);
    Port::start(&device, Plan::MODERN)?;
    Ok(())
}

/// The administrator changes his mind between a driver's features and its
/// FEATURES_OK, or its DRIVER_OK.
fn changed_between(context: &Context) -> Outcome {
    let mut device = fresh(context)?;
    for (features, word) in [(OLD, "off"), (NEW, "require")] {
        for step in [FEATURES_OK, DRIVER_OK] {
            device.set_attribute(LEGACY, "allow")?;
            let vhost = device.open()?;
            vhost.add_status(ACKNOWLEDGE | DRIVER)?;
            vhost.set_features(features)?;
            device.set_attribute(LEGACY, word)?;
            vhost.add_status(step)?;
            ensure_eq!(vhost.status()? & (FEATURES_OK | DRIVER_OK), 0);
        }
    }
    Ok(())
}

fn told(context: &Context) -> Outcome {
    let mut device = fresh(context)?;
    let bits = |device: &Device| -> Result<u64, Stop> {
        Ok(device.open()?.backend_features()? & (uapi::F_LEGACY | uapi::F_LEGACY_BE))
    };
    let can = bits(&device)?;
    ensure!(can & uapi::F_LEGACY != 0, "it is served, and not told of");
    // What is told is what can be had.
    let big = device.set_attribute(ORDER, "big");
    ensure_eq!(big.is_ok(), can & uapi::F_LEGACY_BE != 0);
    ensure_eq!(bits(&device)?, can);
    device.set_attribute(LEGACY, "off")?;
    ensure_eq!(bits(&device)?, 0);
    device.set_attribute(LEGACY, "require")?;
    ensure_eq!(bits(&device)?, can);
    Ok(())
}

fn concurrent(context: &Context) -> Outcome {
    let mut device = fresh(context)?;
    let (legacy, order) = (device.file(LEGACY), device.file(ORDER));
    device.set_attribute(LEGACY, "allow")?;
    let end = AtomicBool::new(false);
    let outcome = thread::scope(|scope| {
        let writers = [
            (&legacy, ["off", "allow"]),
            (&legacy, ["require", "allow"]),
            (&order, ["big", "little"]),
        ]
        .map(|(path, words)| {
            let end = &end;
            scope.spawn(move || {
                let mut taken = 0;
                while !end.load(Ordering::Relaxed) {
                    for word in words {
                        taken += usize::from(std::fs::write(path, word).is_ok());
                        std::fs::read_to_string(path)?;
                    }
                }
                Ok::<_, std::io::Error>(taken)
            })
        });
        let outcome = drivers_come_and_go(&device);
        end.store(true, Ordering::Relaxed);
        for writer in writers {
            let taken = writer
                .join()
                .map_err(|_| Stop::Fail("a writer panicked".into()))??;
            ensure!(taken > 0, "nothing was ever written");
        }
        outcome
    });
    outcome?;
    device.set_attribute(LEGACY, "allow")?;
    device.set_attribute(ORDER, "little")?;
    for plan in [Plan::LEGACY, Plan::MODERN] {
        Port::start(&device, plan)?;
    }
    Ok(())
}

/// Drivers of both kinds come, and are let in or not; who is let in stays.
fn drivers_come_and_go(device: &Device) -> Outcome {
    let vhost = device.open()?;
    let mut let_in = 0;
    for round in 0..300 {
        let features = if round % 2 == 0 { OLD } else { NEW };
        vhost.add_status(ACKNOWLEDGE | DRIVER)?;
        match vhost.set_features(features) {
            Ok(()) => {
                vhost.add_status(FEATURES_OK)?;
                if vhost.status()? & FEATURES_OK != 0 {
                    let_in += 1;
                    let word = device.attribute(LEGACY)?;
                    let against = if features == OLD { "off" } else { "require" };
                    ensure!(word != against, "let in {features:#x} with {word}");
                }
            }
            Err(error) => ensure_eq!(error.raw_os_error(), Some(libc::EINVAL)),
        }
        vhost.reset()?;
    }
    ensure!(let_in > 0, "nobody was let in");
    Ok(())
}

fn deleted(context: &Context) -> Outcome {
    for round in 0..5 {
        let mut device = fresh(context)?;
        device.set_attribute(LEGACY, "off")?;
        let paths = [device.file(LEGACY), device.file(ORDER)];
        let mut open = OpenOptions::new().read(true).write(true).open(&paths[0])?;
        // Who writes all the time gets an error in the end, and nothing worse.
        let writers = paths.map(|path| {
            thread::spawn(move || {
                while std::fs::write(&path, "allow").is_ok_and(|()| std::fs::read(&path).is_ok())
                    || path.exists()
                {}
            })
        });
        thread::yield_now();
        drop(device);
        for writer in writers {
            writer
                .join()
                .map_err(|_| Stop::Fail(format!("round {round}: a writer panicked")))?;
        }
        ensure_errno!(open.write(b"allow"), ENODEV);
        ensure_errno!(open.read(&mut [0; 16]), ENODEV);
    }
    // There is none of this in the next one.
    ensure_eq!(context.device(0)?.attribute(LEGACY)?, "allow");
    Ok(())
}

/// What arrives at a parent, and what comes back from it.
fn operations(context: &Context) -> Outcome {
    let noted = Noted::new(context, WHOLE)?;
    ensure_eq!(noted.device.attribute(LEGACY)?, "require");
    ensure_eq!(noted.device.attribute(ORDER)?, "big");
    let told = uapi::F_LEGACY | uapi::F_LEGACY_BE;
    ensure_eq!(noted.vhost.backend_features()? & told, told);
    let (legacy, order) = (noted.device.file(LEGACY), noted.device.file(ORDER));
    for word in ["off", "allow", "require"] {
        std::fs::write(&legacy, word)?;
    }
    for word in ["little", "big"] {
        std::fs::write(&order, word)?;
    }
    // What is no word does not arrive.
    ensure_errno!(std::fs::write(&legacy, "none"), EINVAL);
    ensure_errno!(std::fs::write(&order, "none"), EINVAL);
    ensure_eq!(
        noted.take()?,
        [
            record(Op::SetLegacy, 0, &[0]),
            record(Op::SetLegacy, 0, &[1]),
            record(Op::SetLegacy, 0, &[2]),
            record(Op::SetByteOrder, 0, &[0]),
            record(Op::SetByteOrder, 0, &[1]),
        ]
    );
    noted.fail(Op::SetLegacy, libc::EBUSY)?;
    ensure_errno!(std::fs::write(&legacy, "off"), EBUSY);
    noted.fail(Op::SetByteOrder, libc::EOPNOTSUPP)?;
    ensure_errno!(std::fs::write(&order, "big"), EOPNOTSUPP);
    drop(noted);
    // Who has no such operations has no attributes, and tells nothing.
    let noted = Noted::new(context, BARE)?;
    for name in [LEGACY, ORDER] {
        ensure!(!noted.device.file(name).exists(), "there is a file {name}");
    }
    ensure_eq!(noted.vhost.backend_features()? & told, 0);
    Ok(())
}
