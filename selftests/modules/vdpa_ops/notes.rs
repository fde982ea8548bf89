// SPDX-License-Identifier: GPL-2.0

//! What all devices of the test parent have in common: the records, and the required operations.

use kernel::{
    new_mutex,
    new_spinlock_irq,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex,
        SpinLockIrq, //
    }, //
};
use vdpa::{
    notification::DoorbellPage,
    ops::{
        Extent,
        VqState, //
    },
    worker::{
        self,
        Worker, //
    },
    Callbacks, //
};

use crate::wire::{
    command,
    Op,
    HEADER,
    QUEUES,
    RECORD,
    RECORDS, //
};

/// How often a device was reported removed.
pub(crate) static REMOVED: Atomic<u32> = Atomic::new(0);

/// How often the data of a device were dropped.
static FREED: Atomic<u32> = Atomic::new(0);

/// A device that does nothing but keep records.
#[pin_data(PinnedDrop)]
pub(crate) struct Notes {
    pub(crate) doorbell: DoorbellPage,
    pub(crate) align: u32,
    callbacks: Arc<Callbacks>,
    #[pin]
    state: SpinLockIrq<State>,
}

/// What changes, and what is read back.
pub(crate) struct State {
    records: KVec<[u8; RECORD]>,
    /// Which operation fails, and how.
    failing: Option<(u32, Error)>,
    pub(crate) status: u8,
    pub(crate) features: u64,
    pub(crate) ready: [bool; QUEUES as usize],
    pub(crate) vqs: [VqState; QUEUES as usize],
    /// Which doorbells were asked for.
    asked: [bool; QUEUES as usize],
}

