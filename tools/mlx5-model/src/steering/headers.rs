// SPDX-License-Identifier: GPL-2.0

//! The headers of a frame, as flow tables match them.

use crate::packet::{
    read_u16,
    TCP,
    UDP, //
};

/// Types of Ethernet frames.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const CVLAN: u16 = 0x8100;
const SVLAN: u16 = 0x88a8;

/// Extension headers of IPv6 that another header follows.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// How many extension headers are looked through.
const MAX_EXTENSIONS: usize = 8;

/// Where fields stand, in bytes.
const SMAC: usize = 0;
const ETHERTYPE: usize = 6;
const DMAC: usize = 8;
const FIRST_TAG: usize = 14;
const IP_PROTOCOL: usize = 16;
const TRAFFIC_CLASS: usize = 17;
const FLAGS: usize = 18;
const TCP_PORTS: usize = 20;
const IHL: usize = 26;
const HOP_LIMIT: usize = 27;
const UDP_PORTS: usize = 28;
const SOURCE: usize = 32;
const DESTINATION_ADDRESS: usize = 48;

/// Bits of the 16 at [`FLAGS`]; the version of IP stands in four of them, the flags of TCP in the
/// low nine.
const CVLAN_TAG: u16 = 1 << 15;
const SVLAN_TAG: u16 = 1 << 14;
const FRAG: u16 = 1 << 13;
const VERSION_SHIFT: u16 = 9;

/// The headers of a frame in the form of the reference's `fte_match_set_lyr_2_4`, so that matching
/// is a mask and a comparison. What a frame has not is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Headers(pub(super) [u8; 64]);

impl Headers {
    /// Reads the headers of a frame. One that is cut short has what is whole.
    pub(super) fn of(frame: &[u8]) -> Self {
        let mut headers = Self([0; 64]);
        // A frame without a whole header has no layers.
        let _ = headers.read(frame);
        headers
    }

    fn read(&mut self, frame: &[u8]) -> Option<()> {
        self.put(DMAC, frame.get(..6)?);
        self.put(SMAC, frame.get(6..12)?);
        let mut ethertype = read_u16(frame, 12)?;
        let mut at = 14;
        let mut flags = 0;
        match ethertype {
            CVLAN => flags |= CVLAN_TAG,
            SVLAN => flags |= SVLAN_TAG,
            _ => (),
        }
        if flags != 0 {
            self.put(FIRST_TAG, frame.get(14..16)?);
            ethertype = read_u16(frame, 16)?;
            at = 18;
            // The protocol is looked for behind one more tag.
            if matches!(ethertype, CVLAN | SVLAN) {
                ethertype = read_u16(frame, 20)?;
                at = 22;
            }
        }
        self.put(FLAGS, &flags.to_be_bytes());
        self.put(ETHERTYPE, &ethertype.to_be_bytes());
        let packet = frame.get(at..)?;
        match ethertype {
            IPV4 => self.read_ipv4(packet, flags),
            IPV6 => self.read_ipv6(packet, flags),
            _ => Some(()),
        }
    }

    fn read_ipv4(&mut self, packet: &[u8], mut flags: u16) -> Option<()> {
        let header = packet.get(..20)?;
        let ihl = header[0] & 0xf;
        if header[0] >> 4 != 4 || ihl < 5 {
            return None;
        }
        self.0[IHL] = ihl << 4;
        self.0[TRAFFIC_CLASS] = header[1];
        self.0[HOP_LIMIT] = header[8];
        self.0[IP_PROTOCOL] = header[9];
        self.put(SOURCE + 12, &header[12..16]);
        self.put(DESTINATION_ADDRESS + 12, &header[16..20]);
        flags |= 4 << VERSION_SHIFT;
        // More fragments follow, or others go before.
        let fragment = read_u16(header, 6)? & 0x3fff != 0;
        if fragment {
            flags |= FRAG;
        }
        self.put(FLAGS, &flags.to_be_bytes());
        if fragment {
            return Some(());
        }
        self.read_transport(header[9], packet.get(4 * usize::from(ihl)..)?, flags)
    }

    fn read_ipv6(&mut self, packet: &[u8], mut flags: u16) -> Option<()> {
        let header = packet.get(..40)?;
        if header[0] >> 4 != 6 {
            return None;
        }
        self.0[TRAFFIC_CLASS] = (header[0] << 4) | (header[1] >> 4);
        self.0[HOP_LIMIT] = header[7];
        self.put(SOURCE, &header[8..24]);
        self.put(DESTINATION_ADDRESS, &header[24..40]);
        flags |= 6 << VERSION_SHIFT;
        self.put(FLAGS, &flags.to_be_bytes());
        let mut protocol = header[6];
        let mut rest = packet.get(40..)?;
        for _ in 0..MAX_EXTENSIONS {
            self.0[IP_PROTOCOL] = protocol;
            let len = match protocol {
                HOP_BY_HOP | ROUTING | DESTINATION => 8 * (1 + usize::from(*rest.get(1)?)),
                FRAGMENT => 8,
                _ => return self.read_transport(protocol, rest, flags),
            };
            let next = *rest.first()?;
            if protocol == FRAGMENT {
                self.0[IP_PROTOCOL] = next;
                self.put(FLAGS, &(flags | FRAG).to_be_bytes());
                return Some(());
            }
            protocol = next;
            rest = rest.get(len..)?;
        }
        None
    }

    fn read_transport(&mut self, protocol: u8, segment: &[u8], flags: u16) -> Option<()> {
        match protocol {
            TCP => {
                self.put(TCP_PORTS, segment.get(..4)?);
                let flags = flags | read_u16(segment, 12)? & 0x1ff;
                self.put(FLAGS, &flags.to_be_bytes());
            }
            UDP => self.put(UDP_PORTS, segment.get(..4)?),
            _ => (),
        }
        Some(())
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// What of these headers `mask` lets through.
    pub(super) fn masked(&self, mask: &Self) -> Self {
        let mut masked = *self;
        for (byte, mask) in masked.0.iter_mut().zip(&mask.0) {
            *byte &= mask;
        }
        masked
    }

    fn flags(&self) -> u16 {
        u16::from_be_bytes([self.0[FLAGS], self.0[FLAGS + 1]])
    }

    /// The source and destination addresses of an IPv4 packet.
    pub(super) fn ipv4(&self) -> Option<(&[u8], &[u8])> {
        let found = (self.flags() >> VERSION_SHIFT) & 0xf == 4;
        found.then(|| (&self.0[44..48], &self.0[60..64]))
    }

    /// The source and destination addresses of an IPv6 packet.
    pub(super) fn ipv6(&self) -> Option<(&[u8], &[u8])> {
        let found = (self.flags() >> VERSION_SHIFT) & 0xf == 6;
        found.then(|| (&self.0[32..48], &self.0[48..64]))
    }

    fn is_whole(&self, protocol: u8) -> bool {
        self.0[IP_PROTOCOL] == protocol && self.flags() & FRAG == 0
    }

    /// The source and destination ports of a TCP segment.
    pub(super) fn tcp(&self) -> Option<(&[u8], &[u8])> {
        let found = self.is_whole(TCP);
        found.then(|| (&self.0[20..22], &self.0[22..24]))
    }

    /// The source and destination ports of a UDP datagram.
    pub(super) fn udp(&self) -> Option<(&[u8], &[u8])> {
        let found = self.is_whole(UDP);
        found.then(|| (&self.0[28..30], &self.0[30..32]))
    }
}
