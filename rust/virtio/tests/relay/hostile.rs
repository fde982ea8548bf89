// SPDX-License-Identifier: GPL-2.0
//! Guests and hardware that mean harm. The relay may refuse; it may not panic, run for ever, touch
//! what is neither the guest's nor the shadow, or tell the hardware of memory that the guest did not
//! name.

use driver::{
    Buffer,
    Region,
    Shape, //
};
use proptest::{
    collection::vec,
    prelude::*, //
};
use virtio::{
    net::relay::{
        Direction,
        Layout,
        RelayError, //
    },
    ring::RingError,
};

use super::bench::{
    Bench,
    Shaped,
    View,
    DATA,
    RING,
    SHADOW, //
};

fn buffer(addr: u64, len: u32) -> Buffer {
    Buffer { addr, len }
}

/// What comes of handing on a chain of `pieces`.
fn refused(shaped: Shaped, pieces: &[Buffer], shape: Shape) -> RelayError {
    let mut bench = Bench::new(shaped);
    assert!(bench.add(pieces, shape, 1));
    bench.publish();
    let error = bench.turn(8).unwrap_err();
    // The hardware was shown nothing.
    assert_eq!(available(&bench), shaped.start);
    error
}

/// The index of the shadow that the hardware sees.
fn available(bench: &Bench) -> u16 {
    let layout = Layout::new(SHADOW, bench.shaped.shadow).unwrap();
    u16::from_le(bench.shadow.load_u16(layout.driver() + 2))
}

#[test]
fn chains_that_cannot_be_are_refused() {
    let transmit = Shaped::new(Direction::Transmit);
    let receive = Shaped::new(Direction::Receive);
    for shaped in [transmit, receive] {
        let error = refused(shaped, &[buffer(DATA, 9)], Shape::Direct);
        assert_eq!(error, RelayError::NoHeader(9));
        let error = refused(
            shaped,
            &[buffer(DATA, 64), buffer(SHADOW, 64)],
            Shape::Direct,
        );
        assert_eq!(error, RelayError::Window(SHADOW));
        let before = SHADOW - 63;
        let error = refused(shaped, &[buffer(before, 64)], Shape::Direct);
        assert_eq!(error, RelayError::Window(before));
        let last = SHADOW + Layout::bytes(16) - 1;
        let error = refused(shaped, &[buffer(last, 64)], Shape::Direct);
        assert_eq!(error, RelayError::Window(last));
        let wrap = u64::MAX - 8;
        let error = refused(shaped, &[buffer(wrap, 64)], Shape::Direct);
        assert_eq!(error, RingError::AddressOverflow(wrap).into());
    }
    let error = refused(transmit, &[buffer(RING - 4, 64)], Shape::Direct);
    assert!(matches!(error, RelayError::Ring(RingError::Fault(_))));
}

#[test]
fn neighbours_of_the_shadow_are_nothing_special() {
    let mut bench = Bench::new(Shaped::new(Direction::Receive));
    let end = SHADOW + Layout::bytes(16);
    for (token, addr) in [SHADOW - 64, end].into_iter().enumerate() {
        assert!(bench.add(&[buffer(addr, 64)], Shape::Direct, token as u64));
    }
    bench.publish();
    bench.turn(8).unwrap();
    assert_eq!(available(&bench), 2);
}

#[test]
fn the_other_direction_is_refused() {
    for (direction, other) in [
        (Direction::Transmit, Direction::Receive),
        (Direction::Receive, Direction::Transmit),
    ] {
        let mut bench = Bench::new(Shaped::new(direction));
        bench.shaped.direction = other;
        assert!(bench.add(&[buffer(DATA, 64)], Shape::Direct, 1));
        bench.publish();
        assert_eq!(bench.turn(8), Err(RelayError::Direction));
        assert_eq!(available(&bench), 0);
    }
}

#[test]
fn a_chain_longer_than_the_shadow_is_refused() {
    let shaped = Shaped {
        shadow: 4,
        ..Shaped::new(Direction::Transmit)
    };
    let pieces = |count| vec![buffer(DATA, 64); count];
    let error = refused(shaped, &pieces(4), Shape::Direct);
    assert_eq!(error, RelayError::TooLong(5));
    let error = refused(shaped, &pieces(5), Shape::Direct);
    assert_eq!(error, RingError::ChainTooLong.into());
    // As long as it can be.
    let mut bench = Bench::new(shaped);
    assert!(bench.add(&pieces(3), Shape::Direct, 1));
    bench.publish();
    bench.turn(8).unwrap();
    assert_eq!(available(&bench), 1);
}

#[test]
fn indirect_tables_are_refused_unless_they_are_negotiated() {
    let mut bench = Bench::new(Shaped {
        table_entries: 4,
        ..Shaped::new(Direction::Transmit)
    });
    bench.shaped.table_entries = 0;
    bench.relay = super::bench::relay(&bench.shaped, &bench.ring.layout(), 0);
    assert!(bench.add(&[buffer(DATA, 64)], Shape::Indirect, 1));
    bench.publish();
    let error = bench.turn(8).unwrap_err();
    assert_eq!(error, RingError::IndirectNotNegotiated.into());
}

