// SPDX-License-Identifier: GPL-2.0

//! TCP segmentation.

use virtio::net::header::{
    Header,
    Segmentation, //
};

use super::{
    checksum::{
        complete_ipv4,
        complete_tcp,
        TCP_OFFSET, //
    },
    read_u16,
    write_u16,
    Headers,
    Ip,
    TCP, //
};

/// The most segments that a packet is cut into: one of 64 KiB with the least segment size that
/// drivers use (48 bytes) gives fewer. Who asks for more only wants to keep the firmware busy.
const MAX_SEGMENTS: usize = 2048;

/// The length of a TCP header without options, in bytes.
const TCP_LEN: usize = 20;
/// Where the sequence number lies in a TCP header.
const SEQUENCE: usize = 4;
/// Where the flags lie in a TCP header.
const FLAGS: usize = 13;
/// Flags of the last segment only.
const FIN_PSH: u8 = 0x01 | 0x08;
/// The flag of the first segment only: one segment answers a congestion notification.
const CWR: u8 = 0x80;

/// A packet that cannot be cut as its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotSegmentable;

/// Cuts a packet into segments, one after the other.
#[derive(Debug)]
pub struct Segmenter<'a> {
    /// All headers.
    head: &'a [u8],
    headers: Headers,
    /// What is left of the payload.
    rest: &'a [u8],
    /// The payload of a segment in bytes.
    size: usize,
    /// The IP identification of the next segment, its sequence number, and how many there were.
    identification: u16,
    sequence: u32,
    done: usize,
}

impl<'a> Segmenter<'a> {
    /// Looks at `packet`, whose header was [accepted](Header::accept).
    ///
    /// # Errors
    ///
    /// It is not a TCP packet of the kind that `header` says, or asks for too many segments.
    pub fn new(packet: &'a [u8], header: &Header) -> Result<Self, NotSegmentable> {
        Self::parse(packet, header).ok_or(NotSegmentable)
    }

    fn parse(packet: &'a [u8], header: &Header) -> Option<Self> {
        let ip = match header.segmentation()? {
            Segmentation::Tcp4 => Ip::V4,
            Segmentation::Tcp6 => Ip::V6,
            _ => return None,
        };
        let headers = Headers::parse(packet)?;
        if headers.ip != ip
            || headers.protocol != TCP
            || headers.fragment
            || headers.l4 != usize::from(header.csum_start)
            || TCP_OFFSET != usize::from(header.csum_offset)
        {
            return None;
        }
        let tcp = packet.get(headers.l4..)?;
        let tcp_len = usize::from(tcp.get(12)? >> 4) * 4;
        let (head, rest) = packet.split_at_checked(headers.l4 + tcp_len)?;
        let size = usize::from(header.gso_size);
        if tcp_len < TCP_LEN || size == 0 || rest.len().div_ceil(size) > MAX_SEGMENTS {
            return None;
        }
        Some(Self {
            head,
            headers,
            rest,
            size,
            identification: read_u16(packet, headers.l3 + 4)?,
            sequence: u32::from_be_bytes(*tcp.get(SEQUENCE..)?.first_chunk()?),
            done: 0,
        })
    }

    /// Puts the next segment into `frame`, in place of what is there. Returns whether there was one.
    pub fn next_into(&mut self, frame: &mut Vec<u8>) -> bool {
        if self.rest.is_empty() && self.done > 0 {
            return false;
        }
        let (payload, rest) = self.rest.split_at(self.size.min(self.rest.len()));
        frame.clear();
        frame.extend_from_slice(self.head);
        frame.extend_from_slice(payload);

        let headers = Headers {
            end: frame.len(),
            ..self.headers
        };
        // Headers and payload come from a buffer with 16-bit lengths for both.
        let len = |from: usize| u16::try_from(frame.len() - from).unwrap_or(u16::MAX);
        match headers.ip {
            Ip::V4 => {
                let len = len(headers.l3);
                write_u16(frame, headers.l3 + 2, len);
                write_u16(frame, headers.l3 + 4, self.identification);
                complete_ipv4(frame, &headers);
            }
            Ip::V6 => {
                let len = len(headers.l3 + super::IPV6_LEN);
                write_u16(frame, headers.l3 + 4, len);
            }
        }
        if let Some(tcp) = frame.get_mut(headers.l4..) {
            if let Some(sequence) = tcp.get_mut(SEQUENCE..).and_then(|at| at.first_chunk_mut()) {
                *sequence = self.sequence.to_be_bytes();
            }
            if let Some(flags) = tcp.get_mut(FLAGS) {
                if self.done > 0 {
                    *flags &= !CWR;
                }
                if !rest.is_empty() {
                    *flags &= !FIN_PSH;
                }
            }
        }
        complete_tcp(frame, &headers);

        self.identification = self.identification.wrapping_add(1);
        // A payload is shorter than 2^32 bytes.
        self.sequence = self.sequence.wrapping_add(payload.len() as u32);
        self.done += 1;
        self.rest = rest;
        true
    }
}
