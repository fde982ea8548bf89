// SPDX-License-Identifier: GPL-2.0
//! Frames that the receiver's driver cannot take as they are.
//!
//! They are copied into the kernel, cut into segments or given their checksum by the network
//! stack's own code, and handed over piece by piece.

use kernel::prelude::*;
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
    port::Reason,
    reserve::Short,
    stats::Tally,
    transmit::Parts, //
};

/// The most pieces a frame may be cut into. The smallest segments that the network stack sends give
/// fewer; a sender that asks for segments of a byte only wants to keep others busy.
const MAX_PIECES: u32 = 1024;

/// How far taking buffers for pieces got.
enum Taken {
    /// There are buffers for this many of them, at least one.
    Pieces(usize),
    /// There are not enough buffers.
    Empty,
    /// A piece is longer than the receiver takes, or the port does not receive.
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
    /// Hands a frame over in pieces. If there are no buffers for the first of them, none is handed
    /// over, and if somebody can wait the frame stays; if they run out later, the rest is dropped.
    pub(crate) fn rework(
        &mut self,
        from: &View,
        parts: &Parts,
        segments: &[Segment],
        sent: &mut Tally,
    ) -> Outcome {
        let Ok(pieces) = pieces(from, segments, parts) else {
            sent.errors += 1;
            return Outcome::Done(1);
        };
        let mut at = 0;
        while let Some(left) = pieces.get(at..).filter(|left| !left.is_empty()) {
            match self.take_pieces(left, parts) {
                Some(Taken::Pieces(n)) => {
                    self.fill_pieces(left);
                    self.give();
                    at += n;
                }
                Some(Taken::Empty) if at == 0 && self.waiting.is_some() => return self.blocked(0),
                Some(Taken::Empty) => {
                    self.received.overruns += left.len() as u64;
                    sent.overruns += 1;
                    return Outcome::Done(1);
                }
                Some(Taken::Unwanted) | None => {
                    self.received.drops += left.len() as u64;
                    sent.drops += 1;
                    return Outcome::Done(1);
                }
            }
        }
        sent.packets += 1;
        sent.bytes += u64::from(parts.len);
        Outcome::Done(1)
    }

    /// Takes buffers for all of `pieces`, or for as many as can be taken at once.
    fn take_pieces(&mut self, pieces: &[Frame], parts: &Parts) -> Option<Taken> {
        self.take_by(|taking| {
            let peer = taking.peer();
            for (at, piece) in pieces.iter().enumerate() {
                // A piece is shorter than 64 KiB and a bit.
                let len = piece.len() as u32;
                let taken = match peer.delivery(&Header::default(), &parts.addresses, len) {
                    Delivery::Pass => match taking.reserve(at, len + peer.header_len() as u32)? {
                        Ok(()) => continue,
                        Err(Short::Full) if at > 0 => return Ok(Taken::Pieces(at)),
                        Err(Short::Empty) => Taken::Empty,
                        Err(Short::Full | Short::TooSmall) => Taken::Unwanted,
                    },
                    Delivery::Rework | Delivery::TooLong => Taken::Unwanted,
                };
                taking.put_all_back()?;
                return Ok(taken);
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
                        self.port.fault(self.index, Reason::Memory(fault));
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
