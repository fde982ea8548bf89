// SPDX-License-Identifier: GPL-2.0

use std::{
    sync::mpsc,
    thread, //
};

use proptest::prelude::*;
use virtio::memory::{
    Access,
    Memory, //
};

use super::*;
use crate::object::Table;

const PAGE: u64 = 0x1000;

/// The memory of a test in pages. Their addresses begin at 0.
const PAGES: u64 = 16;

/// A key as a driver would describe it.
#[derive(Clone, Debug)]
enum List {
    Bus,
    /// Pages of `1 << shift` bytes with flags in their last bits.
    Pages {
        shift: u8,
        checked: bool,
        pages: Vec<u64>,
    },
    /// Length, key and address of pieces.
    Pieces(Vec<(u32, u32, u64)>),
    /// Pieces of one size.
    Equal(u8, Vec<(u32, u64)>),
}

#[derive(Clone, Debug)]
struct Spec {
    start: u64,
    /// Nothing for all addresses.
    len: Option<u64>,
    read: bool,
    write: bool,
    list: List,
}

impl Spec {
    fn input(&self, pd: u32) -> (CreateMkeyIn, Vec<u8>) {
        let mut input = CreateMkeyIn::new();
        let mut list = Vec::new();
        let context = input.memory_key_mkey_entry_mut();
        context
            .set_lr(self.read)
            .set_lw(self.write)
            .set_qpn(0xff_ffff)
            .set_pd(pd)
            .set_start_addr(self.start)
            .set_len(self.len.unwrap_or(0))
            .set_length64(self.len.is_none());
        match &self.list {
            List::Bus => {}
            List::Pages { shift, pages, .. } => {
                context.set_access_mode_1_0(1).set_log_page_size(*shift);
                list.extend(pages.iter().flat_map(|page| page.to_be_bytes()));
                list.resize(list.len().next_multiple_of(16), 0);
            }
            List::Pieces(pieces) => {
                context.set_access_mode_1_0(2);
                for (len, key, addr) in pieces {
                    list.extend(len.to_be_bytes());
                    list.extend(key.to_be_bytes());
                    list.extend(addr.to_be_bytes());
                }
            }
            List::Equal(shift, pieces) => {
                context.set_access_mode_1_0(3).set_log_page_size(*shift);
                for (key, addr) in pieces {
                    list.extend([0; 4]);
                    list.extend(key.to_be_bytes());
                    list.extend(addr.to_be_bytes());
                }
            }
        }
        let size = (list.len() / 16) as u32;
        context.set_translations_octword_size(size);
        input.set_translations_octword_actual_size(size);
        if let List::Pages { checked, .. } = self.list {
            input.set_pg_access(checked);
        }
        (input, list)
    }

    /// Where one byte leads, looked up in the slowest way there is.
    fn byte(&self, keys: &[Option<Spec>], addr: u64, access: Access, depth: u32) -> Option<u64> {
        let allowed = match access {
            Access::Read => self.read,
            Access::Write => self.write,
        };
        let (start, end) = match self.len {
            Some(len) => (self.start, u128::from(self.start) + u128::from(len)),
            None => (0, 1 << 64),
        };
        if !allowed || addr < start || u128::from(addr) >= end {
            return None;
        }
        let piece = |key: u32, addr: u64| {
            let index = (key >> 8).checked_sub(FIRST)?;
            let other = keys.get(index as usize)?.as_ref()?;
            if key & 0xff != 0 {
                return None;
            }
            other.byte(keys, addr, access, depth.checked_sub(1)?)
        };
        match &self.list {
            List::Bus => Some(addr),
            List::Pages {
                shift,
                checked,
                pages,
            } => {
                let first = start >> shift;
                let page = pages[((addr >> shift) - first) as usize];
                let flag = match access {
                    Access::Read => 1,
                    Access::Write => 2,
                };
                (!checked || page & flag != 0).then_some((page & !3) + (addr & ((1 << shift) - 1)))
            }
            List::Pieces(pieces) => {
                let mut rest = addr - start;
                for (len, key, addr) in pieces {
                    if rest < u64::from(*len) {
                        return piece(*key, addr.checked_add(rest)?);
                    }
                    rest -= u64::from(*len);
                }
                None
            }
            List::Equal(shift, pieces) => {
                let first = start >> shift;
                let (key, base) = pieces.get(((addr >> shift) - first) as usize)?;
                piece(*key, base.checked_add(addr & ((1 << shift) - 1))?)
            }
        }
    }
}

