// SPDX-License-Identifier: GPL-2.0
//! A virtqueue of a port: its ring under a lock, who waits for it, and what it counts.

use kernel::{
    new_spinlock,
    new_spinlock_irq,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed,
            Release, //
        },
        SpinLock,
        SpinLockGuard,
        SpinLockIrq, //
    },
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    }, //
};
use vdpa::worker::Handle;
use virtio::{
    memory::Memory,
    ring::{
        self,
        Chain,
        ConfigError,
        RingError,
        Segment,
        Slot,
        State, //
    }, //
};

use crate::{
    peer::Peer,
    show::Show,
    stats::Stats, //
};

/// The largest number of entries a virtqueue may have here, and so of segments in one chain.
pub(crate) const MAX_SIZE: u16 = 1024;

/// How long a stop waits for frames that are being copied. A batch takes far less; only a machine
/// that starves its kernel threads comes near it.
const STOP_TIMEOUT: Delta = Delta::from_millis(1000);

/// How often a stop that waits looks again.
const STOP_POLL: Delta = Delta::from_micros(50);

/// When a stop stops waiting.
pub(crate) struct Deadline(Instant<Monotonic>);

impl Deadline {
    /// A deadline [`STOP_TIMEOUT`] from now.
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }

    fn has_passed(&self) -> bool {
        self.0.elapsed() > STOP_TIMEOUT
    }
}

/// A virtqueue that runs.
pub(crate) struct Ring {
    queue: ring::Queue<KVec<Slot>>,
    /// Who is at the other end.
    pub(crate) peer: Peer,
    /// Tells this start of the queue from all others.
    epoch: u32,
    /// Whether chains may still be taken.
    open: bool,
    /// Whether the driver broke the ring, so that nobody waits for what is in flight.
    broken: bool,
    /// Whether the driver was asked to send notifications.
    kicks: bool,
}

impl Ring {
    /// Takes the next chain that the driver made available; see [`ring::Queue::pop`].
    ///
    /// A ring that is being stopped has none.
    ///
    /// # Errors
    ///
    /// The ring is broken, or `mem` is older than the chain.
    pub(crate) fn pop(
        &mut self,
        mem: &impl Memory,
        segments: &mut [Segment],
    ) -> Result<Option<Chain>, RingError> {
        if !self.open {
            return Ok(None);
        }
        self.queue.pop(mem, segments)
    }

    /// Whether the driver made something available that was not taken yet.
    ///
    /// # Errors
    ///
    /// The ring is broken, or `mem` is older than it.
    pub(crate) fn has_available(&mut self, mem: &impl Memory) -> Result<bool, RingError> {
        self.queue.has_available(mem)
    }

    /// The number of entries: no more chains than this can be available.
    pub(crate) fn size(&self) -> u16 {
        self.queue.config().size
    }

    /// Gives `chains` back unused, of which the last is the newest that was taken.
    ///
    /// # Errors
    ///
    /// Something newer was taken since.
    pub(crate) fn unpop(
        &mut self,
        chains: impl DoubleEndedIterator<Item = Chain>,
    ) -> Result<(), RingError> {
        chains.rev().try_for_each(|chain| self.queue.unpop(chain))
    }

    /// Marks `chain` used with `written` bytes in it; the driver sees it at the next `publish`.
    ///
    /// # Errors
    ///
    /// The ring is broken.
    pub(crate) fn complete(
        &mut self,
        mem: &impl Memory,
        chain: Chain,
        written: u32,
    ) -> Result<(), RingError> {
        self.queue.complete(mem, chain, written)
    }

    /// Shows the driver what was completed, and returns whether it wants an interrupt.
    ///
    /// # Errors
    ///
    /// The ring is broken.
    fn publish(&mut self, mem: &impl Memory) -> Result<bool, RingError> {
        self.queue.publish(mem)?;
        self.queue.should_notify(mem)
    }

    /// Asks the driver for notifications, or not to send any. Returns whether something is
    /// available already that no notification will come for.
    ///
    /// # Errors
    ///
    /// The ring is broken.
    pub(crate) fn want_kicks(&mut self, mem: &impl Memory, want: bool) -> Result<bool, RingError> {
        if want {
            self.kicks = true;
            self.queue.enable_kicks(mem)
        } else {
            if self.kicks {
                self.queue.disable_kicks(mem)?;
                self.kicks = false;
            }
            Ok(false)
        }
    }

