// SPDX-License-Identifier: GPL-2.0
//! Handing frames over to a receive queue.
//!
//! The buffers for a run of frames are taken from the ring in one go, filled without any lock, and
//! given to the driver in one go, with at most one interrupt.

use core::ops::Range;

use kernel::{
    prelude::*,
    sync::Arc, //
};
use vdpa::{
    memory::{
        copy,
        CopyError,
        View, //
    },
    worker::Handle, //
};
use virtio::{
    net::header,
    ring::{
        Chain,
        Segment, //
    }, //
};

use crate::{
    fdb::Mac,
    frame::Addresses,
    peer::{
        Delivery,
        Peer, //
    },
    port::{
        Port,
        Reason,
        Views, //
    },
    queue::{
        Interrupt,
        Queue,
        Ring,
        MAX_SIZE, //
    },
    stats::Tally,
    transmit::{
        Batch,
        Parts,
        BATCH,
        HEAD, //
    }, //
};

/// Segments of the receive buffers taken at once. Any chain fits as long as half of it is free.
const SEGMENTS: usize = 2 * MAX_SIZE as usize;

/// Receive buffers taken at once.
const CHAINS: usize = MAX_SIZE as usize;

/// Names a worker that can wait, and queues it.
pub(crate) type Waiter<'a> = (u64, &'a Handle);

/// Receive buffers taken for one frame.
#[derive(Clone)]
pub(crate) struct Reserved {
    /// Which frame of the run.
    frame: usize,
    chains: Range<usize>,
    segments: Range<usize>,
    /// Header and frame.
    len: u32,
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
    /// The ring's start from which the buffers are.
    epoch: u32,
    peer: Option<Peer>,
}

/// How a run of frames ended.
pub(crate) enum Outcome {
    /// This many frames, at least one, were handed over or dropped.
    Done(usize),
    /// This many were, and for the next one there are no buffers.
    Blocked(usize),
}

/// Why no buffers were taken for a frame.
pub(crate) enum Short {
    /// The driver has not posted enough of them.
    Empty,
    /// The frame does not fit into a buffer.
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
            epoch: 0,
            peer: None,
        })
    }

    /// Who receives what is reserved.
    pub(crate) fn peer(&self) -> Option<Peer> {
        self.peer
    }

    /// What is reserved.
    pub(crate) fn reserved(&self) -> &[Reserved] {
        &self.reserved
    }

    /// The segments of what is reserved.
    pub(crate) fn segments_of(&self, reserved: &Reserved) -> &[Segment] {
        self.segments.get(reserved.segments.clone()).unwrap_or(&[])
    }

    /// Begins with nothing reserved from `ring`.
    pub(crate) fn begin(&mut self, ring: &Ring) {
        self.reserved.clear();
        self.chains.clear();
        self.used = 0;
        self.epoch = ring.epoch();
        self.peer = Some(ring.peer);
    }

    /// Takes buffers for `len` bytes as `frame`; with a `waiter`, one that will be queued if there
    /// are not enough of them.
    ///
    /// # Errors
    ///
    /// What is wrong with the receiver; inside, why there are no buffers.
    pub(crate) fn reserve(
        &mut self,
        ring: &mut Ring,
        mem: &View,
        frame: usize,
        len: u32,
        waiter: Option<(&Queue, Waiter<'_>)>,
    ) -> Result<Result<(), Short>, Reason> {
        let (first, segment) = (self.chains.len(), self.used);
        let mut room = 0u32;
        let short = loop {
            if self.chains.len() == CHAINS || self.used > SEGMENTS / 2 {
                break Short::Full;
            }
            let free = self.segments.get_mut(self.used..).unwrap_or(&mut []);
            let chain = match ring.pop(mem, free) {
                Ok(Some(chain)) => chain,
                Ok(None) => {
                    // Register, ask for kicks, look again: in this order nothing is missed. The
                    // kicks are asked for beyond the buffers that are there but too few.
                    if let Some((queue, (key, handle))) = waiter {
                        if queue.wait(key, handle).is_ok() && ring.want_kicks(mem, true)? {
                            continue;
                        }
                    }
                    break Short::Empty;
                }
                Err(error) => {
                    self.put_back(ring, first, segment)?;
                    return Err(error.into());
                }
            };
            // There is room, see above.
            let _ = self.chains.push_within_capacity(chain);
            self.used += chain.segments();
            if chain.readable_segments() != 0 || chain.writable() == 0 {
                self.put_back(ring, first, segment)?;
                return Err(Reason::ReceiveBuffer);
            }
            room = room.saturating_add(chain.writable());
            if room >= len {
                let reserved = Reserved {
                    frame,
                    chains: first..self.chains.len(),
                    segments: segment..self.used,
                    len,
                };
                return match self.reserved.push_within_capacity(reserved) {
                    Ok(()) => Ok(Ok(())),
                    Err(_) => {
                        self.put_back(ring, first, segment)?;
                        Ok(Err(Short::Full))
                    }
                };
            }
            if !ring.peer.mergeable() {
                break Short::TooSmall;
            }
        };
        self.put_back(ring, first, segment)?;
        Ok(Err(match short {
            // Not even all of the scratch holds the frame.
            Short::Full if first == 0 => Short::TooSmall,
            short => short,
        }))
    }

    /// Puts everything back that is reserved.
    ///
    /// # Errors
    ///
    /// The ring is broken.
    pub(crate) fn put_all_back(&mut self, ring: &mut Ring) -> Result<(), Reason> {
        self.reserved.clear();
        self.put_back(ring, 0, 0)
    }

    fn put_back(&mut self, ring: &mut Ring, first: usize, segment: usize) -> Result<(), Reason> {
        ring.unpop(self.chains.iter().skip(first).copied())?;
        self.chains.truncate(first);
        self.used = segment;
        Ok(())
    }
}