fn list() -> impl Strategy<Value = List> {
    // Keys that were made, will be, never are, and one with another last byte.
    let key = || prop_oneof![8 => (0..9u32).prop_map(|n| n << 8), 1 => Just(0x201)];
    let addr = || prop_oneof![4 => 0..PAGES * PAGE, 1 => any::<u64>()];
    // The memory ends within the pages that can be chosen.
    let page = || (0..PAGES + 1, 0..4u64).prop_map(|(page, flags)| page * PAGE + flags);
    prop_oneof![
        1 => Just(List::Bus),
        4 => (12..14u8, any::<bool>(), prop::collection::vec(page(), 16))
            .prop_map(|(shift, checked, pages)| List::Pages { shift, checked, pages }),
        // A few pages on end.
        2 => (0..8u64).prop_map(|first| List::Pages {
            shift: 12,
            checked: false,
            pages: (first..first + 16).map(|page| page * PAGE).collect(),
        }),
        4 => prop::collection::vec((0..3 * PAGE as u32, key(), addr()), 0..8)
            .prop_map(List::Pieces),
        1 => (12..14u8, prop::collection::vec((key(), addr()), 0..8))
            .prop_map(|(shift, pieces)| List::Equal(shift, pieces)),
    ]
}

fn spec() -> impl Strategy<Value = Spec> {
    let start = prop_oneof![2 => Just(0), 2 => 0..PAGE, 1 => 0..1u64 << 40];
    let right = || prop::bool::weighted(0.9);
    (
        start,
        0..14 * PAGE,
        prop::bool::weighted(0.05),
        right(),
        right(),
        list(),
    )
        .prop_map(|(start, len, all, read, write, list)| Spec {
            start,
            // Pages must be there for all of it.
            len: (!all || matches!(list, List::Pages { .. })).then_some(len),
            read,
            write,
            list,
        })
}

/// What is done to the keys.
#[derive(Clone, Debug)]
enum Step {
    Destroy(u32),
    Access {
        key: u32,
        /// From the key's start.
        offset: u64,
        len: usize,
        write: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let offset = prop_oneof![8 => 0..14 * PAGE, 1 => any::<u64>()];
    prop_oneof![
        1 => (0..6u32).prop_map(Step::Destroy),
        16 => (0..6u32, offset, 0..2 * PAGE as usize, any::<bool>()).prop_map(
            |(key, offset, len, write)| Step::Access { key, offset, len, write }
        ),
    ]
}

/// A function's keys, the domain they are in, and another.
fn keys() -> (Arc<Mkeys>, Table<Pd>, u32, u32) {
    let memory = DmaSpace::anonymous((PAGES * PAGE) as usize).unwrap();
    let mut pds = Table::new("protection domain", 1, 8);
    let pd = pds.add(Pd).unwrap();
    let other = pds.add(Pd).unwrap();
    (Arc::new(Mkeys::new(Arc::new(memory), 20)), pds, pd, other)
}

fn create(keys: &Mkeys, pds: &Table<Pd>, pd: u32, spec: &Spec) -> u32 {
    let (input, list) = spec.input(pd);
    keys.create(&input, &list, pds.hold(pd).unwrap()).unwrap() << 8
}

fn bus() -> Spec {
    Spec {
        start: 0,
        len: None,
        read: true,
        write: true,
        list: List::Bus,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_byte_is_where_the_lists_say(
        specs in prop::collection::vec(spec(), 6),
        steps in prop::collection::vec(step(), 1..32),
    ) {
        let (keys, pds, pd, _) = keys();
        let mut flat: Vec<u8> = (0..PAGES * PAGE).map(|at| (at * 31 + at / 251) as u8).collect();
        keys.memory.snapshot().write(0, &flat).unwrap();
        let spaces: Vec<_> = specs
            .iter()
            .map(|spec| keys.open(create(&keys, &pds, pd, spec), pd))
            .collect();
        let mut specs: Vec<_> = specs.into_iter().map(Some).collect();
        for step in steps {
            let (key, offset, len, write) = match step {
                Step::Destroy(key) => {
                    let there = specs[key as usize].take().is_some();
                    prop_assert_eq!(keys.destroy(FIRST + key).is_ok(), there);
                    continue;
                }
                Step::Access { key, offset, len, write } => (key as usize, offset, len, write),
            };
            let access = if write { Access::Write } else { Access::Read };
            let start = specs[key].as_ref().map_or(0, |spec| spec.start);
            let addr = start.wrapping_add(offset);
            let bytes: Option<Vec<u64>> = (0..len as u64)
                .map(|n| {
                    let spec = specs[key].as_ref()?;
                    let at = spec.byte(&specs, addr.checked_add(n)?, access, DEPTH as u32)?;
                    (at < PAGES * PAGE).then_some(at)
                })
                .collect();
            let mut data = vec![0xa5; len];
            let done = if write {
                spaces[key].write(addr, &data)
            } else {
                spaces[key].read(addr, &mut data)
            };
            // Nothing at all can be done anywhere.
            prop_assert_eq!(done.is_ok(), bytes.is_some() || len == 0);
            let Some(bytes) = bytes else {
                continue;
            };
            for (data, at) in data.iter().zip(bytes) {
                if write {
                    flat[at as usize] = *data;
                } else {
                    prop_assert_eq!(flat[at as usize], *data);
                }
            }
        }
        let mut now = vec![0; flat.len()];
        keys.memory.snapshot().read(0, &mut now).unwrap();
        prop_assert!(now == flat);
    }
}

#[test]
fn a_key_is_for_its_domain() {
    let (keys, pds, pd, other) = keys();
    let key = create(&keys, &pds, pd, &bus());
    keys.open(key, pd).write(0x10, &[1]).unwrap();
    assert!(keys.open(key, other).write(0x10, &[2]).is_err());
    // Neither does a list of pieces lead into another domain.
    let pieces = Spec {
        len: Some(PAGE),
        list: List::Pieces(vec![(PAGE as u32, key, 0)]),
        ..bus()
    };
    let mine = create(&keys, &pds, pd, &pieces);
    let others = create(&keys, &pds, other, &pieces);
    assert!(keys.open(mine, pd).read(0x10, &mut [0]).is_ok());
    assert!(keys.open(others, other).read(0x10, &mut [0]).is_err());
}

#[test]
fn nothing_is_read_through_a_key_that_was_destroyed() {
    for _ in 0..100 {
        let (keys, pds, pd, _) = keys();
        let key = create(&keys, &pds, pd, &bus());
        let space = keys.open(key, pd);
        let (begin, begun) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut bytes = [0; 64];
                begin.send(()).unwrap();
                while space.read(0x100, &mut bytes).is_ok() {
                    assert_eq!(bytes, [0; 64]);
                }
            });
            begun.recv().unwrap();
            keys.destroy(key >> 8).unwrap();
            // The driver has the memory back.
            keys.memory.snapshot().write(0x100, &[1; 64]).unwrap();
        });
    }
}

