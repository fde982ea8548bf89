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
use vdpa::memory::{
    copy,
    CopyError, //
};
use virtio::{
    net::header,
    ring::Segment, //
};

use crate::{
    peer::{
        Delivery,
        Peer, //
    },
    port::{
        Port,
        Reason,
        Views, //
    },
    queue::Queue,
    reserve::{
        Reserved,
        Scratch,
        Short,
        Taking,
        Waiter,
        Waiting, //
    },
    rework::Whole,
    stats::Tally,
    transmit::{
        Batch,
        Parts,
        HEAD, //
    }, //
};

/// How a run of frames ended.
pub(crate) enum Outcome {
    /// This many frames were handed over or dropped; none if a part of the first one was, and the
    /// rest of it is to be handed over next.
    Done(usize),
    /// This many were, and for the next one there are no buffers.
    Blocked(usize),
}

/// A port that frames go to during a turn.
pub(crate) struct Target {
    port: Arc<Port>,
    views: Views,
    /// The receive queue.
    index: u16,
}

impl Target {
    /// Makes a target of `port`, at one of its queues that `spread` chooses.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(port: Arc<Port>, spread: u32) -> Result<Self> {
        Ok(Self {
            views: port.views()?,
            index: port.receive_index(spread),
            port,
        })
    }

    /// The port.
    pub(crate) fn port(&self) -> &Arc<Port> {
        &self.port
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
        let Some(queue) = self.port.queue(self.index) else {
            scratch.rest = None;
            tally.drops += count as u64;
            return Ok(Outcome::Done(count));
        };

        let frames = Frames {
            batch,
            from: run.start,
            count,
        };
        let mut received = Tally::default();
        let outcome = Hand {
            port: &self.port,
            queue,
            index: self.index,
            views: &mut self.views,
            scratch,
            waiting: waiter
                .filter(|_| !queue.is_stalled())
                .map(|waiter| Waiting::new(queue, waiter)),
            received: &mut received,
        }
        .run(from, source, &frames, tally);
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

    /// The first frame.
    fn first(&self) -> Option<Whole<'_>> {
        let frame = self.batch.from(self.from).first()?;
        Some(Whole {
            name: self.batch.name(frame),
            parts: frame.parts.as_ref()?,
            segments: self.batch.segments(frame),
        })
    }
}

/// One hand-over.
pub(crate) struct Hand<'a> {
    pub(crate) port: &'a Port,
    pub(crate) queue: &'a Queue,
    pub(crate) index: u16,
    pub(crate) views: &'a mut Views,
    pub(crate) scratch: &'a mut Scratch,
    /// Who waits if there are too few buffers. Nobody, if waiting is known to be vain.
    pub(crate) waiting: Option<Waiting<'a>>,
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
}

