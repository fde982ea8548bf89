// SPDX-License-Identifier: GPL-2.0
//! Byte for byte, error for error.

use driver::{
    Buffer,
    Endian,
    Layout,
    Region,
    Ring,
    Shape, //
};
use virtio::{
    byte_order::ByteOrder,
    features::Features,
    memory::Fault,
    ring::{
        Chain,
        Config,
        ConfigError,
        Options,
        Position,
        Queue,
        RingError,
        Segment,
        Slot,
        State, //
    },
};

use super::guest::{
    config,
    Guest, //
};

const BASE: u64 = 0x1000;
const DATA: u64 = 0x4000;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const AVAIL: u16 = 0x80;
const USED: u16 = 0x8000;

/// A ring of 4 that the test fills by hand, little-endian.
struct Bench {
    guest: Guest,
    layout: Layout,
    queue: Queue<Vec<Slot>>,
}

impl Bench {
    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let region = Region::new(BASE, 0x5000);
        let mut options = driver::Options {
            table_entries: 4,
            ..Default::default()
        };
        let mut probe = config(&Layout::new(BASE, 4, &options), 4, &options);
        change(&mut probe);
        options.packed = probe.options.packed;
        let layout = Layout::new(BASE, 4, &options);
        let config = Config {
            desc: layout.desc,
            driver: layout.driver,
            device: layout.device,
            ..probe
        };
        let state = State::initial(options.packed);
        Self {
            guest: Guest::new(&region).protect(&layout, 4, options.packed),
            layout,
            queue: Queue::new(config, state, vec![Slot::default(); 4]).unwrap(),
        }
    }

    fn split() -> Self {
        Self::with(|_| {})
    }

    fn packed() -> Self {
        Self::with(|config| config.options.packed = true)
    }

    fn put(&self, at: u64, addr: u64, len: u32, words: [u16; 2]) {
        let mut bytes = addr.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(words[0].to_le_bytes());
        bytes.extend(words[1].to_le_bytes());
        self.guest.region.write(at, &bytes);
    }

    /// A split descriptor.
    fn desc(&self, n: u64, addr: u64, len: u32, flags: u16, next: u16) -> &Self {
        self.put(self.layout.desc + 16 * n, addr, len, [flags, next]);
        self
    }

    /// A packed descriptor.
    fn pdesc(&self, n: u64, addr: u64, len: u32, id: u16, flags: u16) -> &Self {
        self.put(self.layout.desc + 16 * n, addr, len, [id, flags]);
        self
    }

    /// Makes split chains available from the start of the ring.
    fn avail(&self, heads: &[u16]) -> &Self {
        for (n, &head) in heads.iter().enumerate() {
            let at = self.layout.driver + 4 + 2 * n as u64;
            self.guest.region.store_u16(at, head.to_le());
        }
        let index = heads.len() as u16;
        self.guest
            .region
            .store_u16(self.layout.driver + 2, index.to_le());
        self
    }

    fn pop(&mut self) -> Result<Option<(Chain, Vec<Segment>)>, RingError> {
        let mut segments = [Segment::default(); 4];
        let chain = self.queue.pop(&self.guest, &mut segments)?;
        Ok(chain.map(|chain| (chain, segments[..chain.segments()].to_vec())))
    }

    fn fails(&mut self, error: RingError) {
        let state = self.queue.state();
        assert_eq!(self.pop().unwrap_err(), error);
        // It fails again, and nothing was taken.
        assert_eq!(self.pop().unwrap_err(), error);
        assert_eq!(self.queue.state(), state);
        assert_eq!(self.queue.in_flight(), 0);
    }

    fn take(&mut self) -> (Chain, Vec<Segment>) {
        self.pop().unwrap().unwrap()
    }
}

fn segment(addr: u64, len: u32, writable: bool) -> Segment {
    Segment {
        addr,
        len,
        writable,
    }
}

