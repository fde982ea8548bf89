// SPDX-License-Identifier: GPL-2.0
//! Packets of any shape through rings of any size, with everybody doing whatever is next at any
//! time: nothing is lost, nothing comes twice, every byte is right, and nobody sleeps for ever.

use std::collections::{
    HashMap,
    VecDeque, //
};

use driver::{
    Buffer,
    Endian,
    Shape, //
};
use proptest::{
    collection::vec,
    prelude::*, //
};
use virtio::net::{
    header::Header,
    relay::Direction, //
};

use super::bench::{
    Bench,
    Shaped,
    DATA,
    DATA_LEN, //
};

/// The bytes of the place that a buffer has, of which there are more than any ring has entries.
const PLACE: u64 = 0x800;

/// Numbers that look like chance.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        // Xorshift.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    fn header(&mut self) -> Header {
        let mut word = || self.below(1 << 16) as u16;
        Header {
            flags: word() as u8,
            gso_type: word() as u8,
            hdr_len: word(),
            gso_size: word(),
            csum_start: word(),
            csum_offset: word(),
            num_buffers: 0,
        }
    }

    /// Cuts `len` bytes into pieces in the place of buffer `token`, with holes between them.
    fn cut(&mut self, token: u64, len: u64, most: u64, first: Option<u64>) -> Vec<Buffer> {
        let mut at = DATA + token % (DATA_LEN / PLACE) * PLACE + self.below(8);
        let mut pieces = Vec::new();
        let mut left = len;
        while left != 0 {
            let is_last = pieces.len() as u64 + 1 == most;
            let piece = match first.filter(|_| pieces.is_empty()) {
                Some(first) => first,
                None if is_last => left,
                None => 1 + self.below(left),
            };
            let len = piece as u32;
            pieces.push(Buffer { addr: at, len });
            at += piece + self.below(5);
            left -= piece;
        }
        pieces
    }
}

fn gather(bench: &Bench, pieces: &[Buffer], len: u32) -> Vec<u8> {
    let mut bytes: Vec<u8> = pieces
        .iter()
        .flat_map(|piece| bench.guest.get(piece.addr, piece.len as usize))
        .collect();
    bytes.truncate(len as usize);
    bytes
}

/// A guest and hardware that exchange packets, and what each of them knows.
struct World {
    bench: Bench,
    chance: Chance,
    added: u64,
    /// Buffers that the guest does not have back, by their token.
    out: HashMap<u64, Vec<Buffer>>,
    /// Packets to come out at the other end, oldest first: header and data as their sender has them.
    packets: VecDeque<(Header, Vec<u8>)>,
    /// How many of `packets` the hardware has taken to transmit.
    seen: usize,
    /// Buffers that the hardware was to give back and the guest has not seen yet.
    used: u64,
    returned: u64,
}

impl World {
    fn new(shaped: Shaped, seed: u64) -> Self {
        Self {
            bench: Bench::new(shaped),
            chance: Chance(seed | 1),
            added: 0,
            out: HashMap::new(),
            packets: VecDeque::new(),
            seen: 0,
            used: 0,
            returned: 0,
        }
    }

    fn transmits(&self) -> bool {
        self.bench.shaped.direction == Direction::Transmit
    }

    /// The guest adds a packet to transmit, or a buffer to receive into.
    fn add(&mut self) {
        let header = self.bench.shaped.header as u64;
        let token = self.added;
        let len = header + 8 + self.chance.below(300);
        // A chain takes one descriptor more in the shadow.
        let most = u64::from(self.bench.shaped.size.min(self.bench.shaped.shadow - 1)).min(6);
        let first = match self.chance.below(3) {
            0 if most > 1 => Some(header),
            1 => Some(len),
            _ => None,
        };
        let pieces = self.chance.cut(token, len, most, first);
        let shape = match self.chance.below(3) {
            1 if self.bench.shaped.table_entries != 0 => Shape::Indirect,
            2 if self.bench.shaped.table_entries != 0 => Shape::Mixed(2),
            _ => Shape::Direct,
        };
        if self.transmits() {
            let packet = self.chance.header();
            let mut bytes = self.bench.guest_header(&packet);
            let data: Vec<u8> = (0..len - header)
                .map(|at| (token * 31 + at * 7) as u8)
                .collect();
            bytes.extend(&data);
            let mut rest = &bytes[..];
            for piece in &pieces {
                let (now, then) = rest.split_at(piece.len as usize);
                self.bench.guest.write(piece.addr, now);
                rest = then;
            }
            if self.bench.add(&pieces, shape, token) {
                self.packets.push_back((packet, data));
                self.out.insert(token, pieces);
                self.added += 1;
            }
        } else if self.bench.add(&pieces, shape, token) {
            self.out.insert(token, pieces);
            self.added += 1;
        }
    }

