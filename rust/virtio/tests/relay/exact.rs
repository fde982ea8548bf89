// SPDX-License-Identifier: GPL-2.0
//! What exactly is written, one case at a time.

use driver::{
    Buffer,
    Shape, //
};
use virtio::{
    net::{
        header::Header,
        relay::{
            Direction,
            Layout, //
        },
    },
    ring::{
        ConfigError,
        RingError,
        Segment, //
    },
};

use super::bench::{
    Bench,
    Shaped,
    View,
    DATA,
    SHADOW, //
};

const HEADER: Header = Header {
    flags: 1,
    gso_type: 0x81,
    hdr_len: 0x0102,
    gso_size: 0x0304,
    csum_start: 0x0506,
    csum_offset: 0x0708,
    num_buffers: 0,
};

/// The header above, as a big-endian guest has it, and as the hardware has it.
const BIG: [u8; 10] = [1, 0x81, 1, 2, 3, 4, 5, 6, 7, 8];
const LITTLE: [u8; 10] = [1, 0x81, 2, 1, 4, 3, 6, 5, 8, 7];

fn buffer(addr: u64, len: u32) -> Buffer {
    Buffer { addr, len }
}

/// Transmits `pieces` and returns what the hardware is given.
fn transmitted(bench: &mut Bench, pieces: &[Buffer]) -> Vec<Segment> {
    assert!(bench.add(pieces, Shape::Direct, 1));
    bench.publish();
    bench.turn(8).unwrap();
    bench.nic_take(1);
    bench.taken[0].segments.clone()
}

#[test]
fn the_header_is_copied_and_the_data_are_not() {
    let headers = SHADOW..SHADOW + Layout::bytes(16);
    for (cuts, rest) in [
        // The header alone, as every driver without ANY_LAYOUT has it.
        (&[10, 100][..], &[(10, 100)][..]),
        // With the data.
        (&[110], &[(10, 100)]),
        // In pieces, the last of which has data as well.
        (&[1, 3, 26, 80], &[(10, 20), (30, 80)]),
        (&[5, 5, 40, 60], &[(10, 40), (50, 60)]),
        // Nothing but a header.
        (&[10], &[]),
    ] {
        let mut bench = Bench::new(Shaped::new(Direction::Transmit));
        bench.guest.write(DATA, &BIG);
        let mut at = DATA;
        let pieces: Vec<Buffer> = cuts
            .iter()
            .map(|&len| {
                at += u64::from(len);
                buffer(at - u64::from(len), len)
            })
            .collect();
        let segments = transmitted(&mut bench, &pieces);
        assert!(headers.contains(&segments[0].addr));
        assert_eq!(bench.nic_bytes(&segments[..1]), LITTLE);
        let data: Vec<(u64, u32)> = segments[1..]
            .iter()
            .map(|segment| (segment.addr - DATA, segment.len))
            .collect();
        assert_eq!(data, rest);
        assert_eq!(bench.guest.get(DATA, 10), BIG, "the guest's is as it was");
    }
}

#[test]
fn the_long_header_has_one_field_more() {
    let mut bench = Bench::new(Shaped {
        header: 12,
        ..Shaped::new(Direction::Transmit)
    });
    bench.guest.write(DATA, &BIG);
    bench.guest.write(DATA + 10, &[9, 10]);
    let segments = transmitted(&mut bench, &[buffer(DATA, 60)]);
    let mut little = LITTLE.to_vec();
    little.extend([10, 9]);
    assert_eq!(bench.nic_bytes(&segments[..1]), little);
    assert_eq!(segments[1].addr, DATA + 12);
}

#[test]
fn a_received_header_is_put_right_in_its_place() {
    for cuts in [&[10, 100][..], &[110], &[1, 1, 7, 101]] {
        let mut bench = Bench::new(Shaped::new(Direction::Receive));
        let mut at = DATA;
        let pieces: Vec<Buffer> = cuts
            .iter()
            .map(|&len| {
                at += u64::from(len) + 16;
                buffer(at - u64::from(len), len)
            })
            .collect();
        assert!(bench.add(&pieces, Shape::Direct, 1));
        bench.publish();
        bench.turn(8).unwrap();
        bench.nic_take(1);
        let segments = bench.taken[0].segments.clone();
        let given: Vec<(u64, u32)> = segments.iter().map(|s| (s.addr, s.len)).collect();
        let wanted: Vec<(u64, u32)> = pieces.iter().map(|p| (p.addr, p.len)).collect();
        assert_eq!(given, wanted, "the hardware has the guest's own addresses");
        let mut packet = LITTLE.to_vec();
        packet.extend([0x5a; 50]);
        bench.nic_write(&segments, &packet);
        bench.nic_use(0, 60);
        bench.nic_publish();
        bench.turn(8).unwrap();
        assert!(bench.guest_called);
        let used = bench.ring.used().unwrap().unwrap();
        assert_eq!((used.token, used.written), (1, Some(60)));
        let mut bytes: Vec<u8> = pieces
            .iter()
            .flat_map(|piece| bench.guest.get(piece.addr, piece.len as usize))
            .collect();
        bytes.truncate(60);
        assert_eq!(bytes[..10], BIG);
        assert_eq!(bytes[10..], [0x5a; 50]);
    }
}