impl Hand<'_> {
    fn run(
        &mut self,
        from: &mut Views,
        source: &Port,
        frames: &Frames<'_>,
        sent: &mut Tally,
    ) -> Result<Outcome, Reason> {
        // It is of the frame that comes first now, or nobody needs it any more.
        let rest = self.scratch.rest.take();
        let Some(taken) = self.take(frames, sent) else {
            sent.drops += frames.count as u64;
            return Ok(Outcome::Done(frames.count));
        };

        let copied = self.fill(from, source, frames, sent);
        self.give();
        copied?;

        Ok(match taken {
            Taken::Frames(n) => Outcome::Done(n),
            Taken::Blocked(n) => self.blocked(n),
            Taken::Rework(n) if n > 0 => Outcome::Done(n),
            Taken::Rework(_) => match frames.first() {
                Some(whole) => self.rework(from, source, &whole, rest, sent),
                None => Outcome::Done(1),
            },
        })
    }

    /// After `n` frames the sender waits.
    pub(crate) fn blocked(&mut self, n: usize) -> Outcome {
        if let Some(waiting) = self.waiting.take() {
            waiting.leave();
        }
        Outcome::Blocked(n)
    }

    /// Takes a new view of the receiver's memory.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn renew(&mut self) -> Result {
        *self.views = self.port.views()?;
        Ok(())
    }

    /// Takes buffers as `f` says, and returns what it returned. `None` if the port does not receive
    /// or its ring is broken, which is reported, or without memory.
    pub(crate) fn take_by<T>(
        &mut self,
        mut f: impl FnMut(&mut Taking<'_, '_>) -> Result<T, Reason>,
    ) -> Option<T> {
        let mut taken = self.try_take(&mut f);
        if taken.is_err() {
            // The view may be older than what the driver mapped just now.
            self.renew().ok()?;
            taken = self.try_take(&mut f);
        }
        match taken {
            Ok(taken) => taken,
            Err(reason) => {
                self.fault(reason);
                None
            }
        }
    }

    fn try_take<T>(
        &mut self,
        f: impl FnOnce(&mut Taking<'_, '_>) -> Result<T, Reason>,
    ) -> Result<Option<T>, Reason> {
        let mut guard = self.queue.lock();
        let Some(ring) = (*guard).as_mut().filter(|ring| ring.is_open()) else {
            return Ok(None);
        };
        let mem = self.views.rings();
        let mut taking = Taking::new(self.scratch, self.queue, ring, mem, self.waiting.as_mut());
        let taken = f(&mut taking).and_then(|taken| taking.end().map(|()| taken));
        if taken.is_err() {
            taking.put_all_back()?;
        }
        taken.map(Some)
    }

    /// Takes buffers for as many of the frames as possible.
    fn take(&mut self, frames: &Frames<'_>, sent: &mut Tally) -> Option<Taken> {
        let (mut too_long, mut overruns) = (0, 0);
        let taken = self.take_by(|taking| {
            (too_long, overruns) = (0, 0);
            let peer = taking.peer();
            for at in 0..frames.count {
                let Some((parts, _)) = frames.get(at) else {
                    continue;
                };
                match peer.delivery(&parts.offload, &parts.addresses, parts.len) {
                    Delivery::Pass => (),
                    Delivery::TooLong => {
                        too_long += 1;
                        continue;
                    }
                    Delivery::Rework => return Ok(Taken::Rework(at)),
                }
                // A header is 12 bytes, and a chain less than 4 GiB; what does not fit is no frame.
                let len = parts.len.saturating_add(peer.header_len() as u32);
                match taking.reserve(at, len) {
                    Ok(Ok(())) => (),
                    Ok(Err(Short::TooSmall)) => too_long += 1,
                    Ok(Err(Short::Full)) => return Ok(Taken::Frames(at)),
                    Ok(Err(Short::Empty)) if taking.can_wait() => return Ok(Taken::Blocked(at)),
                    Ok(Err(Short::Empty)) => overruns += 1,
                    // Keep what is taken; the next look at the ring finds the fault again.
                    Err(_) if !taking.is_empty() => return Ok(Taken::Frames(at)),
                    Err(reason) => return Err(reason),
                }
            }
            Ok(Taken::Frames(frames.count))
        })?;
        self.received.drops += too_long;
        self.received.overruns += overruns;
        sent.drops += too_long;
        sent.overruns += overruns;
        Some(taken)
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
        let Some(peer) = self.scratch.peer() else {
            return Ok(());
        };
        let mut result = Ok(());
        for at in 0..self.scratch.reserved().len() {
            let Some(reserved) = self.scratch.reserved().get(at).cloned() else {
                break;
            };
            let Some((parts, segments)) = frames.get(reserved.frame) else {
                continue;
            };
            match self.fill_one(from, source, &peer, &reserved, parts, segments) {
                Ok(()) => {
                    let len = u64::from(parts.len);
                    self.received.packets += 1;
                    self.received.bytes += len;
                    sent.packets += 1;
                    sent.bytes += len;
                }
                Err(error) => {
                    sent.drops += 1;
                    self.scratch.leave_empty(at);
                    match error {
                        Some(CopyError::Source(fault)) => result = Err(Reason::Memory(fault)),
                        Some(CopyError::Target(fault)) => {
                            self.fault(Reason::Memory(fault));
                        }
                        None => (),
                    }
                }
            }
        }
        result
    }

    /// Fills the buffers for one frame.
    ///
    /// # Errors
    ///
    /// Whose memory could not be accessed; `None` if there is no memory for a view of it.
    fn fill_one(
        &mut self,
        from: &mut Views,
        source: &Port,
        peer: &Peer,
        reserved: &Reserved,
        parts: &Parts,
        segments: &[Segment],
    ) -> Result<(), Option<CopyError>> {
        // Either view may be older than what the driver mapped just now.
        let (mut new_source, mut new_target) = (false, false);
        loop {
            match self.try_fill(from, peer, reserved, parts, segments) {
                Err(CopyError::Source(_)) if !new_source => {
                    *from = source.views().map_err(|_| None)?;
                    new_source = true;
                }
                Err(CopyError::Target(_)) if !new_target => {
                    self.renew().map_err(|_| None)?;
                    new_target = true;
                }
                result => return result.map_err(Some),
            }
        }
    }

    fn try_fill(
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
        if self.scratch.reserved().is_empty() {
            return;
        }
        let given = match self.try_give() {
            // The view may be older than what the driver mapped just now. Without memory for
            // another one the driver waits for these buffers for ever, and has to know.
            Err(_) => match self.renew() {
                Ok(()) => self.try_give(),
                Err(_) => Err(Reason::NoMemory),
            },
            given => given,
        };
        if let Err(reason) = given {
            self.fault(reason);
        }
    }

    /// Reports what is wrong with the receiver, as it was when buffers were looked for last.
    pub(crate) fn fault(&self, reason: Reason) {
        self.port.fault(self.index, self.scratch.epoch(), reason);
    }

    fn try_give(&mut self) -> Result<(), Reason> {
        let queue = self.queue;
        let mut guard = queue.lock();
        let ring = (*guard).as_mut().filter(|ring| self.scratch.is_from(ring));
        let Some(ring) = ring else {
            return Ok(());
        };
        let mem = self.views.rings();
        self.scratch.complete(ring, mem)?;
        let interrupt = queue.publish(ring, mem)?;
        drop(guard);
        if let Some(interrupt) = interrupt {
            self.port.interrupt(self.index, interrupt);
        }
        Ok(())
    }
}
