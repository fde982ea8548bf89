// SPDX-License-Identifier: GPL-2.0
//! The chains that were taken and not yet given back.
//!
//! They form a doubly linked list in the order they were taken, which tells at any time whether
//! some of them can be put back, what has to wait under IN_ORDER, and what to report.

use core::ops::DerefMut;

use super::{
    chain::Gather,
    Chain,
    RingError, //
};

/// No slot. Rings have at most 32768 entries.
const NONE: u16 = u16::MAX;

/// What a slot holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Use {
    /// Nothing; it is in the list of free slots.
    #[default]
    Free,
    /// A chain that the device works on.
    Popped,
    /// A chain that is complete and waits for those before it.
    Held,
}

/// Storage for one chain in flight.
///
/// A queue is given as many as its ring has entries, and keeps them to itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slot {
    /// Towards the newest, or the next free one.
    next: u16,
    /// Towards the oldest.
    prev: u16,
    id: u16,
    /// How many entries of the ring the chain occupies.
    entries: u16,
    /// How many entries had been taken, ever, before this chain.
    sequence: u32,
    written: u32,
    state: Use,
    /// Whether the chain has nothing to write to.
    read_only: bool,
}

/// A chain as the layout found it.
#[derive(Clone, Copy)]
pub(super) struct Taken {
    /// What the driver wants to be told when the chain is used.
    pub(super) id: u16,
    /// How many entries of the ring it occupies: one in the available ring of a split queue, one
    /// for each descriptor in a packed one.
    pub(super) entries: u16,
}

/// A run of chains that can be told to the driver as used by one entry.
#[derive(Clone, Copy)]
pub(super) struct Batch {
    pub(super) id: u16,
    pub(super) written: u32,
    pub(super) entries: u16,
    /// The last chain of the run.
    last: u16,
}

/// The chains in flight.
pub(super) struct Flight<S> {
    slots: S,
    oldest: u16,
    newest: u16,
    free: u16,
    /// Chains in state `Popped`.
    popped: u16,
    /// Chains in state `Held`.
    held: u16,
    /// Entries occupied by all chains in the list.
    entries: u16,
    /// Entries of the ring.
    size: u16,
    /// Entries taken since the queue was made.
    taken: u32,
}

impl<S: DerefMut<Target = [Slot]>> Flight<S> {
    /// `slots` has at least `size` elements, which is at most 32768.
    pub(super) fn new(mut slots: S, size: u16) -> Self {
        for (slot, next) in slots.iter_mut().take(usize::from(size)).zip(1..) {
            *slot = Slot {
                next: if next < size { next } else { NONE },
                ..Slot::default()
            };
        }
        Self {
            slots,
            oldest: NONE,
            newest: NONE,
            free: 0,
            popped: 0,
            held: 0,
            entries: 0,
            size,
            taken: 0,
        }
    }

    pub(super) fn into_slots(self) -> S {
        self.slots
    }

    pub(super) fn popped(&self) -> u16 {
        self.popped
    }

    /// How many entries of the ring are not occupied.
    pub(super) fn room(&self) -> u16 {
        self.size - self.entries
    }

    fn get(&self, slot: u16) -> Option<&Slot> {
        self.slots.get(usize::from(slot))
    }