    /// Whether the driver was asked for notifications.
    pub(crate) fn wants_kicks(&self) -> bool {
        self.kicks
    }

    /// Tells this start of the queue from all others.
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Whether chains may be taken.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }
}

/// An interrupt that a driver waits for, to be raised without the ring's lock. A stop of the queue
/// waits for it: whoever saves a stopped queue's state must not miss an interrupt that belongs to
/// it, for nobody would raise it again.
#[must_use]
pub(crate) struct Interrupt<'a>(&'a Atomic<u32>);

impl Drop for Interrupt<'_> {
    fn drop(&mut self) {
        // Whoever sees the count go down sees the interrupt raised.
        self.0.fetch_sub(1, Release);
    }
}

/// A transmit worker that waits for receive buffers.
struct Waiter {
    key: u64,
    handle: Handle,
}

/// A virtqueue of a port, running or not.
#[pin_data]
pub(crate) struct Queue {
    /// Whether the ring runs, for those who must not take its lock.
    running: Atomic<bool>,
    /// Held while descriptors are taken and given back, never while payload is copied.
    #[pin]
    ring: SpinLock<Option<Ring>>,
    /// Whether there are waiters, for kicks, which mostly find none.
    awaited: Atomic<bool>,
    #[pin]
    waiters: SpinLockIrq<KVec<Waiter>>,
    /// Whether senders no longer wait for buffers of this queue, since waiting did not help.
    stalled: Atomic<bool>,
    /// Interrupts that are decided on but not raised yet. Goes up under the ring's lock only.
    interrupts: Atomic<u32>,
    epochs: Atomic<u32>,
    /// What the queue counts.
    pub(crate) stats: Stats,
}

