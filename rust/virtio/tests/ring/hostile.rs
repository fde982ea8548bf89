// SPDX-License-Identifier: GPL-2.0
//! Rings made to break the device. It may refuse, and it may do nonsense within the memory it was
//! given; it may not panic, go round for ever, or do anything else.

use std::cell::Cell;

use driver::{
    Buffer,
    Endian,
    Region,
    Ring,
    Shape, //
};
use proptest::{
    collection::vec,
    prelude::*, //
};
use virtio::{
    memory::{
        Fault,
        Memory, //
    },
    ring::{
        Chain,
        Config,
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

/// Memory that never gives the same answer twice.
struct Flicker {
    state: Cell<u64>,
    /// Bits that are often clear, so that some of what is read makes sense.
    mask: u64,
    accesses: Cell<usize>,
}

impl Flicker {
    fn next(&self) -> u64 {
        self.accesses.set(self.accesses.get() + 1);
        // Xorshift.
        let mut x = self.state.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.state.set(x);
        if x >> 60 == 0 {
            x
        } else {
            x & self.mask
        }
    }
}

impl Memory for Flicker {
    fn read(&self, addr: u64, to: &mut [u8]) -> Result<(), Fault> {
        for chunk in to.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        if self.next() % 997 == 0 {
            return Err(Fault::read(addr));
        }
        Ok(())
    }

    fn write(&self, addr: u64, _from: &[u8]) -> Result<(), Fault> {
        if self.next() % 997 == 0 {
            return Err(Fault::write(addr));
        }
        Ok(())
    }

    fn load_u16(&self, _addr: u64) -> Result<u16, Fault> {
        Ok(self.next() as u16)
    }

    fn store_u16(&self, addr: u64, from: u16) -> Result<(), Fault> {
        self.write(addr, &from.to_le_bytes())
    }
}

/// Does with a queue what a device does, and more, whatever errors come.
fn work<M: Memory>(config: Config, state: State, mem: &M, accesses: &Cell<usize>, choices: &[u8]) {
    let slots = vec![Slot::default(); config.size.into()];
    let Ok(mut queue) = Queue::new(config, state, slots) else {
        return;
    };
    let mut chains: Vec<Chain> = Vec::new();
    for &choice in choices {
        let before = accesses.get();
        let _: Result<(), RingError> = (|| {
            match choice % 8 {
                0..=2 => {
                    let mut segments = [Segment::default(); 16];
                    if let Some(chain) = queue.pop(mem, &mut segments)? {
                        assert!(chain.segments() <= segments.len());
                        assert!(chain.readable_segments() <= chain.segments());
                        let total: u64 = segments[..chain.segments()]
                            .iter()
                            .map(|segment| u64::from(segment.len))
                            .sum();
                        let both = u64::from(chain.readable()) + u64::from(chain.writable());
                        assert_eq!(total, both);
                        chains.push(chain);
                        assert!(chains.len() <= config.size.into());
                    }
                }
                3 if !chains.is_empty() => {
                    let chain = chains.remove(usize::from(choice) % chains.len());
                    queue.complete(mem, chain, u32::MAX)?;
                }
                4 => {
                    queue.publish(mem)?;
                    queue.should_notify(mem)?;
                }
                5 => {
                    queue.enable_kicks(mem)?;
                }
                6 => {
                    if let Some(chain) = chains.pop() {
                        queue.unpop(chain)?;
                    }
                    queue.disable_kicks(mem)?;
                }
                7 if choice > 200 => {
                    queue.rewind()?;
                    chains.clear();
                }
                _ => {}
            }
            Ok(())
        })();
        // A chain through the ring, and one through the largest table there may be.
        let bound = 8 * (usize::from(config.size) + 32768) + 100;
        assert!(accesses.get() - before < bound);
    }
}

fn shape() -> impl Strategy<Value = (u16, driver::Options)> {
    (0u32..8, any::<[bool; 5]>()).prop_map(|(log, [packed, event_index, in_order, big, tables])| {
        let size = if packed { (1 << log) + 1 } else { 1 << log };
        let options = driver::Options {
            packed,
            event_index,
            in_order,
            endian: if big { Endian::Big } else { Endian::Little },
            table_entries: if tables { 8 } else { 0 },
            start: None,
        };
        (size, options)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(800))]

    /// All of the ring is garbage.
    #[test]
    fn garbage(
        (size, options) in shape(),
        bytes in vec(prop_oneof![Just(0u8), 0u8..8, any::<u8>()], 4096),
        choices in vec(any::<u8>(), 100),
    ) {
        let layout = driver::Layout::new(BASE, size, &options);
        let region = Region::new(BASE, 5 * 4096);
        for at in (BASE..region.end()).step_by(bytes.len()) {
            region.write(at, &bytes);
        }
        let guest = Guest::new(&region);
        let config = config(&layout, size, &options);
        work(config, State::initial(options.packed), &guest, &guest.accesses, &choices);
    }

    /// What is read changes all the time.
    #[test]
    fn flicker(
        (size, options) in shape(),
        seed in 1u64..,
        mask in prop_oneof![
            Just(0x0007_0003_0000_0fff), Just(0x0000_0000_ffff_00ff), Just(0x80ff_0007), any::<u64>()
        ],
        choices in vec(any::<u8>(), 100),
    ) {
        let layout = driver::Layout::new(BASE, size, &options);
        let flicker = Flicker { state: Cell::new(seed), mask, accesses: Cell::new(0) };
        let config = config(&layout, size, &options);
        work(config, State::initial(options.packed), &flicker, &flicker.accesses, &choices);
    }

    /// A good ring with some of its bytes changed.
    #[test]
    fn corrupted(
        (size, options) in shape(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        choices in vec(any::<u8>(), 100),
    ) {
        let layout = driver::Layout::new(BASE, size, &options);
        let region = Region::new(BASE, (layout.end - BASE) as usize + 4096);
        let mut ring = Ring::new(&region, BASE, size, options);
        let piece = Buffer { addr: BASE, len: 64 };
        for token in 0.. {
            let shape = if token % 2 == 0 || options.table_entries == 0 {
                Shape::Direct
            } else {
                Shape::Indirect
            };
            if ring.add(&[piece; 2], &[piece; 1], shape, token).is_err() {
                break;
            }
        }
        ring.publish();
        for (at, value) in changes {
            region.write(BASE + at.index((layout.end - BASE) as usize) as u64, &[value]);
        }
        let guest = Guest::new(&region).protect(&layout, size, options.packed);
        let config = config(&layout, size, &options);
        work(config, State::initial(options.packed), &guest, &guest.accesses, &choices);
    }

    /// Configurations that may be no good.
    #[test]
    fn configurations(
        size in any::<u16>(),
        addrs in any::<[u64; 3]>(),
        shift in 0u32..6,
        (_, options) in shape(),
        words in any::<[u16; 2]>(),
        choices in vec(any::<u8>(), 20),
    ) {
        let layout = driver::Layout::new(BASE, 1, &options);
        let [desc, driver, device] = addrs.map(|addr| addr << shift);
        let config = Config { size, desc, driver, device, ..config(&layout, 1, &options) };
        let state = if options.packed {
            State::packed(words[0], words[1])
        } else {
            State::Split { avail: words[0], used: words[1] }
        };
        let flicker = Flicker { state: Cell::new(1), mask: u64::MAX, accesses: Cell::new(0) };
        work(config, state, &flicker, &flicker.accesses, &choices);
    }
}
