// SPDX-License-Identifier: GPL-2.0

//! Which vector has how many users.
//!
//! As long as there are vectors that nobody has, everybody gets one for himself. Then they are shared
//! by turns, so that no vector has two users more than another.

/// The most vectors of a function.
pub(crate) const MOST: u16 = 64;

/// The vector of what the firmware has to say by itself. It has other users only if there is no
/// other one.
pub(crate) const FIRMWARE: u16 = 0;

#[derive(Clone, Copy, Default)]
struct Use {
    users: u16,
    is_kept: bool,
}

/// The users of the vectors of a function.
pub(crate) struct Sharing {
    count: usize,
    uses: [Use; MOST as usize],
}

impl Sharing {
    /// Nobody uses any of `count` vectors yet.
    pub(crate) fn new(count: u16) -> Self {
        Self {
            count: count.into(),
            uses: [Use::default(); MOST as usize],
        }
    }

    /// The vector for one more user.
    pub(crate) fn take(&mut self) -> u16 {
        let all = (0u16..).zip(&mut self.uses).take(self.count);
        let others = all.filter(|(index, one)| *index != FIRMWARE && !one.is_kept);
        let Some((index, one)) = others.min_by_key(|(_, one)| one.users) else {
            return FIRMWARE;
        };
        one.users = one.users.saturating_add(1);
        index
    }

    /// Takes one user off a vector.
    pub(crate) fn put_back(&mut self, index: u16) {
        if let Some(one) = self.uses.get_mut(usize::from(index)) {
            one.users = one.users.saturating_sub(1);
            if one.users == 0 {
                one.is_kept = false;
            }
        }
    }

    /// Whether a vector has one user.
    pub(crate) fn is_alone(&self, index: u16) -> bool {
        let one = self.uses.get(usize::from(index));
        index != FIRMWARE && one.is_some_and(|one| one.users == 1)
    }

    /// Has a vector that has one user keep it as the only one. Returns whether it has one.
    pub(crate) fn keep(&mut self, index: u16) -> bool {
        let is_alone = self.is_alone(index);
        if let Some(one) = self.uses.get_mut(usize::from(index)) {
            one.is_kept |= is_alone;
        }
        is_alone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(sharing: &mut Sharing, count: usize) -> Vec<u16> {
        (0..count).map(|_| sharing.take()).collect()
    }

    #[test]
    fn each_has_its_own_then_they_are_shared_by_turns() {
        let mut sharing = Sharing::new(5);
        assert_eq!(taken(&mut sharing, 4), [1, 2, 3, 4]);
        assert!((1..5).all(|index| sharing.is_alone(index)));
        assert_eq!(taken(&mut sharing, 7), [1, 2, 3, 4, 1, 2, 3]);
        assert!(!(1..5).any(|index| sharing.is_alone(index)));
        for index in [1, 1, 1, 4] {
            sharing.put_back(index);
        }
        assert!(sharing.is_alone(4));
        assert_eq!(taken(&mut sharing, 3), [1, 1, 4]);
    }

    #[test]
    fn what_is_kept_gets_no_other_user() {
        let mut sharing = Sharing::new(3);
        assert_eq!(taken(&mut sharing, 2), [1, 2]);
        assert!(sharing.keep(1));
        assert_eq!(taken(&mut sharing, 2), [2, 2]);
        assert!(!sharing.keep(2));
        sharing.put_back(1);
        assert_eq!(sharing.take(), 1);
        assert!(sharing.keep(1));
        for _ in 0..3 {
            sharing.put_back(2);
        }
        assert_eq!(sharing.take(), 2);
        assert!(sharing.keep(2));
        assert_eq!(sharing.take(), FIRMWARE);
    }

    #[test]
    fn there_may_be_one_only() {
        let mut sharing = Sharing::new(1);
        assert_eq!(taken(&mut sharing, 2), [FIRMWARE, FIRMWARE]);
        assert!(!sharing.keep(FIRMWARE));
        sharing.put_back(FIRMWARE);
        assert_eq!(Sharing::new(MOST).take(), 1);
    }
}