#[test]
fn a_split_chain_is_taken_and_given_back() {
    let mut b = Bench::split();
    assert_eq!(b.pop(), Ok(None));
    b.desc(2, DATA, 10, NEXT, 0)
        .desc(0, DATA + 16, 0, NEXT, 3)
        .desc(3, DATA + 32, 20, WRITE, 0)
        .avail(&[2]);
    let (chain, segments) = b.take();
    let expect = [segment(DATA, 10, false), segment(DATA + 32, 20, true)];
    assert_eq!(segments, expect);
    assert_eq!(
        (chain.id(), chain.readable(), chain.writable()),
        (2, 10, 20)
    );
    assert_eq!(b.pop(), Ok(None));
    b.queue.complete(&b.guest, chain, 7).unwrap();
    let idx = || b.guest.region.get(b.layout.device, 4);
    assert_eq!(idx(), [0, 0, 0, 0]);
    assert_eq!(b.queue.publish(&b.guest), Ok(1));
    assert_eq!(idx(), [0, 0, 1, 0]);
    assert_eq!(
        b.guest.region.get(b.layout.device + 4, 8),
        [2, 0, 0, 0, 7, 0, 0, 0]
    );
    assert_eq!(b.queue.publish(&b.guest), Ok(0));
    assert_eq!(b.queue.should_notify(&b.guest), Ok(true));
    assert_eq!(b.queue.should_notify(&b.guest), Ok(false));
    assert_eq!(b.queue.state(), State::split(1));
}

#[test]
fn a_big_endian_ring_is_big_endian_everywhere() {
    let mut b = Bench::with(|config| {
        config.byte_order = ByteOrder::Big;
        config.options.event_index = true;
    });
    let region = b.guest.region.clone();
    region.write(
        b.layout.desc + 16,
        &[0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 0, 2, 0, 0],
    );
    region.write(b.layout.driver, &[0, 0, 0, 1, 0, 1]);
    let (chain, segments) = b.take();
    assert_eq!(segments, [segment(0x4000, 0x102, true)]);
    b.queue.complete(&b.guest, chain, 0x101).unwrap();
    b.queue.publish(&b.guest).unwrap();
    assert_eq!(
        region.get(b.layout.device, 12),
        [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1, 1]
    );
    assert_eq!(b.queue.enable_kicks(&b.guest), Ok(false));
    assert_eq!(region.get(b.layout.device + 4 + 8 * 4, 2), [0, 1]);
    // The driver wants to know of entry 0, which has become used.
    assert_eq!(b.queue.should_notify(&b.guest), Ok(true));
}

#[test]
fn a_packed_chain_is_taken_and_given_back() {
    let mut b = Bench::packed();
    assert_eq!(b.pop(), Ok(None));
    // A used descriptor is not available, of this round or another.
    b.pdesc(0, DATA, 10, 0, AVAIL | USED);
    assert_eq!(b.pop(), Ok(None));
    b.pdesc(0, DATA, 10, 99, AVAIL | NEXT)
        .pdesc(1, DATA + 32, 20, 0xbeef, AVAIL | WRITE)
        .pdesc(2, DATA + 64, 30, 7, AVAIL);
    let (first, segments) = b.take();
    assert_eq!(first.id(), 0xbeef);
    let expect = [segment(DATA, 10, false), segment(DATA + 32, 20, true)];
    assert_eq!(segments, expect);
    let (second, _) = b.take();
    assert_eq!(b.pop(), Ok(None));

    // Completed in the other order, and visible only when published.
    b.queue.complete(&b.guest, second, 0).unwrap();
    b.queue.complete(&b.guest, first, 5).unwrap();
    let desc = |n: u64| b.guest.region.get(b.layout.desc + 16 * n + 8, 8);
    assert_eq!(desc(0)[6..], (AVAIL | NEXT).to_le_bytes());
    assert_eq!(b.queue.publish(&b.guest), Ok(3));
    assert_eq!(desc(0), [0, 0, 0, 0, 7, 0, 0x80, 0x80]);
    assert_eq!(desc(1), [5, 0, 0, 0, 0xef, 0xbe, 0x82, 0x80]);
    let at = Position {
        index: 3,
        wrap: true,
    };
    assert_eq!(
        b.queue.state(),
        State::Packed {
            avail: at,
            used: at
        }
    );

    // Round the corner, with the wrap counter changed.
    b.pdesc(3, DATA, 1, 0, AVAIL | NEXT)
        .pdesc(0, DATA, 2, 1, USED);
    let (third, segments) = b.take();
    assert_eq!((third.id(), segments.len()), (1, 2));
    b.pdesc(1, DATA, 3, 2, USED | WRITE);
    let (fourth, _) = b.take();
    b.queue.complete(&b.guest, third, 0).unwrap();
    b.queue.complete(&b.guest, fourth, 3).unwrap();
    assert_eq!(b.queue.publish(&b.guest), Ok(3));
    let desc = |n: u64| b.guest.region.get(b.layout.desc + 16 * n + 8, 8);
    assert_eq!(desc(3), [0, 0, 0, 0, 1, 0, 0x80, 0x80]);
    assert_eq!(desc(1), [3, 0, 0, 0, 2, 0, 2, 0]);
}

