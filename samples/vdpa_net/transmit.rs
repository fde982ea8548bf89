// SPDX-License-Identifier: GPL-2.0
//! The worker of a queue pair: takes frames from its transmit queue and hands them to other ports.
//!
//! A turn takes a batch of frames from the ring, looks at the first bytes of each, hands runs of
//! frames that go the same way over at once (see [`crate::forward`]), and gives the buffers back.
//! Copies go from the sender's memory to the receiver's, and no lock is held over them.
//!
//! A unicast frame whose receiver has no buffers goes back to the head of the ring, with all those
//! after it. The worker then waits for a kick of the receive queue, holding nothing: two ports that
//! send to each other cannot block one another. After [`PATIENCE`] it drops frames for that queue
//! until the receiver posts buffers again.

use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SetOnce,
        SpinLock, //
    },
    time::{
        Delta,
        Instant,
        Monotonic, //
    }, //
};
use vdpa::worker::{
    Handle,
    Run, //
};
use virtio::{
    net::header::{
        self,
        Header, //
    },
    ring::{
        Chain,
        Segment, //
    }, //
};

use crate::{
    forward::{
        Forwarded,
        Ways, //
    },
    frame::{
        Addresses,
        ETH_HLEN,
        HEAD_LEN,
        MAX_LEN, //
    },
    peer::Peer,
    port::{
        Port,
        Reason,
        Views, //
    },
    queue::MAX_SIZE,
    reserve::Scratch,
    stats::Tally,
    switch::Switch, //
};

/// Frames taken from a ring at once.
pub(crate) const BATCH: usize = 64;

/// Batches in one turn; then the worker goes to the end of the line.
const BATCHES: usize = 8;

/// How long a frame waits for receive buffers.
pub(crate) const PATIENCE: Delta = Delta::from_millis(20);

/// How long a worker looks for more frames before it asks the driver for a kick. Drivers send in
/// bursts, and a kick costs more than this.
const POLL: Delta = Delta::from_micros(50);

/// Segments of one batch. A chain of any permitted length fits as long as half of it is free.
const SEGMENTS: usize = 2 * MAX_SIZE as usize;

/// A frame that was taken from the transmit ring.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    chain: Chain,
    /// Where its segments begin in the batch's.
    first: usize,
    /// What is known of the frame, or `None` if it is not fit to be passed on.
    pub(crate) parts: Option<Parts>,
}

/// Bytes at the start of a frame that are read once, to decide on, and passed on from the copy: what
/// is there when the rest is copied may be something else. As many as are looked at, and as make
/// whole words of them, also with the virtio-net header before them.
pub(crate) const HEAD: usize = HEAD_LEN.next_multiple_of(4);

/// What the first bytes of a frame say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts {
    /// The virtio-net header.
    pub(crate) offload: Header,
    /// The Ethernet header.
    pub(crate) addresses: Addresses,
    /// Length of the virtio-net header in the sender's buffer.
    pub(crate) header_len: usize,
    /// Length of the frame without the virtio-net header.
    pub(crate) len: u32,
    /// The first bytes of the frame, or all of it and zeroes.
    pub(crate) head: [u8; HEAD],
}

impl Parts {
    /// How many bytes of the frame are in `head`.
    pub(crate) fn head_len(&self) -> usize {
        HEAD.min(self.len as usize)
    }
}

/// Frames of a batch and their segments.
pub(crate) struct Batch {
    frames: KVec<Frame>,
    segments: KVec<Segment>,
    /// The ring's start from which the frames are.
    epoch: u32,
    /// Who sends them.
    peer: Option<Peer>,
}

impl Batch {
    fn new() -> Result<Self> {
        Ok(Self {
            frames: KVec::with_capacity(BATCH, GFP_KERNEL)?,
            segments: KVec::from_elem(Segment::default(), SEGMENTS, GFP_KERNEL)?,
            epoch: 0,
            peer: None,
        })
    }

    /// The frames from `at` on.
    pub(crate) fn from(&self, at: usize) -> &[Frame] {
        self.frames.get(at..).unwrap_or(&[])
    }

    /// Names `frame` among those that are in a ring of its sender at the same time.
    pub(crate) fn name(&self, frame: &Frame) -> (u32, u16) {
        (self.epoch, frame.chain.id())
    }