/// Where frames to one address go during a turn.
pub(crate) struct Target {
    to: Mac,
    domain: u16,
    /// The port, or `None` if nobody receives the frames.
    port: Option<(Arc<Port>, Views)>,
    /// The receive queue.
    index: u16,
}

impl Target {
    /// Makes the target for frames with these addresses, at one of the queues of `port` that
    /// `spread` chooses.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(addresses: &Addresses, port: Option<Arc<Port>>, spread: u32) -> Result<Self> {
        let index = port.as_ref().map_or(0, |port| port.receive_index(spread));
        let port = match port {
            Some(port) => {
                let views = port.views()?;
                Some((port, views))
            }
            None => None,
        };
        Ok(Self {
            to: addresses.to,
            domain: addresses.domain(),
            port,
            index,
        })
    }

    /// Whether a frame with these addresses goes this way.
    pub(crate) fn is_for(&self, addresses: &Addresses) -> bool {
        self.to == addresses.to && self.domain == addresses.domain()
    }

    /// The port, if there is one.
    pub(crate) fn port(&self) -> Option<&Arc<Port>> {
        Some(&self.port.as_ref()?.0)
    }

    /// The receive queue.
    pub(crate) fn index(&self) -> u16 {
        self.index
    }

    /// Hands the frames `run` of `batch` over, as many of them as is possible at once. Without a
    /// `waiter`, or when waiting is known to be vain, frames for which there are no buffers are
    /// dropped; otherwise it is queued when there are some.
    ///
    /// # Errors
    ///
    /// What is wrong with the sender. What is wrong with the receiver is reported there, and its
    /// frames are dropped.
    #[expect(clippy::too_many_arguments)]
    pub(crate) fn hand_over(
        &mut self,
        from: &mut Views,
        source: &Port,
        batch: &Batch,
        run: Range<usize>,
        waiter: Option<Waiter<'_>>,
        scratch: &mut Scratch,
        tally: &mut Tally,
    ) -> Result<Outcome, Reason> {
        let count = run.len();
        let Some((port, views)) = self.port.as_mut() else {
            tally.drops += count as u64;
            return Ok(Outcome::Done(count));
        };
        let Some(queue) = port.queue(self.index) else {
            tally.drops += count as u64;
            return Ok(Outcome::Done(count));
        };

        let frames = Frames {
            batch,
            from: run.start,
            count,
        };
        let mut received = Tally::default();
        let mut hand = Hand {
            port,
            queue,
            index: self.index,
            views,
            scratch,
            received: &mut received,
        };
        let outcome = hand.run(from, source, &frames, waiter, tally);
        queue.stats.add(&received);
        outcome
    }
}

/// A run of frames of a batch.
struct Frames<'a> {
    batch: &'a Batch,
    from: usize,
    count: usize,
}

impl Frames<'_> {
    fn get(&self, at: usize) -> Option<(&Parts, &[Segment])> {
        let frame = self.batch.from(self.from).get(at)?;
        Some((frame.parts.as_ref()?, self.batch.segments(frame)))
    }
}

