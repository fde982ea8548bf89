// SPDX-License-Identifier: GPL-2.0

//! Traffic through memory that is nothing but a buffer, with a driver that is nobody's.

use driver::{
    Buffer,
    Region,
    Shape, //
};
use proptest::prelude::*;
use virtio::{
    byte_order::ByteOrder,
    features::Features,
    memory::{
        Fault,
        Memory, //
    },
    net::{
        features::{
            CSUM,
            GUEST_CSUM,
            HOST_TSO4,
            MRG_RXBUF, //
        },
        header::{
            Header,
            DATA_VALID,
            NEEDS_CSUM, //
        },
    },
    ring::{
        Config,
        Options,
        State, //
    },
};

use crate::{
    frame::Frame,
    packet::checksum, //
};

use super::{
    counters::Tally,
    receive::Receiver,
    ring::{
        Failure,
        Ring, //
    },
    transmit::{
        Transmitter,
        BATCH, //
    },
};

const BASE: u64 = 0x10_0000;
const LEN: usize = 0x10_0000;
const DATA: u64 = BASE + 0x4_0000;
const SIZE: u16 = 64;

/// The driver's memory, as the device reaches it.
#[derive(Clone)]
struct Guest(Region);

impl Guest {
    fn check(&self, addr: u64, len: usize) -> bool {
        self.0.contains(addr, len as u64)
    }
}

impl Memory for Guest {
    fn read(&self, addr: u64, to: &mut [u8]) -> Result<(), Fault> {
        if !self.check(addr, to.len()) {
            return Err(Fault::read(addr));
        }
        self.0.read(addr, to);
        Ok(())
    }

    fn write(&self, addr: u64, from: &[u8]) -> Result<(), Fault> {
        if !self.check(addr, from.len()) {
            return Err(Fault::write(addr));
        }
        self.0.write(addr, from);
        Ok(())
    }

    fn load_u16(&self, addr: u64) -> Result<u16, Fault> {
        if addr % 2 != 0 || !self.check(addr, 2) {
            return Err(Fault::read(addr));
        }
        Ok(self.0.load_u16(addr))
    }

    fn store_u16(&self, addr: u64, value: u16) -> Result<(), Fault> {
        if addr % 2 != 0 || !self.check(addr, 2) {
            return Err(Fault::write(addr));
        }
        self.0.store_u16(addr, value);
        Ok(())
    }
}

/// A ring, and both who use it.
struct Bench {
    region: Region,
    driver: driver::Ring,
    /// Where the next buffer lies.
    at: u64,
}

impl Bench {
    fn new(event_index: bool) -> Self {
        let region = Region::new(BASE, LEN);
        let options = driver::Options {
            event_index,
            table_entries: 32,
            ..Default::default()
        };
        Self {
            driver: driver::Ring::new(&region, BASE, SIZE, options),
            region,
            at: DATA,
        }
    }

    fn ring(&self, features: Features, event_index: bool) -> Ring<Guest> {
        let layout = self.driver.layout();
        let config = Config {
            size: SIZE,
            desc: layout.desc,
            driver: layout.driver,
            device: layout.device,
            byte_order: ByteOrder::Little,
            options: Options {
                event_index,
                ..super::ring::options()
            },
        };
        let memory = Guest(self.region.clone());
        Ring::new(config, State::split(0), features, memory.clone(), memory).unwrap()
    }

    /// Room for `len` bytes.
    fn room(&mut self, len: usize) -> Buffer {
        let buffer = Buffer {
            addr: self.at,
            len: len as u32,
        };
        self.at += len as u64;
        buffer
    }

    fn buffer(&mut self, bytes: &[u8]) -> Buffer {
        let buffer = self.room(bytes.len());
        self.region.write(buffer.addr, bytes);
        buffer
    }

    /// Has the driver send a frame, in pieces that end where `cuts` say.
    fn send(&mut self, bytes: &[u8], cuts: &[usize], shape: Shape, token: u64) {
        let mut pieces = Vec::new();
        let mut from = 0;
        for to in cuts.iter().copied().chain([bytes.len()]) {
            let to = to.clamp(from, bytes.len());
            pieces.push(self.buffer(&bytes[from..to]));
            from = to;
        }
        self.driver.add(&pieces, &[], shape, token).unwrap();
        self.driver.publish();
    }

    fn tokens(&mut self) -> Vec<u64> {
        let mut tokens = Vec::new();
        while let Some(used) = self.driver.used().unwrap() {
            tokens.push(used.token);
        }
        tokens
    }
}