    /// The segments of `frame` that the device reads.
    pub(crate) fn segments(&self, frame: &Frame) -> &[Segment] {
        let end = frame.first + frame.chain.readable_segments();
        self.segments.get(frame.first..end).unwrap_or(&[])
    }
}

/// What a worker needs for its batches, allocated once.
struct Tools {
    batch: Batch,
    scratch: Scratch,
    /// The receive queue whose buffers the worker waits for, and since when.
    wait: Option<Wait>,
}

/// For which receive queue a worker waits.
pub(crate) struct Wait {
    pub(crate) port: Arc<Port>,
    pub(crate) queue: u16,
    pub(crate) since: Instant<Monotonic>,
}

/// What is to be done after a turn.
enum Next {
    /// Nothing until the next kick.
    Idle,
    /// Another turn.
    Again,
    /// Another turn when the receiver posts buffers, or after [`PATIENCE`].
    Wait,
}

/// What became of a batch.
enum Progress {
    /// The worker is done with all of its frames.
    All,
    /// For some of them there were no receive buffers.
    Blocked,
    /// For some of them there was no time.
    Late,
    /// There were no frames.
    Empty,
}

/// What a worker's batches are for: the transmit queue of one queue pair.
#[pin_data(PinnedDrop)]
pub(crate) struct Transmitter {
    pub(crate) port: Arc<Port>,
    pub(crate) switch: Arc<Switch>,
    /// The queue pair.
    pub(crate) pair: u16,
    /// The worker's own handle.
    pub(crate) handle: SetOnce<Handle>,
    /// Taken out for the length of a turn; the lock only makes that safe.
    #[pin]
    tools: SpinLock<Option<KBox<Tools>>>,
}

impl Transmitter {
    /// Creates the work of queue pair `pair` of `port`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(port: Arc<Port>, switch: Arc<Switch>, pair: u16) -> Result<Arc<Self>> {
        let tools = KBox::new(
            Tools {
                batch: Batch::new()?,
                scratch: Scratch::new()?,
                wait: None,
            },
            GFP_KERNEL,
        )?;
        Arc::pin_init(
            pin_init!(Self {
                port,
                switch,
                pair,
                handle: SetOnce::new(),
                tools <- new_spinlock!(Some(tools)),
            }),
            GFP_KERNEL,
        )
    }

    /// Tells the work by whom it is done.
    pub(crate) fn set_handle(&self, handle: Handle) {
        self.handle.populate(handle);
    }

    /// Names the worker among all workers.
    pub(crate) fn key(&self) -> u64 {
        u64::from(self.port.number()) << 16 | u64::from(self.pair)
    }

    fn end_wait(&self, wait: &Wait) {
        if let Some(queue) = wait.port.queue(wait.queue) {
            queue.forget_waiter(self.key());
        }
    }
}

#[pinned_drop]
impl PinnedDrop for Transmitter {
    fn drop(self: Pin<&mut Self>) {
        let tools = self.tools.lock().take();
        if let Some(wait) = tools.as_ref().and_then(|tools| tools.wait.as_ref()) {
            self.end_wait(wait);
        }
    }
}

impl Run for Transmitter {
    fn run(&self) {
        let Some(mut tools) = self.tools.lock().take() else {
            return;
        };
        let waited = tools.wait.take();
        if let Some(wait) = &waited {
            self.end_wait(wait);
        }

        let next = match Turn::new(self, waited) {
            Ok(mut turn) => turn.run(&mut tools),
            // Without memory for a view of the guest's: later.
            Err(_) => Next::Wait,
        };
        if matches!(next, Next::Idle) {
            // The frame that it is of is gone, or its queue stops.
            tools.scratch.rest = None;
        }

        *self.tools.lock() = Some(tools);
        if let Some(handle) = self.handle.as_ref() {
            match next {
                Next::Idle => (),
                Next::Again => handle.queue(),
                Next::Wait => handle.queue_after(PATIENCE.as_millis() as u32),
            }
        }
    }
}

/// One turn of a worker. It holds views of guest memory and so must be short.
struct Turn<'a> {
    work: &'a Transmitter,
    /// Index of the transmit queue.
    index: u16,
    views: Views,
    ways: Ways<'a>,
    tally: Tally,
}

