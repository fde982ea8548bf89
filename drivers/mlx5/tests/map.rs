// SPDX-License-Identifier: GPL-2.0

//! Plans of maps: against a flat table of pages, and on the model's memory keys.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::Arc, //
};

use mlx5_model::{
    memory::DmaSpace,
    mkey::{
        Mkeys,
        NULL_KEY, //
    },
    object::Table,
    pd::Pd, //
};
use prm::{
    mkey::CreateMkeyIn,
    Layout, //
};
use proptest::prelude::*;
use virtio::memory::Memory;
use zerocopy::IntoBytes;

use crate::net::{
    map::{
        extent::{
            Rights,
            Run,
            Runs, //
        },
        plan::{
            pages,
            plan,
            root,
            Entry,
            Limits,
            NewPiece,
            Part,
            Piece,
            Plan,
            LOG_ENTRY, //
        }, //
    },
    wire::key, //
};

const PAGE: u64 = 4096;

const LIMITS: Limits = Limits {
    log_piece: LOG_ENTRY,
    entries: 8192,
};

/// Where each page leads.
type Flat = BTreeMap<u64, (u64, Rights)>;

fn flat(runs: &[Run]) -> Flat {
    let pages = runs.iter().flat_map(|run| {
        (0..run.size / PAGE).map(move |n| (run.iova + n * PAGE, (run.bus + n * PAGE, run.rights)))
    });
    pages.collect()
}

/// What is written down of a plan.
#[derive(Default)]
struct Written {
    new: Vec<NewPiece>,
    parts: Vec<Part>,
}

impl Plan for Written {
    type Error = Infallible;

    fn create(&mut self, piece: NewPiece) -> Result<(), Infallible> {
        self.new.push(piece);
        Ok(())
    }

    fn part(&mut self, part: Part) -> Result<(), Infallible> {
        self.parts.push(part);
        Ok(())
    }
}

/// The keys of a map.
#[derive(Default)]
struct Installed {
    pieces: Vec<Piece>,
    parts: Vec<Part>,
}

/// What a change took.
struct Change {
    new: Vec<NewPiece>,
    /// The pieces before those: which of them go, and how much of them may be made anew.
    gone: Vec<Option<u64>>,
}

/// How many bytes a piece holds, and how many of those `wanted` has.
fn held(piece: &Piece, wanted: &[Run]) -> (u64, u64) {
    let (mut size, mut left) = (piece.size, piece.used);
    for beside in &piece.beside {
        size += beside.size;
        for run in wanted {
            let both = run
                .end()
                .min(beside.end())
                .saturating_sub(run.iova.max(beside.iova));
            let same = run.bus.wrapping_sub(run.iova) == beside.bus.wrapping_sub(beside.iova)
                && run.rights == beside.rights;
            left += if same { both } else { 0 };
        }
    }
    (size, left)
}

impl Installed {
    fn change(&mut self, wanted: &[Run], limits: &Limits) -> Change {
        let wanted = Runs::check(wanted).unwrap();
        let mut written = Written::default();
        let mut used = self.pieces.clone();
        for piece in &mut used {
            piece.used = 0;
        }
        let there = flat(wanted.get());
        for part in &self.parts {
            for (iova, leads) in flat(&[part.run]) {
                used[part.piece].used += PAGE * u64::from(there.get(&iova) == Some(&leads));
            }
        }
        plan(&mut self.pieces, &self.parts, wanted, limits, &mut written).unwrap();
        let gone = Iterator::zip(self.pieces.iter(), &used).map(|(piece, used)| {
            let (held, left) = held(used, wanted.get());
            // One that is good for more than half may go for what it holds besides.
            let again = if 2 * used.used < used.size {
                used.size / 2
            } else {
                assert!(piece.used != 0 || 2 * left < held, "it goes for nothing");
                used.used
            };
            (piece.used == 0).then_some(again)
        });
        let gone = gone.collect();
        let made = written.new.iter().map(|new| new.made(wanted));
        self.pieces.extend(made);
        // Those that are gone take no number.
        let mut number = 0;
        let numbers: Vec<_> = self
            .pieces
            .iter()
            .map(|piece| {
                let this = number;
                number += usize::from(piece.used != 0);
                this
            })
            .collect();
        self.parts = written.parts;
        for part in &mut self.parts {
            assert_ne!(self.pieces[part.piece].used, 0, "it goes");
            part.piece = numbers[part.piece];
        }
        self.pieces.retain(|piece| piece.used != 0);
        Change {
            new: written.new,
            gone,
        }
    }

