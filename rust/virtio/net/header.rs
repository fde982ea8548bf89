// SPDX-License-Identifier: GPL-2.0

//! The header before every packet (virtio 1.3, 5.1.6).

use super::features::{
    CSUM, GSO, GUEST_CSUM, GUEST_ECN, GUEST_TSO4, GUEST_TSO6, GUEST_UFO, GUEST_USO4, GUEST_USO6,
    HOST_ECN, HOST_TSO4, HOST_TSO6, HOST_UFO, HOST_USO, MRG_RXBUF,
};
use crate::byte_order::ByteOrder;
use crate::features::Features;

/// The longest header, in bytes.
pub const MAX_LEN: usize = 12;
/// The header of a legacy driver without MRG_RXBUF, in bytes.
pub const LEGACY_LEN: usize = 10;

/// Bit of `flags`: the checksum from `csum_start` on is to be stored at `csum_offset` after it.
pub const NEEDS_CSUM: u8 = 1;
/// Bit of `flags`: the device has verified the checksum.
pub const DATA_VALID: u8 = 2;

/// Flag in `gso_type`: the TCP segments carry explicit congestion notification.
pub const GSO_ECN: u8 = 0x80;

/// The least a TCP header takes, and where its checksum lies in it, in bytes.
const TCP: (u32, u16) = (20, 16);
/// What a UDP header takes, and where its checksum lies in it, in bytes.
const UDP: (u32, u16) = (8, 6);

/// Returns the length in bytes of the header that a driver with these features uses: 12, or 10
/// for a legacy driver without MRG_RXBUF (5.1.6.1).
pub const fn length(features: Features) -> usize {
    if features.intersects(Features::VERSION_1.union(MRG_RXBUF)) {
        MAX_LEN
    } else {
        LEGACY_LEN
    }
}

/// How a packet is to be cut, without the flag [`GSO_ECN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Segmentation {
    /// TCP over IPv4.
    Tcp4,
    /// UDP fragmentation.
    Udp,
    /// TCP over IPv6.
    Tcp6,
    /// UDP segmentation, over IPv4 or IPv6.
    UdpSegments,
}

/// Why a packet header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeaderError {
    /// `gso_type` is not one there is.
    UnknownType,
    /// `gso_type` asks for what the driver has not negotiated.
    NotNegotiated,
    /// Segments of no size.
    NoSize,
    /// Segmentation that needs a partial checksum, without one.
    NoChecksum,
    /// The checksum or the headers do not lie within the packet, or the checksum is not where
    /// the protocol has it.
    OutOfBounds,
}

/// A packet header, in native byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// [`NEEDS_CSUM`], [`DATA_VALID`].
    pub flags: u8,
    /// How the packet is to be cut; 0 if it is not.
    pub gso_type: u8,
    /// A hint: the length of the packet's own headers, in bytes.
    pub hdr_len: u16,
    /// The payload of each segment, in bytes.
    pub gso_size: u16,
    /// Where the checksum begins, in bytes from the start of the packet.
    pub csum_start: u16,
    /// Where to store the checksum, in bytes from `csum_start`.
    pub csum_offset: u16,
    /// The number of buffers a received packet is spread over. Not in the 10-byte header.
    pub num_buffers: u16,
}

/// What must be done to a packet before a driver can receive it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fit {
    /// Nothing: header and packet go as they are.
    Pass,
    /// The checksum must be completed.
    Checksum,
    /// The packet must be cut into segments, and their checksums completed unless the driver
    /// takes partial ones.
    Segment,
}

impl Header {
    /// Reads a header in the driver's byte order.
    ///
    /// Returns nothing if `bytes` is shorter than [`LEGACY_LEN`]. `num_buffers` is 0 if `bytes`
    /// ends before it.
    pub fn parse(bytes: &[u8], order: ByteOrder) -> Option<Self> {
        let (&[flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1], rest) =
            bytes.split_first_chunk()?;
        let num_buffers = match rest {
            &[n0, n1, ..] => order.read_u16([n0, n1]),
            _ => 0,
        };
        Some(Self {
            flags,
            gso_type,
            hdr_len: order.read_u16([h0, h1]),
            gso_size: order.read_u16([g0, g1]),
            csum_start: order.read_u16([s0, s1]),
            csum_offset: order.read_u16([o0, o1]),
            num_buffers,
        })
    }

    /// Returns the header in the driver's byte order. A driver with the short header gets the
    /// first [`LEGACY_LEN`] bytes of it.
    pub fn to_bytes(&self, order: ByteOrder) -> [u8; MAX_LEN] {
        let [h0, h1] = order.write_u16(self.hdr_len);
        let [g0, g1] = order.write_u16(self.gso_size);
        let [s0, s1] = order.write_u16(self.csum_start);
        let [o0, o1] = order.write_u16(self.csum_offset);
        let [n0, n1] = order.write_u16(self.num_buffers);
        [
            self.flags,
            self.gso_type,
            h0,
            h1,
            g0,
            g1,
            s0,
            s1,
            o0,
            o1,
            n0,
            n1,
        ]
    }

