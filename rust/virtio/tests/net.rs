// SPDX-License-Identifier: GPL-2.0

//! What a hostile driver may put into headers, commands and configuration writes.

use proptest::prelude::*;

use virtio::byte_order::ByteOrder;
use virtio::features::Features;
use virtio::lifecycle::ConfigWrite;
use virtio::net::config::{Attributes, ConfigSpace, SIZE};
use virtio::net::control::{Command, Context, GUEST_OFFLOADS};
use virtio::net::features::{check, CTRL_RX, GUEST_CSUM, RSS};
use virtio::net::header::{Fit, Header, MAX_LEN};
use virtio::net::is_station_address;
use virtio::net::rss::Limits;

const LIMITS: Limits = Limits {
    key_len: 40,
    table_len: 128,
    types: 0x3f,
};

fn order() -> impl Strategy<Value = ByteOrder> {
    prop_oneof![Just(ByteOrder::Little), Just(ByteOrder::Big)]
}

fn features() -> impl Strategy<Value = Features> {
    prop_oneof![
        any::<u64>().prop_map(Features::from_bits),
        Just(Features::from_bits(u64::MAX)),
        Just(Features::from_bits(u64::MAX) - Features::VERSION_1),
    ]
}

/// Headers that are nearly right, and others.
fn header() -> impl Strategy<Value = Header> {
    (
        prop_oneof![Just(1u8), any::<u8>()],
        prop_oneof![
            Just(0u8),
            Just(1),
            Just(3),
            Just(4),
            Just(5),
            Just(0x81),
            any::<u8>()
        ],
        any::<u16>(),
        prop_oneof![Just(0u16), Just(1448), any::<u16>()],
        prop_oneof![Just(34u16), any::<u16>()],
        prop_oneof![Just(16u16), Just(6), any::<u16>()],
        any::<u16>(),
    )
        .prop_map(
            |(flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, num_buffers)| Header {
                flags,
                gso_type,
                hdr_len,
                gso_size,
                csum_start,
                csum_offset,
                num_buffers,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn headers_read_back(header in header(), order in order()) {
        let bytes = header.to_bytes(order);
        prop_assert_eq!(bytes.len(), MAX_LEN);
        prop_assert_eq!(Header::parse(&bytes, order), Some(header));
    }

    #[test]
    fn accepted_headers_are_consistent(
        header in header(),
        features in features(),
        len in 0u32..70_000,
    ) {
        let Ok(accepted) = header.accept(features, len) else {
            return Ok(());
        };
        prop_assert_eq!(accepted.flags & !1, 0);
        if accepted.needs_checksum() {
            let end = u32::from(accepted.csum_start) + u32::from(accepted.csum_offset) + 2;
            prop_assert!(end <= len);
        }
        let cut = accepted.segmentation().is_some();
        prop_assert_eq!(cut, accepted.gso_type != 0);
        prop_assert_eq!(cut, accepted.gso_size != 0);
        let headers = u32::from(accepted.hdr_len);
        prop_assert!(headers == 0 || cut && headers <= len);
        // Accepted once is accepted for good.
        prop_assert_eq!(accepted.accept(features, len), Ok(accepted));
        // Whoever accepts everything is given everything, and whoever accepts nothing, nothing.
        prop_assert_eq!(accepted.fit(GUEST_OFFLOADS), Fit::Pass);
        let plain = !cut && !accepted.needs_checksum();
        prop_assert_eq!(accepted.fit(Features::NONE) == Fit::Pass, plain);
        prop_assert!(accepted.fit(GUEST_CSUM) != Fit::Checksum);
    }

    #[test]
    fn commands_are_decoded_or_refused(
        head in (0u8..7, 0u8..7),
        data in prop::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..64),
        cut in 0usize..66,
        behind in 0u64..200,
        features in features(),
        order in order(),
    ) {
        let mut bytes = vec![head.0, head.1];
        bytes.extend(data);
        bytes.truncate(cut);
        let whole = bytes.len() as u64 + behind;
        let context = Context { order, features, max_virtqueue_pairs: 16, rss: LIMITS };
        match context.decode(&bytes, whole) {
            Ok(Command::VirtqueuePairs(pairs)) => prop_assert!((1..=16).contains(&pairs)),
            Ok(Command::AddVlan(vlan) | Command::DeleteVlan(vlan)) => prop_assert!(vlan < 4096),
            Ok(Command::MacAddress(mac)) => prop_assert!(is_station_address(&mac)),
            Ok(Command::GuestOffloads(offloads)) => {
                prop_assert!((features & GUEST_OFFLOADS).contains(offloads));
            }
            Ok(Command::MacTables { unicast, multicast }) => {
                prop_assert!(features.contains(CTRL_RX));
                let listed: usize = [unicast, multicast]
                    .iter()
                    .filter_map(|table| table.addresses())
                    .map(|addresses| 4 + 6 * addresses.len())
                    .sum();
                prop_assert!(2 + listed <= bytes.len());
            }
            Ok(Command::Scale(scaling)) => {
                prop_assert!(features.contains(RSS));
                prop_assert!(scaling.pairs() <= 16 && scaling.queues().len().is_power_of_two());
            }
            Ok(Command::Receive(..) | Command::AnnounceAck) | Err(_) => {}
        }
    }

    #[test]
    fn only_the_mac_address_is_ever_written(
        writes in prop::collection::vec(
            (0usize..SIZE + 8, prop::collection::vec(any::<u8>(), 0..SIZE + 8)),
            0..20,
        ),
    ) {
        let mac = [0x52, 0x54, 0, 0, 0, 1];
        let attributes = Attributes { mac, mac_provisioned: false, mtu: 1500, max_virtqueue_pairs: 1, rss: LIMITS };
        let mut space = ConfigSpace::new(attributes);
        let image = |space: &ConfigSpace| {
            let mut image = [0; SIZE];
            space.read(0, &mut image, ByteOrder::Little);
            image
        };
        let before = image(&space);
        for (offset, bytes) in writes {
            let old = space.mac();
            let taken = space.write(offset, &bytes, ConfigWrite::Apply);
            prop_assert_eq!(taken.unwrap_or(old), space.mac());
            prop_assert!(is_station_address(&space.mac()));
            prop_assert_eq!(&image(&space)[6..], &before[6..]);
        }
        space.reset();
        prop_assert_eq!(image(&space), before);
    }

    #[test]
    fn what_features_need_is_only_ever_something_to_add(bits in any::<u64>()) {
        // Adding what is missing, one after the other, comes to an end that is fine.
        let mut features = Features::from_bits(bits);
        for _ in 0..64 {
            match check(features) {
                Ok(()) => return Ok(()),
                Err(unmet) => {
                    prop_assert!(features.contains(unmet.feature));
                    prop_assert!(!features.intersects(unmet.needs));
                    features |= unmet.needs;
                }
            }
        }
        prop_assert!(false, "{features:x} is never enough");
    }
}
