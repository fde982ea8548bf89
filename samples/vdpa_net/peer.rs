// SPDX-License-Identifier: GPL-2.0
//! The driver at the other end of a virtqueue, as far as frames go.

use virtio::{
    byte_order::ByteOrder,
    features::Features,
    net::{
        features,
        header::{
            self,
            Fit,
            Header, //
        }, //
    }, //
};

use crate::frame::{
    Addresses,
    VLAN_HLEN, //
};

/// What became of a driver's negotiation, fixed while its virtqueue runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    features: Features,
    order: ByteOrder,
    /// The MTU the driver was told and obeys, or 0.
    mtu: u16,
}

/// How a frame reaches a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// As it is.
    Pass,
    /// After it was cut into segments or its checksum was completed.
    Rework,
    /// Not at all: it is longer than what the driver expects.
    TooLong,
}

impl Peer {
    /// A driver that uses `features` and has the byte order `order`; `mtu` is that of the
    /// configuration space.
    pub(crate) fn new(features: Features, order: ByteOrder, mtu: u16) -> Self {
        Self {
            features,
            order,
            mtu: if features.contains(features::MTU) {
                mtu
            } else {
                0
            },
        }
    }

    /// Length in bytes of the header before each frame.
    pub(crate) fn header_len(&self) -> usize {
        header::length(self.features)
    }

    /// Byte order of headers and commands.
    pub(crate) fn order(&self) -> ByteOrder {
        self.order
    }

    /// The features in use.
    pub(crate) fn features(&self) -> Features {
        self.features
    }

    /// Whether a frame may be spread over several receive buffers.
    pub(crate) fn mergeable(&self) -> bool {
        self.features.contains(features::MRG_RXBUF)
    }

    /// Reads the header of a frame of `len` bytes that the driver sends. Returns `None` if it makes
    /// no sense.
    pub(crate) fn parse(&self, bytes: &[u8], len: u32) -> Option<Header> {
        Header::parse(bytes, self.order)?
            .accept(self.features, len)
            .ok()
    }

    /// The header for a frame in `buffers` receive buffers, of which the first
    /// [`Peer::header_len`] bytes count.
    pub(crate) fn emit(&self, header: &Header, buffers: u16) -> [u8; header::MAX_LEN] {
        Header {
            num_buffers: buffers,
            ..*header
        }
        .to_bytes(self.order)
    }

    /// Decides how the driver can receive a frame of `len` bytes.
    pub(crate) fn delivery(&self, header: &Header, addresses: &Addresses, len: u32) -> Delivery {
        // virtio 1.3, 5.1.4.1: no frame longer than the MTU that was negotiated, unless it is to
        // be segmented, which each side does to its own MTU. Of a tagged frame only the outer tag
        // was looked at, and it may have another one, which is no part of its packet either.
        let inner = if addresses.vlan.is_some() {
            VLAN_HLEN
        } else {
            0
        };
        let limit = u32::from(self.mtu) + (addresses.header_len() + inner) as u32;
        if self.mtu != 0 && header.segmentation().is_none() && len > limit {
            return Delivery::TooLong;
        }
        match header.fit(self.features) {
            Fit::Pass => Delivery::Pass,
            Fit::Checksum | Fit::Segment => Delivery::Rework,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modern(features: Features) -> Peer {
        Peer::new(features | Features::VERSION_1, ByteOrder::Little, 1500)
    }

    fn untagged() -> Addresses {
        Addresses {
            to: [2, 0, 0, 0, 0, 1],
            from: [2, 0, 0, 0, 0, 2],
            vlan: None,
            service: false,
        }
    }

    const TSO4: Header = Header {
        flags: header::NEEDS_CSUM,
        gso_type: 1,
        hdr_len: 54,
        gso_size: 1448,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 0,
    };

    #[test]
    fn the_mtu_binds_only_who_negotiated_it() {
        let plain = Header::default();
        let frame = untagged();
        let tagged = Addresses {
            vlan: Some(1),
            ..frame
        };
        let with = modern(features::MTU);
        assert_eq!(with.delivery(&plain, &frame, 1514), Delivery::Pass);
        assert_eq!(with.delivery(&plain, &frame, 1515), Delivery::TooLong);
        // With one tag that is seen and another one behind it.
        assert_eq!(with.delivery(&plain, &tagged, 1522), Delivery::Pass);
        assert_eq!(with.delivery(&plain, &tagged, 1523), Delivery::TooLong);
        let without = modern(Features::NONE);
        assert_eq!(without.delivery(&plain, &frame, 9000), Delivery::Pass);
    }

    #[test]
    fn offloads_pass_to_who_takes_them() {
        let frame = untagged();
        let takes = modern(features::MTU | features::GUEST_CSUM | features::GUEST_TSO4);
        assert_eq!(takes.delivery(&TSO4, &frame, 65000), Delivery::Pass);
        let only_csum = modern(features::MTU | features::GUEST_CSUM);
        assert_eq!(only_csum.delivery(&TSO4, &frame, 65000), Delivery::Rework);
        let none = modern(features::MTU);
        assert_eq!(none.delivery(&TSO4, &frame, 65000), Delivery::Rework);
        let partial = Header {
            gso_type: 0,
            gso_size: 0,
            ..TSO4
        };
        assert_eq!(only_csum.delivery(&partial, &frame, 1000), Delivery::Pass);
        assert_eq!(none.delivery(&partial, &frame, 1000), Delivery::Rework);
    }

    #[test]
    fn the_header_is_the_drivers() {
        let legacy = Peer::new(features::CSUM, ByteOrder::Big, 1500);
        assert_eq!(legacy.header_len(), 10);
        let bytes = legacy.emit(&TSO4, 1);
        assert_eq!(&bytes[2..4], &[0, 54]);
        let merging = Peer::new(features::MRG_RXBUF, ByteOrder::Little, 1500);
        assert_eq!(merging.header_len(), 12);
        assert_eq!(&merging.emit(&TSO4, 3)[10..], &[3, 0]);
    }
}
