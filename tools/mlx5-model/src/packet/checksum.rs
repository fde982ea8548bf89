// SPDX-License-Identifier: GPL-2.0

//! Checksums of the internet protocols.

use super::{
    read_u16,
    write_u16,
    Headers,
    Ip,
    TCP,
    UDP, //
};

/// Where the checksum lies in a TCP header, in bytes.
pub(crate) const TCP_OFFSET: usize = 16;
/// Where it lies in a UDP header.
const UDP_OFFSET: usize = 6;
/// Where it lies in an IPv4 header.
const IPV4_OFFSET: usize = 10;

/// A sum in the making.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(
    /// Of 32-bit words, so that carries need not be looked after: 2^32 of them fit.
    u64,
);

impl Sum {
    /// Adds bytes. Only the last ones that are added may be an odd number.
    #[must_use]
    pub fn with(self, bytes: &[u8]) -> Self {
        let words = bytes.chunks_exact(4);
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(words.remainder()) {
            *to = *from;
        }
        let sum = words
            .filter_map(|word| word.first_chunk())
            .fold(self.0, |sum, word| {
                sum + u64::from(u32::from_be_bytes(*word))
            });
        Self(sum + u64::from(u32::from_be_bytes(last)))
    }

    /// Adds a number.
    #[must_use]
    pub fn with_u16(self, number: u16) -> Self {
        Self(self.0 + u64::from(number))
    }

    /// The checksum: 0 says that what was added, its checksum included, is whole.
    pub fn finish(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        !(sum as u16)
    }
}

/// The sum of what a TCP or UDP checksum covers besides the protocol's own bytes.
fn pseudo_header(frame: &[u8], headers: &Headers) -> Option<Sum> {
    let (source, size) = match headers.ip {
        Ip::V4 => (headers.l3 + 12, 4),
        Ip::V6 => (headers.l3 + 8, 16),
    };
    let address = |at: usize| frame.get(at..at + size);
    let len = headers.end.checked_sub(headers.l4)?;
    let sum = Sum::default()
        .with(address(source)?)
        .with(address(headers.destination)?)
        .with_u16(headers.protocol.into());
    Some(Sum(sum.0 + len as u64))
}

/// Stores the checksum of an IPv4 header, which ends where `headers.l4` is.
pub(crate) fn complete_ipv4(frame: &mut [u8], headers: &Headers) {
    write_u16(frame, headers.l3 + IPV4_OFFSET, 0);
    if let Some(header) = frame.get(headers.l3..headers.l4) {
        let checksum = Sum::default().with(header).finish();
        write_u16(frame, headers.l3 + IPV4_OFFSET, checksum);
    }
}

/// Stores the checksum of a TCP segment.
pub(crate) fn complete_tcp(frame: &mut [u8], headers: &Headers) {
    let at = headers.l4 + TCP_OFFSET;
    write_u16(frame, at, 0);
    let payload = frame.get(headers.l4..headers.end);
    if let (Some(sum), Some(payload)) = (pseudo_header(frame, headers), payload) {
        let checksum = sum.with(payload).finish();
        write_u16(frame, at, checksum);
    }
}

/// Completes a partial checksum: sums up what is from `start` on, which holds the sum of the pseudo
/// header at `offset` from there, and stores the checksum in its place.
///
/// Does nothing if it does not lie within the frame.
pub fn complete(frame: &mut [u8], start: u16, offset: u16) {
    let start = usize::from(start);
    let Some(covered) = frame.get_mut(start..) else {
        return;
    };
    // 0 would say that there is no checksum, in UDP; the other zero means the same elsewhere.
    let checksum = match Sum::default().with(covered).finish() {
        0 => 0xffff,
        checksum => checksum,
    };
    write_u16(covered, offset.into(), checksum);
}

/// Returns whether a frame is a TCP or UDP packet whose checksums are there and right.
pub fn is_whole(frame: &[u8]) -> bool {
    let Some(headers) = Headers::parse(frame).filter(|headers| !headers.fragment) else {
        return false;
    };
    let (Some(header), Some(payload)) = (
        frame.get(headers.l3..headers.l4),
        frame.get(headers.l4..headers.end),
    ) else {
        return false;
    };
    if headers.ip == Ip::V4 && Sum::default().with(header).finish() != 0 {
        return false;
    }
    let there = match headers.protocol {
        TCP => read_u16(payload, TCP_OFFSET).is_some(),
        UDP => read_u16(payload, UDP_OFFSET).is_some_and(|checksum| checksum != 0),
        _ => false,
    };
    there && pseudo_header(frame, &headers).is_some_and(|sum| sum.with(payload).finish() == 0)
}
