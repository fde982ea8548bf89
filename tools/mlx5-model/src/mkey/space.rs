// SPDX-License-Identifier: GPL-2.0

//! The address space of one memory key, as traffic uses it.

use std::sync::{
    atomic::Ordering,
    Arc,
    Mutex, //
};

use virtio::memory::{
    Access,
    Fault,
    Memory, //
};

use super::{
    key::{
        Rights,
        Run, //
    },
    Mkeys, //
};
use crate::memory::Dma;

/// How many places are remembered.
const PLACES: usize = 8;

/// Addresses that were looked up and lead the same way.
#[derive(Clone, Copy)]
struct Place {
    first: u64,
    /// The distance from the first address to the last.
    reach: u64,
    /// The bus address of the first.
    bus: u64,
    rights: Rights,
}

impl Place {
    fn new(addr: u64, run: Run) -> Self {
        Self {
            first: addr - run.before,
            reach: run.before + run.after,
            bus: run.bus - run.before,
            rights: run.rights,
        }
    }

    /// The bus address of `addr`, and how many bytes follow the one that is there.
    fn at(&self, addr: u64) -> Option<(u64, u64)> {
        let offset = addr.wrapping_sub(self.first);
        (offset <= self.reach).then(|| (self.bus + offset, self.reach - offset))
    }
}

/// What was looked up last.
#[derive(Default)]
struct Places {
    /// How many keys were gone when it was looked up.
    gone: u64,
    places: [Option<Place>; PLACES],
    /// Which place is given up next.
    next: usize,
}

/// Through this goes one access of a [`Space`] after the other, from the look-up to the last byte.
#[derive(Default)]
pub(super) struct Gate(Mutex<Places>);

impl Gate {
    /// Waits for the access that is under way.
    pub(super) fn pass(&self) {
        drop(self.0.lock().unwrap());
    }
}

/// The address space of one memory key.
///
/// Bounds, rights, the protection domain and whether keys are there are checked at each access. An
/// access is over before a key it goes through is: who destroys one waits for it.
///
/// Made for one user: accesses of several wait for each other.
pub struct Space {
    mkeys: Arc<Mkeys>,
    key: u32,
    pd: u32,
    gate: Arc<Gate>,
}

impl Space {
    pub(super) fn new(mkeys: Arc<Mkeys>, key: u32, pd: u32, gate: Arc<Gate>) -> Self {
        Self {
            mkeys,
            key,
            pd,
            gate,
        }
    }

    /// The number of the key.
    pub fn key(&self) -> u32 {
        self.key
    }

    /// Looks up `len` bytes at `addr` and does something to them before the keys can go.
    fn access<T>(
        &self,
        addr: u64,
        len: usize,
        access: Access,
        act: impl FnOnce(&Dma, &[Span]) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let fault = Fault { addr, access };
        let mut places = self.gate.0.lock().unwrap();
        let gone = self.mkeys.gone.load(Ordering::SeqCst);
        if places.gone != gone {
            *places = Places {
                gone,
                ..Places::default()
            };
        }
        let memory = self.mkeys.memory.snapshot();
        let first = self.span(&mut places, addr, len, access).ok_or(fault)?;
        let done = if first.len == len {
            act(&memory, &[first])
        } else {
            let mut spans = vec![first];
            let mut done = first.len;
            while done < len {
                let addr = addr.checked_add(done as u64).ok_or(fault)?;
                let rest = len - done;
                let span = self.span(&mut places, addr, rest, access).ok_or(fault)?;
                done += span.len;
                spans.push(span);
            }
            // Whether everything is there is known before anything is touched.
            for span in &spans {
                let _ = memory
                    .slices(span.bus, span.len, access)
                    .map_err(|_| fault)?;
            }
            act(&memory, &spans)
        };
        done.map_err(|_| fault)
    }

    /// As many of the `len` bytes at `addr` as lead the same way.
    fn span(&self, places: &mut Places, addr: u64, len: usize, access: Access) -> Option<Span> {
        if len == 0 {
            return Some(Span { bus: 0, len });
        }
        let known = places.places.iter().flatten();
        let known = known
            .copied()
            .find_map(|place| Some((place, place.at(addr)?)));
        let (place, (bus, after)) = match known {
            Some(known) => known,
            None => {
                let place = Place::new(addr, self.mkeys.find(self.key, self.pd, addr)?);
                let next = places.next;
                places.places[next] = Some(place);
                places.next = (next + 1) % PLACES;
                (place, place.at(addr)?)
            }
        };
        if !place.rights.allow(access) {
            return None;
        }
        let here = usize::try_from(after).map_or(len, |after| len.min(after.saturating_add(1)));
        Some(Span { bus, len: here })
    }
}

/// Bytes that follow each other on the bus.
#[derive(Clone, Copy)]
struct Span {
    bus: u64,
    len: usize,
}

impl Memory for Space {
    fn read(&self, addr: u64, to: &mut [u8]) -> Result<(), Fault> {
        self.access(addr, to.len(), Access::Read, |memory, spans| {
            let mut rest = to;
            for span in spans {
                let (now, later) = rest.split_at_mut(span.len);
                memory.read(span.bus, now)?;
                rest = later;
            }
            Ok(())
        })
    }

    fn write(&self, addr: u64, from: &[u8]) -> Result<(), Fault> {
        self.access(addr, from.len(), Access::Write, |memory, spans| {
            let mut rest = from;
            for span in spans {
                let (now, later) = rest.split_at(span.len);
                memory.write(span.bus, now)?;
                rest = later;
            }
            Ok(())
        })
    }

    fn load_u16(&self, addr: u64) -> Result<u16, Fault> {
        self.access(addr, 2, Access::Read, |memory, spans| match spans {
            [one] if addr % 2 == 0 => memory.load(one.bus),
            _ => Err(Fault::read(addr)),
        })
    }

    fn store_u16(&self, addr: u64, value: u16) -> Result<(), Fault> {
        self.access(addr, 2, Access::Write, |memory, spans| match spans {
            [one] if addr % 2 == 0 => memory.store(one.bus, value),
            _ => Err(Fault::write(addr)),
        })
    }
}
