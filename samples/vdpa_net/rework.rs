// SPDX-License-Identifier: GPL-2.0
//! Frames that the receiver's driver cannot take as they are.
//!
//! They are copied into the kernel, cut into segments or given their checksum by the network
//! stack's own code, and handed over piece by piece. A receiver may have fewer buffers than there
//! are pieces: it gets as many as there is room for, and the rest waits for more.

use kernel::{
    prelude::*,
    time::{
        Delta,
        Instant,
        Monotonic, //
    }, //
};
use vdpa::{
    frame::{
        Checksum,
        Frame,
        Segmentation, //
    },
    memory::View, //
};
use virtio::{
    memory::Fault,
    net::header::{
        self,
        Header, //
    },
    ring::Segment, //
};

use crate::{
    handover::{
        Hand,
        Outcome, //
    },
    peer::Delivery,
    port::{
        Port,
        Reason,
        Views, //
    },
    reserve::Short,
    stats::Tally,
    transmit::{
        Parts,
        PATIENCE, //
    }, //
};

/// The most pieces a frame may be cut into. The smallest segments that the network stack sends give
/// fewer; a sender that asks for segments of a byte only wants to keep others busy.
const MAX_PIECES: u32 = 1024;

/// How long a frame's pieces wait for receive buffers, all in all. [`PATIENCE`] begins anew with
/// each of them, and a receiver with a buffer now and then would hold its sender for seconds.
const LAST_PATIENCE: Delta = Delta::from_nanos(5 * PATIENCE.as_nanos());

/// A frame in a sender's memory.
pub(crate) struct Whole<'a> {
    /// Tells it from the others in the sender's ring.
    pub(crate) name: (u32, u16),
    pub(crate) parts: &'a Parts,
    pub(crate) segments: &'a [Segment],
}

/// What is left of a frame of which a part was handed over. The frame itself stays in the sender's
/// ring until the last of it was.
pub(crate) struct Rest {
    name: (u32, u16),
    parts: Parts,
    /// Number of the port that receives it, and the queue.
    to: (u32, u16),
    pieces: KVec<Frame>,
    /// How many of them were handed over.
    done: usize,
    /// When the first of them was to be.
    since: Instant<Monotonic>,
}

impl Rest {
    /// All of a frame, for queue `to.1` of port `to.0`.
    ///
    /// # Errors
    ///
    /// As [`pieces`].
    fn new(from: &View, whole: &Whole<'_>, to: (u32, u16)) -> Result<Self> {
        Ok(Self {
            name: whole.name,
            parts: *whole.parts,
            to,
            pieces: pieces(from, whole.segments, whole.parts)?,
            done: 0,
            since: Instant::now(),
        })
    }

    /// Whether this is what is left of `whole` on its way to the same queue. Of a frame that its
    /// driver has changed meanwhile, that is what it was: only the receiver must be the one that
    /// the addresses were looked at for.
    fn is_of(&self, whole: &Whole<'_>, to: (u32, u16)) -> bool {
        self.name == whole.name && self.parts == *whole.parts && self.to == to
    }

    /// Whether the sender has waited for queue `to.1` of port `to.0` to take it for too long.
    pub(crate) fn is_overdue(&self, to: (u32, u16)) -> bool {
        self.to == to && self.since.elapsed() >= LAST_PATIENCE
    }

    fn left(&self) -> &[Frame] {
        self.pieces.get(self.done..).unwrap_or(&[])
    }
}

/// How far taking buffers for pieces got.
enum Taken {
    /// There are buffers for this many of them, at least one.
    Pieces(usize),
    /// There are none for the first.
    Empty,
    /// The first is longer than the receiver takes.
    Unwanted,
}

/// Makes the pieces in which a frame in a sender's memory is to be received.
///
/// # Errors
///
/// The frame is not what its header says, or there is no memory.
fn pieces(from: &View, segments: &[Segment], parts: &Parts) -> Result<KVec<Frame>> {
    let header = &parts.offload;
    if header.segmentation().is_some()
        && parts.len.div_ceil(u32::from(header.gso_size).max(1)) > MAX_PIECES
    {
        return Err(EINVAL);
    }
    // What was looked at goes out from the copy.
    let head = parts.head.get(..parts.head_len()).unwrap_or(&[]);
    let len = parts.len as usize;
    let whole = Frame::gather(head, from, segments, parts.header_len + head.len(), len)?;
    let checksum = header.needs_checksum().then_some(Checksum {
        start: header.csum_start,
        offset: header.csum_offset,
    });
    let mut pieces = KVec::new();
    let ipv6 = match header.segmentation() {
        None => {
            let frame = match checksum {
                Some(checksum) => whole.checksum(checksum)?,
                None => whole,
            };
            pieces.push(frame, GFP_KERNEL)?;
            return Ok(pieces);
        }
        Some(header::Segmentation::Tcp4) => false,
        Some(header::Segmentation::Tcp6) => true,
        // Not offered to drivers that send.
        Some(_) => return Err(EINVAL),
    };
    let segmentation = Segmentation {
        ipv6,
        ecn: header.gso_type & header::GSO_ECN != 0,
        size: header.gso_size,
    };
    for piece in whole.segment(checksum, segmentation)? {
        pieces.push(piece, GFP_KERNEL)?;
    }
    Ok(pieces)
}

