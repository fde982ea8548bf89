// SPDX-License-Identifier: GPL-2.0
//! Random work on both sides of a ring.
//!
//! Whatever the two sides do in whatever order, every buffer comes back exactly once, with what
//! the device was meant to write, and nobody who asked for a notification misses it.

use std::collections::{
    BTreeMap,
    VecDeque, //
};

use driver::{
    Buffer,
    Endian,
    Region,
    Ring,
    Shape, //
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::select, //
};
use virtio::{
    memory::Memory,
    ring::{
        Chain,
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

const BASE: u64 = 0x1_0000_0000;
/// Buffers are made of cells of this many bytes.
const CELL: u64 = 64;
const CELLS: u64 = 4096;

/// One step of either side.
#[derive(Clone, Debug)]
enum Step {
    /// The driver adds a buffer of pieces of these lengths.
    Add(Vec<u32>, Vec<u32>, u8),
    /// The driver publishes what it added.
    Offer,
    /// The driver takes used buffers back.
    Reap,
    EnableInterrupts(u16),
    DisableInterrupts,
    /// The device takes up to this many chains.
    Pop(u8),
    /// It works on the one in flight with this number (modulo how many there are), and completes
    /// it.
    Complete(u8),
    CompleteAll,
    /// It puts this many chains back, as far as it may.
    Unpop(u8),
    /// It publishes what it completed.
    Publish,
    EnableKicks,
    DisableKicks,
    /// It is stopped, and another one goes on in its place.
    Migrate,
}

fn step() -> impl Strategy<Value = Step> {
    let lens = || vec(select(vec![1u32, 5, 16, 64, 0]), 0..5);
    prop_oneof![
        8 => (lens(), lens(), any::<u8>()).prop_map(|(o, i, s)| Step::Add(o, i, s)),
        4 => Just(Step::Offer),
        4 => Just(Step::Reap),
        2 => (1u16..6).prop_map(Step::EnableInterrupts),
        1 => Just(Step::DisableInterrupts),
        4 => (1u8..6).prop_map(Step::Pop),
        6 => any::<u8>().prop_map(Step::Complete),
        2 => Just(Step::CompleteAll),
        1 => (1u8..4).prop_map(Step::Unpop),
        4 => Just(Step::Publish),
        2 => Just(Step::EnableKicks),
        1 => Just(Step::DisableKicks),
        1 => Just(Step::Migrate),
    ]
}

/// A ring to work on.
#[derive(Clone, Debug)]
struct Setup {
    size: u16,
    options: driver::Options,
}

fn setup() -> impl Strategy<Value = Setup> {
    let any_size = select(vec![1u16, 2, 3, 5, 7, 8, 13, 16, 64, 100, 256]);
    (
        any_size,
        any::<[bool; 4]>(),
        select(vec![0u16, 2, 8, 20]),
        any::<u16>(),
        any::<bool>(),
    )
        .prop_map(
            |(size, [packed, event_index, in_order, big], table_entries, start, restored)| {
                let size = if packed {
                    size
                } else {
                    size.next_power_of_two()
                };
                // Near the end of the index more often than not.
                let start = if packed {
                    ((start & 0x7fff) % size) | (start & 0x8000)
                } else {
                    65520u16.wrapping_add(start % 32)
                };
                Setup {
                    size,
                    options: driver::Options {
                        packed,
                        event_index,
                        in_order,
                        endian: if big { Endian::Big } else { Endian::Little },
                        table_entries,
                        start: restored.then_some(start),
                    },
                }
            },
        )
}

/// What the driver expects of a buffer.
struct Expected {
    content: Vec<u8>,
    into: Vec<Buffer>,
    cells: Vec<u64>,
}

/// A chain that the device works on.
struct Work {
    chain: Chain,
    segments: Vec<Segment>,
    /// When it was taken.
    turn: u64,
}

/// Whether a side that wants to sleep has asked to be woken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wake {
    /// It cannot be said what the other side will do.
    Unknown,
    /// It has asked for no notification.
    Never,
    /// It has asked for one after this many more entries.
    After(u32),
}

struct World {
    setup: Setup,
    guest: Guest,
    ring: Ring,
    queue: Queue<Vec<Slot>>,
    next_token: u64,
    cells: Vec<u64>,
    expected: BTreeMap<u64, Expected>,
    work: VecDeque<Work>,
    turn: u64,
    /// The turn of the newest chain that was completed.
    newest_done: Option<u64>,
    interrupts: Wake,
    /// The device does not know yet what the driver was notified of.
    inherited: bool,
    kicks: Wake,
    added: u32,
}

/// What the device writes for what it read.
fn answer(content: &[u8], room: usize) -> Vec<u8> {
    let sum = content
        .iter()
        .fold(7u8, |sum, &byte| sum.wrapping_mul(31).wrapping_add(byte));
    // Every other answer leaves some room unused.
    let len = if sum % 2 == 0 { room } else { room.div_ceil(2) };
    (0..len).map(|n| sum.wrapping_add(n as u8)).collect()
}

fn scatter(mem: &Guest, segments: &[Segment], mut data: &[u8]) {
    for segment in segments {
        let (now, later) = data.split_at(data.len().min(segment.len as usize));
        mem.write(segment.addr, now).unwrap();
        data = later;
    }
    assert!(data.is_empty());
}

fn gather(mem: &Guest, segments: &[Segment]) -> Vec<u8> {
    segments
        .iter()
        .flat_map(|segment| {
            let mut part = vec![0; segment.len as usize];
            mem.read(segment.addr, &mut part).unwrap();
            part
        })
        .collect()
}

impl World {
    fn new(setup: Setup) -> Self {
        let Setup { size, options } = setup.clone();
        let end = driver::Layout::new(BASE, size, &options).end;
        let buffers = end.next_multiple_of(CELL);
        let len = (buffers - BASE + CELL * CELLS) as usize;
        let region = Region::new(BASE, len);
        let ring = Ring::new(&region, BASE, size, options);
        let layout = ring.layout();
        let state = match (options.packed, options.start) {
            (packed, None) => State::initial(packed),
            (true, Some(start)) => State::packed(start, start),
            (false, Some(start)) => State::split(start),
        };
        let slots = vec![Slot::default(); size.into()];
        let queue = Queue::new(config(&layout, size, &options), state, slots).unwrap();
        Self {
            guest: Guest::new(&region).protect(&layout, size, options.packed),
            ring,
            queue,
            next_token: 0,
            cells: (0..CELLS).map(|n| buffers + CELL * n).collect(),
            expected: BTreeMap::new(),
            work: VecDeque::new(),
            turn: 0,
            newest_done: None,
            interrupts: Wake::Unknown,
            inherited: options.event_index && state != State::initial(options.packed),
            kicks: Wake::Unknown,
            added: 0,
            setup,
        }
    }

    fn run(&mut self, step: Step) {
        let packed = self.setup.options.packed;
        let event_index = self.setup.options.event_index;
        match step {
            Step::Add(out, into, shape) => self.add(&out, &into, shape),
            Step::Offer => self.offer(),
            Step::Reap => self.reap(),
            Step::EnableInterrupts(count) => {
                let count = if event_index {
                    count.min(self.setup.size)
                } else {
                    1
                };
                let more = self.ring.enable_interrupts(count);
                self.interrupts = if more {
                    Wake::Unknown
                } else {
                    Wake::After(count.into())
                };
            }
            Step::DisableInterrupts => {
                self.ring.disable_interrupts();
                self.interrupts = Wake::Never;
            }
            Step::Pop(count) => {
                for _ in 0..count {
                    if !self.pop() {
                        break;
                    }
                }
            }
            Step::Complete(n) => {
                if !self.work.is_empty() {
                    self.complete(usize::from(n) % self.work.len());
                }
            }
            Step::CompleteAll => {
                while !self.work.is_empty() {
                    self.complete(0);
                }
            }
            Step::Unpop(count) => self.unpop(count),
            Step::Publish => self.publish(),
            Step::EnableKicks => {
                let more = self.queue.enable_kicks(&self.guest).unwrap();
                self.kicks = if more { Wake::Unknown } else { Wake::After(1) };
            }
            Step::DisableKicks => {
                self.queue.disable_kicks(&self.guest).unwrap();
                self.kicks = if event_index && !packed {
                    Wake::Unknown
                } else {
                    Wake::Never
                };
            }
            Step::Migrate => self.migrate(),
        }
    }

    fn add(&mut self, out: &[u32], into: &[u32], shape: u8) {
        if out.is_empty() && into.is_empty() || self.cells.len() < 16 {
            return;
        }
        let token = self.next_token;
        let mut cells = Vec::new();
        let mut buffers = |lens: &[u32]| -> Vec<Buffer> {
            lens.iter()
                .map(|&len| {
                    let addr = self.cells.pop().unwrap();
                    cells.push(addr);
                    Buffer { addr, len }
                })
                .collect()
        };
        let (out, into) = (buffers(out), buffers(into));
        let content: Vec<u8> = out
            .iter()
            .flat_map(|buffer| (0..buffer.len as u8).map(|n| (token as u8).wrapping_mul(17) ^ n))
            .collect();
        let mut rest = &content[..];
        for buffer in &out {
            let (now, later) = rest.split_at(buffer.len as usize);
            self.guest.region.write(buffer.addr, now);
            rest = later;
        }
        let shape = match shape % 4 {
            _ if self.setup.options.table_entries == 0 => Shape::Direct,
            0 => Shape::Direct,
            n if n == 3 && !self.setup.options.packed => Shape::Mixed(2),
            _ => Shape::Indirect,
        };
        let before = self.ring.free();
        match self.ring.add(&out, &into, shape, token) {
            Ok(()) => {
                let entries = before - self.ring.free();
                self.added += if self.setup.options.packed {
                    entries as u32
                } else {
                    1
                };
                self.next_token += 1;
                self.expected.insert(
                    token,
                    Expected {
                        content,
                        into,
                        cells,
                    },
                );
            }
            Err(driver::Full) => self.cells.extend(cells),
        }
    }

    fn offer(&mut self) {
        let kick = self.ring.publish();
        if std::mem::take(&mut self.added) == 0 {
            assert!(!kick);
            return;
        }
        match self.kicks {
            Wake::Unknown => {}
            Wake::Never => assert!(!kick),
            Wake::After(_) => {
                assert!(kick, "a kick is lost");
                if self.setup.options.event_index {
                    self.kicks = Wake::Unknown;
                }
            }
        }
    }

    fn reap(&mut self) {
        while let Some(used) = self.ring.used().unwrap() {
            let expected = self.expected.remove(&used.token).expect("used once");
            let room: u32 = expected.into.iter().map(|b| b.len).sum();
            let answer = answer(&expected.content, room as usize);
            match used.written {
                Some(written) => assert_eq!(written as usize, answer.len()),
                // Only what has nothing to write may be skipped.
                None => assert_eq!(room, 0),
            }
            let got: Vec<u8> = expected
                .into
                .iter()
                .flat_map(|b| self.guest.region.get(b.addr, b.len as usize))
                .take(answer.len())
                .collect();
            assert_eq!(got, answer);
            for cell in &expected.cells {
                self.guest.region.fill(*cell, CELL);
            }
            self.cells.extend(expected.cells);
        }
    }

    fn pop(&mut self) -> bool {
        let mut segments = [Segment::default(); 16];
        let expect = self.queue.has_available(&self.guest).unwrap();
        let Some(chain) = self.queue.pop(&self.guest, &mut segments).unwrap() else {
            assert!(!expect);
            return false;
        };
        assert!(expect);
        let segments = segments[..chain.segments()].to_vec();
        let (readable, writable) = segments.split_at(chain.readable_segments());
        assert_eq!(writable.len(), chain.writable_segments());
        assert!(readable.iter().all(|s| !s.writable && s.len > 0));
        assert!(writable.iter().all(|s| s.writable && s.len > 0));
        let sum = |list: &[Segment]| list.iter().map(|s| s.len).sum::<u32>();
        assert_eq!(sum(readable), chain.readable());
        assert_eq!(sum(writable), chain.writable());
        self.work.push_back(Work {
            chain,
            segments,
            turn: self.turn,
        });
        self.turn += 1;
        assert_eq!(usize::from(self.queue.in_flight()), self.work.len());
        true
    }

    fn complete(&mut self, n: usize) {
        let work = self.work.remove(n).unwrap();
        let (readable, writable) = work.segments.split_at(work.chain.readable_segments());
        let content = gather(&self.guest, readable);
        let answer = answer(&content, work.chain.writable() as usize);
        scatter(&self.guest, writable, &answer);
        self.queue
            .complete(&self.guest, work.chain, answer.len() as u32)
            .unwrap();
        assert_eq!(
            self.queue.complete(&self.guest, work.chain, 0),
            Err(RingError::NotInFlight)
        );
        self.newest_done = self.newest_done.max(Some(work.turn));
        let ids: Vec<u16> = self.work.iter().map(|work| work.chain.id()).collect();
        assert!(self.queue.in_flight_ids().eq(ids));
    }

    fn unpop(&mut self, count: u8) {
        for _ in 0..count {
            let Some(work) = self.work.back() else {
                return;
            };
            if let Some(first) = self.work.front().filter(|_| self.work.len() > 1) {
                assert_eq!(self.queue.unpop(first.chain), Err(RingError::NotNewest));
            }
            let expect = if self.newest_done > Some(work.turn) {
                Err(RingError::NotNewest)
            } else {
                Ok(())
            };
            assert_eq!(self.queue.unpop(work.chain), expect);
            if expect.is_err() {
                return;
            }
            self.turn = work.turn;
            self.work.pop_back();
            self.kicks = Wake::Unknown;
        }
    }

    fn publish(&mut self) {
        let entries = self.queue.publish(&self.guest).unwrap();
        let notify = self.queue.should_notify(&self.guest).unwrap();
        if entries == 0 {
            assert!(!notify);
            return;
        }
        let inherited = std::mem::take(&mut self.inherited);
        match &mut self.interrupts {
            Wake::Unknown => {}
            Wake::Never => assert!(!notify || inherited),
            Wake::After(_) if !self.setup.options.event_index => {
                assert!(notify, "an interrupt is lost");
            }
            Wake::After(count) => {
                *count = count.saturating_sub(entries.into());
                assert!(notify || *count > 0, "an interrupt is lost");
                assert!(!notify || *count == 0 || inherited, "it is too early");
                if *count == 0 {
                    self.interrupts = Wake::Unknown;
                }
            }
        }
    }

    fn migrate(&mut self) {
        self.publish();
        let oldest = self.work.front().map(|work| work.turn);
        match self.queue.rewind() {
            Ok(count) => {
                assert_eq!(usize::from(count), self.work.len());
                assert!(oldest.is_none_or(|oldest| self.newest_done < Some(oldest)));
                self.turn = oldest.unwrap_or(self.turn);
                self.work.clear();
            }
            Err(error) => {
                assert_eq!(error, RingError::NotNewest);
                assert!(self.newest_done > oldest);
                // What cannot be put back is finished instead.
                self.run(Step::CompleteAll);
                self.publish();
                assert_eq!(self.queue.rewind(), Ok(0));
            }
        }
        let state = self.queue.state();
        match state {
            State::Split { avail, used } => assert_eq!(avail, used),
            State::Packed { avail, used } => assert_eq!(avail, used),
        }
        let config = *self.queue.config();
        let slots = vec![Slot::default(); config.size.into()];
        self.queue = Queue::new(config, state, slots).unwrap();
        assert_eq!(self.queue.state(), state);
        self.inherited =
            config.options.event_index && state != State::initial(config.options.packed);
        self.kicks = Wake::Unknown;
    }

    /// Everything ends well.
    fn finish(mut self) {
        self.offer();
        // Taking back what is used makes no room in the ring that matters here.
        while self.pop() {}
        self.run(Step::CompleteAll);
        self.publish();
        self.reap();
        assert!(self.expected.is_empty(), "a buffer is lost");
        assert_eq!(self.queue.in_flight(), 0);
        let (avail, used) = self.ring.position();
        assert_eq!(avail, used);
        match self.queue.state() {
            State::Split { avail: a, used: u } => assert_eq!((a, u), (avail, used)),
            State::Packed { avail: a, used: u } => {
                assert_eq!((a.bits(), u.bits()), (avail, used));
            }
        }
        assert!(self.ring.detach().is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn every_buffer_comes_back_once(setup in setup(), steps in vec(step(), 1..250)) {
        let mut world = World::new(setup);
        for step in steps {
            world.run(step);
        }
        world.finish();
    }
}

/// Goes round rings of all sizes, with all of a round in flight at once.
#[test]
fn rings_of_all_sizes() {
    let mut sizes: Vec<u16> = (0..=15).map(|n| 1 << n).collect();
    sizes.extend([3, 1000, 32767]);
    for size in sizes {
        for flags in 0..8u8 {
            let packed = flags & 1 != 0;
            if !packed && !size.is_power_of_two() {
                continue;
            }
            let options = driver::Options {
                packed,
                event_index: flags & 2 != 0,
                in_order: flags & 4 != 0,
                endian: if flags & 4 != 0 && !packed {
                    Endian::Big
                } else {
                    Endian::Little
                },
                ..Default::default()
            };
            round(size, options);
        }
    }
}

/// Three rounds of a full ring of empty buffers, completed newest first.
fn round(size: u16, options: driver::Options) {
    let end = driver::Layout::new(BASE, size, &options).end;
    let region = Region::new(BASE, (end - BASE) as usize);
    let mut ring = Ring::new(&region, BASE, size, options);
    let layout = ring.layout();
    let guest = Guest::new(&region).protect(&layout, size, options.packed);
    let state = State::initial(options.packed);
    let slots = vec![Slot::default(); size.into()];
    let mut queue = Queue::new(config(&layout, size, &options), state, slots).unwrap();
    let piece = [Buffer { addr: BASE, len: 1 }];
    for _ in 0..3 {
        assert!(!queue.enable_kicks(&guest).unwrap());
        for token in 0..size {
            ring.add(&piece, &[], Shape::Direct, token.into()).unwrap();
        }
        assert!(ring.publish());
        let mut chains = Vec::new();
        let mut segments = [Segment::default(); 1];
        while let Some(chain) = queue.pop(&guest, &mut segments).unwrap() {
            chains.push(chain);
        }
        assert_eq!(chains.len(), usize::from(size));
        assert!(!ring.enable_interrupts(size));
        for chain in chains.into_iter().rev() {
            queue.complete(&guest, chain, 0).unwrap();
        }
        assert_eq!(queue.publish(&guest), Ok(size));
        assert_eq!(queue.should_notify(&guest), Ok(true));
        let mut back: Vec<u64> = std::iter::from_fn(|| ring.used().unwrap())
            .map(|used| used.token)
            .collect();
        assert!(options.in_order == back.is_sorted() || size == 1);
        back.sort_unstable();
        assert!(back.into_iter().eq(0..u64::from(size)));
    }
}
