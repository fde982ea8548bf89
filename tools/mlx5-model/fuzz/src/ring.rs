// SPDX-License-Identifier: GPL-2.0

//! Rings: descriptor tables, indirect ones and headers as no driver writes them, through the
//! transmit and the receive side of a virtqueue.
//!
//! Two rings lie in one small memory, with addresses of which some are behind its end. What the
//! transmit ring sends is received by the other. Sending must write nothing but its used ring, and
//! neither side goes on for ever.

use std::cell::RefCell;

use mlx5_model::{
    frame::Frame,
    virtq::{
        counters::Tally,
        receive::Receiver,
        ring::{
            self,
            Ring, //
        },
        transmit::Transmitter, //
    }, //
};
use virtio::{
    byte_order::ByteOrder,
    memory::{
        Fault,
        Memory, //
    },
    ring::{
        Config,
        State, //
    },
};

use crate::input::Input;

/// Where the memory is.
const BASE: u64 = 0x4_0000;

/// How much there is.
const BYTES: usize = 0x8000;

/// Where the rings are in it, and where buffers are.
const RINGS: [usize; 2] = [0, 0x800];
const BUFFERS: usize = 0x1000;

/// Where in a ring its areas are.
const DRIVER: usize = 0x200;
const DEVICE: usize = 0x300;

/// The sizes of rings.
const SIZES: [u16; 4] = [1, 4, 16, 32];

/// How many things one input does at most.
const STEPS: usize = 64;

/// How many frames are received at once, at most.
const FRAMES: usize = 128;

/// The longest frame: the longest packet to be cut may be sent whole.
const LONGEST: usize = 65535 + 14 + 8;

/// Bytes behind `BASE`, and what of them was written.
#[derive(Default)]
struct Arena {
    bytes: RefCell<Vec<u8>>,
    written: RefCell<Vec<(usize, usize)>>,
}

impl Arena {
    fn range(addr: u64, len: usize) -> Option<(usize, usize)> {
        let start = usize::try_from(addr.checked_sub(BASE)?).ok()?;
        let end = start.checked_add(len)?;
        (end <= BYTES).then_some((start, end))
    }
}

/// The arena, as a device reaches it.
#[derive(Clone, Copy)]
struct Reach<'a>(&'a Arena);

impl Memory for Reach<'_> {
    fn read(&self, addr: u64, to: &mut [u8]) -> Result<(), Fault> {
        let (start, end) = Arena::range(addr, to.len()).ok_or(Fault::read(addr))?;
        to.copy_from_slice(&self.0.bytes.borrow()[start..end]);
        Ok(())
    }

    fn write(&self, addr: u64, from: &[u8]) -> Result<(), Fault> {
        let (start, end) = Arena::range(addr, from.len()).ok_or(Fault::write(addr))?;
        self.0.bytes.borrow_mut()[start..end].copy_from_slice(from);
        self.0.written.borrow_mut().push((start, end));
        Ok(())
    }

    fn load_u16(&self, addr: u64) -> Result<u16, Fault> {
        let mut bytes = [0; 2];
        if addr % 2 != 0 {
            return Err(Fault::read(addr));
        }
        self.read(addr, &mut bytes)?;
        Ok(u16::from_ne_bytes(bytes))
    }

    fn store_u16(&self, addr: u64, value: u16) -> Result<(), Fault> {
        if addr % 2 != 0 {
            return Err(Fault::write(addr));
        }
        self.write(addr, &value.to_ne_bytes())
    }
}