/// What a transmitter sends until it has no more.
fn sent(transmitter: &mut Transmitter<Guest>) -> (Vec<Frame>, Tally, usize) {
    let mut frames = Vec::new();
    let mut tally = Tally::default();
    let mut notifications = 0;
    loop {
        let outcome = transmitter
            .batch(&mut tally, |batch| {
                assert!(batch.len() <= BATCH);
                frames.extend_from_slice(batch);
            })
            .unwrap();
        notifications += usize::from(outcome.notify);
        if !outcome.more {
            return (frames, tally, notifications);
        }
    }
}

fn header(header: Header, len: usize) -> Vec<u8> {
    header.to_bytes(ByteOrder::Little)[..len].to_vec()
}

fn frame(bytes: &[u8]) -> Frame {
    Frame {
        bytes: bytes.to_vec(),
    }
}

/// A TCP packet whose checksum is whole.
fn tcp(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .tcp(1, 2, 3, 4)
        .write(&mut bytes, payload)
        .unwrap();
    bytes
}

fn features() -> impl Strategy<Value = Features> {
    proptest::bits::u8::masked(7).prop_map(|bits| {
        [Features::VERSION_1, MRG_RXBUF, CSUM]
            .into_iter()
            .enumerate()
            .filter(|(at, _)| (bits >> at) & 1 != 0)
            .fold(Features::NONE, |set, (_, feature)| set | feature)
    })
}

