// SPDX-License-Identifier: GPL-2.0
//! Where the frames of a turn go, and handing them there.
//!
//! Frames in a row that go the same way are handed over together: to one port, or, if nobody knows
//! better, to each port that wants them. What was asked of the switch, and the views of the
//! receivers' memory, are kept until the turn ends.
//!
//! A unicast frame that only one port can be meant by waits for that port's buffers. Copies for
//! several ports do not: whoever has no buffers goes without.

use core::ops::Range;

use kernel::{
    prelude::*,
    time::{
        Delta,
        Instant,
        Monotonic, //
    }, //
};
use virtio::net::is_group_address;

use crate::{
    frame::Addresses,
    handover::{
        Outcome,
        Target, //
    },
    port::{
        Reason,
        Views, //
    },
    reserve::Scratch,
    stats::Tally,
    switch,
    transmit::{
        Batch,
        Transmitter,
        Wait,
        BATCH,
        PATIENCE, //
    }, //
};

/// How long a turn may last until it hands nothing more over: somebody may wait for the memory that
/// it works with. It ends with the hand-over that is under way: to one port that of a batch at most,
/// or of one frame that is cut up; to several that of [`COPIES`] copies, or one such frame for each.
const TURN: Delta = Delta::from_millis(4);

/// Copies that one hand-over to several ports makes, if it is for more than one frame.
const COPIES: usize = 4 * BATCH;

/// Addresses of either kind that a turn remembers.
const RECENT: usize = 8;

/// The last few of many.
struct Recent<T> {
    items: [Option<T>; RECENT],
    next: usize,
}

impl<T: Copy> Recent<T> {
    fn new() -> Self {
        Self {
            items: [None; RECENT],
            next: 0,
        }
    }

    fn find(&self, is: impl Fn(&T) -> bool) -> Option<T> {
        self.items.iter().flatten().copied().find(is)
    }

    fn add(&mut self, item: T) {
        if let Some(place) = self.items.get_mut(self.next) {
            *place = Some(item);
        }
        self.next = (self.next + 1) % RECENT;
    }
}

/// Whether a port receives, and wants a frame.
fn wants(target: &Target, frame: &Addresses) -> bool {
    let port = target.port();
    port.is_up() && port.accepts(frame)
}

/// Which way frames go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Nobody wants them.
    Nowhere,
    /// To that target.
    To(usize),
    /// To each port that wants what is sent there.
    Flood,
}

/// How far forwarding a batch got.
pub(crate) enum Forwarded {
    /// All of its frames are done with.
    All,
    /// This many are, and the receiver of the next one has no buffers; the worker will be queued
    /// when it has.
    Blocked(usize, Wait),
    /// This many are, and time is up.
    Late(usize),
}

/// The ways that a turn knows.
pub(crate) struct Ways<'a> {
    work: &'a Transmitter,
    /// For which queue the worker waited before this turn.
    waited: Option<Wait>,
    begun: Instant<Monotonic>,
    /// The clock of the forwarding database.
    now: u32,
    /// One for each port that was needed.
    targets: KVec<Target>,
    /// Whether there is a target for every port.
    all: bool,
    known: Recent<(Addresses, Way)>,
    learned: Recent<Addresses>,
}

impl<'a> Ways<'a> {
    /// None is known at the beginning of a turn.
    pub(crate) fn new(work: &'a Transmitter, waited: Option<Wait>) -> Self {
        Self {
            work,
            waited,
            begun: Instant::now(),
            now: work.switch.now(),
            targets: KVec::new(),
            all: false,
            known: Recent::new(),
            learned: Recent::new(),
        }
    }

    /// Whether the turn should end.
    pub(crate) fn is_late(&self) -> bool {
        self.begun.elapsed() > TURN
    }