impl<'a> Turn<'a> {
    fn new(work: &'a Transmitter, waited: Option<Wait>) -> Result<Self> {
        Ok(Self {
            work,
            index: 2 * work.pair + 1,
            views: work.port.views()?,
            ways: Ways::new(work, waited),
            tally: Tally::default(),
        })
    }

    fn run(&mut self, tools: &mut Tools) -> Next {
        let next = self.batches(tools);
        if let Some(queue) = self.work.port.queue(self.index) {
            queue.stats.add(&self.tally);
        }
        next
    }

    fn batches(&mut self, tools: &mut Tools) -> Next {
        let mut handled = 0;
        // Since when there are no more frames.
        let mut idle: Option<Instant<Monotonic>> = None;
        while handled < BATCHES && !self.ways.is_late() {
            let poll = handled > 0 && idle.is_none_or(|since| since.elapsed() < POLL);
            match self.batch(tools, poll) {
                Ok(Progress::All) => {
                    handled += 1;
                    idle = None;
                }
                Ok(Progress::Blocked) => return Next::Wait,
                Ok(Progress::Late) => return Next::Again,
                Ok(Progress::Empty) if poll => {
                    idle.get_or_insert_with(Instant::now);
                    core::hint::spin_loop();
                }
                Ok(Progress::Empty) => return Next::Idle,
                // What was taken is in the ring again.
                Err(Reason::NoMemory) => return Next::Wait,
                Err(reason) => {
                    self.work.port.fault(self.index, tools.batch.epoch, reason);
                    return Next::Idle;
                }
            }
        }
        Next::Again
    }

    /// Handles one batch. If the ring is empty, the driver is asked to kick, unless it is polled.
    fn batch(&mut self, tools: &mut Tools, poll: bool) -> Result<Progress, Reason> {
        if !self.take(&mut tools.batch, poll)? {
            return Ok(Progress::Empty);
        }
        let Tools {
            batch,
            scratch,
            wait,
        } = tools;
        let forwarded = self
            .ways
            .forward(&mut self.views, batch, scratch, &mut self.tally)?;
        let (done, progress) = match forwarded {
            Forwarded::All => (batch.frames.len(), Progress::All),
            Forwarded::Late(done) => (done, Progress::Late),
            Forwarded::Blocked(done, queue) => {
                *wait = Some(queue);
                (done, Progress::Blocked)
            }
        };
        self.give_back(batch, done)?;
        Ok(progress)
    }

    /// Takes a batch of frames from the ring and looks at them. Returns whether there were any; if
    /// not, the driver will kick for the next one, unless the ring is polled.
    fn take(&mut self, batch: &mut Batch, poll: bool) -> Result<bool, Reason> {
        // A view may be older than what the driver mapped just now, so what fails is tried again
        // with a new one.
        if self.pop(batch, poll).is_err() {
            self.renew()?;
            self.pop(batch, poll)?;
        }
        for at in 0..batch.frames.len() {
            let Some(frame) = batch.frames.get(at) else {
                break;
            };
            let parts = match self.look(batch, frame) {
                Err(_) => {
                    if let Err(reason) = self.renew() {
                        self.put_back(batch, 0)?;
                        return Err(reason);
                    }
                    self.look(batch, frame)?
                }
                Ok(parts) => parts,
            };
            if let Some(frame) = batch.frames.get_mut(at) {
                frame.parts = parts;
            }
        }
        Ok(!batch.frames.is_empty())
    }

    fn renew(&mut self) -> Result<(), Reason> {
        self.views = self.work.port.views().map_err(|_| Reason::NoMemory)?;
        Ok(())
    }