    fn get_mut(&mut self, slot: u16) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(slot))
    }

    /// The ids of the chains that the device works on, oldest first.
    pub(super) fn ids(&self) -> impl Iterator<Item = u16> + '_ {
        let mut at = self.oldest;
        core::iter::from_fn(move || {
            let slot = self.get(at)?;
            at = slot.next;
            Some(slot)
        })
        .filter(|slot| slot.state == Use::Popped)
        .map(|slot| slot.id)
    }

    /// Adds a chain as the newest. There is no room for it if `taken` occupies more entries than
    /// are left.
    #[inline]
    pub(super) fn insert(&mut self, taken: Taken, gather: &Gather<'_>) -> Option<Chain> {
        let (at, prev, sequence) = (self.free, self.newest, self.taken);
        if taken.entries > self.room() {
            return None;
        }
        let chain = Chain::new(at, taken.id, sequence, gather);
        let slot = self.get_mut(at)?;
        let free = slot.next;
        *slot = Slot {
            next: NONE,
            prev,
            id: taken.id,
            entries: taken.entries,
            sequence,
            written: 0,
            state: Use::Popped,
            read_only: chain.writable() == 0,
        };
        self.free = free;
        match self.get_mut(prev) {
            Some(prev) => prev.next = at,
            None => self.oldest = at,
        }
        self.newest = at;
        self.popped += 1;
        self.entries += taken.entries;
        self.taken = sequence.wrapping_add(u32::from(taken.entries));
        Some(chain)
    }

    /// The slot of a chain that the device works on.
    #[inline]
    fn check(&self, chain: &Chain) -> Result<&Slot, RingError> {
        self.get(chain.slot)
            .filter(|slot| slot.state == Use::Popped && slot.sequence == chain.sequence)
            .ok_or(RingError::NotInFlight)
    }

    /// How many entries of the ring `chain` occupies.
    #[inline]
    pub(super) fn entries(&self, chain: &Chain) -> Result<u16, RingError> {
        Ok(self.check(chain)?.entries)
    }

    /// Takes the slot `at` out of the list, in whatever state it is.
    #[inline]
    fn unlink(&mut self, at: u16) {
        let free = self.free;
        let Some(slot) = self.get_mut(at) else {
            return;
        };
        let Slot {
            next,
            prev,
            entries,
            state,
            ..
        } = *slot;
        slot.state = Use::Free;
        slot.next = free;
        self.free = at;
        self.entries -= entries;
        match state {
            Use::Free => {}
            Use::Popped => self.popped -= 1,
            Use::Held => self.held -= 1,
        }
        match self.get_mut(prev) {
            Some(prev) => prev.next = next,
            None => self.oldest = next,
        }
        match self.get_mut(next) {
            Some(next) => next.prev = prev,
            None => self.newest = prev,
        }
    }

    /// Removes a chain that [`Self::entries`] found in flight.
    #[inline]
    pub(super) fn remove(&mut self, chain: &Chain) {
        self.unlink(chain.slot);
    }

    /// Removes `chain` if nothing was taken after it, and returns its entries.
    pub(super) fn remove_newest(&mut self, chain: &Chain) -> Result<u16, RingError> {
        let entries = self.entries(chain)?;
        // A chain taken later may be complete and gone from the list: the count tells.
        if chain.sequence.wrapping_add(u32::from(entries)) != self.taken {
            return Err(RingError::NotNewest);
        }
        self.unlink(chain.slot);
        self.taken = chain.sequence;
        Ok(entries)
    }

    /// Removes all chains if together they are what was taken last, and returns their entries.
    pub(super) fn remove_all(&mut self) -> Result<u16, RingError> {
        let Some(oldest) = self.get(self.oldest) else {
            return Ok(0);
        };
        let (sequence, entries) = (oldest.sequence, self.entries);
        if self.held != 0 || sequence.wrapping_add(u32::from(entries)) != self.taken {
            return Err(RingError::NotNewest);
        }
        while self.oldest != NONE {
            self.unlink(self.oldest);
        }
        self.taken = sequence;
        Ok(entries)
    }

    /// Marks `chain` complete, to be published in its turn.
    #[inline]
    pub(super) fn hold(&mut self, chain: &Chain, written: u32) -> Result<(), RingError> {
        self.check(chain)?;
        if let Some(slot) = self.get_mut(chain.slot) {
            slot.state = Use::Held;
            slot.written = written;
            self.popped -= 1;
            self.held += 1;
        }
        Ok(())
    }

    /// Returns the oldest chains that are complete and can share a used entry, if the oldest chain
    /// is complete at all.
    ///
    /// The standard lets the device skip all entries of a batch but one (virtio 1.3, 2.7.9 and
    /// 2.8.8), and the lengths of the others are lost. So only chains with nothing to write to are
    /// skipped; some drivers do not expect it of others.
    pub(super) fn held_batch(&self) -> Option<Batch> {
        let mut last = self.oldest;
        let mut slot = self.get(last).filter(|slot| slot.state == Use::Held)?;
        let mut entries = slot.entries;
        while slot.read_only {
            let next = slot.next;
            let Some(after) = self.get(next).filter(|slot| slot.state == Use::Held) else {
                break;
            };
            (slot, last) = (after, next);
            entries += slot.entries;
        }
        Some(Batch {
            id: slot.id,
            written: slot.written,
            entries,
            last,
        })
    }

    /// Removes the chains of a batch.
    pub(super) fn release(&mut self, batch: Batch) {
        while self.oldest != NONE {
            let at = self.oldest;
            self.unlink(at);
            if at == batch.last {
                break;
            }
        }
    }
}