    /// Hands the frames of a batch over, from the memory `from`.
    ///
    /// # Errors
    ///
    /// What is wrong with the sender.
    pub(crate) fn forward(
        &mut self,
        from: &mut Views,
        batch: &Batch,
        scratch: &mut Scratch,
        tally: &mut Tally,
    ) -> Result<Forwarded, Reason> {
        let mut at = 0;
        let mut begun = false;
        while let Some(frame) = batch.from(at).first() {
            // Something is handed over, and be it a part of the first frame.
            if begun && self.is_late() {
                return Ok(Forwarded::Late(at));
            }
            begun = true;
            let Some(parts) = frame.parts else {
                scratch.rest = None;
                tally.errors += 1;
                at += 1;
                continue;
            };
            // Without memory for the way, what goes there is lost.
            let way = self.way(&parts.addresses).unwrap_or(Way::Nowhere);
            let count = self.run(batch, at, way);
            // What is left of a frame goes to one port, or nowhere: were it kept, it would take the
            // place of a later frame that looks the same.
            if !matches!(way, Way::To(_)) {
                scratch.rest = None;
            }
            match way {
                Way::Nowhere => {
                    tally.drops += count as u64;
                    at += count;
                }
                Way::Flood => {
                    at += self.flood(from, batch, at, count, scratch, tally)?;
                }
                Way::To(target) => {
                    let run = at..at + count;
                    match self.send(target, from, batch, run, scratch, tally)? {
                        Ok(n) => at += n,
                        Err((n, wait)) => return Ok(Forwarded::Blocked(at + n, wait)),
                    }
                }
            }
        }
        Ok(Forwarded::All)
    }

    /// The number of frames from `at` on that go the same `way` as the first one, which is known.
    fn run(&mut self, batch: &Batch, at: usize, way: Way) -> usize {
        let mut frames = batch.from(at).iter().map_while(|frame| frame.parts);
        let Some(first) = frames.next() else {
            return 1;
        };
        let first = first.addresses;
        let rest = frames.take_while(|parts| {
            let next = &parts.addresses;
            self.way(next) == Ok(way) && (way != Way::Flood || next.is_for_same(&first))
        });
        1 + rest.count()
    }