/// One hand-over.
pub(crate) struct Hand<'a> {
    pub(crate) port: &'a Port,
    pub(crate) queue: &'a Queue,
    pub(crate) index: u16,
    pub(crate) views: &'a mut Views,
    pub(crate) scratch: &'a mut Scratch,
    pub(crate) received: &'a mut Tally,
}

/// How far taking buffers got.
enum Taken {
    /// Buffers were taken for what is in the scratch; with this many frames the run ends here.
    Frames(usize),
    /// As before, and for the next frame there are no buffers.
    Blocked(usize),
    /// As before, and the next frame cannot go as it is.
    Rework(usize),
    /// The port does not receive.
    Closed,
}

impl Hand<'_> {
    fn run(
        &mut self,
        from: &mut Views,
        source: &Port,
        frames: &Frames<'_>,
        waiter: Option<Waiter<'_>>,
        sent: &mut Tally,
    ) -> Result<Outcome, Reason> {
        let taken = match self.take(frames, waiter, sent) {
            // The view may be older than what the driver mapped just now.
            Err(_) => self.renew().and_then(|()| self.take(frames, waiter, sent)),
            taken => taken,
        };
        let taken = match taken {
            Ok(Taken::Closed) => {
                sent.drops += frames.count as u64;
                return Ok(Outcome::Done(frames.count));
            }
            Ok(taken) => taken,
            Err(reason) => {
                self.port.fault(self.index, reason);
                sent.drops += frames.count as u64;
                return Ok(Outcome::Done(frames.count));
            }
        };

        let copied = self.fill(from, source, frames, sent);
        self.give();
        copied?;

        Ok(match taken {
            Taken::Frames(n) => Outcome::Done(n),
            Taken::Blocked(n) => Outcome::Blocked(n),
            Taken::Closed => Outcome::Done(frames.count),
            Taken::Rework(n) if n > 0 => Outcome::Done(n),
            Taken::Rework(_) => match frames.get(0) {
                Some((parts, segments)) => self.rework(from.data(), parts, segments, waiter, sent),
                None => Outcome::Done(1),
            },
        })
    }

    pub(crate) fn renew(&mut self) -> Result<(), Reason> {
        *self.views = self.port.views().map_err(|_| Reason::NoMemory)?;
        Ok(())
    }

    /// Takes buffers for as many of the frames as possible.
    ///
    /// # Errors
    ///
    /// What is wrong with the receiver; no buffers are taken then.
    fn take(
        &mut self,
        frames: &Frames<'_>,
        waiter: Option<Waiter<'_>>,
        sent: &mut Tally,
    ) -> Result<Taken, Reason> {
        let queue = self.queue;
        let mem = self.views.rings();
        let mut guard = queue.lock();
        let Some(ring) = (*guard).as_mut().filter(|ring| ring.is_open()) else {
            return Ok(Taken::Closed);
        };
        self.scratch.begin(ring);
        let waiter = waiter
            .filter(|_| !queue.is_stalled())
            .map(|waiter| (queue, waiter));
        let mut taken = Taken::Frames(frames.count);
        let (mut too_long, mut overruns) = (0, 0);
        for at in 0..frames.count {
            let Some((parts, _)) = frames.get(at) else {
                continue;
            };
            match ring
                .peer
                .delivery(&parts.offload, &parts.addresses, parts.len)
            {
                Delivery::Pass => (),
                Delivery::TooLong => {
                    too_long += 1;
                    continue;
                }
                Delivery::Rework => {
                    taken = Taken::Rework(at);
                    break;
                }
            }
            // A header is 12 bytes, and a chain less than 4 GiB; what does not fit is no frame.
            let len = parts.len.saturating_add(ring.peer.header_len() as u32);
            match self.scratch.reserve(ring, mem, at, len, waiter) {
                Ok(Ok(())) => (),
                Ok(Err(Short::TooSmall)) => too_long += 1,
                Ok(Err(Short::Full)) => {
                    taken = Taken::Frames(at);
                    break;
                }
                Ok(Err(Short::Empty)) if waiter.is_some() => {
                    taken = Taken::Blocked(at);
                    break;
                }
                Ok(Err(Short::Empty)) => overruns += 1,
                // Keep what is taken; the next look at the ring finds the fault again.
                Err(_) if !self.scratch.reserved.is_empty() => {
                    taken = Taken::Frames(at);
                    break;
                }
                Err(reason) => return Err(reason),
            }
        }
        self.after_take(ring)?;
        drop(guard);
        self.received.drops += too_long;
        self.received.overruns += overruns;
        sent.drops += too_long;
        sent.overruns += overruns;
        Ok(taken)
    }

    /// After buffers were taken: the driver keeps up, and need not kick.
    pub(crate) fn after_take(&self, ring: &mut Ring) -> Result<(), Reason> {
        if !self.scratch.reserved.is_empty() {
            self.queue.set_stalled(false);
            if ring.wants_kicks() {
                ring.want_kicks(self.views.rings(), false)?;
                // Whoever waits for a kick might otherwise wait for one that does not come.
                self.queue.wake();
            }
        }
        Ok(())
    }

    /// Fills the buffers that were taken.
    ///
    /// # Errors
    ///
    /// What is wrong with the sender's memory.
    fn fill(
        &mut self,
        from: &mut Views,
        source: &Port,
        frames: &Frames<'_>,
        sent: &mut Tally,
    ) -> Result<(), Reason> {
        let Some(peer) = self.scratch.peer else {
            return Ok(());
        };
        let header_len = peer.header_len();
        let mut result = Ok(());
        for at in 0..self.scratch.reserved.len() {
            let Some(reserved) = self.scratch.reserved.get(at).cloned() else {
                break;
            };
            let Some((parts, segments)) = frames.get(reserved.frame) else {
                continue;
            };
            let mut written = self.fill_one(from, &peer, &reserved, parts, segments);
            if let Err(error) = &written {
                // The view may be older than what the driver mapped just now.
                match error {
                    CopyError::Source(_) => *from = source.views().map_err(|_| Reason::NoMemory)?,
                    CopyError::Target(_) => self.renew()?,
                }
                written = self.fill_one(from, &peer, &reserved, parts, segments);
            }
            match written {
                Ok(()) => {
                    let len = u64::from(reserved.len) - header_len as u64;
                    self.received.packets += 1;
                    self.received.bytes += len;
                    sent.packets += 1;
                    sent.bytes += len;
                }
                Err(error) => {
                    sent.drops += 1;
                    if let Some(reserved) = self.scratch.reserved.get_mut(at) {
                        // The driver gets its buffers back with nothing in them.
                        reserved.len = 0;
                    }
                    match error {
                        CopyError::Source(fault) => result = Err(Reason::Memory(fault)),
                        CopyError::Target(fault) => {
                            self.port.fault(self.index, Reason::Memory(fault));
                        }
                    }
                }
            }
        }
        result
    }

    fn fill_one(
        &self,
        from: &Views,
        peer: &Peer,
        reserved: &Reserved,
        parts: &Parts,
        segments: &[Segment],
    ) -> Result<(), CopyError> {
        let to = self.scratch.segments_of(reserved);
        let header_len = peer.header_len();
        // What was looked at goes out from the copy, in one piece with the header.
        let mut start = [0; header::MAX_LEN + HEAD];
        if let Some(place) = start.first_chunk_mut() {
            *place = peer.emit(&parts.offload, reserved.buffers());
        }
        let behind = start.get_mut(header_len..);
        if let Some(place) = behind.and_then(|bytes| bytes.first_chunk_mut()) {
            *place = parts.head;
        }
        let head_len = parts.head_len();
        let start = start.get(..header_len + head_len).unwrap_or(&[]);
        self.views
            .data()
            .write_at(to, 0, start)
            .map_err(CopyError::Target)?;
        copy(
            from.data(),
            segments,
            parts.header_len + head_len,
            self.views.data(),
            to,
            start.len(),
            parts.len as usize - head_len,
        )
    }

    /// Gives the buffers that were taken to the driver.
    pub(crate) fn give(&mut self) {
        if self.scratch.reserved.is_empty() {
            return;
        }
        let mut guard = self.queue.lock();
        let Some(ring) = (*guard).as_mut() else {
            return;
        };
        if ring.epoch() != self.scratch.epoch {
            return;
        }
        let completed = self.complete(ring);
        drop(guard);
        match completed {
            Ok(Some(interrupt)) => self.port.interrupt(self.index, interrupt),
            Ok(None) => (),
            Err(reason) => self.port.fault(self.index, reason),
        }
    }

    fn complete(&self, ring: &mut Ring) -> Result<Option<Interrupt<'_>>, Reason> {
        let mem = self.views.rings();
        for reserved in self.scratch.reserved.iter() {
            let mut left = reserved.len;
            let chains = self.scratch.chains.get(reserved.chains.clone());
            for chain in chains.unwrap_or(&[]) {
                let written = left.min(chain.writable());
                left -= written;
                ring.complete(mem, *chain, written)?;
            }
        }
        Ok(self.queue.publish(ring, mem)?)
    }
}