fn header_len(features: Features) -> usize {
    if features.intersects(Features::VERSION_1 | MRG_RXBUF) {
        12
    } else {
        10
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn frames_go_out_as_they_are(
        features in features(),
        event_index: bool,
        lens in proptest::collection::vec(0usize..1600, 1..50),
        cuts in proptest::collection::vec(0usize..100, 0..3),
        indirect: bool,
    ) {
        let mut bench = Bench::new(event_index);
        let ring = bench.ring(features, event_index);
        let mut transmitter = Transmitter::new(ring);
        let mut expected = Vec::new();
        let mut errors = 0;
        let shape = if indirect { Shape::Indirect } else { Shape::Direct };
        let mut tokens = Vec::new();
        let mut frames = Vec::new();
        for (token, len) in lens.iter().enumerate() {
            let bytes: Vec<u8> = (0..*len).map(|n| (n + token) as u8).collect();
            let mut whole = header(Header::default(), header_len(features));
            whole.extend_from_slice(&bytes);
            if bench.driver.free() < 4 {
                frames.extend(sent(&mut transmitter).0);
                tokens.extend(bench.tokens());
            }
            bench.send(&whole, &cuts, shape, token as u64);
            if *len < 14 {
                errors += 1;
            } else {
                expected.push(frame(&bytes));
            }
        }
        let (more, tally, _) = sent(&mut transmitter);
        frames.extend(more);
        tokens.extend(bench.tokens());
        prop_assert!(tally.errors <= errors);
        prop_assert_eq!(frames, expected);
        // Every buffer comes back, also that of a frame that could not be sent.
        prop_assert_eq!(tokens, (0..lens.len() as u64).collect::<Vec<_>>());
        let count = lens.len() as u16;
        prop_assert_eq!(transmitter.ring.stop(), (count, count));
    }

    #[test]
    fn frames_come_in_as_they_are(
        features in features(),
        event_index: bool,
        lens in proptest::collection::vec(14usize..3000, 1..20),
        room in 12usize..2000,
    ) {
        let mut bench = Bench::new(event_index);
        let ring = bench.ring(features, event_index);
        let mut receiver = Receiver::new(ring);
        let header_len = header_len(features);
        for token in 0..u64::from(SIZE) {
            // Two pieces, of which the second may be nothing.
            let one = bench.room(room.min(12 + token as usize));
            let two = bench.room(room - one.len as usize);
            let pieces = [one, two];
            let pieces = if two.len == 0 { &pieces[..1] } else { &pieces[..] };
            if bench.driver.add(&[], pieces, Shape::Indirect, token).is_err() {
                break;
            }
        }
        bench.driver.publish();
        let frames: Vec<_> = lens
            .iter()
            .map(|len| frame(&(0..*len).map(|n| n as u8).collect::<Vec<_>>()))
            .collect();
        let mut tally = Tally::default();
        let lent: Vec<_> = frames.iter().collect();
        let notify = receiver.batch(&lent, &mut tally).unwrap();
        prop_assert_eq!(notify, tally.frames > 0);

        let mergeable = features.contains(MRG_RXBUF);
        let mut expected = Vec::new();
        let mut left = usize::from(SIZE);
        for frame in &frames {
            let needed = (header_len + frame.bytes.len()).div_ceil(room);
            if needed > left {
                break;
            }
            if mergeable || needed == 1 {
                expected.push(&frame.bytes);
                left -= needed;
            }
        }
        let mut received = Vec::new();
        let mut at = DATA;
        while let Some(first) = bench.driver.used().unwrap() {
            let mut whole = bench.region.get(at, first.written.unwrap() as usize);
            at += room as u64;
            let found = Header::parse(&whole[..header_len], ByteOrder::Little).unwrap();
            prop_assert_eq!(found.flags, 0);
            if header_len == 12 {
                for _ in 1..found.num_buffers {
                    let next = bench.driver.used().unwrap().unwrap();
                    whole.extend(bench.region.get(at, next.written.unwrap() as usize));
                    at += room as u64;
                }
            }
            received.push(whole.split_off(header_len));
        }
        prop_assert_eq!(received.iter().collect::<Vec<_>>(), expected);
        prop_assert_eq!(tally.frames as usize, received.len());
        prop_assert_eq!(tally.dropped as usize, frames.len() - received.len());
        let taken = (usize::from(SIZE) - left) as u16;
        prop_assert_eq!(receiver.ring.stop(), (taken, taken));
    }

    #[test]
    fn hostile_rings_are_survived(
        bytes in proptest::collection::vec(any::<u8>(), 0x400),
        available: u16,
        heads in proptest::collection::vec(0u16..SIZE + 2, 64),
        near: bool,
        features in features(),
    ) {
        let bench = Bench::new(false);
        let layout = bench.driver.layout();
        let mut table = bytes;
        for desc in table.chunks_mut(16) {
            if near {
                // An address, length, flags and link that often are good.
                let addr = BASE + u64::from(desc[0]) * 0x1000;
                desc[..8].copy_from_slice(&addr.to_le_bytes());
                desc[10..12].fill(0);
                desc[12] &= 7;
                desc[13] = 0;
                desc[14] %= 66;
                desc[15] = 0;
            }
        }
        bench.region.write(layout.desc, &table);
        for (at, head) in heads.iter().enumerate() {
            bench.region.store_u16(layout.driver + 4 + 2 * at as u64, *head);
        }
        bench.region.store_u16(layout.driver + 2, if near { available % 65 } else { available });
        let mut tally = Tally::default();
        let mut transmitter = Transmitter::new(bench.ring(features | HOST_TSO4, false));
        let mut turns = 0;
        while let Ok(sent) = transmitter.batch(&mut tally, |_| {}) {
            if !sent.more {
                break;
            }
            turns += 1;
            prop_assert!(turns < 10);
        }
        transmitter.ring.abandon();
        let mut receiver = Receiver::new(bench.ring(features, true));
        let frames = vec![frame(&[7; 1514]); 100];
        let lent: Vec<_> = frames.iter().collect();
        let _ = receiver.batch(&lent, &mut tally);
        receiver.ring.abandon();
    }
}

#[test]
fn checksums_are_completed_if_the_driver_may_ask() {
    let whole = tcp(b"hello");
    let mut partial = whole.clone();
    let pseudo = checksum::Sum::default().with(&whole[34..]).finish();
    partial[50..52].copy_from_slice(&pseudo.to_be_bytes());
    let offload = Header {
        flags: NEEDS_CSUM,
        csum_start: 34,
        csum_offset: 16,
        ..Header::default()
    };
    for (features, expected) in [(CSUM, &whole), (Features::NONE, &partial)] {
        let mut bench = Bench::new(false);
        let mut bytes = header(offload, 10);
        bytes.extend_from_slice(&partial);
        bench.send(&bytes, &[10], Shape::Direct, 0);
        let mut transmitter = Transmitter::new(bench.ring(features, false));
        assert_eq!(sent(&mut transmitter).0, [frame(expected)]);
    }
}

#[test]
fn long_packets_become_segments_and_short_ones_follow() {
    let payload: Vec<u8> = (0..60000).map(|n| (n % 251) as u8).collect();
    let whole = tcp(&payload);
    let offload = Header {
        flags: NEEDS_CSUM,
        gso_type: 1,
        gso_size: 300,
        csum_start: 34,
        csum_offset: 16,
        hdr_len: 54,
        num_buffers: 0,
    };
    let features = Features::VERSION_1 | CSUM | HOST_TSO4;
    let mut bench = Bench::new(false);
    let mut bytes = header(offload, 12);
    bytes.extend_from_slice(&whole);
    bench.send(&bytes, &[12, 2000, 40000], Shape::Direct, 0);
    let mut bytes = header(Header::default(), 12);
    bytes.extend_from_slice(&tcp(b"after"));
    bench.send(&bytes, &[], Shape::Direct, 1);
    // Something that cannot be cut is lost, and nothing else.
    let mut bytes = header(
        Header {
            gso_size: 1,
            ..offload
        },
        12,
    );
    bytes.extend_from_slice(&whole);
    bench.send(&bytes, &[], Shape::Direct, 2);
    let mut transmitter = Transmitter::new(bench.ring(features, false));
    let (frames, tally, notifications) = sent(&mut transmitter);
    assert_eq!(frames.len(), 201);
    assert_eq!((tally.frames, tally.errors, tally.completed), (201, 1, 3));
    assert_eq!(notifications, 1);
    let mut together = Vec::new();
    for segment in &frames[..200] {
        assert!(checksum::is_whole(&segment.bytes));
        together.extend_from_slice(&segment.bytes[54..]);
    }
    assert_eq!(together, payload);
    assert_eq!(frames[200], frame(&tcp(b"after")));
    assert_eq!(bench.tokens(), [0, 1, 2]);
}

#[test]
fn good_checksums_are_vouched_for() {
    let good = tcp(b"x");
    let mut bad = good.clone();
    bad[54] ^= 1;
    for (features, bytes, flags) in [
        (GUEST_CSUM, &good, DATA_VALID),
        (GUEST_CSUM, &bad, 0),
        (Features::NONE, &good, 0),
    ] {
        let mut bench = Bench::new(false);
        let buffer = bench.room(2000);
        bench.driver.add(&[], &[buffer], Shape::Direct, 0).unwrap();
        bench.driver.publish();
        let mut receiver = Receiver::new(bench.ring(features | Features::VERSION_1, false));
        let frame = frame(bytes);
        assert_eq!(receiver.batch(&[&frame], &mut Tally::default()), Ok(true));
        let found = bench.region.get(DATA, 12);
        let found = Header::parse(&found, ByteOrder::Little).unwrap();
        assert_eq!((found.flags, found.num_buffers), (flags, 1));
    }
}

#[test]
fn notifications_are_as_wanted() {
    let mut bench = Bench::new(true);
    let mut transmitter = Transmitter::new(bench.ring(Features::VERSION_1, true));
    let mut bytes = header(Header::default(), 12);
    bytes.extend_from_slice(&[1; 60]);
    bench.driver.disable_interrupts();
    bench.send(&bytes, &[], Shape::Direct, 0);
    // The very first ones: the driver has not said anything else than 0.
    sent(&mut transmitter);
    bench.send(&bytes, &[], Shape::Direct, 1);
    assert_eq!(sent(&mut transmitter).2, 0);
    bench.tokens();
    assert!(!bench.driver.enable_interrupts(2));
    bench.send(&bytes, &[], Shape::Direct, 2);
    assert_eq!(sent(&mut transmitter).2, 0);
    bench.send(&bytes, &[], Shape::Direct, 3);
    assert_eq!(sent(&mut transmitter).2, 1);
}

#[test]
fn kicks_are_asked_for_only_when_there_is_nothing() {
    let mut bench = Bench::new(false);
    let mut transmitter = Transmitter::new(bench.ring(Features::VERSION_1, false));
    let mut bytes = header(Header::default(), 12);
    bytes.extend_from_slice(&[1; 60]);
    bench.send(&bytes, &[], Shape::Direct, 0);
    let mut asked = None;
    let device = bench.driver.layout().device;
    let region = bench.region.clone();
    transmitter
        .batch(&mut Tally::default(), |_| {
            asked = Some(region.load_u16(device) & 1 == 0);
        })
        .unwrap();
    assert_eq!(asked, Some(false));
    assert_eq!(bench.region.load_u16(device), 0);
}

#[test]
fn memory_that_is_not_there_breaks_the_ring_after_what_came_before() {
    let mut bench = Bench::new(false);
    let mut bytes = header(Header::default(), 12);
    bytes.extend_from_slice(&[1; 60]);
    bench.send(&bytes, &[], Shape::Direct, 0);
    let nowhere = Buffer {
        addr: BASE + LEN as u64,
        len: 100,
    };
    bench.driver.add(&[nowhere], &[], Shape::Direct, 1).unwrap();
    bench.driver.publish();
    let mut transmitter = Transmitter::new(bench.ring(Features::VERSION_1, false));
    let mut tally = Tally::default();
    let mut frames = 0;
    let first = transmitter.batch(&mut tally, |batch| frames += batch.len());
    assert!(first.unwrap().more);
    assert_eq!(frames, 1);
    let second = transmitter.batch(&mut tally, |_| panic!("there is nothing to be sent"));
    assert_eq!(second, Err(Failure::InvalidBuffer));
    assert_eq!(bench.tokens(), [0]);
    assert_eq!(transmitter.ring.abandon(), (1, 1));

    let mut bench = Bench::new(false);
    bench.driver.add(&[], &[nowhere], Shape::Direct, 0).unwrap();
    bench.driver.publish();
    let mut receiver = Receiver::new(bench.ring(Features::VERSION_1, false));
    let outcome = receiver.batch(&[&frame(&[1; 60])], &mut tally);
    assert_eq!(outcome, Err(Failure::InvalidBuffer));
    assert_eq!(receiver.ring.abandon(), (0, 0));
}
