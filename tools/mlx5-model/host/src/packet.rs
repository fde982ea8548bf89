// SPDX-License-Identifier: GPL-2.0

//! Frames to send, made here so that nothing of the model vouches for itself.

use crate::net::Header;

/// The sum of 16-bit words that checksums are made of, onto `sum`.
fn add(mut sum: u32, bytes: &[u8]) -> u32 {
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

/// Two hosts that talk by TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Whose it is.
    pub from: [u8; 6],
    /// To whom.
    pub to: [u8; 6],
    /// The VLAN, if it is tagged.
    pub vlan: Option<u16>,
    /// IPv6 instead of IPv4.
    pub v6: bool,
    /// TCP instead of UDP.
    pub tcp: bool,
    /// The ports: of the sender, and of the receiver.
    pub ports: (u16, u16),
}

impl Flow {
    /// UDP over IPv4, not tagged.
    pub fn new(from: [u8; 6], to: [u8; 6]) -> Self {
        Self {
            from,
            to,
            vlan: None,
            v6: false,
            tcp: false,
            ports: (1000, 2000),
        }
    }

    /// Where the IP header begins.
    pub fn network(&self) -> usize {
        if self.vlan.is_some() {
            18
        } else {
            14
        }
    }

    /// Where the TCP or UDP header begins.
    pub fn transport(&self) -> usize {
        self.network() + if self.v6 { 40 } else { 20 }
    }

    /// Where the payload begins.
    pub fn payload(&self) -> usize {
        self.transport() + if self.tcp { 20 } else { 8 }
    }

    fn checksum_offset(&self) -> usize {
        if self.tcp {
            16
        } else {
            6
        }
    }

    /// The sum of addresses, protocol and length, which is part of a transport checksum.
    fn pseudo(&self, frame: &[u8]) -> u32 {
        let network = self.network();
        let addresses = match self.v6 {
            true => &frame[network + 8..network + 40],
            false => &frame[network + 12..network + 20],
        };
        let protocol = if self.tcp { 6 } else { 17 };
        add(
            protocol + (frame.len() - self.transport()) as u32,
            addresses,
        )
    }

    /// A frame with this payload, every checksum in it whole.
    pub fn frame(&self, payload: &[u8]) -> Vec<u8> {
        let mut frame = self.partial(payload);
        let start = self.transport();
        let at = start + self.checksum_offset();
        let sum = !(add(0, &frame[start..]) as u16);
        // 0 says that there is none.
        let sum = if sum == 0 && !self.tcp { 0xffff } else { sum };
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    /// The same, but for the checksum of TCP or UDP: it holds the sum of what is not in the frame
    /// from [`Flow::transport`] on, for a device to complete.
    pub fn partial(&self, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        frame.extend(self.to);
        frame.extend(self.from);
        if let Some(vlan) = self.vlan {
            frame.extend([0x81, 0x00]);
            frame.extend(vlan.to_be_bytes());
        }
        let len = self.payload() - self.transport() + payload.len();
        let protocol = if self.tcp { 6 } else { 17 };
        if self.v6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((len as u16).to_be_bytes());
            frame.extend([protocol, 64]);
            for host in [self.from, self.to] {
                frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                frame.extend(host);
            }
        } else {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend((20 + len as u16).to_be_bytes());
            frame.extend([0x12, 0x34, 0x40, 0, 64, protocol, 0, 0]);
            for host in [self.from, self.to] {
                frame.extend([10, host[3], host[4], host[5]]);
            }
            let at = self.network();
            let sum = !(add(0, &frame[at..at + 20]) as u16);
            frame[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
        }
        frame.extend(self.ports.0.to_be_bytes());
        frame.extend(self.ports.1.to_be_bytes());
        if self.tcp {
            frame.extend([
                0, 0, 0x10, 0, 0, 0, 0, 1, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0,
            ]);
        } else {
            frame.extend((len as u16).to_be_bytes());
            frame.extend([0, 0]);
        }
        frame.extend(payload);
        let at = self.transport() + self.checksum_offset();
        let sum = self.pseudo(&frame) as u16;
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    /// The header that has a device complete the checksum of [`Flow::partial`].
    pub fn checksum(&self) -> Header {
        Header {
            flags: 1,
            csum_start: self.transport() as u16,
            csum_offset: self.checksum_offset() as u16,
            ..Header::default()
        }
    }

    /// The header that has a device cut the frame into segments of `size` bytes of payload.
    pub fn segmentation(&self, size: u16) -> Header {
        Header {
            gso_type: if self.v6 { 4 } else { 1 },
            hdr_len: self.payload() as u16,
            gso_size: size,
            ..self.checksum()
        }
    }

    /// Returns whether every checksum in a frame of this flow is right.
    pub fn is_whole(&self, frame: &[u8]) -> bool {
        let (network, start) = (self.network(), self.transport());
        let network = self.v6 || add(0, &frame[network..network + 20]) == 0xffff;
        network && add(self.pseudo(frame), &frame[start..]) == 0xffff
    }
}

/// A payload of `len` bytes that is another for each `seed`.
pub fn payload(seed: u32, len: usize) -> Vec<u8> {
    (0..len as u32)
        .map(|at| (at.wrapping_mul(31).wrapping_add(seed.wrapping_mul(101)) >> 1) as u8)
        .collect()
}