    /// The hardware takes chains, and looks at what it is to transmit.
    fn nic_take(&mut self, count: usize) {
        let before = self.bench.taken.len();
        self.bench.nic_take(count);
        if !self.transmits() {
            return;
        }
        for taken in &self.bench.taken[before..] {
            let (header, data) = &self.packets[self.seen];
            self.seen += 1;
            let mut whole = self.bench.nic_header(header);
            whole.extend(data);
            assert_eq!(self.bench.nic_bytes(&taken.segments), whole);
        }
    }

    /// The hardware transmits some packets, or receives one.
    fn nic_use(&mut self, count: u64) {
        if self.transmits() {
            // In order, so that where it stands can be said in one number.
            for _ in 0..count.min(self.bench.taken.len() as u64) {
                self.bench.nic_use(0, 0);
                self.packets.pop_front();
                self.seen -= 1;
                self.used += 1;
            }
            return;
        }
        let mergeable = self.bench.shaped.header == 12;
        let most = if mergeable { 3 } else { 1 };
        let buffers = (1 + count % most).min(self.bench.taken.len() as u64) as usize;
        if buffers == 0 {
            return;
        }
        if count % 7 == 0 {
            // Nothing came: a buffer is given back as it is.
            self.bench.nic_use(0, 0);
            self.used += 1;
            return;
        }
        let header = Header {
            num_buffers: if mergeable { buffers as u16 } else { 0 },
            ..self.chance.header()
        };
        let room: Vec<u32> = self.bench.taken[..buffers]
            .iter()
            .map(|taken| taken.chain.writable())
            .collect();
        let length = self.bench.shaped.header as u32;
        let mut whole = self.bench.nic_header(&header);
        let most = u64::from(room.iter().sum::<u32>() - length);
        // All of the buffers have some of it.
        let least = u64::from(
            room[..buffers - 1]
                .iter()
                .sum::<u32>()
                .saturating_sub(length),
        ) + 1;
        let len = least + self.chance.below(most - least + 1);
        let data: Vec<u8> = (0..len).map(|_| self.chance.below(256) as u8).collect();
        whole.extend(&data);
        for room in room {
            let piece: Vec<u8> = whole.drain(..whole.len().min(room as usize)).collect();
            self.bench.nic_write(&self.bench.taken[0].segments, &piece);
            self.bench.nic_use(0, piece.len() as u32);
            self.used += 1;
        }
        assert!(whole.is_empty());
        self.packets.push_back((header, data));
    }

    /// The guest takes what it got back.
    fn reap(&mut self) {
        if !std::mem::take(&mut self.bench.guest_called) {
            return;
        }
        loop {
            while let Some((bytes, written)) = self.reap_one() {
                if self.transmits() || written == 0 {
                    continue;
                }
                let length = self.bench.shaped.header;
                let (sent, data) = self.packets.pop_front().unwrap();
                assert_eq!(bytes[..length], self.bench.guest_header(&sent));
                let mut bytes = bytes[length..].to_vec();
                for _ in 1..sent.num_buffers {
                    let (more, _) = self.reap_one().expect("the packet is whole");
                    bytes.extend(more);
                }
                assert_eq!(bytes, data);
            }
            if !self.bench.ring.enable_interrupts(1) {
                return;
            }
        }
    }

    fn reap_one(&mut self) -> Option<(Vec<u8>, u32)> {
        let used = self.bench.ring.used().unwrap()?;
        let pieces = self.out.remove(&used.token).expect("no buffer comes twice");
        let written = used.written.unwrap();
        assert!(!self.transmits() || written == 0);
        self.returned += 1;
        let bytes = gather(&self.bench, &pieces, written);
        Some((bytes, written))
    }

    /// Everything stops, and goes on.
    fn stop(&mut self, anew: bool) {
        self.seen = 0;
        let index = self.bench.stop().unwrap().index;
        // Exactly what the hardware used was given back.
        let start = self.bench.shaped.start;
        assert_eq!(u64::from(index.wrapping_sub(start)), self.used & 0xffff);
        self.bench.go_on(index, anew);
    }