    /// Where it leads.
    fn flat(&self) -> Flat {
        let runs: Vec<_> = self.parts.iter().map(|part| part.run).collect();
        flat(&runs)
    }
}

/// A run of some pages: the distance to the one before, its size, where on the bus, its rights.
fn run() -> impl Strategy<Value = (u64, u64, u64, Rights)> {
    let gap = prop_oneof![4 => Just(0), 2 => 1..4u64, 1 => 0..1500u64];
    let size = prop_oneof![4 => 1..4u64, 2 => 1..600u64, 1 => Just(512)];
    // Often as far from its address as others.
    let bus = prop_oneof![3 => Just(0), 1 => Just(512), 2 => 0..2048u64];
    let rights = prop_oneof![
        6 => Just((true, true)),
        1 => Just((true, false)),
        1 => Just((false, true)),
    ];
    (gap, size, bus, rights)
        .prop_map(|(gap, size, bus, (read, write))| (gap, size, bus, Rights { read, write }))
}

/// A map that begins at some page.
fn map(start: impl Strategy<Value = u64>) -> impl Strategy<Value = Vec<Run>> {
    (start, prop::collection::vec(run(), 0..24)).prop_map(|(start, runs)| {
        let mut at = start;
        let run = |(gap, size, bus, rights)| {
            at += gap;
            let run = Run {
                iova: at * PAGE,
                size: size * PAGE,
                bus: (at + bus) * PAGE,
                rights,
            };
            at += size;
            run
        };
        runs.into_iter().map(run).collect()
    })
}

/// What becomes of a map.
#[derive(Clone, Debug)]
enum Step {
    /// Another map.
    Replace(Vec<Run>),
    /// Without one of its runs.
    Remove(usize),
    /// One of its runs elsewhere.
    Move(usize, u64),
    /// One of its runs with a hole in it.
    Split(usize),
    Same,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Close to where a piece ends.
    let start = || prop_oneof![Just(0), (1u64 << 18) - 900..1 << 18];
    let step = prop_oneof![
        1 => map(start()).prop_map(Step::Replace),
        3 => any::<usize>().prop_map(Step::Remove),
        2 => (any::<usize>(), 0..4096u64).prop_map(|(at, by)| Step::Move(at, by)),
        2 => any::<usize>().prop_map(Step::Split),
        1 => Just(Step::Same),
    ];
    (map(start()), prop::collection::vec(step, 1..12)).prop_map(|(map, mut steps)| {
        steps.insert(0, Step::Replace(map));
        steps
    })
}

fn take(map: &mut Vec<Run>, step: Step) {
    let at = |at: usize| at % map.len().max(1);
    match step {
        Step::Replace(other) => *map = other,
        Step::Same => {}
        _ if map.is_empty() => {}
        Step::Remove(index) => {
            map.remove(at(index));
        }
        Step::Move(index, by) => {
            let index = at(index);
            map[index].bus += by * PAGE;
        }
        Step::Split(index) => {
            let index = at(index);
            let run = map[index];
            let third = run.size / PAGE / 3 * PAGE;
            if third != 0 {
                map[index] = run.part(run.iova, run.iova + third);
                map.insert(index + 1, run.part(run.iova + 2 * third, run.end()));
            }
        }
    }
}