/// What the driver does to one ring.
fn drive(arena: &Arena, input: &mut Input<'_>, at: usize, size: u16) {
    let mut bytes = arena.bytes.borrow_mut();
    let mut put = |at: usize, value: &[u8]| {
        if let Some(to) = bytes.get_mut(at..at + value.len()) {
            to.copy_from_slice(value);
        }
    };
    match input.below(6) {
        // A descriptor, in the ring or in an indirect table.
        0 | 1 => {
            let n = usize::from(input.u8());
            let (table, n) = match n & 0x80 {
                0 => (at, n % usize::from(size)),
                _ => (BUFFERS, n & 0x7f),
            };
            let addr = match input.below(8) {
                0 => input.u64(),
                1 => BASE + BYTES as u64 - u64::from(input.u8()),
                _ => BASE + BUFFERS as u64 + u64::from(input.u16() & 0x7fff),
            };
            let len = match input.below(8) {
                0 => input.u32(),
                1..=3 => 16 * u32::from(input.u8() & 0x1f),
                _ => u32::from(input.u16() & 0x1fff),
            };
            let flags = u16::from(input.u8() & 7);
            let next = u16::from(input.u8());
            let entry = table + 16 * n;
            put(entry, &addr.to_le_bytes());
            put(entry + 8, &len.to_le_bytes());
            put(entry + 12, &flags.to_le_bytes());
            put(entry + 14, &next.to_le_bytes());
        }
        // Entries of the available ring, and how far it goes.
        2 => {
            let driver = at + DRIVER;
            let index = u16::from_le_bytes([bytes[driver + 2], bytes[driver + 3]]);
            let count = u16::from(input.u8()) % (size + 2);
            for n in 0..count {
                let place = usize::from(index.wrapping_add(n) % size);
                let head = match input.u8() {
                    255 => input.u16(),
                    head => u16::from(head) % size,
                };
                bytes[driver + 4 + 2 * place..][..2].copy_from_slice(&head.to_le_bytes());
            }
            let index = index.wrapping_add(count);
            bytes[driver + 2..driver + 4].copy_from_slice(&index.to_le_bytes());
        }
        // A header and the beginning of a frame.
        3 => {
            let at = BUFFERS + usize::from(input.u16() & 0x6fff);
            let mut header = input.bytes(12).to_vec();
            header.resize(12, 0);
            header[0] &= 3;
            header[1] &= 0x87;
            put(at, &header);
            let version = input.u8();
            let frame = at + 10 + usize::from(version & 2);
            put(
                frame + 12,
                if version & 1 == 0 {
                    &[8, 0]
                } else {
                    &[0x86, 0xdd]
                },
            );
            put(frame + 14, if version & 1 == 0 { &[0x45] } else { &[0x60] });
            put(frame + 23, &[6]);
            put(frame + 20, &[6]);
            put(frame + 46, &[0x50]);
        }
        // The flags of the available ring, or its index.
        4 => put(
            at + DRIVER + 2 * usize::from(input.u8() & 1),
            input.bytes(2),
        ),
        // Anything anywhere.
        _ => {
            let at = usize::from(input.u16());
            put(at % BYTES, input.block(64));
        }
    }
}

fn ring(arena: &Arena, at: usize, size: u16, start: u16, how: u8, mask: u16) -> Ring<Reach<'_>> {
    let features = ring::features(mask, how & 1 != 0);
    let config = Config {
        size,
        desc: BASE + at as u64,
        driver: BASE + (at + DRIVER) as u64,
        device: BASE + (at + DEVICE) as u64,
        byte_order: ByteOrder::Little,
        options: ring::options(),
    };
    let state = State::Split {
        avail: start,
        used: start,
    };
    Ring::new(config, state, features, Reach(arena), Reach(arena)).expect("the ring can be one")
}

/// Sends until there is nothing left, and returns the first frames; nothing if the ring broke.
fn send(arena: &Arena, transmitter: &mut Transmitter<Reach<'_>>, size: u16) -> Option<Vec<Frame>> {
    let mut frames = Vec::new();
    for turn in 0.. {
        // A ring is shorter than a batch, and nobody adds to it meanwhile.
        assert!(turn < 4, "there is always more to send");
        arena.written.borrow_mut().clear();
        let mut tally = Tally::default();
        let outcome = transmitter.batch(&mut tally, |sent| {
            for frame in sent {
                assert!((14..=LONGEST).contains(&frame.bytes.len()));
            }
            let room = FRAMES.saturating_sub(frames.len());
            frames.extend(sent.iter().take(room).cloned());
        });
        let used = RINGS[0] + DEVICE;
        let end = used + 6 + 8 * usize::from(size);
        for &(from, to) in arena.written.borrow().iter() {
            assert!(
                used <= from && to <= end,
                "sending wrote to {from:#x}..{to:#x}"
            );
        }
        if !outcome.ok()?.more {
            break;
        }
    }
    Some(frames)
}

/// Moves frames from one ring to the other as the bytes say.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let arena = Arena::default();
    arena.bytes.borrow_mut().resize(BYTES, 0);
    let (how, mask) = (input.u8(), input.u16());
    let sizes = [SIZES[input.below(4)], SIZES[input.below(4)]];
    // Where it is worth it, indices are about to begin again.
    let start = if how & 2 != 0 { 0xfffe } else { 0 };
    if start != 0 {
        let mut bytes = arena.bytes.borrow_mut();
        for at in RINGS {
            for index in [at + DRIVER + 2, at + DEVICE + 2] {
                bytes[index..index + 2].copy_from_slice(&u16::to_le_bytes(start));
            }
        }
    }
    let ring = |n: usize| ring(&arena, RINGS[n], sizes[n], start, how, mask);
    let mut transmitter = Transmitter::new(ring(0));
    let mut receiver = Receiver::new(ring(1));
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        match input.below(4) {
            0 => {
                let Some(frames) = send(&arena, &mut transmitter, sizes[0]) else {
                    break;
                };
                let mut tally = Tally::default();
                let frames: Vec<&Frame> = frames.iter().collect();
                if receiver.batch(&frames, &mut tally).is_err() {
                    break;
                }
                assert_eq!(tally.frames + tally.dropped, frames.len() as u64);
            }
            n => drive(&arena, &mut input, RINGS[n & 1], sizes[n & 1]),
        }
    }
}