    /// Returns whether the checksum is still to be completed.
    pub fn needs_checksum(&self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }

    /// Returns how the packet is to be cut, or nothing if it is not, or not in a way known.
    pub fn segmentation(&self) -> Option<Segmentation> {
        match self.gso_type & !GSO_ECN {
            1 => Some(Segmentation::Tcp4),
            3 => Some(Segmentation::Udp),
            4 => Some(Segmentation::Tcp6),
            5 => Some(Segmentation::UdpSegments),
            _ => None,
        }
    }

    /// Takes the header of a packet of `len` bytes (without the header) from a driver with these
    /// features, and returns what of it counts.
    ///
    /// A header accepted is consistent: `csum_start + csum_offset + 2 <= len`, and the headers of
    /// the protocol to be cut lie within the packet. `hdr_len` stays a hint, but one that is not
    /// beyond the packet, and is 0 for a packet that is not cut: who receives the packet may trust
    /// it. A driver that did not negotiate CSUM may leave anything in the header, which then counts
    /// as empty.
    ///
    /// # Errors
    ///
    /// What is wrong with the header; the packet must be dropped.
    pub fn accept(&self, features: Features, len: u32) -> Result<Self, HeaderError> {
        if !features.contains(CSUM) {
            return Ok(Self::default());
        }

        // Bits a device does not know it must ignore (5.1.6.2.2).
        let mut accepted = Self {
            flags: self.flags & NEEDS_CSUM,
            num_buffers: 0,
            ..*self
        };

        if self.needs_checksum() {
            let end = u32::from(self.csum_start) + u32::from(self.csum_offset) + 2;
            if end > len {
                return Err(HeaderError::OutOfBounds);
            }
        } else {
            accepted.csum_start = 0;
            accepted.csum_offset = 0;
        }

        if self.gso_type == 0 {
            accepted.hdr_len = 0;
            accepted.gso_size = 0;
            return Ok(accepted);
        }
        // What does not fit is greater than `hdr_len` can be.
        accepted.hdr_len = self.hdr_len.min(u16::try_from(len).unwrap_or(u16::MAX));
        let Some(segmentation) = self.segmentation() else {
            return Err(HeaderError::UnknownType);
        };
        self.check_segmentation(segmentation, features, len)?;
        Ok(accepted)
    }

    /// Checks a packet to be cut.
    fn check_segmentation(
        &self,
        segmentation: Segmentation,
        features: Features,
        len: u32,
    ) -> Result<(), HeaderError> {
        let tcp = matches!(segmentation, Segmentation::Tcp4 | Segmentation::Tcp6);
        let mut wanted = match segmentation {
            Segmentation::Tcp4 => HOST_TSO4,
            Segmentation::Tcp6 => HOST_TSO6,
            Segmentation::Udp => HOST_UFO,
            Segmentation::UdpSegments => HOST_USO,
        };
        if self.gso_type & GSO_ECN != 0 {
            if !tcp {
                return Err(HeaderError::UnknownType);
            }
            wanted |= HOST_ECN;
        }
        // The legacy feature GSO stands for everything there was then.
        let any = features.legacy() && features.contains(GSO) && wanted != HOST_USO;
        if !any && !features.contains(wanted) {
            return Err(HeaderError::NotNegotiated);
        }
        if self.gso_size == 0 {
            return Err(HeaderError::NoSize);
        }
        if !self.needs_checksum() {
            // Drivers that had UDP fragmented did so without a partial checksum.
            return match segmentation {
                Segmentation::Udp => Ok(()),
                _ => Err(HeaderError::NoChecksum),
            };
        }
        let (header, checksum) = if tcp { TCP } else { UDP };
        if self.csum_offset != checksum || u32::from(self.csum_start) + header > len {
            return Err(HeaderError::OutOfBounds);
        }
        Ok(())
    }

