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
    memory::View,
    worker::Handle, //
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
        Outcome,
        Short, //
    },
    peer::Delivery,
    port::Reason,
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
    /// over, and with a `waiter` the frame stays; if they run out later, the rest is dropped.
    pub(crate) fn rework(
        &mut self,
        from: &View,
        parts: &Parts,
        segments: &[Segment],
        waiter: Option<(u64, &Handle)>,
        sent: &mut Tally,
    ) -> Outcome {
        let Ok(pieces) = pieces(from, segments, parts) else {
            sent.errors += 1;
            return Outcome::Done(1);
        };
        let waiter = waiter.filter(|_| !self.queue.is_stalled());
        let mut at = 0;
        while let Some(left) = pieces.get(at..).filter(|left| !left.is_empty()) {
            let waiter = waiter.filter(|_| at == 0);
            let taken = match self.take_pieces(left, parts, waiter) {
                // The view may be older than what the driver mapped just now.
                Err(_) => self
                    .renew()
                    .and_then(|()| self.take_pieces(left, parts, waiter)),
                taken => taken,
            };
            match taken {
                Ok(Taken::Pieces(n)) => {
                    if let Err(fault) = self.fill_pieces(left) {
                        self.port.fault(self.index, Reason::Memory(fault));
                    }
                    self.give();
                    at += n;
                }
                Ok(Taken::Empty) if waiter.is_some() => return Outcome::Blocked(0),
                Ok(Taken::Empty) => {
                    self.received.overruns += left.len() as u64;
                    sent.overruns += 1;
                    return Outcome::Done(1);
                }
                Ok(Taken::Unwanted) => {
                    self.received.drops += left.len() as u64;
                    sent.drops += 1;
                    return Outcome::Done(1);
                }
                Err(reason) => {
                    self.port.fault(self.index, reason);
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
    fn take_pieces(
        &mut self,
        pieces: &[Frame],
        parts: &Parts,
        waiter: Option<(u64, &Handle)>,
    ) -> Result<Taken, Reason> {
        let queue = self.queue;
        let mem = self.views.rings();
        let mut guard = queue.lock();
        let Some(ring) = (*guard).as_mut().filter(|ring| ring.is_open()) else {
            return Ok(Taken::Unwanted);
        };
        self.scratch.begin(ring);
        let waiter = waiter.map(|waiter| (queue, waiter));
        for (at, piece) in pieces.iter().enumerate() {
            // A piece is shorter than 64 KiB and a bit.
            let len = piece.len() as u32;
            let plain = Header::default();
            let taken = match ring.peer.delivery(&plain, &parts.addresses, len) {
                Delivery::Pass => {
                    let len = len + ring.peer.header_len() as u32;
                    match self.scratch.reserve(ring, mem, at, len, waiter)? {
                        Ok(()) => continue,
                        Err(Short::Full) if at > 0 => return Ok(Taken::Pieces(at)),
                        Err(Short::Empty) => Taken::Empty,
                        Err(Short::Full | Short::TooSmall) => Taken::Unwanted,
                    }
                }
                Delivery::Rework | Delivery::TooLong => Taken::Unwanted,
            };
            self.scratch.put_all_back(ring)?;
            return Ok(taken);
        }
        self.after_take(ring)?;
        Ok(Taken::Pieces(pieces.len()))
    }

    /// Fills the buffers that were taken.
    fn fill_pieces(&mut self, pieces: &[Frame]) -> Result<(), Fault> {
        let Some(peer) = self.scratch.peer() else {
            return Ok(());
        };
        let header_len = peer.header_len();
        for (reserved, piece) in self.scratch.reserved().iter().zip(pieces) {
            let to = self.scratch.segments_of(reserved);
            let bytes = peer.emit(&Header::default(), reserved.buffers());
            let bytes = bytes.get(..header_len).unwrap_or(&[]);
            self.views.data().write_at(to, 0, bytes)?;
            piece.scatter(self.views.data(), to, header_len)?;
            self.received.packets += 1;
            self.received.bytes += piece.len() as u64;
        }
        Ok(())
    }
}
