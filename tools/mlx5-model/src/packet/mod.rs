// SPDX-License-Identifier: GPL-2.0

//! What is inside a frame, as far as offloads need to know it.

pub mod checksum;
pub mod segment;

/// The length of an Ethernet header without tags, in bytes.
pub const ETHERNET_LEN: usize = 14;
/// The length of a VLAN tag, in bytes.
pub const TAG_LEN: usize = 4;

/// The protocol number of TCP.
pub const TCP: u8 = 6;
/// The protocol number of UDP.
pub const UDP: u8 = 17;

/// EtherTypes of VLAN tags: a customer's and a service provider's.
pub(crate) const TAGS: [u16; 2] = [0x8100, 0x88a8];
/// The most tags that are looked behind.
const MAX_TAGS: usize = 2;

const IPV4: u16 = 0x0800;
const IPV4_LEN: usize = 20;
const IPV6: u16 = 0x86dd;
const IPV6_LEN: usize = 40;

/// The most extension headers of IPv6 that are looked behind.
const MAX_EXTENSIONS: usize = 8;

/// Types of routing headers in which the last address of the way comes first: of mobile hosts, and
/// lists of segments.
const ROUTES: [u8; 2] = [2, 4];
/// Where that address is in a routing header, and where it ends.
const ROUTE_START: usize = 8;
const ROUTE_END: usize = 24;

/// A version of the internet protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ip {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Where the headers of an IP packet lie in its frame. All offsets are inside the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The version.
    pub ip: Ip,
    /// Where the IP header begins, in bytes; what is before it is the Ethernet header with its tags.
    pub l3: usize,
    /// Where the address begins of whom it is for in the end: that in the IP header, or that in a
    /// routing header, which checksums count in its place.
    pub destination: usize,
    /// Where what it carries begins, behind options and extension headers.
    pub l4: usize,
    /// Where what it carries ends by the length in the IP header, which may be before the frame's
    /// end, or by the frame's, if that is before.
    pub end: usize,
    /// The protocol of what it carries.
    pub protocol: u8,
    /// Whether it is only a fragment.
    pub fragment: bool,
}

/// Reads a big-endian number; nothing if it is not all there.
pub(crate) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*bytes))
}

/// Writes a big-endian number, if there is room for it.
pub(crate) fn write_u16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(to) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *to = value.to_be_bytes();
    }
}

/// Returns the type of what an Ethernet header announces, behind VLAN tags, and where it begins;
/// nothing if the frame is cut short.
pub fn ether_type(frame: &[u8]) -> Option<(u16, usize)> {
    let mut at = ETHERNET_LEN;
    let mut type_ = read_u16(frame, at - 2)?;
    for _ in 0..MAX_TAGS {
        if !TAGS.contains(&type_) {
            break;
        }
        at += TAG_LEN;
        type_ = read_u16(frame, at - 2)?;
    }
    Some((type_, at))
}

impl Headers {
    /// Finds the headers; nothing if it is no IP packet, one that is cut short, or one that goes a
    /// way of an unknown type.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let (type_, l3) = ether_type(frame)?;
        let packet = frame.get(l3..)?;
        match (type_, packet.first()? >> 4) {
            (IPV4, 4) => Self::parse_v4(l3, packet),
            (IPV6, 6) => Self::parse_v6(l3, packet),
            _ => None,
        }
    }

    fn parse_v4(l3: usize, packet: &[u8]) -> Option<Self> {
        let len = usize::from(packet.first()? & 0xf) * 4;
        if len < IPV4_LEN || len > packet.len() {
            return None;
        }
        let total = usize::from(read_u16(packet, 2)?);
        Some(Self {
            ip: Ip::V4,
            l3,
            destination: l3 + 16,
            l4: l3 + len,
            end: l3 + total.clamp(len, packet.len()),
            protocol: *packet.get(9)?,
            // More to come, or not the first.
            fragment: read_u16(packet, 6)? & 0x3fff != 0,
        })
    }

    fn parse_v6(l3: usize, packet: &[u8]) -> Option<Self> {
        let mut len = IPV6_LEN;
        let mut destination = 24;
        let mut protocol = *packet.get(6)?;
        let mut fragment = false;
        for _ in 0..MAX_EXTENSIONS {
            let extension = match protocol {
                // Hop by hop, routing, destination.
                0 | 43 | 60 => 8 * (usize::from(*packet.get(len + 1)?) + 1),
                44 => {
                    fragment = true;
                    8
                }
                _ => break,
            };
            // Some of the way is left to go.
            if protocol == 43 && *packet.get(len + 3)? != 0 {
                if !ROUTES.contains(packet.get(len + 2)?) || extension < ROUTE_END {
                    return None;
                }
                destination = len + ROUTE_START;
            }
            protocol = *packet.get(len)?;
            len += extension;
        }
        if len > packet.len() {
            return None;
        }
        let total = IPV6_LEN + usize::from(read_u16(packet, 4)?);
        Some(Self {
            ip: Ip::V6,
            l3,
            destination: l3 + destination,
            l4: l3 + len,
            end: l3 + total.max(len).min(packet.len()),
            protocol,
            fragment,
        })
    }
}

#[cfg(test)]
mod tests;
