// SPDX-License-Identifier: GPL-2.0

//! Ethernet frames on their way through the switch.

/// An Ethernet frame without its check sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// From the destination address on. Every checksum in it is whole.
    pub bytes: Vec<u8>,
}

/// The types of VLAN tags: a customer's and a service provider's.
const VLAN_TYPES: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];

impl Frame {
    /// The length of an Ethernet header in bytes.
    const HEADER: usize = 14;
    /// The length of a VLAN tag in bytes.
    const TAG: usize = 4;

    /// Returns whether there is a whole Ethernet header.
    pub fn is_whole(&self) -> bool {
        self.bytes.len() >= Self::HEADER
    }

    /// Whom it is for; of a frame that is not whole, nobody.
    pub fn destination(&self) -> [u8; 6] {
        self.address(0)
    }

    /// Who sent it; of a frame that is not whole, nobody.
    pub fn source(&self) -> [u8; 6] {
        self.address(6)
    }

    fn address(&self, at: usize) -> [u8; 6] {
        let found = self.bytes.get(at..).and_then(<[u8]>::first_chunk);
        found.copied().unwrap_or_default()
    }

    fn is_tagged(&self, at: usize) -> bool {
        let found = self.bytes.get(at..).and_then(<[u8]>::first_chunk);
        found.is_some_and(|type_| VLAN_TYPES.contains(type_))
    }

    /// Its VLAN: that of its outermost tag; 0 if it has none.
    pub fn vlan(&self) -> u16 {
        match self.bytes.get(14..16) {
            Some(&[high, low]) if self.is_tagged(12) => u16::from_be_bytes([high & 0xf, low]),
            _ => 0,
        }
    }

    /// Its length in bytes without Ethernet header and VLAN tags: what an MTU is about.
    pub fn payload_len(&self) -> usize {
        let mut header = Self::HEADER;
        // There are at most two tags.
        for _ in 0..2 {
            if self.is_tagged(header - 2) {
                header += Self::TAG;
            }
        }
        self.bytes.len().saturating_sub(header)
    }
}