#[test]
fn broken_split_rings_are_told_apart() {
    let mut b = Bench::split();
    b.guest.region.store_u16(b.layout.driver + 2, 5);
    b.fails(RingError::AvailableIndex(5));

    let mut b = Bench::split();
    b.avail(&[4]);
    b.fails(RingError::DescriptorIndex(4));

    let mut b = Bench::split();
    b.desc(0, DATA, 1, NEXT, 9).avail(&[0]);
    b.fails(RingError::DescriptorIndex(9));

    let mut b = Bench::split();
    b.desc(0, DATA, 0, NEXT, 1)
        .desc(1, DATA, 1, NEXT, 0)
        .avail(&[0]);
    b.fails(RingError::Loop);

    let mut b = Bench::split();
    b.desc(0, DATA, 1, WRITE | NEXT, 1)
        .desc(1, DATA, 1, 0, 0)
        .avail(&[0]);
    b.fails(RingError::ReadableAfterWritable);

    let mut b = Bench::split();
    b.desc(0, u64::MAX, 2, 0, 0).avail(&[0]);
    b.fails(RingError::AddressOverflow(u64::MAX));

    let mut b = Bench::split();
    b.desc(0, 0, u32::MAX, NEXT, 1)
        .desc(1, 0, 1, 0, 0)
        .avail(&[0]);
    b.fails(RingError::LengthOverflow);

    let mut b = Bench::split();
    b.desc(0, DATA, 16, INDIRECT | NEXT, 1).avail(&[0]);
    b.fails(RingError::IndirectAndNext);

    for len in [0, 15, 17, 32769 * 16, u32::MAX - 15] {
        let mut b = Bench::split();
        b.desc(0, DATA, len, INDIRECT, 0).avail(&[0]);
        b.fails(RingError::IndirectLength(len));
    }

    let mut b = Bench::split();
    b.desc(0, u64::MAX - 15, 32, INDIRECT, 0).avail(&[0]);
    b.fails(RingError::AddressOverflow(u64::MAX - 15));

    let mut b = Bench::split();
    b.desc(0, DATA, 16, INDIRECT, 0).avail(&[0]);
    b.put(DATA, DATA, 16, [INDIRECT, 0]);
    b.fails(RingError::IndirectNested);

    let mut b = Bench::split();
    b.desc(0, DATA, 32, INDIRECT, 0).avail(&[0]);
    b.put(DATA, DATA, 16, [NEXT, 2]);
    b.fails(RingError::DescriptorIndex(2));
    b.put(DATA, DATA, 16, [NEXT, 0]);
    b.fails(RingError::Loop);

    // Five segments into four.
    let mut b = Bench::split();
    b.desc(0, DATA, 80, INDIRECT, 0).avail(&[0]);
    for n in 0..5u16 {
        b.put(DATA + 16 * u64::from(n), DATA, 1, [NEXT, n + 1]);
    }
    b.fails(RingError::ChainTooLong);

    // Those without bytes need no segment, but they have to be read.
    let mut b = Bench::split();
    b.desc(0, DATA, 66 * 16, INDIRECT, 0).avail(&[0]);
    for n in 0..66u16 {
        b.put(DATA + 16 * u64::from(n), DATA, 0, [NEXT, n + 1]);
    }
    b.fails(RingError::ChainTooLong);

    let mut b = Bench::split();
    b.desc(0, 0x100, 16, INDIRECT, 0).avail(&[0]);
    b.fails(RingError::Fault(Fault::read(0x100)));

    let mut b = Bench::with(|config| config.options.indirect = false);
    b.desc(0, DATA, 16, INDIRECT, 0).avail(&[0]);
    b.fails(RingError::IndirectNotNegotiated);
}