/// What holds of each change, from `before` on.
fn check(before: &Flat, installed: &Installed, wanted: &[Run], change: &Change, limits: &Limits) {
    let runs = Runs::check(wanted).unwrap();
    // Every page leads where it shall, and no other anywhere.
    assert_eq!(installed.flat(), flat(wanted));

    for new in &change.new {
        let page = 1u64 << new.log_page;
        assert!(page >= PAGE && new.log_page <= limits.log_piece);
        // No larger than it may be.
        let last = new.iova + new.size - 1;
        assert_eq!(new.iova >> limits.log_piece, last >> limits.log_piece);
        assert!(new.entries <= limits.entries);
        // The list is as long as it says, each page is whole and leads where it shall.
        let list: Vec<_> = pages(new, runs).collect();
        assert_eq!(list.len() as u64, new.entries);
        let wanted = flat(&wanted[new.first..new.first + new.count]);
        let mut at = new.iova;
        while at <= last {
            let entry = list[((at >> new.log_page) - (new.iova >> new.log_page)) as usize];
            assert_eq!(entry % page, 0);
            assert_eq!(wanted[&at].0, entry + at % page);
            at += PAGE;
        }
    }

    // Nothing is made anew but what is, and what is left of pieces of which less than half is.
    let new: u64 = change.new.iter().map(|new| new.size).sum();
    let added = flat(wanted)
        .iter()
        .filter(|(iova, leads)| before.get(iova) != Some(leads))
        .count() as u64
        * PAGE;
    let gone: u64 = change.gone.iter().flatten().sum();
    assert!(new <= added + gone, "{new} made of {added} and {gone}");
    for piece in &installed.pieces {
        assert!(2 * piece.used >= piece.size);
        // Nor does one keep much that nobody wants.
        let (held, left) = held(piece, wanted);
        assert!(2 * left >= held, "{held} held for {left}");
    }

    // The root has all of it, in order and without a gap.
    let mut at = wanted.first().map(|run| run.iova);
    let mut reached = 0;
    for entry in root(&installed.parts) {
        assert_eq!(Some(entry.iova), at);
        assert!(entry.size != 0 && entry.size <= 1 << LOG_ENTRY);
        at = entry.iova.checked_add(entry.size.into());
        reached += u64::from(entry.piece.map_or(0, |_| entry.size));
    }
    assert_eq!(at, wanted.last().map(Run::end));
    assert_eq!(reached, wanted.iter().map(|run| run.size).sum::<u64>());
}

/// A run of pages that lead to where they are.
fn plain(page: u64, pages: u64, distance: u64) -> Run {
    Run {
        iova: page * PAGE,
        size: pages * PAGE,
        bus: (page + distance) * PAGE,
        rights: Rights {
            read: true,
            write: true,
        },
    }
}

#[test]
fn a_small_piece_does_not_keep_a_large_run() {
    const WINDOW: u64 = 1 << 18;
    let mut installed = Installed::default();
    // All of it but a page, and then all of it: the second piece is small, and made of all of it.
    let change = installed.change(&[plain(WINDOW, WINDOW - 1, 0)], &LIMITS);
    assert_eq!(change.new.len(), 1);
    let all = [plain(WINDOW, WINDOW, 0)];
    let change = installed.change(&all, &LIMITS);
    assert_eq!(change.new.len(), 1);
    assert_eq!(change.new[0].size, PAGE);
    assert_eq!(change.gone, [None]);
    // As long as that is wanted it stays.
    let change = installed.change(&all, &LIMITS);
    assert!(change.new.is_empty() && change.gone == [None, None]);
    // Where only the page is left, it would keep all of it.
    let change = installed.change(&[plain(2 * WINDOW - 1, 1, 0)], &LIMITS);
    assert_eq!(change.new.len(), 1);
    assert!(change.gone.iter().all(Option::is_some));
}

