// SPDX-License-Identifier: GPL-2.0
//! The few bytes of a frame that decide where it goes.

use virtio::net::MacAddress as Mac;

/// Length of an Ethernet header without a VLAN tag.
pub(crate) const ETH_HLEN: usize = 14;

/// Length of a VLAN tag.
pub(crate) const VLAN_HLEN: usize = 4;

/// Bytes at the start of a frame that [`Addresses::parse`] looks at.
pub(crate) const HEAD_LEN: usize = ETH_HLEN + VLAN_HLEN;

/// Length of the longest frame there is: an IP packet of 64 KiB in an Ethernet frame with two VLAN
/// tags. A chain may hold up to 4 GiB, and copying that would take longer than a stop may.
pub(crate) const MAX_LEN: u32 = 65_535 + (ETH_HLEN + 2 * VLAN_HLEN) as u32;

/// EtherType of a customer VLAN tag (802.1Q).
const CUSTOMER_TAG: u16 = 0x8100;

/// EtherType of a service VLAN tag (802.1ad).
const SERVICE_TAG: u16 = 0x88a8;

/// Added to a service VLAN's id to tell it from the customer VLAN of that id.
const SERVICE: u16 = 0x1000;

/// Where a frame comes from and goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// Destination.
    pub(crate) to: Mac,
    /// Source.
    pub(crate) from: Mac,
    /// VLAN id of the outermost tag; `None` for an untagged frame.
    pub(crate) vlan: Option<u16>,
    /// Whether that tag is one of a service VLAN.
    pub(crate) service: bool,
}

impl Addresses {
    /// Reads the addresses from the first bytes of a frame, of which `head` may hold fewer than
    /// [`HEAD_LEN`] if the frame is that short. Returns `None` for what is no Ethernet frame.
    pub(crate) fn parse(head: &[u8]) -> Option<Self> {
        let (to, rest) = head.split_first_chunk::<6>()?;
        let (from, rest) = rest.split_first_chunk::<6>()?;
        let (kind, rest) = rest.split_first_chunk::<2>()?;
        let kind = u16::from_be_bytes(*kind);
        let vlan = if [CUSTOMER_TAG, SERVICE_TAG].contains(&kind) {
            let (tci, _) = rest.split_first_chunk::<2>()?;
            Some(u16::from_be_bytes(*tci) & 0x0fff)
        } else {
            None
        };
        Some(Self {
            to: *to,
            from: *from,
            vlan,
            service: kind == SERVICE_TAG,
        })
    }

    /// The VLAN in which the switch forwards the frame: that of its tag, or 0.
    pub(crate) fn domain(&self) -> u16 {
        let service = if self.service { SERVICE } else { 0 };
        self.vlan.unwrap_or(0) | service
    }

    /// The customer VLAN of the outermost tag, if it is such a tag.
    pub(crate) fn customer_vlan(&self) -> Option<u16> {
        self.vlan.filter(|_| !self.service)
    }

    /// Whether another frame goes where this one goes.
    pub(crate) fn is_for_same(&self, other: &Self) -> bool {
        self.to == other.to && self.vlan == other.vlan && self.service == other.service
    }

    /// Whether another frame comes from where this one comes from.
    pub(crate) fn is_from_same(&self, other: &Self) -> bool {
        self.from == other.from && self.domain() == other.domain()
    }

    /// Length of the link-layer header, up to the first EtherType that is no tag's if there is at
    /// most one tag.
    pub(crate) fn header_len(&self) -> usize {
        if self.vlan.is_some() {
            HEAD_LEN
        } else {
            ETH_HLEN
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untagged() {
        let head = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
        let a = Addresses::parse(&head).unwrap();
        assert_eq!(a.to, [2, 0, 0, 0, 0, 1]);
        assert_eq!(a.from, [2, 0, 0, 0, 0, 2]);
        assert_eq!(a.vlan, None);
        assert_eq!((a.domain(), a.header_len()), (0, ETH_HLEN));
    }

    #[test]
    fn tagged() {
        let mut head = [0u8; HEAD_LEN];
        head[12..16].copy_from_slice(&[0x81, 0x00, 0xe0, 0x07]);
        let a = Addresses::parse(&head).unwrap();
        assert_eq!(a.vlan, Some(7));
        assert_eq!((a.domain(), a.header_len()), (7, HEAD_LEN));
        assert_eq!(a.customer_vlan(), Some(7));
        head[12..14].copy_from_slice(&[0x88, 0xa8]);
        let b = Addresses::parse(&head).unwrap();
        assert_eq!((b.vlan, b.customer_vlan()), (Some(7), None));
        assert_ne!(a.domain(), b.domain());
        assert!(a.is_for_same(&a) && !a.is_for_same(&b) && !a.is_from_same(&b));
    }

    #[test]
    fn too_short() {
        assert_eq!(Addresses::parse(&[0; ETH_HLEN - 1]), None);
        assert!(Addresses::parse(&[0; ETH_HLEN]).is_some());
        let mut head = [0u8; 15];
        head[12] = 0x81;
        assert_eq!(Addresses::parse(&head), None);
    }
}