#[test]
fn broken_packed_rings_are_told_apart() {
    let mut b = Bench::packed();
    for n in 0..4 {
        b.pdesc(n, DATA, 0, 0, AVAIL | NEXT);
    }
    b.fails(RingError::Loop);

    let mut b = Bench::packed();
    b.pdesc(0, DATA, 16, 0, AVAIL | INDIRECT);
    b.put(DATA, DATA, 16, [0, INDIRECT]);
    b.fails(RingError::IndirectNested);

    let mut b = Bench::packed();
    b.pdesc(0, DATA, 16, 0, AVAIL | INDIRECT | NEXT);
    b.fails(RingError::IndirectAndNext);

    let mut b = Bench::packed();
    b.pdesc(0, DATA, 1, 0, AVAIL | NEXT | WRITE)
        .pdesc(1, DATA, 1, 0, 0);
    b.fails(RingError::ReadableAfterWritable);

    // More available than the ring holds: the driver puts buffers over those in flight.
    let mut b = Bench::packed();
    for n in 0..4 {
        b.pdesc(n, DATA, 1, n as u16, AVAIL);
    }
    for _ in 0..4 {
        b.take();
    }
    b.pdesc(0, DATA, 1, 0, USED);
    assert_eq!(b.pop(), Err(RingError::TooManyInFlight));
    assert_eq!(b.queue.in_flight(), 4);
}

#[test]
fn a_split_driver_cannot_have_more_in_flight_than_entries() {
    let mut b = Bench::split();
    b.desc(0, DATA, 1, 0, 0).avail(&[0, 0, 0, 0]);
    let chains = [b.take(), b.take(), b.take(), b.take()];
    b.guest.region.store_u16(b.layout.driver + 2, 8);
    assert_eq!(b.pop(), Err(RingError::TooManyInFlight));
    // Neither does completing help, as long as the driver has not seen it.
    for (chain, _) in chains {
        b.queue.complete(&b.guest, chain, 0).unwrap();
    }
    assert_eq!(b.pop(), Err(RingError::TooManyInFlight));
    b.queue.publish(&b.guest).unwrap();
    b.take();
}

#[test]
fn indirect_tables_are_followed_across_windows() {
    // 20 descriptors, every other one empty, linked backwards by twos.
    let mut b = Bench::split();
    b.desc(1, DATA, 320, INDIRECT | WRITE, 0).avail(&[1]);
    for n in 0..20u16 {
        let flags = if n == 1 { 0 } else { NEXT };
        let next = if n >= 2 { n - 2 } else { 19 };
        let len = if n == 0 || n == 1 { 8 } else { 0 };
        b.put(
            DATA + 16 * u64::from(n),
            DATA + u64::from(n),
            len,
            [flags, next],
        );
    }
    let (chain, segments) = b.take();
    assert_eq!(chain.id(), 1);
    assert_eq!(
        segments,
        [segment(DATA, 8, false), segment(DATA + 1, 8, false)]
    );
}

