// SPDX-License-Identifier: GPL-2.0

//! Ethernet frames on their way through the switch.

use crate::packet::{
    ether_type,
    read_u16,
    ETHERNET_LEN,
    TAGS, //
};

/// An Ethernet frame without its check sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// From the destination address on. Every checksum in it is whole.
    pub bytes: Vec<u8>,
}

impl Frame {
    /// Returns whether there is a whole Ethernet header.
    pub fn is_whole(&self) -> bool {
        self.bytes.len() >= ETHERNET_LEN
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

    /// Its VLAN: that of its outermost tag; 0 if it has none.
    pub fn vlan(&self) -> u16 {
        let word = |at| read_u16(&self.bytes, at);
        match (word(ETHERNET_LEN - 2), word(ETHERNET_LEN)) {
            (Some(type_), Some(tag)) if TAGS.contains(&type_) => tag & 0xfff,
            _ => 0,
        }
    }

    /// Its length in bytes without Ethernet header and VLAN tags: what an MTU is about.
    pub fn payload_len(&self) -> usize {
        ether_type(&self.bytes).map_or(0, |(_, header)| self.bytes.len() - header)
    }
}