#[test]
fn hardware_that_invents_is_found_out() {
    let layout = Layout::new(SHADOW, 16).unwrap();
    let with_two = || {
        let mut bench = Bench::new(Shaped::new(Direction::Receive));
        for token in 0..2 {
            let pieces = [buffer(DATA, 64), buffer(DATA + 64, 64)];
            assert!(bench.add(&pieces, Shape::Direct, token));
        }
        bench.publish();
        bench.turn(8).unwrap();
        bench.relay_called = true;
        bench
    };
    for (used, id, error) in [
        (3u16, 0u32, RelayError::UsedIndex(3)),
        (0xffff, 0, RelayError::UsedIndex(0xffff)),
        (1, 16, RelayError::UsedId(16)),
        (1, 0x1_0000, RelayError::UsedId(0x1_0000)),
        // In the middle of a chain, and free.
        (1, 1, RelayError::UsedId(1)),
        (1, 9, RelayError::UsedId(9)),
    ] {
        let mut bench = with_two();
        bench.shadow.write(layout.device() + 4, &id.to_le_bytes());
        bench.shadow.store_u16(layout.device() + 2, used.to_le());
        assert_eq!(bench.turn(8), Err(error));
    }
    // The same one twice.
    let mut bench = with_two();
    bench.shadow.write(layout.device() + 4, &[0; 16]);
    bench.shadow.store_u16(layout.device() + 2, 2u16.to_le());
    assert_eq!(bench.turn(8), Err(RelayError::UsedId(0)));
    // A length beyond the buffer is cut.
    let mut bench = with_two();
    bench
        .shadow
        .write(layout.device() + 4, &[0, 0, 0, 0, 255, 255, 255, 255]);
    bench.shadow.store_u16(layout.device() + 2, 1u16.to_le());
    bench.turn(8).unwrap();
    assert_eq!(bench.ring.used().unwrap().unwrap().written, Some(128));
}

#[test]
fn memory_that_goes_away_is_an_error() {
    let mut bench = Bench::new(Shaped::new(Direction::Receive));
    assert!(bench.add(&[buffer(0x4000_0000, 64)], Shape::Direct, 1));
    bench.publish();
    // Whether the hardware can reach it is a matter between those two.
    bench.turn(8).unwrap();
    let layout = Layout::new(SHADOW, 16).unwrap();
    bench
        .shadow
        .write(layout.device() + 4, &[0, 0, 0, 0, 64, 0, 0, 0]);
    bench.shadow.store_u16(layout.device() + 2, 1u16.to_le());
    bench.relay_called = true;
    let error = bench.turn(8).unwrap_err();
    assert!(matches!(error, RelayError::Ring(RingError::Fault(_))));
}

/// Puts the guest's ring and the shadow, both full of `bytes`, through the relay.
fn nonsense(shaped: Shaped, bytes: &[u8], shadow: &[u8], turns: u8) {
    let mut bench = Bench::new(shaped);
    let fill = |region: &Region, at: u64, len: u64, with: &[u8]| {
        for (at, byte) in (at..at + len).zip(with.iter().cycle()) {
            region.write(at, &[*byte]);
        }
    };
    let layout = bench.ring.layout();
    fill(&bench.guest, RING, layout.end - RING, bytes);
    // Something available, that other things than the index are looked at.
    let index = shaped.start.wrapping_add(shaped.size / 2);
    let raw = shaped.order().swap_u16(index);
    bench.guest.store_u16(layout.driver + 2, raw);
    for turn in 0..turns {
        if turn > 0 && !shadow.is_empty() {
            let place = Layout::new(SHADOW, shaped.shadow).unwrap().device();
            fill(
                &bench.shadow,
                place + 4,
                8 * u64::from(shaped.shadow),
                shadow,
            );
            bench.shadow.store_u16(place + 2, available(&bench).to_le());
        }
        bench.relay_called = true;
        if bench.turn(64).is_err() {
            break;
        }
    }
    let _ = bench
        .relay
        .stop(&View(&[&bench.guest]), &View(&[&bench.shadow]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn nonsense_ends(
        receives in any::<bool>(),
        event_index in any::<bool>(),
        table_entries in prop_oneof![Just(0u16), Just(8)],
        // Mostly zeroes, so that some of it makes sense.
        bytes in vec(prop_oneof![4 => Just(0u8), 2 => 0u8..8, 1 => any::<u8>()], 1..200),
        shadow in vec(prop_oneof![4 => Just(0u8), 2 => 0u8..8, 1 => any::<u8>()], 0..64),
        start in any::<u16>(),
        turns in 1u8..6,
    ) {
        let direction = if receives { Direction::Receive } else { Direction::Transmit };
        let shaped = Shaped { event_index, table_entries, start, ..Shaped::new(direction) };
        nonsense(shaped, &bytes, &shadow, turns);
    }
}