    /// Learns who sends a frame, and finds its way.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    fn way(&mut self, frame: &Addresses) -> Result<Way> {
        self.learn(frame);
        if let Some((_, way)) = self.known.find(|(known, _)| known.is_for_same(frame)) {
            return Ok(way);
        }
        let (port, switch) = (&self.work.port, &self.work.switch);
        let way = match switch.way(frame, port.number(), self.now) {
            switch::Way::Back => Way::Nowhere,
            switch::Way::To(port) if !port.accepts(frame) => Way::Nowhere,
            switch::Way::To(port) => {
                let known = |target: &Target| target.port().number() == port.number();
                match self.targets.iter().position(known) {
                    Some(at) => Way::To(at),
                    None => {
                        let target = Target::new(port, self.spread())?;
                        self.targets.push(target, GFP_KERNEL)?;
                        Way::To(self.targets.len() - 1)
                    }
                }
            }
            switch::Way::Flood => self.wide_way(frame)?,
        };
        self.known.add((*frame, way));
        Ok(way)
    }

    fn learn(&mut self, frame: &Addresses) {
        if self
            .learned
            .find(|known| known.is_from_same(frame))
            .is_none()
        {
            self.learned.add(*frame);
            let port = self.work.port.number();
            self.work.switch.learn(frame, port, self.now);
        }
    }

    /// The way of a frame that the switch would flood.
    fn wide_way(&mut self, frame: &Addresses) -> Result<Way> {
        self.know_all()?;
        if is_group_address(&frame.to) {
            return Ok(Way::Flood);
        }
        let targets = self.targets.iter().enumerate();
        let mut wanting = targets.filter(|(_, target)| wants(target, frame));
        Ok(match (wanting.next(), wanting.next()) {
            (None, _) => Way::Nowhere,
            (Some((only, _)), None) => Way::To(only),
            _ => Way::Flood,
        })
    }

    /// Makes targets of all ports but the sender's.
    fn know_all(&mut self) -> Result {
        if self.all {
            return Ok(());
        }
        let own = self.work.port.number();
        let spread = self.spread();
        for port in self.work.switch.ports()? {
            let number = port.number();
            if number != own && self.targets.iter().all(|t| t.port().number() != number) {
                self.targets.push(Target::new(port, spread)?, GFP_KERNEL)?;
            }
        }
        self.all = true;
        Ok(())
    }

    /// Chooses among a receiver's queues: frames of one transmit queue stay together, and those of
    /// different ones are spread.
    fn spread(&self) -> u32 {
        let pair = u32::from(self.work.pair);
        self.work.port.number().wrapping_add(pair)
    }

    /// Hands frames over to one port. Returns how many are done with, or else how many are before
    /// one that has to wait.
    fn send(
        &mut self,
        target: usize,
        from: &mut Views,
        batch: &Batch,
        run: Range<usize>,
        scratch: &mut Scratch,
        tally: &mut Tally,
    ) -> Result<Result<usize, (usize, Wait)>, Reason> {
        let Some(target) = self.targets.get_mut(target) else {
            return Ok(Ok(run.len()));
        };
        let (port, index) = (target.port().clone(), target.index());
        let waited = self
            .waited
            .take()
            .filter(|wait| wait.port.number() == port.number() && wait.queue == index);
        let to = (port.number(), index);
        let rest = scratch.rest.as_ref();
        let patient = waited
            .as_ref()
            .is_none_or(|wait| wait.since.elapsed() < PATIENCE)
            && !rest.is_some_and(|rest| rest.is_overdue(to));
        if let (false, Some(queue)) = (patient, port.queue(index)) {
            queue.set_stalled(true);
        }
        let waiter = match self.work.handle.as_ref() {
            Some(handle) if patient => Some((self.work.key(), handle)),
            _ => None,
        };
        let source = &self.work.port;
        let outcome = target.hand_over(from, source, batch, run, waiter, scratch, tally);
        Ok(match outcome? {
            Outcome::Done(n) => Ok(n),
            Outcome::Blocked(n) => {
                let since = match waited {
                    Some(wait) if n == 0 => wait.since,
                    _ => Instant::now(),
                };
                let wait = Wait {
                    port,
                    queue: index,
                    since,
                };
                Err((n, wait))
            }
        })
    }

    /// Hands frames that go to the same address over to every port that wants them and has buffers.
    /// Returns how many they were.
    fn flood(
        &mut self,
        from: &mut Views,
        batch: &Batch,
        at: usize,
        count: usize,
        scratch: &mut Scratch,
        tally: &mut Tally,
    ) -> Result<usize, Reason> {
        let Some(parts) = batch.from(at).first().and_then(|frame| frame.parts) else {
            return Ok(1);
        };
        let most = (COPIES / self.targets.len().max(1)).max(1);
        // A frame of segments goes alone: to cut it up for each port that takes none takes long.
        let frames = batch.from(at).iter().take(count.min(most));
        let parts_of = frames.map_while(|frame| frame.parts);
        let plain = parts_of.take_while(|parts| parts.offload.segmentation().is_none());
        let count = plain.count().max(1);
        // A frame went out once, to however many: what counts is the port that got most of them.
        let mut best = Tally {
            drops: count as u64,
            ..Tally::default()
        };
        for target in self.targets.iter_mut() {
            if !wants(target, &parts.addresses) {
                continue;
            }
            let mut sent = Tally::default();
            let mut done = 0;
            while done < count {
                let run = at + done..at + count;
                let source = &self.work.port;
                let outcome = target.hand_over(from, source, batch, run, None, scratch, &mut sent);
                let (Outcome::Done(n) | Outcome::Blocked(n)) = outcome?;
                done += n.max(1);
            }
            if (sent.packets, best.drops) > (best.packets, sent.drops) {
                best = sent;
            }
        }
        tally.add(&best);
        Ok(count)
    }
}
