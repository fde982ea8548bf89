// SPDX-License-Identifier: GPL-2.0
//! Receive buffers on their way from a ring to its driver.
//!
//! They are taken with the ring locked ([`Taking`]), filled without any lock, and given to the
//! driver with the ring locked again ([`Scratch::complete`]).

use core::ops::Range;

use kernel::prelude::*;
use vdpa::{
    memory::View,
    worker::Handle, //
};
use virtio::ring::{
    Chain,
    RingError,
    Segment, //
};

use crate::{
    peer::Peer,
    port::Reason,
    queue::{
        Queue,
        Ring,
        MAX_SIZE, //
    },
    rework::Rest,
    transmit::BATCH, //
};

/// Segments of the receive buffers taken at once. Any chain fits as long as half of it is free.
const SEGMENTS: usize = 2 * MAX_SIZE as usize;

/// Receive buffers taken at once.
const CHAINS: usize = MAX_SIZE as usize;

/// Receive buffers taken for one frame.
#[derive(Clone)]
pub(crate) struct Reserved {
    /// Which frame of the run.
    pub(crate) frame: usize,
    chains: Range<usize>,
    segments: Range<usize>,
    /// Header and frame.
    pub(crate) len: u32,
}

impl Reserved {
    /// The number of buffers.
    pub(crate) fn buffers(&self) -> u16 {
        // At most CHAINS.
        self.chains.len() as u16
    }
}

/// Receive buffers taken for a run of frames.
pub(crate) struct Scratch {
    reserved: KVec<Reserved>,
    chains: KVec<Chain>,
    segments: KVec<Segment>,
    /// How many segments are in use.
    used: usize,
    /// How many of the chains were completed.
    completed: usize,
    /// The ring's start from which the buffers are.
    epoch: u32,
    peer: Option<Peer>,
    /// What is left of the frame that comes next, if a part of it was handed over.
    pub(crate) rest: Option<Rest>,
}

/// Why no buffers were taken for a frame.
pub(crate) enum Short {
    /// The driver has not posted enough of them.
    Empty,
    /// The frame does not fit into a buffer, or into all there can be.
    TooSmall,
    /// No more buffers can be taken at once.
    Full,
}

impl Scratch {
    /// Allocates it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            reserved: KVec::with_capacity(BATCH, GFP_KERNEL)?,
            chains: KVec::with_capacity(CHAINS, GFP_KERNEL)?,
            segments: KVec::from_elem(Segment::default(), SEGMENTS, GFP_KERNEL)?,
            used: 0,
            completed: 0,
            epoch: 0,
            peer: None,
            rest: None,
        })
    }

    /// Who receives what is reserved.
    pub(crate) fn peer(&self) -> Option<Peer> {
        self.peer
    }

    /// What is reserved, in the order it was.
    pub(crate) fn reserved(&self) -> &[Reserved] {
        &self.reserved
    }

    /// The segments of what is reserved.
    pub(crate) fn segments_of(&self, reserved: &Reserved) -> &[Segment] {
        self.segments.get(reserved.segments.clone()).unwrap_or(&[])
    }

    /// Has the driver get back what is reserved at place `at` with nothing in it.
    pub(crate) fn leave_empty(&mut self, at: usize) {
        if let Some(reserved) = self.reserved.get_mut(at) {
            reserved.len = 0;
        }
    }

    /// The ring's start from which the buffers are.
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Whether the buffers are from this start of `ring`.
    pub(crate) fn is_from(&self, ring: &Ring) -> bool {
        self.epoch == ring.epoch()
    }

    /// Marks what is reserved as used. After an error this may be called again, with a newer view.
    ///
    /// # Errors
    ///
    /// The ring is broken, or `mem` is older than it.
    pub(crate) fn complete(&mut self, ring: &mut Ring, mem: &View) -> Result<(), RingError> {
        for reserved in self.reserved.iter() {
            let mut left = reserved.len;
            for at in reserved.chains.clone() {
                let Some(chain) = self.chains.get(at) else {
                    continue;
                };
                let written = left.min(chain.writable());
                left -= written;
                if at >= self.completed {
                    ring.complete(mem, *chain, written)?;
                    self.completed = at + 1;
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, ring: &Ring) {
        self.reserved.clear();
        self.chains.clear();
        self.used = 0;
        self.completed = 0;
        self.epoch = ring.epoch();
        self.peer = Some(ring.peer);
    }

    fn put_back(&mut self, ring: &mut Ring, first: usize, segment: usize) -> Result<(), Reason> {
        ring.unpop(self.chains.iter().skip(first).copied())?;
        self.chains.truncate(first);
        self.used = segment;
        Ok(())
    }
}

/// Names a worker that can wait, and queues it.
pub(crate) type Waiter<'a> = (u64, &'a Handle);

/// A worker that waits for buffers of a queue from the time when there were not enough of them.
/// Unless it is left waiting, it is forgotten again: nobody queues it in vain.
pub(crate) struct Waiting<'a> {
    queue: &'a Queue,
    waiter: Waiter<'a>,
    registered: bool,
}

impl<'a> Waiting<'a> {
    /// A worker that does not wait yet.
    pub(crate) fn new(queue: &'a Queue, waiter: Waiter<'a>) -> Self {
        Self {
            queue,
            waiter,
            registered: false,
        }
    }

    /// Waits from now on. Returns whether that is possible.
    fn register(&mut self) -> bool {
        let (key, handle) = self.waiter;
        self.registered |= self.queue.wait(key, handle).is_ok();
        self.registered
    }