impl Queue {
    /// Creates a queue that does not run.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            running: Atomic::new(false),
            ring <- new_spinlock!(None),
            awaited: Atomic::new(false),
            waiters <- new_spinlock_irq!(KVec::new()),
            stalled: Atomic::new(false),
            interrupts: Atomic::new(0),
            epochs: Atomic::new(0),
            stats: Stats::new(),
        })
    }

    /// Runs the queue from `state`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a ring that cannot be, `ENOMEM` without memory for its book-keeping.
    pub(crate) fn start(&self, config: ring::Config, state: State, peer: Peer) -> Result {
        let slots = KVec::from_elem(Slot::default(), usize::from(config.size), GFP_KERNEL)?;
        let queue = ring::Queue::new(config, state, slots).map_err(|e: ConfigError| {
            pr_debug!("virtqueue refused: {}\n", Show(e));
            EINVAL
        })?;
        let ring = Ring {
            queue,
            peer,
            epoch: self.epochs.fetch_add(1, Relaxed),
            open: true,
            broken: false,
            kicks: true,
        };
        let old = self.ring.lock().replace(ring);
        drop(old);
        self.stalled.store(false, Relaxed);
        self.running.store(true, Relaxed);
        Ok(())
    }

    /// Begins to stop the queue: nothing more is taken from the ring.
    pub(crate) fn close(&self) {
        self.running.store(false, Relaxed);
        if let Some(ring) = (*self.ring.lock()).as_mut() {
            ring.open = false;
        }
    }

    /// Ends what [`Queue::close`] began: waits until `deadline` for what is in flight.
    ///
    /// Returns the state to go on from, or `None` if the queue did not run. The ring is not touched
    /// any more then, nor is the driver interrupted.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT` if something is in flight for too long; the queue is as it was then.
    pub(crate) fn stop(&self, deadline: &Deadline) -> Result<Option<State>> {
        loop {
            let mut guard = self.ring.lock();
            let Some(ring) = (*guard).as_ref() else {
                return Ok(None);
            };
            let state = ring.queue.state();
            let idle = ring.queue.in_flight() == 0 || ring.broken;
            if idle && self.interrupts.load(Acquire) == 0 {
                let old = (*guard).take();
                drop(guard);
                // Frees memory, which is not done under the lock.
                drop(old);
                self.wake();
                return Ok(Some(state));
            }
            drop(guard);
            if deadline.has_passed() {
                return Err(ETIMEDOUT);
            }
            fsleep(STOP_POLL);
        }
    }

    /// Runs a queue on that was closed but not stopped. Returns whether there is such a one.
    pub(crate) fn reopen(&self) -> bool {
        let mut guard = self.ring.lock();
        let Some(ring) = (*guard).as_mut().filter(|ring| !ring.broken) else {
            return false;
        };
        ring.open = true;
        self.running.store(true, Relaxed);
        true
    }

    /// Gives up on what is in flight. Workers that come back with it find another ring, or none.
    ///
    /// Returns the state to go on from, if the queue ran. What is in flight is made available again
    /// in it, unless something taken later was used already: that cannot be expressed.
    pub(crate) fn abandon(&self) -> Option<State> {
        let old = self.ring.lock().take();
        let mut ring = old?;
        let _ = ring.queue.rewind();
        Some(ring.queue.state())
    }

    /// Closes the queue since its start `epoch` was found broken: what is in flight may never come
    /// back. Does nothing if the queue was stopped since. Whoever waits for the ring finds it
    /// broken after `report` has run, not before.
    pub(crate) fn shut(&self, epoch: u32, report: impl FnOnce()) {
        let mut guard = self.ring.lock();
        if let Some(ring) = (*guard).as_mut().filter(|ring| ring.epoch == epoch) {
            report();
            self.running.store(false, Relaxed);
            ring.open = false;
            ring.broken = true;
        }
    }

    /// Shows the driver what was completed in this queue's `ring`, and returns the interrupt that it
    /// wants, if it does.
    ///
    /// # Errors
    ///
    /// The ring is broken.
    pub(crate) fn publish(
        &self,
        ring: &mut Ring,
        mem: &impl Memory,
    ) -> Result<Option<Interrupt<'_>>, RingError> {
        Ok(ring.publish(mem)?.then(|| {
            self.interrupts.fetch_add(1, Relaxed);
            Interrupt(&self.interrupts)
        }))
    }

    /// The state of a running ring.
    pub(crate) fn state(&self) -> Option<State> {
        (*self.ring.lock()).as_ref().map(|ring| ring.queue.state())
    }

    /// Locks the ring, which is `None` if the queue does not run.
    pub(crate) fn lock(&self) -> SpinLockGuard<'_, Option<Ring>> {
        self.ring.lock()
    }

    /// Whether the queue runs.
    pub(crate) fn is_running(&self) -> bool {
        self.running.load(Relaxed)
    }

    /// Whether waiting for buffers is known to be vain.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.load(Relaxed)
    }

    /// Says whether waiting for buffers is vain.
    pub(crate) fn set_stalled(&self, stalled: bool) {
        if self.stalled.load(Relaxed) != stalled {
            self.stalled.store(stalled, Relaxed);
        }
    }

    /// Has the worker `handle` queued by the next kick of this queue. `key` names the worker; one
    /// that waits already is not added again.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn wait(&self, key: u64, handle: &Handle) -> Result {
        let mut waiters = self.waiters.lock();
        if waiters.iter().all(|w| w.key != key) {
            let handle = handle.clone();
            waiters.push(Waiter { key, handle }, GFP_ATOMIC)?;
        }
        // Ordered before the look at the ring that follows.
        self.awaited.xchg(true, Full);
        Ok(())
    }

    /// Ends the wait of the worker `key`, if it waits.
    pub(crate) fn forget_waiter(&self, key: u64) {
        if !self.awaited.load(Relaxed) {
            return;
        }
        let mut waiters = self.waiters.lock();
        let gone = match waiters.iter().position(|w| w.key == key) {
            Some(at) => waiters.remove(at).ok(),
            None => None,
        };
        self.awaited.store(!waiters.is_empty(), Relaxed);
        drop(waiters);
        drop(gone);
    }

    /// Queues the workers that wait. Called in any context.
    pub(crate) fn wake(&self) {
        if self.awaited.load(Relaxed) {
            for waiter in self.waiters.lock().iter() {
                waiter.handle.queue();
            }
        }
    }
}