#[test]
fn a_packet_in_pieces_is_shown_when_it_is_whole() {
    let mut bench = Bench::new(Shaped {
        header: 12,
        ..Shaped::new(Direction::Receive)
    });
    for token in 0..3 {
        let pieces = [buffer(DATA + 0x100 * token, 32)];
        assert!(bench.add(&pieces, Shape::Direct, token));
    }
    bench.publish();
    bench.turn(8).unwrap();
    bench.nic_take(3);
    let first = bench.taken[0].segments.clone();
    bench.nic_write(&first, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
    bench.nic_use(0, 32);
    // What no hardware should do.
    bench.nic_publish();
    bench.turn(8).unwrap();
    assert!(!bench.guest_called);
    assert_eq!(bench.ring.used(), Ok(None));
    bench.guest.write(DATA + 0x100, &[1, 2, 3, 4]);
    bench.nic_use(0, 32);
    bench.nic_publish();
    bench.turn(1).unwrap();
    assert!(bench.guest_called);
    assert_eq!(bench.ring.used().unwrap().unwrap().token, 0);
    assert_eq!(bench.ring.used().unwrap().unwrap().token, 1);
    assert_eq!(bench.guest.get(DATA + 10, 2), [0, 2]);
    // There is no header in the second, and nothing was taken for one.
    assert_eq!(bench.guest.get(DATA + 0x100, 4), [1, 2, 3, 4]);
}

#[test]
fn a_buffer_without_a_packet_is_left_alone() {
    for written in [0, 9] {
        let mut bench = Bench::new(Shaped::new(Direction::Receive));
        bench.guest.write(DATA, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert!(bench.add(&[buffer(DATA, 64)], Shape::Direct, 1));
        bench.publish();
        bench.turn(8).unwrap();
        bench.nic_take(1);
        bench.nic_use(0, written);
        bench.nic_publish();
        bench.turn(8).unwrap();
        let used = bench.ring.used().unwrap().unwrap();
        assert_eq!(used.written, Some(written));
        let bytes = bench.guest.get(DATA, 10);
        assert_eq!(bytes, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }
}

#[test]
fn a_chain_without_room_waits_and_nobody_need_kick_for_it() {
    let mut bench = Bench::new(Shaped {
        shadow: 4,
        ..Shaped::new(Direction::Transmit)
    });
    for token in 0..3 {
        // Two descriptors each in the shadow.
        assert!(bench.add(&[buffer(DATA, 64)], Shape::Direct, token));
    }
    bench.publish();
    bench.turn(8).unwrap();
    assert!(!bench.relay_called);
    assert_eq!(bench.relay.in_flight(), 2);
    bench.nic_take(8);
    assert_eq!(bench.taken.len(), 2);
    bench.nic_use(0, 0);
    bench.nic_publish();
    assert!(bench.relay_called, "the hardware calls");
    bench.turn(8).unwrap();
    bench.nic_take(8);
    assert_eq!(bench.taken.len(), 2);
}

#[test]
fn out_of_order_is_given_back_as_it_comes_and_stops_only_without_holes() {
    let mut bench = Bench::new(Shaped::new(Direction::Transmit));
    for token in 0..3 {
        assert!(bench.add(&[buffer(DATA, 64)], Shape::Direct, token));
    }
    bench.publish();
    bench.turn(8).unwrap();
    bench.nic_take(3);
    bench.nic_use(1, 0);
    bench.nic_publish();
    bench.turn(8).unwrap();
    assert_eq!(bench.ring.used().unwrap().unwrap().token, 1);
    let stopped = bench
        .relay
        .stop(&View(&[&bench.guest]), &View(&[&bench.shadow]));
    let error = stopped.unwrap_err();
    assert_eq!(error, RingError::NotNewest.into());
}

#[test]
fn a_shadow_has_a_place_that_can_be() {
    assert_eq!(Layout::new(0, 0), Err(ConfigError::Size(0)));
    assert_eq!(Layout::new(0, 24), Err(ConfigError::Size(24)));
    assert_eq!(Layout::new(8, 16), Err(ConfigError::Alignment(8)));
    let last = u64::MAX - 63;
    assert_eq!(Layout::new(last, 16), Err(ConfigError::Extent(last)));
    for size in [1, 2, 256, 32768] {
        let layout = Layout::new(0x1000, size).unwrap();
        let n = u64::from(size);
        assert_eq!(layout.desc(), 0x1000);
        assert!(layout.driver() >= layout.desc() + 16 * n);
        assert!(layout.device() >= layout.driver() + 6 + 2 * n);
        assert_eq!(layout.device() % 64, 0);
        let end = 0x1000 + Layout::bytes(size);
        assert!(end >= layout.device() + 6 + 8 * n + 16 * n);
    }
    assert!(Layout::bytes(256) <= 3 * 4096);
}

#[test]
fn headers_are_what_they_say() {
    assert_eq!(
        HEADER.to_bytes(virtio::byte_order::ByteOrder::Big)[..10],
        BIG
    );
    let little = HEADER.to_bytes(virtio::byte_order::ByteOrder::Little);
    assert_eq!(little[..10], LITTLE);
}