    fn forget(&mut self) {
        if self.registered {
            self.queue.forget_waiter(self.waiter.0);
            self.registered = false;
        }
    }

    /// Leaves the worker waiting, if it waits.
    pub(crate) fn leave(mut self) {
        self.registered = false;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.forget();
    }
}

/// Taking buffers from a ring that is locked.
pub(crate) struct Taking<'a, 'b> {
    scratch: &'a mut Scratch,
    queue: &'a Queue,
    ring: &'a mut Ring,
    mem: &'a View,
    waiting: Option<&'a mut Waiting<'b>>,
    /// Whether there were not enough buffers for a frame.
    ran_out: bool,
}

impl<'a, 'b> Taking<'a, 'b> {
    /// Begins with nothing in `scratch`. `ring` is that of `queue`, and `mem` a view of where it
    /// lies. If there are too few buffers, `waiting` waits for more.
    pub(crate) fn new(
        scratch: &'a mut Scratch,
        queue: &'a Queue,
        ring: &'a mut Ring,
        mem: &'a View,
        waiting: Option<&'a mut Waiting<'b>>,
    ) -> Self {
        scratch.begin(ring);
        Self {
            scratch,
            queue,
            ring,
            mem,
            waiting,
            ran_out: false,
        }
    }

    /// Who receives what is taken.
    pub(crate) fn peer(&self) -> Peer {
        self.ring.peer
    }

    /// Whether nothing was taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.scratch.reserved.is_empty()
    }

    /// Whether somebody waits if there are too few buffers.
    pub(crate) fn can_wait(&self) -> bool {
        self.waiting.is_some()
    }

    /// Takes buffers for `len` bytes as `frame`.
    ///
    /// # Errors
    ///
    /// What is wrong with the receiver; inside, why there are no buffers.
    pub(crate) fn reserve(&mut self, frame: usize, len: u32) -> Result<Result<(), Short>, Reason> {
        let (first, segment) = (self.scratch.chains.len(), self.scratch.used);
        let got = self.gather(first, len);
        if let Ok(Ok(())) = got {
            let reserved = Reserved {
                frame,
                chains: first..self.scratch.chains.len(),
                segments: segment..self.scratch.used,
                len,
            };
            if self.scratch.reserved.push_within_capacity(reserved).is_ok() {
                return Ok(Ok(()));
            }
        }
        self.scratch.put_back(self.ring, first, segment)?;
        Ok(Err(match got? {
            // Not even all of the scratch holds the frame.
            Err(Short::Full) if first == 0 => Short::TooSmall,
            Err(short) => short,
            Ok(()) => Short::Full,
        }))
    }

    /// Takes chains, from number `first` on, until they have room for `len` bytes.
    fn gather(&mut self, first: usize, len: u32) -> Result<Result<(), Short>, Reason> {
        let mut room = 0u32;
        while room < len {
            let scratch = &mut *self.scratch;
            let count = scratch.chains.len() - first;
            if count > 0 && !self.ring.peer.mergeable() {
                return Ok(Err(Short::TooSmall));
            }
            if scratch.chains.len() == CHAINS || scratch.used > SEGMENTS / 2 {
                return Ok(Err(Short::Full));
            }
            let free = scratch.segments.get_mut(scratch.used..).unwrap_or(&mut []);
            let Some(chain) = self.ring.pop(self.mem, free)? else {
                // All that a ring can hold is here.
                if count >= usize::from(self.ring.size()) {
                    return Ok(Err(Short::TooSmall));
                }
                if self.wait()? {
                    continue;
                }
                self.ran_out = true;
                return Ok(Err(Short::Empty));
            };
            // There is room, see above.
            let _ = scratch.chains.push_within_capacity(chain);
            scratch.used += chain.segments();
            if chain.readable_segments() != 0 || chain.writable() == 0 {
                return Err(Reason::ReceiveBuffer);
            }
            room = room.saturating_add(chain.writable());
        }
        Ok(Ok(()))
    }

    /// Waits for more buffers, if somebody can. Returns whether there are more already.
    fn wait(&mut self) -> Result<bool, Reason> {
        // Register, ask for kicks, look again: in this order nothing is missed. The kicks are asked
        // for beyond the buffers that are there but too few.
        match self.waiting.as_mut().map(|waiting| waiting.register()) {
            Some(true) => Ok(self.ring.want_kicks(self.mem, true)?),
            _ => Ok(false),
        }
    }

    /// Ends taking: unless buffers ran out, the driver keeps up and need not kick.
    ///
    /// # Errors
    ///
    /// The ring is broken, or the view is older than it.
    pub(crate) fn end(&mut self) -> Result<(), Reason> {
        if self.is_empty() || self.ran_out {
            return Ok(());
        }
        // A driver that posts one buffer now and then is not worth waiting for.
        if self.queue.is_stalled() && self.ring.has_available(self.mem)? {
            self.queue.set_stalled(false);
        }
        // It got what it asked for after all.
        if let Some(waiting) = &mut self.waiting {
            waiting.forget();
        }
        if self.ring.wants_kicks() {
            self.ring.want_kicks(self.mem, false)?;
            // Whoever waits for a kick might otherwise wait for one that does not come.
            self.queue.wake();
        }
        Ok(())
    }

    /// Puts everything back that was taken.
    ///
    /// # Errors
    ///
    /// The ring is broken.
    pub(crate) fn put_all_back(&mut self) -> Result<(), Reason> {
        self.scratch.reserved.clear();
        self.scratch.put_back(self.ring, 0, 0)
    }
}