impl Notes {
    /// A device that wants its rings aligned to `align` bytes.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(callbacks: Arc<Callbacks>, align: u32) -> Result<Arc<Self>> {
        let state = State {
            records: KVec::with_capacity(RECORDS, GFP_KERNEL)?,
            failing: None,
            status: 0,
            features: 0,
            ready: [false; QUEUES as usize],
            vqs: [VqState::split(0); QUEUES as usize],
            asked: [false; QUEUES as usize],
        };
        let doorbell = DoorbellPage::new()?;
        Arc::pin_init(
            pin_init!(Self {
                doorbell,
                align,
                callbacks,
                state <- new_spinlock_irq!(state),
            }),
            GFP_KERNEL,
        )
    }

    /// Does something with the state.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.state.lock())
    }

    /// Keeps a record of an operation, which is to end as this does. May be called in any context.
    ///
    /// # Errors
    ///
    /// What a user asked for.
    pub(crate) fn note(&self, op: Op, about: u32, arguments: [u64; 3]) -> Result {
        let op = op as u32;
        let mut record = [0; RECORD];
        let bytes = Iterator::chain(op.to_le_bytes().into_iter(), about.to_le_bytes());
        let bytes = Iterator::chain(bytes, arguments.into_iter().flat_map(u64::to_le_bytes));
        record
            .iter_mut()
            .zip(bytes)
            .for_each(|(to, from)| *to = from);
        self.with(|state| {
            // What comes when there is no room is lost.
            let _ = state.records.push_within_capacity(record);
            match state.failing {
                Some((failing, error)) if failing == op => Err(error),
                _ => Ok(()),
            }
        })
    }

    /// As [`Self::note`], for an operation that cannot fail.
    pub(crate) fn note_only(&self, op: Op, about: u32, arguments: [u64; 3]) {
        let _ = self.note(op, about, arguments);
    }

    /// Keeps a record of a map.
    pub(crate) fn note_extent(&self, extent: &Extent) {
        let permissions = u32::from(extent.readable) | u32::from(extent.writable) << 1;
        let arguments = [extent.iova, extent.size, extent.pa];
        self.note_only(Op::Extent, permissions, arguments);
    }

    /// Keeps a record of a kick.
    pub(crate) fn kick(&self, index: u16) {
        // Takes a lock that must not be held while an eventfd is signalled, which leads here.
        let _ = self.callbacks.is_set(index);
        self.note_only(Op::KickVq, u32::from(index), [0; 3]);
    }

    /// Whether the doorbell of a virtqueue was asked for before.
    pub(crate) fn asked(&self, index: u16) -> bool {
        self.with(|state| {
            let asked = state.asked.get_mut(usize::from(index));
            asked.is_none_or(|asked| core::mem::replace(asked, true))
        })
    }

    /// Forgets what a reset makes a device forget.
    pub(crate) fn reset(&self) {
        self.with(|state| {
            state.status = 0;
            state.features = 0;
            state.ready = [false; QUEUES as usize];
        });
    }

    /// The length of the configuration space in bytes.
    pub(crate) fn config_size(&self) -> usize {
        HEADER + RECORDS * RECORD
    }

    /// Reads the configuration space.
    pub(crate) fn read(&self, offset: usize, to: &mut [u8]) {
        let doorbell = self.doorbell.load(0).unwrap_or(0);
        self.with(|state| {
            let header = [
                // CAST: Not more than `RECORDS`.
                state.records.len() as u32,
                REMOVED.load(Relaxed),
                FREED.load(Relaxed),
                doorbell,
            ];
            let header = header.into_iter().flat_map(u32::to_le_bytes);
            let bytes = Iterator::chain(header, state.records.iter().flatten().copied());
            let bytes = Iterator::chain(bytes, core::iter::repeat(0)).skip(offset);
            to.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        });
    }

    /// Writes the configuration space: executes a command, and keeps a record of all else.
    pub(crate) fn write(self: &Arc<Self>, offset: usize, from: &[u8]) {
        let mut words = from.chunks_exact(4).map(|bytes| {
            let bytes = bytes.try_into().unwrap_or_default();
            u32::from_le_bytes(bytes)
        });
        let words = [words.next(), words.next(), words.next()];
        let result = match (offset, words) {
            (0, [Some(command), Some(a), Some(b)]) => self.command(command, a, b),
            _ => {
                let first = from.first().copied().unwrap_or(0);
                let arguments = [offset as u64, from.len() as u64, u64::from(first)];
                self.note(Op::SetConfig, 0, arguments)
            }
        };
        if let Err(error) = result {
            pr_err!("a command failed ({})\n", error.to_errno());
        }
    }

    fn command(self: &Arc<Self>, command: u32, a: u32, b: u32) -> Result {
        match command {
            command::CLEAR => self.with(|state| state.records.clear()),
            command::FAIL => {
                let errno = i32::try_from(b)?;
                let failing = (errno != 0).then(|| (a, Error::from_errno(-errno)));
                self.with(|state| state.failing = failing);
            }
            command::FIRE => self.callbacks.queue(u16::try_from(a)?),
            command::RETIRE => Retiring::start(self.clone())?,
            _ => return Err(EINVAL),
        }
        Ok(())
    }
}

#[pinned_drop]
impl PinnedDrop for Notes {
    fn drop(self: Pin<&mut Self>) {
        FREED.add(1, Relaxed);
    }
}

/// What drops the worker that runs it.
#[pin_data]
struct Retiring {
    notes: Arc<Notes>,
    #[pin]
    worker: Mutex<Option<Worker>>,
}

impl Retiring {
    fn start(notes: Arc<Notes>) -> Result {
        let this = Arc::pin_init(
            pin_init!(Self {
                notes,
                worker <- new_mutex!(None),
            }),
            GFP_KERNEL,
        )?;
        let worker = Worker::new(c"retiring", this.clone())?;
        let handle = worker.handle();
        *this.worker.lock() = Some(worker);
        handle.queue();
        Ok(())
    }
}

impl worker::Run for Retiring {
    fn run(&self) {
        let worker = self.worker.lock().take();
        drop(worker);
        self.notes.note_only(Op::Retired, 0, [0; 3]);
    }
}