#[test]
fn integers_are_whole() {
    let (keys, pds, pd, _) = keys();
    let key = create(&keys, &pds, pd, &bus());
    let crooked = Spec {
        len: Some(2 * PAGE),
        list: List::Pieces(vec![(0x101, key, 0x200), (0x100, key, 0x801)]),
        ..bus()
    };
    let space = keys.open(create(&keys, &pds, pd, &crooked), pd);
    space.store_u16(0x40, 0x1234).unwrap();
    assert_eq!(space.load_u16(0x40), Ok(0x1234));
    assert_eq!(keys.open(key, pd).load_u16(0x240), Ok(0x1234));
    // At an odd address, across pieces, at an odd bus address, behind the end.
    for addr in [0x41, 0x100, 0x202, 0x2000] {
        assert_eq!(space.load_u16(addr).unwrap_err().addr, addr);
        assert!(space.store_u16(addr, 0).is_err());
    }
}

#[test]
fn a_key_that_leads_to_itself_ends() {
    let (keys, pds, pd, _) = keys();
    let round = Spec {
        len: Some(PAGE),
        list: List::Pieces(vec![(PAGE as u32, FIRST << 8, 0)]),
        ..bus()
    };
    let key = create(&keys, &pds, pd, &round);
    assert_eq!(key, FIRST << 8);
    assert!(keys.open(key, pd).read(0, &mut [0]).is_err());
}

#[test]
fn lists_that_cannot_be_are_refused() {
    let (keys, pds, pd, _) = keys();
    let pages = |shift, len, count| Spec {
        len: Some(len),
        list: List::Pages {
            shift,
            checked: false,
            pages: vec![0; count],
        },
        ..bus()
    };
    let refused = |spec: &Spec| {
        let (input, list) = spec.input(pd);
        keys.create(&input, &list, pds.hold(pd).unwrap()).err()
    };
    assert_eq!(refused(&pages(12, 2 * PAGE, 2)), None);
    assert_eq!(
        refused(&pages(12, 2 * PAGE + 1, 2)),
        Some(Refusal::ListTooShort)
    );
    assert_eq!(refused(&pages(62, 1 << 63, 2)), None);
    assert_eq!(refused(&pages(11, PAGE, 2)), Some(Refusal::BadPageSize));
    assert_eq!(refused(&pages(63, u64::MAX, 2)), Some(Refusal::BadBounds));
    let over = Spec {
        start: 2,
        ..pages(12, u64::MAX, 2)
    };
    assert_eq!(refused(&over), Some(Refusal::BadBounds));
    let (mut input, list) = pages(12, PAGE, 2).input(pd);
    input.set_translations_octword_actual_size(2);
    let result = keys.create(&input, &list, pds.hold(pd).unwrap());
    assert_eq!(result, Err(Refusal::ListTooLong));
    input
        .memory_key_mkey_entry_mut()
        .set_translations_octword_size(2);
    let result = keys.create(&input, &list, pds.hold(pd).unwrap());
    assert_eq!(result, Err(Refusal::ListTooShort));
}
