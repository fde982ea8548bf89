// SPDX-License-Identifier: GPL-2.0

//! Reception: from frames of the switch to the buffers of a virtqueue.

use virtio::{
    byte_order::ByteOrder,
    memory::Memory,
    net::{
        features::{
            GUEST_CSUM,
            MRG_RXBUF, //
        },
        header::{
            Header,
            DATA_VALID, //
        },
    },
    ring::{
        Chain,
        Segment, //
    },
};

use crate::{
    frame::Frame,
    packet::checksum, //
};

use super::{
    counters::Tally,
    ring::{
        Failure,
        Ring,
        MAX_CHAIN, //
    },
};

/// Where a frame found room.
enum Place {
    /// In the chains that were taken.
    Found,
    /// In none, and it would not do so in others: it is longer than the buffers are.
    TooLong,
    /// There were not enough buffers.
    Empty,
}

/// The receiving side of a virtqueue that is ready.
pub struct Receiver<M> {
    pub(super) ring: Ring<M>,
    segments: Vec<Segment>,
    /// The chains of one frame.
    chains: Vec<Chain>,
    /// A frame with its header: looking memory up costs more than copying it.
    packet: Vec<u8>,
}

impl<M: Memory> Receiver<M> {
    /// Receives through `ring`.
    pub fn new(ring: Ring<M>) -> Self {
        Self {
            ring,
            segments: vec![Segment::default(); MAX_CHAIN],
            chains: Vec::new(),
            packet: Vec::new(),
        }
    }

    /// Puts frames into buffers, and returns whether the driver is to be told.
    ///
    /// A frame for which there is no buffer, or none that is long enough, is dropped.
    ///
    /// # Errors
    ///
    /// The driver broke the ring. What was received before is shown as used.
    pub fn batch(&mut self, frames: &[&Frame], tally: &mut Tally) -> Result<bool, Failure> {
        let mut outcome = Ok(());
        for (at, frame) in frames.iter().enumerate() {
            match self.put(frame, tally) {
                Ok(Place::Found) => {}
                Ok(Place::TooLong) => tally.dropped += 1,
                // Looking again for each of the others would take long and find nothing.
                Ok(Place::Empty) => {
                    tally.dropped += (frames.len() - at) as u64;
                    break;
                }
                Err(failure) => {
                    tally.dropped += (frames.len() - at) as u64;
                    outcome = Err(failure);
                    break;
                }
            }
        }
        let Ring { queue, rings, .. } = &mut self.ring;
        queue.publish(rings)?;
        outcome?;
        Ok(queue.should_notify(rings)?)
    }

    /// Puts a frame into buffers.
    fn put(&mut self, frame: &Frame, tally: &mut Tally) -> Result<Place, Failure> {
        let len = self.ring.header_len + frame.bytes.len();
        let place = match self.take(len) {
            Ok(Place::Found) => {
                self.fill(frame)?;
                tally.received += self.chains.len() as u64;
                self.complete(len)?;
                tally.completed += self.chains.len() as u64;
                tally.frames += 1;
                tally.bytes += frame.bytes.len() as u64;
                return Ok(Place::Found);
            }
            other => other,
        };
        for chain in self.chains.drain(..).rev() {
            self.ring.queue.unpop(chain)?;
        }
        place
    }

    /// Takes chains with room for `len` bytes.
    fn take(&mut self, len: usize) -> Result<Place, Failure> {
        let mergeable = self.ring.features.contains(MRG_RXBUF);
        let mut used = 0;
        let mut room = 0;
        self.chains.clear();
        loop {
            // No more segments than there are bytes, and a chain.
            if self.segments.len() < used + MAX_CHAIN {
                self.segments.resize(used + MAX_CHAIN, Segment::default());
            }
            let Some(segments) = self.segments.get_mut(used..) else {
                return Err(Failure::Internal);
            };
            let segments = segments.get_mut(..MAX_CHAIN).unwrap_or(&mut []);
            let Ring { queue, rings, .. } = &mut self.ring;
            // Nobody asks for kicks here: buffers are looked for when frames come.
            queue.disable_kicks(rings)?;
            let Some(chain) = queue.pop(rings, segments)? else {
                return Ok(Place::Empty);
            };
            self.chains.push(chain);
            if chain.writable() == 0 {
                return Err(Failure::BadDescriptor);
            }
            used += chain.segments();
            room += chain.writable() as usize;
            if room >= len {
                return Ok(Place::Found);
            }
            if !mergeable {
                return Ok(Place::TooLong);
            }
        }
    }

    /// Writes a frame and its header into the chains that were taken.
    fn fill(&mut self, frame: &Frame) -> Result<(), Failure> {
        let checked = self.ring.features.contains(GUEST_CSUM) && checksum::is_whole(&frame.bytes);
        let header = Header {
            flags: if checked { DATA_VALID } else { 0 },
            // A chain has at least a byte, and a frame fewer than 65536 of them.
            num_buffers: u16::try_from(self.chains.len()).map_err(|_| Failure::Internal)?,
            ..Header::default()
        };
        let header = header.to_bytes(ByteOrder::Little);
        self.packet.clear();
        self.packet
            .extend_from_slice(header.get(..self.ring.header_len).unwrap_or(&header));
        self.packet.extend_from_slice(&frame.bytes);

        let mut rest = self.packet.as_slice();
        let count = self.chains.iter().map(Chain::segments).sum();
        for segment in self.segments.iter().take(count) {
            if segment.writable {
                let (here, after) = rest.split_at(rest.len().min(segment.len as usize));
                self.ring.buffers.write(segment.addr, here)?;
                rest = after;
            }
            if rest.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Gives the chains of `len` bytes back.
    fn complete(&mut self, len: usize) -> Result<(), Failure> {
        let Ring { queue, rings, .. } = &mut self.ring;
        // A frame is shorter than 4 GiB.
        let mut left = len as u32;
        for chain in &self.chains {
            let written = left.min(chain.writable());
            queue.complete(rings, *chain, written)?;
            left -= written;
        }
        Ok(())
    }
}
