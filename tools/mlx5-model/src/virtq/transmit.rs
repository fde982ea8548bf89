// SPDX-License-Identifier: GPL-2.0

//! Transmission: from the chains of a virtqueue to frames in the switch.

use virtio::{
    byte_order::ByteOrder,
    memory::Memory,
    net::header::Header,
    ring::{
        Chain,
        Segment, //
    },
};

use crate::{
    frame::Frame,
    packet::{
        checksum,
        segment::Segmenter,
        ETHERNET_LEN, //
    },
};

use super::{
    counters::Tally,
    ring::{
        Failure,
        Ring,
        MAX_CHAIN, //
    },
};

/// Chains taken from a ring, and frames sent, at once.
pub const BATCH: usize = 64;

/// The longest packet that is taken to be cut: an IP packet, its Ethernet header and two tags.
const MAX_LEN: usize = 65535 + ETHERNET_LEN + 8;

/// What came of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Whether the driver is to be told of used buffers.
    pub notify: bool,
    /// Whether there is more to be sent. If not, the driver kicks when there is.
    pub more: bool,
}

/// A frame of a driver that cannot be sent.
struct Unsendable;

/// The sending side of a virtqueue that is ready.
pub struct Transmitter<M> {
    pub(super) ring: Ring<M>,
    segments: Vec<Segment>,
    chains: Vec<Chain>,
    /// Used again and again, for the memory they have.
    frames: Vec<Frame>,
    /// How many of `frames` are to be sent.
    ready: usize,
    /// A packet that is being cut.
    whole: Vec<u8>,
}

impl<M: Memory> Transmitter<M> {
    /// Sends through `ring`.
    pub fn new(ring: Ring<M>) -> Self {
        Self {
            ring,
            segments: vec![Segment::default(); MAX_CHAIN],
            chains: Vec::with_capacity(BATCH),
            frames: vec![Frame::default(); BATCH],
            ready: 0,
            whole: Vec::new(),
        }
    }

    /// Sends what is available, but not more than a batch.
    ///
    /// Every buffer is given back, whatever was in it. What is longer than the port allows is the
    /// switch's business.
    ///
    /// # Errors
    ///
    /// The driver broke the ring. What was taken before is sent, and shown as used.
    pub fn batch(
        &mut self,
        tally: &mut Tally,
        mut send: impl FnMut(&[Frame]),
    ) -> Result<Sent, Failure> {
        // They would be noise until the ring is found empty.
        self.ring.queue.disable_kicks(&self.ring.rings)?;
        self.chains.clear();
        let mut drained = false;
        while self.chains.len() < BATCH {
            match self.take(tally, &mut send) {
                Ok(Some(chain)) => self.chains.push(chain),
                Ok(None) => {
                    drained = true;
                    break;
                }
                // What came before is done first; the next batch then begins with this.
                Err(_) if !self.chains.is_empty() => break,
                Err(failure) => return Err(failure),
            }
        }
        self.flush(&mut send);

        let Ring { queue, rings, .. } = &mut self.ring;
        for chain in &self.chains {
            queue.complete(rings, *chain, 0)?;
        }
        queue.publish(rings)?;
        tally.completed += self.chains.len() as u64;
        let notify = queue.should_notify(rings)?;
        let more = !drained || queue.enable_kicks(rings)?;
        Ok(Sent { notify, more })
    }

    /// Takes a chain, if there is one, and makes frames of it.
    fn take(
        &mut self,
        tally: &mut Tally,
        send: &mut impl FnMut(&[Frame]),
    ) -> Result<Option<Chain>, Failure> {
        let Ring { queue, rings, .. } = &mut self.ring;
        let Some(chain) = queue.pop(rings, &mut self.segments)? else {
            return Ok(None);
        };
        match self.load(&chain, tally, send) {
            Ok(Ok(())) => {}
            Ok(Err(Unsendable)) => tally.errors += 1,
            Err(failure) => {
                self.ring.queue.unpop(chain)?;
                return Err(failure);
            }
        }
        tally.received += 1;
        Ok(Some(chain))
    }

    /// Makes frames of what a chain holds. A descriptor may hold header and frame alike, or any
    /// part of them: the object does not say which framing a legacy driver is bound to.
    fn load(
        &mut self,
        chain: &Chain,
        tally: &mut Tally,
        send: &mut impl FnMut(&[Frame]),
    ) -> Result<Result<(), Unsendable>, Failure> {
        let header_len = self.ring.header_len;
        let total = chain.readable() as usize;
        if !(header_len + ETHERNET_LEN..=header_len + MAX_LEN).contains(&total) {
            return Ok(Err(Unsendable));
        }
        // The header goes where the frame is to be and is taken away afterwards: looking memory up
        // costs more than moving a frame by a few bytes.
        let Some(bytes) = self
            .frames
            .get_mut(self.ready)
            .map(|frame| &mut frame.bytes)
        else {
            return Err(Failure::Internal);
        };
        bytes.resize(total, 0);
        let mut to = bytes.as_mut_slice();
        for segment in self.segments.iter().take(chain.readable_segments()) {
            let Some((here, rest)) = to.split_at_mut_checked(segment.len as usize) else {
                return Err(Failure::Internal);
            };
            self.ring.buffers.read(segment.addr, here)?;
            to = rest;
        }
        Ok(self.prepare(tally, send))
    }

    /// Makes frames of a header and what follows it, which are where the next frame is to be.
    fn prepare(
        &mut self,
        tally: &mut Tally,
        send: &mut impl FnMut(&[Frame]),
    ) -> Result<(), Unsendable> {
        let frame = self.frames.get_mut(self.ready).ok_or(Unsendable)?;
        let bytes = &mut frame.bytes;
        let header = Header::parse(bytes, ByteOrder::Little).ok_or(Unsendable)?;
        bytes.drain(..self.ring.header_len.min(bytes.len()));
        // A packet is not longer than `MAX_LEN`.
        let header = header
            .accept(self.ring.features, bytes.len() as u32)
            .map_err(|_| Unsendable)?;

        if header.segmentation().is_some() {
            std::mem::swap(bytes, &mut self.whole);
            return self.cut(&header, tally, send);
        }
        if header.needs_checksum() {
            checksum::complete(bytes, header.csum_start, header.csum_offset);
        }
        tally.frames += 1;
        tally.bytes += bytes.len() as u64;
        self.ready += 1;
        if self.ready == self.frames.len() {
            self.flush(send);
        }
        Ok(())
    }

    /// Makes segments of the packet in `whole`.
    fn cut(
        &mut self,
        header: &Header,
        tally: &mut Tally,
        send: &mut impl FnMut(&[Frame]),
    ) -> Result<(), Unsendable> {
        let whole = std::mem::take(&mut self.whole);
        let cut = Segmenter::new(&whole, header);
        let outcome = cut.as_ref().map(|_| ()).map_err(|_| Unsendable);
        if let Ok(mut segmenter) = cut {
            while let Some(frame) = self.frames.get_mut(self.ready) {
                if !segmenter.next_into(&mut frame.bytes) {
                    break;
                }
                tally.frames += 1;
                tally.bytes += frame.bytes.len() as u64;
                self.ready += 1;
                if self.ready == self.frames.len() {
                    self.flush(send);
                }
            }
        }
        self.whole = whole;
        outcome
    }

    fn flush(&mut self, send: &mut impl FnMut(&[Frame])) {
        let ready = std::mem::take(&mut self.ready);
        match self.frames.get(..ready) {
            Some(frames) if ready > 0 => send(frames),
            _ => {}
        }
    }
}