#[test]
fn pieces_of_a_run_go_when_most_of_it_does() {
    const WINDOW: u64 = 1 << 18;
    let mut installed = Installed::default();
    // Askew, so that there are many.
    let change = installed.change(&[plain(WINDOW, WINDOW, 1)], &LIMITS);
    let count = change.new.len();
    assert!(count > 8);
    let size = change.new[1].size / PAGE;
    let first = change.new[0].size / PAGE;
    // Half of it is enough for all.
    let half = [plain(WINDOW, WINDOW / 2, 1)];
    let change = installed.change(&half, &LIMITS);
    assert!(change.new.is_empty());
    // One alone is made anew.
    let one = [plain(WINDOW + first, size, 1)];
    let change = installed.change(&one, &LIMITS);
    assert_eq!(change.new.len(), 1);
    let change = installed.change(&one, &LIMITS);
    assert!(change.new.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn changes_make_what_is_new(
        steps in steps(),
        entries in prop_oneof![Just(8192u64), 1..64u64],
    ) {
        let limits = Limits { entries, ..LIMITS };
        let mut installed = Installed::default();
        let mut map = Vec::new();
        for step in steps {
            take(&mut map, step);
            let before = installed.flat();
            let change = installed.change(&map, &limits);
            check(&before, &installed, &map, &change, &limits);
            // Once more, there is nothing to do.
            let parts = installed.parts.clone();
            let change = installed.change(&map, &limits);
            prop_assert!(change.new.is_empty() && change.gone.iter().all(Option::is_none));
            prop_assert_eq!(&installed.parts, &parts);
        }
    }

    #[test]
    fn keys_lead_where_the_map_says(steps in steps()) {
        Model::new().follow(steps);
    }
}

/// A function's memory keys.
struct Model {
    keys: Arc<Mkeys>,
    pds: Table<Pd>,
    pd: u32,
    memory: Arc<DmaSpace>,
}

impl Model {
    /// The pages of memory: more than a bus address of a map can be.
    const PAGES: u64 = (1 << 18) + (1 << 16);

    fn new() -> Self {
        let memory = Arc::new(DmaSpace::anonymous((Self::PAGES * PAGE) as usize).unwrap());
        let mut pds = Table::new("protection domain", 1, 8);
        let pd = pds.add(Pd).unwrap();
        let keys = Arc::new(Mkeys::new(memory.clone(), 20));
        Self {
            keys,
            pds,
            pd,
            memory,
        }
    }

    fn create(&self, input: &CreateMkeyIn, mut list: Vec<u8>, bytes: usize) -> u32 {
        list.resize(bytes, 0);
        let pd = self.pds.hold(self.pd).unwrap();
        key::number(self.keys.create(input, &list, pd).unwrap())
    }

    fn piece(&self, new: &NewPiece, wanted: &[Run]) -> u32 {
        let bytes = key::list_bytes(new.entries as usize, key::PAGE_ENTRY);
        let mut input = CreateMkeyIn::new();
        let rights = wanted[new.first].rights;
        let range = (new.iova, new.size);
        key::of_pages(
            &mut input,
            self.pd,
            range,
            rights,
            new.log_page as u8,
            bytes,
        );
        let list = pages(new, Runs::check(wanted).unwrap()).flat_map(key::page);
        self.create(&input, list.collect(), bytes)
    }

    fn root(&self, entries: &[Entry], keys: &[u32]) -> u32 {
        let bytes = key::list_bytes(entries.len(), key::PART_ENTRY);
        let mut input = CreateMkeyIn::new();
        let iova = entries.first().map_or(0, |entry| entry.iova);
        let size = entries.iter().map(|entry| u64::from(entry.size)).sum();
        key::of_parts(&mut input, self.pd, (iova, size), bytes);
        let list = entries.iter().flat_map(|entry| {
            let key = entry.piece.map_or(NULL_KEY, |piece| keys[piece]);
            key::part(key, entry.iova, entry.size).as_bytes().to_vec()
        });
        self.create(&input, list.collect(), bytes)
    }

    /// Whether a byte of each of the first and last pages of the runs, and of those around, is
    /// what the map says.
    fn compare(&self, root: u32, map: &[Run]) {
        let space = self.keys.open(root, self.pd);
        let flat = flat(map);
        let around = map.iter().flat_map(|run| {
            let last = run.end() - PAGE;
            [run.iova.wrapping_sub(PAGE), run.iova, last, last + PAGE]
        });
        for page in around {
            let addr = page.wrapping_add(page / PAGE % PAGE);
            let (bus, rights) = match flat.get(&page) {
                Some((bus, rights)) => (bus + addr % PAGE, *rights),
                None => (
                    0,
                    Rights {
                        read: false,
                        write: false,
                    },
                ),
            };
            let mark = addr.to_le_bytes()[1] ^ 0x5a;
            if flat.contains_key(&page) {
                self.memory.snapshot().write(bus, &[mark]).unwrap();
            }
            let mut byte = [0];
            let read = space.read(addr, &mut byte);
            assert_eq!(read.is_ok(), rights.read, "{addr:#x}");
            assert!(!rights.read || byte == [mark]);
            let written = space.write(addr, &[!mark]);
            assert_eq!(written.is_ok(), rights.write, "{addr:#x}");
            if rights.write {
                self.memory.snapshot().read(bus, &mut byte).unwrap();
                assert_eq!(byte, [!mark]);
            }
        }
    }

    fn follow(&self, steps: Vec<Step>) {
        let mut installed = Installed::default();
        let mut keys: Vec<u32> = Vec::new();
        let mut map = Vec::new();
        let mut old_root = None;
        for step in steps {
            take(&mut map, step);
            let change = installed.change(&map, &LIMITS);
            let gone: Vec<_> = keys
                .iter()
                .zip(&change.gone)
                .filter_map(|(key, gone)| gone.map(|_| *key))
                .collect();
            keys.retain(|key| !gone.contains(key));
            keys.extend(change.new.iter().map(|new| self.piece(new, &map)));
            let entries: Vec<_> = root(&installed.parts).collect();
            let root = self.root(&entries, &keys);
            for key in gone.into_iter().chain(old_root.replace(root)) {
                self.keys.destroy(key >> 8).unwrap();
            }
            self.compare(root, &map);
        }
        assert_eq!(self.keys.len(), keys.len() + 1);
    }
}

/// A guest of `size` bytes of memory on huge pages, as QEMU maps it.
fn guest(size: u64) -> Vec<Run> {
    let rights = Rights {
        read: true,
        write: true,
    };
    let below = 0x8000_0000.min(size);
    let run = |iova, size, bus| Run {
        iova,
        size,
        bus,
        rights,
    };
    let mut runs = vec![run(0, 0xa_0000, 0x40_0000_0000)];
    runs.push(run(0xc_0000, below - 0xc_0000, 0x40_000c_0000));
    if size > below {
        runs.push(run(1 << 32, size - below, 0x50_0000_0000));
    }
    runs
}

#[test]
fn a_large_guest_takes_few_keys_and_a_change_three_commands() {
    for log in [30, 34, 36] {
        let mut map = guest(1 << log);
        let mut installed = Installed::default();
        let change = installed.change(&map, &LIMITS);
        assert!(change.new.len() as u64 <= (1 << (log - 30)) + 2);
        assert!(change.new.iter().map(|new| new.entries).sum::<u64>() < 8192);

        // 2 MiB more: a piece. With a root made and one destroyed, that is three commands.
        let last = map[map.len() - 1];
        let more = Run {
            iova: last.end() + (1 << 30),
            size: 2 << 20,
            bus: 0x7000_0000,
            ..last
        };
        map.push(more);
        let change = installed.change(&map, &LIMITS);
        assert_eq!(change.new.len(), 1);
        assert!(change.gone.iter().all(Option::is_none));
    }
}

#[test]
fn pages_are_as_large_as_addresses_allow() {
    let rights = Rights {
        read: true,
        write: true,
    };
    let entries = |iova, size, bus| {
        let run = Run {
            iova,
            size,
            bus,
            rights,
        };
        let change = Installed::default().change(&[run], &LIMITS);
        change.new.iter().map(|new| new.entries).sum::<u64>()
    };
    // Both addresses at the same distance from a large page, which need not begin there.
    assert_eq!(entries(0x20_3000, 0x40_0000, 0x7fe0_3000), 2);
    assert_eq!(entries(0x4000_0000, 1 << 30, 0x8000_0000), 1);
    // The size alone says nothing.
    assert_eq!(entries(0x20_0000, 0x20_0000, 0x7fe0_1000), 512);
}

#[test]
fn what_is_far_apart_has_holes() {
    let rights = Rights {
        read: true,
        write: false,
    };
    let run = |iova| Run {
        iova,
        size: PAGE,
        bus: 0,
        rights,
    };
    let mut installed = Installed::default();
    installed.change(&[run(0), run(1 << 40)], &LIMITS);
    let entries: Vec<_> = root(&installed.parts).collect();
    assert_eq!(entries.len(), 2 + 1024);
    assert_eq!(entries[0].piece, Some(0));
    assert_eq!(entries[1].piece, None);
    assert_eq!(entries[1025].piece, Some(1));
}

#[test]
fn runs_that_are_none_are_refused() {
    let rights = Rights {
        read: true,
        write: true,
    };
    let good = Run {
        iova: 0x1000,
        size: 0x2000,
        bus: 0x8000,
        rights,
    };
    let bad = [
        Run { iova: 1, ..good },
        Run { size: 0, ..good },
        Run {
            size: 0x800,
            ..good
        },
        Run {
            bus: 0x8010,
            ..good
        },
        Run {
            iova: u64::MAX - 0xfff,
            ..good
        },
        Run {
            bus: u64::MAX - 0xfff,
            ..good
        },
        Run {
            rights: Rights {
                read: false,
                write: false,
            },
            ..good
        },
    ];
    assert!(Runs::check(&[good]).is_some());
    for run in bad {
        assert!(Runs::check(&[run]).is_none(), "{run:?}");
    }
    let next = Run {
        iova: 0x3000,
        ..good
    };
    assert!(Runs::check(&[good, next]).is_some());
    assert!(Runs::check(&[next, good]).is_none());
    assert!(Runs::check(&[good, good]).is_none());
}