    fn pop(&self, batch: &mut Batch, poll: bool) -> Result<(), Reason> {
        batch.frames.clear();
        let Some(queue) = self.work.port.queue(self.index) else {
            return Ok(());
        };
        let mut guard = queue.lock();
        let Some(ring) = (*guard).as_mut().filter(|ring| ring.is_open()) else {
            return Ok(());
        };
        let mem = self.views.rings();
        batch.epoch = ring.epoch();
        batch.peer = Some(ring.peer);

        ring.want_kicks(mem, false)?;
        let mut used = 0;
        loop {
            while batch.frames.len() < BATCH && used <= SEGMENTS / 2 {
                let room = batch.segments.get_mut(used..).unwrap_or(&mut []);
                let chain = match ring.pop(mem, room) {
                    Ok(Some(chain)) => chain,
                    Ok(None) => break,
                    // What came before the broken chain is handled first; the next batch then
                    // begins with it.
                    Err(_) if !batch.frames.is_empty() => return Ok(()),
                    Err(error) => return Err(error.into()),
                };
                let frame = Frame {
                    chain,
                    first: used,
                    parts: None,
                };
                used += chain.segments();
                // There is room for BATCH of them.
                let _ = batch.frames.push_within_capacity(frame);
            }
            if !batch.frames.is_empty() || poll || !ring.want_kicks(mem, true)? {
                return Ok(());
            }
            ring.want_kicks(mem, false)?;
        }
    }

    /// Reads the first bytes of a frame, once.
    fn look(&self, batch: &Batch, frame: &Frame) -> Result<Option<Parts>, Reason> {
        let Some(peer) = batch.peer else {
            return Ok(None);
        };
        let header_len = peer.header_len();
        let mut bytes = [0; header::MAX_LEN + HEAD];
        let total = frame.chain.readable();
        let here = (header_len + HEAD).min(total as usize);
        if here < header_len + ETH_HLEN {
            return Ok(None);
        }
        self.views
            .data()
            .read_at(
                batch.segments(frame),
                0,
                bytes.get_mut(..here).unwrap_or(&mut []),
            )
            .map_err(Reason::Memory)?;
        let (header, rest) = bytes.split_at(header_len);
        let Some(&head) = rest.first_chunk() else {
            return Ok(None);
        };
        // The total is at least `here`, which is more than the header's length.
        let len = total - header_len as u32;
        if len > MAX_LEN {
            return Ok(None);
        }
        let Some(addresses) = Addresses::parse(rest.get(..here - header_len).unwrap_or(&[])) else {
            return Ok(None);
        };
        let Some(offload) = peer.parse(header, len) else {
            return Ok(None);
        };
        Ok(Some(Parts {
            offload,
            addresses,
            header_len,
            len,
            head,
        }))
    }

    /// Gives the buffers of the first `done` frames back to the driver, and the others to the ring.
    fn give_back(&mut self, batch: &Batch, done: usize) -> Result<(), Reason> {
        if done < batch.frames.len() {
            self.put_back(batch, done)?;
        }
        let frames = batch.frames.get(..done).unwrap_or(&[]);
        let mut given = 0;
        if let Err(reason) = self.give(frames, batch.epoch, &mut given) {
            // The view may be older than what the driver mapped just now.
            if self.renew().is_err() {
                return Err(reason);
            }
            self.give(frames, batch.epoch, &mut given)?;
        }
        Ok(())
    }

    /// Puts the frames from `at` on back into the ring.
    fn put_back(&self, batch: &Batch, at: usize) -> Result<(), Reason> {
        let Some(queue) = self.work.port.queue(self.index) else {
            return Ok(());
        };
        let mut guard = queue.lock();
        if let Some(ring) = (*guard).as_mut().filter(|r| r.epoch() == batch.epoch) {
            ring.unpop(batch.from(at).iter().map(|frame| frame.chain))?;
        }
        Ok(())
    }

    /// Gives the buffers of `frames` back to the driver, of which it has got `given` already.
    fn give(&self, frames: &[Frame], epoch: u32, given: &mut usize) -> Result<(), Reason> {
        let Some(queue) = self.work.port.queue(self.index) else {
            return Ok(());
        };
        let mut guard = queue.lock();
        let Some(ring) = (*guard).as_mut().filter(|ring| ring.epoch() == epoch) else {
            return Ok(());
        };
        let mem = self.views.rings();
        for frame in frames.iter().skip(*given) {
            ring.complete(mem, frame.chain, 0)?;
            *given += 1;
        }
        let interrupt = queue.publish(ring, mem)?;
        drop(guard);
        if let Some(interrupt) = interrupt {
            self.work.port.interrupt(self.index, interrupt);
        }
        Ok(())
    }
}
