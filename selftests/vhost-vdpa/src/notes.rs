// SPDX-License-Identifier: GPL-2.0
//! The test parent `rust_vdpa_ops`, whose devices keep records of what they
//! are called for.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use crate::device::{Device, Vhost};
use crate::ktap::{ensure, require, Stop};
use crate::tests::Context;
use crate::uapi;

#[path = "../../modules/vdpa_ops/wire.rs"]
pub(crate) mod wire;

use wire::{command, Op, HEADER, RECORD};

/// The management device of devices that have all operations.
pub(crate) const WHOLE: &str = "faux/rust_vdpa_ops";

/// The management device of devices that have only those they must have.
pub(crate) const BARE: &str = "rust_vdpa_ops_bare";

/// The name of the device.
pub(crate) const NAME: &str = "ops0";

/// An operation that was called, what about, and its arguments.
pub(crate) type Record = (u32, u32, [u64; 3]);

/// A record as it is expected.
pub(crate) fn record(op: Op, about: u32, arguments: &[u64]) -> Record {
    let mut all = [0; 3];
    all[..arguments.len()].copy_from_slice(arguments);
    (op as u32, about, all)
}

/// The module, which is unloaded when this is dropped.
pub(crate) struct Module(());

impl Module {
    /// Loads the module, which lies with the others that were built.
    pub(crate) fn load(context: &Context) -> Result<Self, Stop> {
        require!(!context.simulated(), "not a matter of the simulator");
        let path = Self::path()?;
        require!(path.exists(), "{} is not built", path.display());
        let output = Command::new("insmod").arg(&path).output()?;
        ensure!(
            output.status.success(),
            "insmod: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(Module(()))
    }

    fn path() -> Result<PathBuf, Stop> {
        let program = std::env::current_exe()?;
        let build = program.parent().and_then(|folder| folder.parent());
        let build = build.ok_or_else(|| Stop::Fail("the program lies in no folder".into()))?;
        Ok(build.join("modules/selftests/modules/rust_vdpa_ops.ko"))
    }

    /// Begins to unload the module.
    pub(crate) fn unload(self) -> Result<Child, Stop> {
        std::mem::forget(self);
        Ok(Command::new("rmmod").arg("rust_vdpa_ops").spawn()?)
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        match Command::new("rmmod").arg("rust_vdpa_ops").status() {
            Ok(status) if status.success() => {}
            result => println!("# rmmod: {result:?}"),
        }
    }
}

/// What the device counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    records: u32,
    /// How often a device was reported removed.
    pub(crate) removed: u32,
    /// How often one was freed.
    pub(crate) freed: u32,
    /// The first word of the doorbell page.
    pub(crate) doorbell: u32,
}

/// An open device, and the module.
pub(crate) struct Noted {
    pub(crate) vhost: Vhost,
    pub(crate) device: Device,
    pub(crate) module: Module,
}

impl Noted {
    /// Loads the module, adds a device to `mgmtdev` and opens it.
    pub(crate) fn new(context: &Context, mgmtdev: &str) -> Result<Self, Stop> {
        let module = Module::load(context)?;
        let device = Device::new(mgmtdev, NAME, &[])?;
        let vhost = device.open()?;
        let this = Noted {
            vhost,
            device,
            module,
        };
        this.tell(command::CLEAR, 0, 0)?;
        Ok(this)
    }

    /// The same, with an owner.
    pub(crate) fn owned(context: &Context, mgmtdev: &str) -> Result<Self, Stop> {
        let this = Self::new(context, mgmtdev)?;
        let known = uapi::F_MSG_V2 | uapi::F_BATCH | uapi::F_ASID;
        this.vhost.set_backend_features(known)?;
        this.vhost.set_owner()?;
        this.tell(command::CLEAR, 0, 0)?;
        Ok(this)
    }

    /// Closes the device and opens it again.
    pub(crate) fn reopen(self) -> Result<Self, Stop> {
        self.reopen_after(Ok)
    }

    /// Closes the device, and opens it again, or another one in its place, after `work` with it.
    pub(crate) fn reopen_after(
        self,
        work: impl FnOnce(Device) -> Result<Device, Stop>,
    ) -> Result<Self, Stop> {
        // If it cannot be opened, they go in the order that is the reverse of this.
        let Noted {
            module,
            device,
            vhost,
        } = self;
        drop(vhost);
        let device = work(device)?;
        let vhost = device.open()?;
        Ok(Noted {
            vhost,
            device,
            module,
        })
    }

    /// Gives the device a command.
    pub(crate) fn tell(&self, command: u32, a: u32, b: u32) -> Result<(), Stop> {
        let words = [command, a, b].map(u32::to_le_bytes).concat();
        Ok(self.vhost.set_config(0, &words)?)
    }

    /// Lets an operation fail from now on, with this error number.
    pub(crate) fn fail(&self, op: Op, errno: i32) -> Result<(), Stop> {
        self.tell(command::FAIL, op as u32, errno.unsigned_abs())
    }

    /// Lets no operation fail any more.
    pub(crate) fn fail_none(&self) -> Result<(), Stop> {
        self.tell(command::FAIL, 0, 0)
    }

    /// What is counted.
    pub(crate) fn counts(&self) -> Result<Counts, Stop> {
        let bytes = self.vhost.config(0, HEADER)?;
        let word = |index: usize| number(&bytes[4 * index..4 * index + 4]) as u32;
        Ok(Counts {
            records: word(0),
            removed: word(1),
            freed: word(2),
            doorbell: word(3),
        })
    }

    /// The records so far, which are kept.
    pub(crate) fn records(&self) -> Result<Vec<Record>, Stop> {
        let count = self.counts()?.records as usize;
        ensure!(count < wire::RECORDS, "more records than are kept");
        let mut records = Vec::new();
        for index in 0..count {
            let bytes = self
                .vhost
                .config((HEADER + index * RECORD) as u32, RECORD)?;
            let long = |at: usize| number(&bytes[at..at + 8]);
            records.push((
                number(&bytes[..4]) as u32,
                number(&bytes[4..8]) as u32,
                [long(8), long(16), long(24)],
            ));
        }
        Ok(records)
    }

    /// The records since the last call, without what the core does of its own
    /// before the configuration is read.
    pub(crate) fn take(&self) -> Result<Vec<Record>, Stop> {
        let mut records = self.records()?;
        self.tell(command::CLEAR, 0, 0)?;
        records.retain(|&noted| noted != record(Op::SetDriverFeatures, 0, &[0]));
        Ok(records)
    }

    /// Waits for a record of `op`.
    pub(crate) fn wait(&self, op: Op) -> Result<(), Stop> {
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            if self.records()?.iter().any(|noted| noted.0 == op as u32) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Err(Stop::Fail(format!("{op:?} did not come")))
    }
}

/// A little-endian number of at most eight bytes.
fn number(bytes: &[u8]) -> u64 {
    let digits = bytes.iter().rev();
    digits.fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}