    /// Returns what must be done to the packet for a driver that accepts these `GUEST_` features.
    pub fn fit(&self, guest: Features) -> Fit {
        let mut wanted = match self.segmentation() {
            None => Features::NONE,
            Some(Segmentation::Tcp4) => GUEST_TSO4,
            Some(Segmentation::Tcp6) => GUEST_TSO6,
            Some(Segmentation::Udp) => GUEST_UFO,
            // The header does not tell which version of IP it is.
            Some(Segmentation::UdpSegments) => GUEST_USO4 | GUEST_USO6,
        };
        if self.gso_type & GSO_ECN != 0 {
            wanted |= GUEST_ECN;
        }
        if !guest.contains(wanted) {
            return Fit::Segment;
        }
        if self.needs_checksum() && !guest.contains(GUEST_CSUM) {
            // A packet to be cut is only passed on with its checksum partial.
            return if wanted.is_empty() {
                Fit::Checksum
            } else {
                Fit::Segment
            };
        }
        Fit::Pass
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TSO: Features = CSUM.union(HOST_TSO4).union(Features::VERSION_1);

    fn tso() -> Header {
        Header {
            flags: NEEDS_CSUM,
            gso_type: 1,
            hdr_len: 54,
            gso_size: 1448,
            csum_start: 34,
            csum_offset: 16,
            num_buffers: 0,
        }
    }

    #[test]
    fn length_follows_from_version_1_and_mrg_rxbuf() {
        assert_eq!(length(Features::NONE), 10);
        assert_eq!(length(CSUM), 10);
        assert_eq!(length(MRG_RXBUF), 12);
        assert_eq!(length(Features::VERSION_1), 12);
    }

    #[test]
    fn headers_survive_the_journey_in_either_order() {
        let header = Header {
            num_buffers: 3,
            ..tso()
        };
        for order in [ByteOrder::Little, ByteOrder::Big] {
            let bytes = header.to_bytes(order);
            assert_eq!(Header::parse(&bytes, order), Some(header));
            assert_eq!(Header::parse(&bytes[..10], order), Some(tso()));
            assert_eq!(Header::parse(&bytes[..9], order), None);
        }
        assert_eq!(header.to_bytes(ByteOrder::Big)[4..6], [0x05, 0xa8]);
    }

    #[test]
    fn what_was_not_negotiated_does_not_count() {
        assert_eq!(tso().accept(Features::VERSION_1, 60), Ok(Header::default()));
        assert_eq!(tso().accept(CSUM, 3000), Err(HeaderError::NotNegotiated));
        let ecn = Header {
            gso_type: 1 | GSO_ECN,
            ..tso()
        };
        assert_eq!(ecn.accept(TSO, 3000), Err(HeaderError::NotNegotiated));
        assert!(ecn.accept(TSO | HOST_ECN, 3000).is_ok());
        assert!(
            ecn.accept(CSUM | GSO, 3000).is_ok(),
            "a legacy driver's GSO"
        );
        assert!(ecn.accept(CSUM | GSO | Features::VERSION_1, 3000).is_err());
    }

    #[test]
    fn lies_about_bounds_are_found() {
        assert!(tso().accept(TSO, 54).is_ok());
        assert_eq!(tso().accept(TSO, 53), Err(HeaderError::OutOfBounds));
        let far = Header {
            csum_start: u16::MAX,
            csum_offset: u16::MAX,
            ..tso()
        };
        assert_eq!(far.accept(TSO, 65_550), Err(HeaderError::OutOfBounds));
        let odd = Header {
            csum_offset: 6,
            ..tso()
        };
        assert_eq!(odd.accept(TSO, 3000), Err(HeaderError::OutOfBounds));
        let empty = Header {
            gso_size: 0,
            ..tso()
        };
        assert_eq!(empty.accept(TSO, 3000), Err(HeaderError::NoSize));
        let bare = Header { flags: 0, ..tso() };
        assert_eq!(bare.accept(TSO, 3000), Err(HeaderError::NoChecksum));
        for gso_type in [2, 6, 0x20, 0x7f, 0xff, GSO_ECN, GSO_ECN | 3] {
            let unknown = Header { gso_type, ..tso() };
            assert!(
                unknown.accept(TSO | HOST_UFO, 3000).is_err(),
                "{gso_type:#x}"
            );
        }
    }

    #[test]
    fn the_hint_is_made_to_fit() {
        let far = Header {
            hdr_len: 9999,
            ..tso()
        };
        for (len, hint) in [(54, 54), (3000, 3000), (70_000, 9999)] {
            assert_eq!(far.accept(TSO, len).map(|h| h.hdr_len), Ok(hint));
        }
        let partial = Header { gso_type: 0, ..far };
        assert_eq!(partial.accept(TSO, 3000).map(|h| h.hdr_len), Ok(0));
    }

    #[test]
    fn unknown_flags_are_ignored() {
        let header = Header {
            flags: 0xfe,
            csum_start: 9999,
            ..Header::default()
        };
        assert_eq!(header.accept(CSUM, 60), Ok(Header::default()));
    }

    #[test]
    fn packets_are_made_to_fit_the_receiver() {
        let plain = Header::default();
        let partial = Header {
            gso_type: 0,
            gso_size: 0,
            ..tso()
        };
        assert_eq!(plain.fit(Features::NONE), Fit::Pass);
        assert_eq!(partial.fit(Features::NONE), Fit::Checksum);
        assert_eq!(partial.fit(GUEST_CSUM), Fit::Pass);
        assert_eq!(tso().fit(GUEST_CSUM), Fit::Segment);
        assert_eq!(tso().fit(GUEST_CSUM | GUEST_TSO6), Fit::Segment);
        assert_eq!(tso().fit(GUEST_CSUM | GUEST_TSO4), Fit::Pass);
        assert_eq!(tso().fit(GUEST_TSO4), Fit::Segment);
        let ecn = Header {
            gso_type: 1 | GSO_ECN,
            ..tso()
        };
        assert_eq!(ecn.fit(GUEST_CSUM | GUEST_TSO4), Fit::Segment);
        assert_eq!(ecn.fit(GUEST_CSUM | GUEST_TSO4 | GUEST_ECN), Fit::Pass);
    }
}