impl Hand<'_> {
    /// Hands a frame over in pieces, as many as there are buffers for at once. If the sender can
    /// wait, the `rest` stays for the next time; otherwise it is dropped when buffers run out.
    pub(crate) fn rework(
        &mut self,
        from: &mut Views,
        source: &Port,
        whole: &Whole<'_>,
        rest: Option<Rest>,
        sent: &mut Tally,
    ) -> Outcome {
        let to = (self.port.number(), self.index);
        let rest = match rest.filter(|rest| rest.is_of(whole, to)) {
            Some(rest) => Ok(rest),
            None => Rest::new(from.data(), whole, to).or_else(|error| {
                if error != EFAULT {
                    return Err(error);
                }
                // The view may be older than what the driver mapped just now.
                *from = source.views()?;
                Rest::new(from.data(), whole, to)
            }),
        };
        let mut rest = match rest {
            Ok(rest) => rest,
            Err(error) => {
                // For want of memory a frame is lost that nothing is wrong with.
                if error == ENOMEM {
                    sent.drops += 1;
                } else {
                    sent.errors += 1;
                }
                return Outcome::Done(1);
            }
        };
        loop {
            match self.take_pieces(rest.left(), &rest.parts) {
                Some(Taken::Pieces(n)) => {
                    self.fill_pieces(rest.left());
                    self.give();
                    rest.done += n;
                }
                Some(Taken::Empty) if self.waiting.is_some() => {
                    self.scratch.rest = Some(rest);
                    return self.blocked(0);
                }
                Some(Taken::Empty) => {
                    self.received.overruns += rest.left().len() as u64;
                    sent.overruns += 1;
                    return Outcome::Done(1);
                }
                Some(Taken::Unwanted) | None => {
                    self.received.drops += rest.left().len() as u64;
                    sent.drops += 1;
                    return Outcome::Done(1);
                }
            }
            if rest.left().is_empty() {
                sent.packets += 1;
                sent.bytes += u64::from(rest.parts.len);
                return Outcome::Done(1);
            }
            // There may be many more, and a turn is to be short.
            if self.waiting.is_some() {
                self.scratch.rest = Some(rest);
                return Outcome::Done(0);
            }
        }
    }

    /// Takes buffers for as many of `pieces` as possible.
    fn take_pieces(&mut self, pieces: &[Frame], parts: &Parts) -> Option<Taken> {
        self.take_by(|taking| {
            let peer = taking.peer();
            for (at, piece) in pieces.iter().enumerate() {
                // A piece is shorter than 64 KiB and a bit.
                let len = piece.len() as u32;
                let short = match peer.delivery(&Header::default(), &parts.addresses, len) {
                    Delivery::Pass => match taking.reserve(at, len + peer.header_len() as u32)? {
                        Ok(()) => continue,
                        Err(short) => short,
                    },
                    Delivery::Rework | Delivery::TooLong => Short::TooSmall,
                };
                return Ok(match short {
                    _ if at > 0 => Taken::Pieces(at),
                    Short::Empty => Taken::Empty,
                    Short::Full | Short::TooSmall => Taken::Unwanted,
                });
            }
            Ok(Taken::Pieces(pieces.len()))
        })
    }

    /// Fills the buffers that were taken.
    fn fill_pieces(&mut self, pieces: &[Frame]) {
        let taken = self.scratch.reserved().len();
        for (at, piece) in pieces.iter().enumerate().take(taken) {
            let filled = match self.fill_piece(at, piece) {
                // The view may be older than what the driver mapped just now.
                Err(_) => match self.renew() {
                    Ok(()) => self.fill_piece(at, piece).map_err(Some),
                    Err(_) => Err(None),
                },
                Ok(()) => Ok(()),
            };
            match filled {
                Ok(()) => {
                    self.received.packets += 1;
                    self.received.bytes += piece.len() as u64;
                }
                Err(fault) => {
                    self.received.drops += 1;
                    self.scratch.leave_empty(at);
                    if let Some(fault) = fault {
                        self.fault(Reason::Memory(fault));
                    }
                }
            }
        }
    }

    fn fill_piece(&self, at: usize, piece: &Frame) -> Result<(), Fault> {
        let (Some(peer), Some(reserved)) = (self.scratch.peer(), self.scratch.reserved().get(at))
        else {
            return Ok(());
        };
        let to = self.scratch.segments_of(reserved);
        let header = peer.emit(&Header::default(), reserved.buffers());
        let header = header.get(..peer.header_len()).unwrap_or(&[]);
        self.views.data().write_at(to, 0, header)?;
        piece.scatter(self.views.data(), to, header.len())
    }
}