#[test]
fn nothing_is_read_twice() {
    for packed in [false, true] {
        let options = driver::Options {
            packed,
            table_entries: 12,
            event_index: true,
            ..Default::default()
        };
        let region = Region::new(BASE, 1 << 20);
        let mut ring = Ring::new(&region, BASE, 64, options);
        let layout = ring.layout();
        let config = config(&layout, 64, &options);
        let slots = vec![Slot::default(); 64];
        let mut queue = Queue::new(config, State::initial(packed), slots).unwrap();
        let guest = Guest::new(&region).read_once();
        let piece = |n: u32| Buffer {
            addr: DATA,
            len: n + 1,
        };
        let out: Vec<Buffer> = (0..6).map(piece).collect();
        for token in 0..5 {
            ring.add(&out, &out, Shape::Indirect, token).unwrap();
            ring.add(&out[..1], &out[..2], Shape::Direct, token)
                .unwrap();
        }
        ring.publish();
        let mut segments = [Segment::default(); 12];
        let mut count = 0;
        while queue.has_available(&guest).unwrap() {
            // Whether something is there may be asked again.
            guest.forget();
            let chain = queue.pop(&guest, &mut segments).unwrap().unwrap();
            assert_eq!(chain.segments(), if count % 2 == 0 { 12 } else { 3 });
            count += 1;
            guest.forget();
        }
        assert_eq!(count, 10);
    }
}

#[test]
fn memory_is_accessed_rarely() {
    for (packed, expect) in [(false, 1 + 2 + 2 * 32 + 1 + 1), (true, 2 * 32 + 32 + 1 + 2)] {
        let options = driver::Options {
            packed,
            event_index: true,
            ..Default::default()
        };
        let region = Region::new(BASE, 1 << 16);
        let mut ring = Ring::new(&region, BASE, 256, options);
        let config = config(&ring.layout(), 256, &options);
        let slots = vec![Slot::default(); 256];
        let mut queue = Queue::new(config, State::initial(packed), slots).unwrap();
        let guest = Guest::new(&region);
        let piece = [Buffer {
            addr: DATA,
            len: 64,
        }];
        for token in 0..32 {
            ring.add(&piece, &[], Shape::Direct, token).unwrap();
        }
        ring.publish();
        let mut segments = [Segment::default(); 1];
        for _ in 0..32 {
            let chain = queue.pop(&guest, &mut segments).unwrap().unwrap();
            queue.complete(&guest, chain, 0).unwrap();
        }
        queue.publish(&guest).unwrap();
        queue.should_notify(&guest).unwrap();
        assert_eq!(guest.accesses.get(), expect, "packed: {packed}");
    }
}

#[test]
fn in_order_transmits_share_a_used_entry() {
    for packed in [false, true] {
        let mut b = Bench::with(|config| {
            config.options.packed = packed;
            config.options.in_order = true;
        });
        for n in 0..4u16 {
            let (flags, at) = (if n == 2 { WRITE } else { 0 }, u64::from(n));
            if packed {
                b.pdesc(at, DATA, 8, n, AVAIL | flags);
            } else {
                b.desc(at, DATA, 8, flags, 0);
            }
        }
        if !packed {
            b.avail(&[0, 1, 2, 3]);
        }
        let chains = [0; 4].map(|_| b.take().0);
        b.queue.complete(&b.guest, chains[1], 0).unwrap();
        b.queue.complete(&b.guest, chains[3], 0).unwrap();
        assert_eq!(b.queue.publish(&b.guest), Ok(0));
        assert!(b.queue.in_flight_ids().eq([0, 2]));
        b.queue.complete(&b.guest, chains[0], 0).unwrap();
        assert_eq!(b.queue.publish(&b.guest), Ok(2));
        assert_eq!(b.queue.rewind(), Err(RingError::NotNewest));
        b.queue.complete(&b.guest, chains[2], 8).unwrap();
        assert_eq!(b.queue.publish(&b.guest), Ok(2));
        let get = |at, len| b.guest.region.get(at, len);
        if packed {
            // In place of 0: id 1. In place of 2: id 2 with its length; 3 on its own.
            assert_eq!(get(b.layout.desc + 8, 8), [0, 0, 0, 0, 1, 0, 0x80, 0x80]);
            assert_eq!(get(b.layout.desc + 40, 8), [8, 0, 0, 0, 2, 0, 0x82, 0x80]);
            assert_eq!(get(b.layout.desc + 56, 8), [0, 0, 0, 0, 3, 0, 0x80, 0x80]);
            // What was skipped is as the driver left it.
            assert_eq!(get(b.layout.desc + 24, 8), [8, 0, 0, 0, 1, 0, 0x80, 0]);
        } else {
            let ring = b.layout.device + 4;
            assert_eq!(get(ring, 8), [1, 0, 0, 0, 0, 0, 0, 0]);
            assert_eq!(get(ring + 8, 8), [0; 8]);
            assert_eq!(get(ring + 16, 8), [2, 0, 0, 0, 8, 0, 0, 0]);
            assert_eq!(get(ring + 24, 8), [3, 0, 0, 0, 0, 0, 0, 0]);
        }
    }
}