    fn step(&mut self, op: u8, arg: u8) {
        let arg64 = u64::from(arg);
        match op {
            0..=2 => {
                for _ in 0..1 + arg % 4 {
                    self.add();
                }
                if arg % 8 != 7 {
                    self.bench.publish();
                }
            }
            3..=5 => self.bench.turn(1 + u16::from(arg % 5)).unwrap(),
            6 | 7 => self.nic_take(1 + usize::from(arg % 6)),
            8 | 9 => {
                self.nic_use(arg64);
                if arg % 4 != 3 {
                    self.bench.nic_publish();
                }
            }
            10 => self.reap(),
            11 if arg < 40 => self.bench.ring.disable_interrupts(),
            11 if arg < 120 => {
                let wait = 1 + u16::from(arg % 3);
                self.bench.guest_called |= self.bench.ring.enable_interrupts(wait);
            }
            12 if arg < 40 => self.stop(arg % 2 == 0),
            // Nobody minds a call for nothing.
            13 => match arg % 3 {
                0 => self.bench.relay_called = true,
                1 => self.bench.nic_called = true,
                _ => self.bench.guest_called = true,
            },
            _ => {}
        }
    }

    /// Lets everybody do what they were called for, until nobody is called any more.
    fn settle(&mut self) {
        self.bench.nic_publish();
        self.bench.publish();
        self.bench.guest_called |= self.bench.ring.enable_interrupts(1);
        for _ in 0..100_000 {
            let bench = &self.bench;
            if !(bench.relay_called || bench.nic_called || bench.guest_called) {
                // Hardware that has work goes on by itself.
                if !self.transmits() || bench.taken.is_empty() {
                    return;
                }
            }
            self.bench.turn(3).unwrap();
            self.nic_take(3);
            if self.transmits() {
                self.nic_use(3);
            }
            self.bench.nic_publish();
            self.reap();
        }
        panic!("it never ends");
    }

    fn finish(mut self) {
        self.settle();
        if self.transmits() {
            assert!(self.packets.is_empty(), "a packet is stuck");
            assert!(self.out.is_empty(), "a buffer is stuck");
        } else {
            // The hardware has every buffer that the guest does not, but those that there is no room
            // for yet.
            while !self.bench.taken.is_empty() {
                self.nic_use(0);
                self.bench.nic_publish();
                self.settle();
            }
            assert!(self.packets.is_empty(), "a packet is stuck");
            assert!(self.out.is_empty(), "a buffer is stuck");
        }
        assert_eq!(self.returned, self.added);
        assert_eq!(self.used, self.added);
        let index = self.bench.stop().unwrap().index;
        assert_eq!(self.bench.ring.position(), (index, index));
    }
}

fn shaped() -> impl Strategy<Value = Shaped> {
    (
        any::<[bool; 5]>(),
        0..6u32,
        1..7u32,
        prop_oneof![Just(0u16), any::<u16>(), 65500..=65535u16],
    )
        .prop_map(
            |([receives, mergeable, event_index, little, tables], size, shadow, start)| Shaped {
                direction: match receives {
                    true => Direction::Receive,
                    false => Direction::Transmit,
                },
                size: 1 << size,
                shadow: 1 << shadow,
                header: if mergeable { 12 } else { 10 },
                event_index,
                table_entries: if tables { 6 } else { 0 },
                endian: if little { Endian::Little } else { Endian::Big },
                start,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn packets_arrive(
        shaped in shaped(),
        seed in any::<u64>(),
        steps in vec((0u8..14, any::<u8>()), 0..300),
    ) {
        let mut world = World::new(shaped, seed);
        for (op, arg) in steps {
            world.step(op, arg);
        }
        world.finish();
    }
}

/// More packets than an index has values.
#[test]
fn indices_go_round() {
    for direction in [Direction::Transmit, Direction::Receive] {
        let mut world = World::new(Shaped::new(direction), 7);
        let mut rounds = 0;
        while world.added < 70_000 {
            for _ in 0..5 {
                world.add();
            }
            world.bench.publish();
            world.bench.turn(4).unwrap();
            world.nic_take(8);
            world.nic_use(4);
            world.bench.nic_publish();
            world.bench.turn(4).unwrap();
            world.reap();
            rounds += 1;
            if rounds % 1000 == 0 {
                world.stop(rounds % 2000 == 0);
            }
        }
        world.finish();
    }
}
