// SPDX-License-Identifier: GPL-2.0

//! Sets of virtqueues.

/// The most virtqueues a device may have here.
pub const MAX_QUEUES: u16 = 256;

const WORD: u16 = u64::BITS as u16;
const WORDS: usize = (MAX_QUEUES / WORD) as usize;

/// A set of virtqueue indices, each less than [`MAX_QUEUES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct QueueSet([u64; WORDS]);

impl QueueSet {
    /// No queue at all.
    pub const EMPTY: Self = Self([0; WORDS]);

    /// Returns the set of just `queue`; the empty set if there can be no such queue.
    pub fn one(queue: u16) -> Self {
        let mut set = Self::EMPTY;
        set.set(queue, true);
        set
    }

    /// Returns whether `queue` is a member.
    pub fn contains(&self, queue: u16) -> bool {
        self.0
            .get(usize::from(queue / WORD))
            .is_some_and(|word| word & (1 << (queue % WORD)) != 0)
    }

    /// Makes `queue` a member or not. An index no queue can have is left out.
    pub fn set(&mut self, queue: u16, member: bool) {
        if let Some(word) = self.0.get_mut(usize::from(queue / WORD)) {
            let bit = 1 << (queue % WORD);
            if member {
                *word |= bit;
            } else {
                *word &= !bit;
            }
        }
    }

    /// Returns whether the set has no member.
    pub fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }

    /// Returns the members of both sets.
    pub fn intersection(self, other: Self) -> Self {
        self.combine(other, |a, b| a & b)
    }

    /// Returns the members of either set.
    pub fn union(self, other: Self) -> Self {
        self.combine(other, |a, b| a | b)
    }

    /// Returns the members of this set that are not in `other`.
    pub fn without(self, other: Self) -> Self {
        self.combine(other, |a, b| a & !b)
    }

    /// Iterates over the members from the lowest up.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..MAX_QUEUES).filter(|&queue| self.contains(queue))
    }

    fn combine(mut self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        for (word, other) in self.0.iter_mut().zip(other.0) {
            *word = with(*word, other);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_back_in_order() {
        let mut set = QueueSet::EMPTY;
        for queue in [255, 0, 64, 63, 7] {
            set.set(queue, true);
        }
        set.set(7, false);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 255]);
        assert!(set.contains(64) && !set.contains(7));
    }

    #[test]
    fn impossible_queues_are_left_out() {
        assert!(QueueSet::one(MAX_QUEUES).is_empty());
        assert!(QueueSet::one(u16::MAX).is_empty());
        assert!(!QueueSet::one(3).contains(u16::MAX));
    }

    #[test]
    fn sets_combine() {
        let (a, b) = (QueueSet::one(1), QueueSet::one(200));
        let both = a.union(b);
        assert_eq!(both.intersection(a), a);
        assert_eq!(both.without(a), b);
    }
}