#[test]
fn notify_on_empty_overrides_suppression() {
    for event_index in [false, true] {
        let mut b = Bench::with(|config| {
            config.options.event_index = event_index;
            config.options.notify_on_empty = true;
        });
        b.desc(0, DATA, 1, 0, 0)
            .desc(1, DATA, 1, 0, 0)
            .avail(&[0, 1]);
        // No interrupts: by the flag, or by an event far away.
        b.guest.region.store_u16(b.layout.driver, 1);
        b.guest.region.store_u16(b.layout.driver + 4 + 8, 0x8000);
        for last in [false, true] {
            let (chain, _) = b.take();
            b.queue.complete(&b.guest, chain, 0).unwrap();
            b.queue.publish(&b.guest).unwrap();
            assert_eq!(b.queue.should_notify(&b.guest), Ok(last));
        }
    }
}

#[test]
fn an_event_left_behind_by_an_earlier_use_is_notified_of() {
    for packed in [false, true] {
        let options = driver::Options {
            packed,
            event_index: true,
            ..Default::default()
        };
        let region = Region::new(BASE, 0x5000);
        let mut ring = Ring::new(&region, BASE, 4, options);
        let config = config(&ring.layout(), 4, &options);
        let guest = Guest::new(&region).protect(&ring.layout(), 4, packed);
        let piece = [Buffer { addr: DATA, len: 1 }];
        let mut use_one = |queue: &mut Queue<Vec<Slot>>, token| {
            ring.add(&piece, &[], Shape::Direct, token).unwrap();
            ring.publish();
            let mut segments = [Segment::default(); 1];
            let chain = queue.pop(&guest, &mut segments).unwrap().unwrap();
            queue.complete(&guest, chain, 0).unwrap();
            assert_eq!(queue.publish(&guest), Ok(1));
        };
        let new = |state| Queue::new(config, state, vec![Slot::default(); 4]).unwrap();

        // The driver waits for the first buffer, which one device uses without a notification.
        let mut queue = new(State::initial(packed));
        use_one(&mut queue, 0);
        // The next device does not know.
        let mut queue = new(queue.state());
        assert_eq!(queue.publish(&guest), Ok(0));
        assert_eq!(queue.should_notify(&guest), Ok(false));
        use_one(&mut queue, 1);
        assert_eq!(queue.should_notify(&guest), Ok(true));
        // From here on it does.
        use_one(&mut queue, 2);
        assert_eq!(queue.should_notify(&guest), Ok(false));
    }
}

#[test]
fn kicks_left_off_by_an_earlier_use_are_turned_on() {
    for packed in [false, true] {
        let mut b = Bench::with(|config| config.options.packed = packed);
        let flags = b.layout.device + if packed { 2 } else { 0 };
        b.guest.region.store_u16(flags, 1);
        assert_eq!(b.queue.enable_kicks(&b.guest), Ok(false));
        assert_eq!(b.guest.region.load_u16(flags), 0);
        b.queue.disable_kicks(&b.guest).unwrap();
        assert_eq!(b.guest.region.load_u16(flags), 1);
    }
}

