// SPDX-License-Identifier: GPL-2.0

//! What debugfs shows of the virtqueues of a device, in `rust_mlx5_vdpa/<PCI address>/<device>`.

use core::fmt;

use kernel::{
    debugfs::{
        Dir,
        File,
        Writer, //
    },
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};

use super::machine::Machine;

/// How often each virtqueue was kicked by a call of the driver, and not by its doorbell.
pub(crate) struct Calls(KVec<Atomic<u64>>);

impl Calls {
    /// None yet, of so many virtqueues.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(queues: u16) -> Result<Arc<Self>> {
        let mut all = KVec::with_capacity(queues.into(), GFP_KERNEL)?;
        for _ in 0..queues {
            all.push(Atomic::new(0), GFP_KERNEL)?;
        }
        Ok(Arc::new(Self(all), GFP_KERNEL)?)
    }

    /// One more. Any context.
    pub(crate) fn add(&self, index: u16) {
        if let Some(calls) = self.0.get(usize::from(index)) {
            calls.add(1, Relaxed);
        }
    }
}

/// The virtqueues of a device.
pub(crate) struct Queues {
    pub(crate) machine: Arc<Machine>,
    pub(crate) calls: Arc<Calls>,
}

/// The file with the virtqueues.
pub(crate) type QueuesFile = Pin<KBox<File<Queues>>>;

impl Queues {
    /// Shows them in `dir`, until the file is dropped.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn show(self, dir: &Dir) -> Result<QueuesFile> {
        KBox::pin_init(dir.read_only_file(c"queues", self), GFP_KERNEL)
    }
}

impl Writer for Queues {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (status, running) = self.machine.ask(|life| (life.status(), life.running()));
        writeln!(f, "status {status:#04x}")?;
        writeln!(f, "queue  ready  runs   irq  kick calls")?;
        for (index, calls) in (0u16..).zip(self.calls.0.iter()) {
            let ready = self.machine.ask(|life| life.ready(index));
            let word = |is: bool| if is { "yes" } else { "no" };
            write!(f, "{index:>5}  {:>5}", word(ready))?;
            if self.machine.is_control(index) {
                write!(f, "     -     -")?;
            } else {
                write!(f, "  {:>4}", word(running.contains(index)))?;
                match self.machine.vector(index).and_then(|vector| vector.irq()) {
                    Some(irq) => write!(f, "  {irq:>4}")?,
                    None => write!(f, "     -")?,
                }
            }
            writeln!(f, "  {:>10}", calls.load(Relaxed))?;
        }
        Ok(())
    }
}