#[test]
fn tokens_of_the_past_are_refused() {
    let mut b = Bench::split();
    b.desc(0, DATA, 1, 0, 0).avail(&[0]);
    let (old, _) = b.take();
    b.queue.complete(&b.guest, old, 0).unwrap();
    b.queue.publish(&b.guest).unwrap();
    b.avail(&[0, 0]);
    let (new, _) = b.take();
    assert_eq!(b.queue.unpop(old), Err(RingError::NotInFlight));
    assert_eq!(
        b.queue.complete(&b.guest, old, 0),
        Err(RingError::NotInFlight)
    );
    assert_eq!(b.queue.unpop(new), Ok(()));
    assert_eq!(
        b.queue.complete(&b.guest, new, 0),
        Err(RingError::NotInFlight)
    );
}

#[test]
fn a_fault_while_completing_leaves_the_chain_in_flight() {
    let region = Region::new(BASE, 0x5000);
    let layout = Layout::new(BASE, 4, &driver::Options::default());
    let config = Config {
        device: 0x10000,
        ..config(&layout, 4, &driver::Options::default())
    };
    let mut queue = Queue::new(config, State::split(0), vec![Slot::default(); 4]).unwrap();
    region.write(
        layout.desc,
        &[0, 0x40, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0],
    );
    region.store_u16(layout.driver + 2, 1);
    let guest = Guest::new(&region);
    let chain = queue
        .pop(&guest, &mut [Segment::default()])
        .unwrap()
        .unwrap();
    assert_eq!(
        queue.complete(&guest, chain, 0),
        Err(RingError::Fault(Fault::write(0x10004)))
    );
    assert_eq!(queue.rewind(), Ok(1));
    assert_eq!(queue.state(), State::split(0));
}

#[test]
fn configurations_are_checked() {
    let good = Config {
        size: 8,
        desc: 0x1000,
        driver: 0x2002,
        device: 0x3004,
        byte_order: ByteOrder::Little,
        options: Options::default(),
    };
    assert_eq!(good.check(), Ok(()));
    for size in [0, 3, 32769, 65535] {
        assert_eq!(
            Config { size, ..good }.check(),
            Err(ConfigError::Size(size))
        );
    }
    let check = |config: Config, error| assert_eq!(config.check(), Err(error));
    check(Config { desc: 8, ..good }, ConfigError::Alignment(8));
    check(Config { driver: 1, ..good }, ConfigError::Alignment(1));
    check(Config { device: 2, ..good }, ConfigError::Alignment(2));
    let end = u64::MAX - 15;
    check(Config { desc: end, ..good }, ConfigError::Extent(end));

    let packed = Config {
        size: 3,
        driver: 0x2004,
        options: Options {
            packed: true,
            ..Options::default()
        },
        ..good
    };
    assert_eq!(packed.check(), Ok(()));
    check(
        Config {
            driver: 2,
            ..packed
        },
        ConfigError::Alignment(2),
    );

    let new = |config, state, slots| {
        Queue::new(config, state, vec![Slot::default(); slots])
            .map(|_| ())
            .unwrap_err()
    };
    assert_eq!(new(good, State::split(0), 7), ConfigError::Slots);
    assert_eq!(new(good, State::initial(true), 8), ConfigError::State);
    let (avail, used) = (9, 0);
    assert_eq!(
        new(good, State::Split { avail, used }, 8),
        ConfigError::State
    );
    assert_eq!(new(packed, State::packed(3, 0), 8), ConfigError::State);
}

#[test]
fn options_follow_features() {
    let all = Features::from_bits(u64::MAX);
    let legacy = all.without(Features::VERSION_1);
    let options = Options::from(all);
    assert!(options.packed && options.in_order && options.indirect && options.event_index);
    assert!(!options.notify_on_empty);
    let options = Options::from(legacy);
    assert!(!options.packed && !options.in_order && options.notify_on_empty);
}

#[test]
fn storage_may_be_borrowed() {
    let options = driver::Options {
        endian: Endian::Little,
        ..Default::default()
    };
    let layout = Layout::new(BASE, 4, &options);
    let mut slots = [Slot::default(); 4];
    let config = config(&layout, 4, &options);
    let queue = Queue::new(config, State::split(0), &mut slots[..]).unwrap();
    assert_eq!(queue.into_slots().len(), 4);
}
