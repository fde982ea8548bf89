// SPDX-License-Identifier: GPL-2.0

//! What the receive filter is as entries of flow tables.
//!
//! A frame goes through two tables, one that looks at its VLAN and one that looks at its
//! destination, so a VLAN is one entry and an address is one, and neither multiplies the other.
//! Each table has two groups: first single VLANs or addresses, then whole kinds of frames, by one
//! bit. What no entry is for is dropped.
//!
//! ```text
//!   VLAN table   exact   each VLAN of a customer's tag
//!                kind    without such a tag | with any
//!   MAC table    exact   each address
//!                kind    all single stations | all groups
//! ```
//!
//! A device that is promiscuous, as all are until their driver says something else, needs the
//! entries of the four kinds and no other. Those of single VLANs and addresses stay where they are
//! meanwhile: a guest that starts again, or somewhere else, mostly wants the same ones a moment
//! later.

use virtio::net::{
    filter::Filter,
    is_group_address,
    MacAddress,
    BROADCAST, //
};

/// The logarithm of the size of the VLAN table: all there are, and the kinds.
pub(crate) const LOG_VLANS: u8 = 13;

/// The logarithm of the size of the MAC table. Entries are made before others are taken away, so it
/// has room for what a filter lets in twice.
pub(crate) const LOG_MACS: u8 = 9;

/// The first index of the kinds in the VLAN table, behind a place for each VLAN.
const VLAN_KINDS: u32 = virtio::net::control::VLANS as u32;

/// The first index of the kinds in the MAC table.
const MAC_KINDS: u32 = (1 << LOG_MACS) - 2;

/// One of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// That of VLANs, in which matching begins.
    Vlan,
    /// That of addresses.
    Mac,
}

/// One of the two groups of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// Of single VLANs or addresses.
    Exact,
    /// Of kinds of frames.
    Kind,
}

impl Table {
    /// The logarithm of its size.
    pub(crate) fn log_size(self) -> u8 {
        match self {
            Self::Vlan => LOG_VLANS,
            Self::Mac => LOG_MACS,
        }
    }

    /// The first and the last index of the entries of a group. Where entries of both match, that of
    /// the lower index counts.
    pub(crate) fn range(self, group: Group) -> (u32, u32) {
        let kinds = match self {
            Self::Vlan => VLAN_KINDS,
            Self::Mac => MAC_KINDS,
        };
        match group {
            Group::Exact => (0, kinds - 1),
            Group::Kind => (kinds, kinds + 1),
        }
    }
}

/// An entry of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Rule {
    /// Frames without a customer's VLAN tag are let in.
    Untagged,
    /// Frames with one are let in, whatever VLAN it says.
    Tagged,
    /// Frames of this VLAN are let in; 0 is a priority without a VLAN.
    Vlan(u16),
    /// Frames to all single stations are received.
    AllUnicast,
    /// Frames to all groups are received, broadcast among them.
    AllMulticast,
    /// Frames to this address are received.
    Address(MacAddress),
    /// Broadcast is not received, though groups are.
    DropBroadcast,
}

impl Rule {
    /// Where it is.
    pub(crate) fn place(&self) -> (Table, Group) {
        match self {
            Self::Untagged | Self::Tagged => (Table::Vlan, Group::Kind),
            Self::Vlan(_) => (Table::Vlan, Group::Exact),
            Self::AllUnicast | Self::AllMulticast => (Table::Mac, Group::Kind),
            Self::Address(_) | Self::DropBroadcast => (Table::Mac, Group::Exact),
        }
    }

    /// Its index in its table, if that needs not be found.
    fn index(&self) -> Option<u32> {
        match self {
            Self::Untagged => Some(VLAN_KINDS),
            Self::Tagged => Some(VLAN_KINDS + 1),
            Self::Vlan(id) => Some(u32::from(*id)).filter(|id| *id < VLAN_KINDS),
            Self::AllUnicast => Some(MAC_KINDS),
            Self::AllMulticast => Some(MAC_KINDS + 1),
            Self::Address(_) | Self::DropBroadcast => None,
        }
    }
}

/// Calls `each` with every rule of a filter, for a device whose address is `own`. Some may come
/// twice.
///
/// # Errors
///
/// The first error of `each`.
pub(crate) fn wanted<E>(
    filter: &Filter,
    own: MacAddress,
    mut each: impl FnMut(Rule) -> Result<(), E>,
) -> Result<(), E> {
    let promiscuous = filter.is_promiscuous();
    each(Rule::Untagged)?;
    if promiscuous || !filter.filters_vlans() {
        each(Rule::Tagged)?;
    } else {
        each(Rule::Vlan(0))?;
    }
    if filter.filters_vlans() {
        // They stay while everything is let in, for there may be very many.
        filter.vlans().map(Rule::Vlan).try_for_each(&mut each)?;
    }

    if promiscuous || filter.all_unicast() {
        each(Rule::AllUnicast)?;
    } else {
        filter
            .unicast(own)
            .map(Rule::Address)
            .try_for_each(&mut each)?;
    }
    if promiscuous || filter.all_multicast() {
        each(Rule::AllMulticast)?;
        if !promiscuous && !filter.broadcast() {
            each(Rule::DropBroadcast)?;
        }
    } else {
        filter
            .multicast()
            .map(Rule::Address)
            .try_for_each(&mut each)?;
        if filter.broadcast() {
            each(Rule::Address(BROADCAST))?;
        }
    }
    Ok(())
}

/// Whether a rule changes nothing where those of `wanted`, which are in order, are.
fn is_idle(rule: &Rule, wanted: &[Rule]) -> bool {
    let is_wanted = |rule: Rule| wanted.binary_search(&rule).is_ok();
    match rule {
        Rule::Vlan(_) => is_wanted(Rule::Tagged),
        Rule::Address(to) if is_group_address(to) => {
            is_wanted(Rule::AllMulticast) && !(*to == BROADCAST && is_wanted(Rule::DropBroadcast))
        }
        Rule::Address(_) => is_wanted(Rule::AllUnicast),
        _ => false,
    }
}

/// What has to be done for a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is not there yet.
    Add(Rule),
    /// It is not wanted any more.
    Remove(Rule),
}

/// Iterates over what has to be done where the rules `installed` are and those `wanted` are to be.
/// Both are in order; of those wanted, some may come twice. What changes nothing is not removed.
pub(crate) fn changes<'a>(
    installed: impl Iterator<Item = Rule> + 'a,
    wanted: &'a [Rule],
) -> impl Iterator<Item = Change> + 'a {
    let mut here = installed.peekable();
    let mut there = wanted.chunk_by(|one, other| one == other).peekable();
    core::iter::from_fn(move || loop {
        let (old, new) = (
            here.peek().copied(),
            there.peek().and_then(|same| same.first()),
        );
        match (old, new) {
            (Some(old), Some(new)) if old == *new => {
                here.next();
                there.next();
            }
            (Some(old), new) if new.is_none_or(|new| old < *new) => {
                here.next();
                if !is_idle(&old, wanted) {
                    return Some(Change::Remove(old));
                }
            }
            (_, Some(new)) => {
                there.next();
                return Some(Change::Add(*new));
            }
            (_, None) => return None,
        }
    })
}

/// Words of the bitmap of places.
const WORDS: usize = (1 << LOG_MACS) / 64;

/// Which places of single addresses in the MAC table are taken.
#[derive(Clone, Debug)]
pub(crate) struct Places([u64; WORDS]);

impl Places {
    /// None is taken.
    pub(crate) const fn new() -> Self {
        Self([0; WORDS])
    }

    /// Takes a place for a rule: its index in its table. `None` if there is none left.
    pub(crate) fn take(&mut self, rule: &Rule) -> Option<u32> {
        if let Some(index) = rule.index() {
            return Some(index);
        }
        if let Rule::Vlan(_) = rule {
            return None;
        }
        let free = |(word, bits): (u32, &u64)| {
            let bit = bits.trailing_ones();
            (bit < u64::BITS).then_some(word * u64::BITS + bit)
        };
        let index = (0..).zip(&self.0).find_map(free)?;
        if index >= MAC_KINDS {
            return None;
        }
        self.set(index, true);
        Some(index)
    }

    /// Gives the place of a rule back.
    pub(crate) fn give(&mut self, rule: &Rule, index: u32) {
        if let (Table::Mac, Group::Exact) = rule.place() {
            self.set(index, false);
        }
    }

    fn set(&mut self, index: u32, taken: bool) {
        // An index into an array fits.
        if let Some(word) = self.0.get_mut((index / u64::BITS) as usize) {
            let bit = 1 << (index % u64::BITS);
            if taken {
                *word |= bit;
            } else {
                *word &= !bit;
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use virtio::net::{
        control::ReceiveMode,
        filter::MAC_TABLE_LEN, //
    };

    use super::*;

    pub(crate) const OWN: MacAddress = [2, 0, 0, 0, 0, 1];

    /// What of a frame counts.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Seen {
        pub(crate) to: MacAddress,
        pub(crate) vlan: Option<u16>,
    }

    /// Few enough that they meet.
    fn address() -> impl Strategy<Value = MacAddress> {
        prop_oneof![
            6 => (prop_oneof![Just(2u8), Just(3)], 0u8..4).prop_map(|(first, last)| [first, 0, 0, 0, 0, last]),
            1 => Just(BROADCAST),
            1 => any::<MacAddress>(),
        ]
    }

    fn vlan() -> impl Strategy<Value = u16> {
        prop_oneof![0u16..4, 4094u16..4096]
    }

    pub(crate) fn seen() -> impl Strategy<Value = Seen> {
        (address(), proptest::option::of(vlan())).prop_map(|(to, vlan)| Seen { to, vlan })
    }

    fn mode() -> impl Strategy<Value = (ReceiveMode, bool)> {
        let mode = prop_oneof![
            Just(ReceiveMode::Promiscuous),
            Just(ReceiveMode::AllMulticast),
            Just(ReceiveMode::AllUnicast),
            Just(ReceiveMode::NoMulticast),
            Just(ReceiveMode::NoUnicast),
            Just(ReceiveMode::NoBroadcast),
        ];
        (mode, any::<bool>())
    }

    fn table() -> impl Strategy<Value = Vec<MacAddress>> {
        prop_oneof![
            4 => proptest::collection::vec(address(), 0..5),
            1 => Just((0..=MAC_TABLE_LEN as u8).map(|last| [6, 0, 0, 0, 0, last]).collect()),
        ]
    }

    /// Every filter a driver can ask for.
    pub(crate) fn filter() -> impl Strategy<Value = Filter> {
        (
            proptest::collection::vec(mode(), 0..8),
            table(),
            table(),
            any::<bool>(),
            proptest::collection::vec(vlan(), 0..4),
        )
            .prop_map(|(modes, unicast, multicast, filters, vlans)| {
                let mut filter = Filter::RESET;
                // Else most would be promiscuous.
                filter.set_mode(ReceiveMode::Promiscuous, false);
                for (mode, on) in modes {
                    filter.set_mode(mode, on);
                }
                filter.set_tables(Some(unicast.into_iter()), Some(multicast.into_iter()));
                filter.set_vlan_filter(filters);
                for id in vlans {
                    filter.set_vlan(id, true);
                }
                filter
            })
    }

    pub(crate) fn rules(filter: &Filter, own: MacAddress) -> Vec<Rule> {
        let mut rules = Vec::new();
        let _ = wanted(filter, own, |rule| {
            rules.push(rule);
            Ok::<(), ()>(())
        });
        rules.sort();
        rules
    }

    /// What tables with these rules do, by what each is said to do.
    fn accept(rules: &[Rule], frame: Seen) -> bool {
        let tag = match frame.vlan {
            None => Rule::Untagged,
            Some(_) => Rule::Tagged,
        };
        let exact = frame.vlan.map(Rule::Vlan);
        if !rules.contains(&tag) && !exact.is_some_and(|rule| rules.contains(&rule)) {
            return false;
        }
        if frame.to == BROADCAST && rules.contains(&Rule::DropBroadcast) {
            return false;
        }
        let kind = match is_group_address(&frame.to) {
            true => Rule::AllMulticast,
            false => Rule::AllUnicast,
        };
        rules.contains(&kind) || rules.contains(&Rule::Address(frame.to))
    }

    proptest! {
        #[test]
        fn rules_let_in_what_the_filter_does(filter in filter(), frames in proptest::collection::vec(seen(), 20)) {
            let rules = rules(&filter, OWN);
            for frame in frames {
                prop_assert_eq!(
                    accept(&rules, frame), filter.accepts(&OWN, &frame.to, frame.vlan), "{:?}", frame
                );
            }
        }

        #[test]
        fn a_filter_becomes_another_by_its_changes(
            first in filter(), second in filter(), own in address(),
            frames in proptest::collection::vec(seen(), 20),
        ) {
            let mut old = rules(&first, OWN);
            old.dedup();
            let new = rules(&second, own);
            let mut result: Vec<_> = old.clone();
            for change in changes(old.iter().copied(), &new) {
                match change {
                    Change::Add(rule) => {
                        prop_assert!(!result.contains(&rule));
                        result.push(rule);
                    }
                    Change::Remove(rule) => {
                        let before = result.len();
                        result.retain(|other| *other != rule);
                        prop_assert_eq!(result.len() + 1, before);
                    }
                }
            }
            result.sort();
            prop_assert!(new.iter().all(|rule| result.contains(rule)));
            for frame in frames {
                prop_assert_eq!(accept(&result, frame), accept(&new, frame), "{:?}", frame);
            }
            prop_assert_eq!(changes(result.iter().copied(), &new).count(), 0);
        }

        #[test]
        fn there_is_a_place_for_old_and_new_rules_at_once(
            filters in proptest::collection::vec(filter(), 2..6),
        ) {
            let mut places = Places::new();
            // In the order of the rules, as they are installed.
            let mut taken = std::collections::BTreeMap::new();
            for filter in filters {
                let new = rules(&filter, OWN);
                let (mut added, mut removed) = (Vec::new(), Vec::new());
                for change in changes(taken.keys().copied(), &new) {
                    match change {
                        Change::Add(rule) => added.push(rule),
                        Change::Remove(rule) => removed.push(rule),
                    }
                }
                for rule in added {
                    let (table, group) = rule.place();
                    let index = places.take(&rule).unwrap();
                    let (first, last) = table.range(group);
                    prop_assert!((first..=last).contains(&index));
                    prop_assert!(last < 1 << table.log_size());
                    prop_assert!(taken.values().all(|other| *other != (table as u8, index)));
                    taken.insert(rule, (table as u8, index));
                }
                for rule in removed {
                    let (_, index) = taken.remove(&rule).unwrap();
                    places.give(&rule, index);
                }
            }
        }
    }

    #[test]
    fn a_promiscuous_device_needs_the_kinds_only() {
        let kinds = [
            Rule::Untagged,
            Rule::Tagged,
            Rule::AllUnicast,
            Rule::AllMulticast,
        ];
        let mut filter = Filter::RESET;
        assert_eq!(rules(&filter, OWN), kinds);
        // As a usual driver starts: still none but these.
        filter.set_vlan_filter(true);
        assert_eq!(rules(&filter, OWN), kinds);
        filter.set_vlan(5, true);
        let with_vlan = rules(&filter, OWN);
        filter.set_mode(ReceiveMode::Promiscuous, false);
        let without = rules(&filter, OWN);
        let vlans = |rules: &[Rule]| rules.iter().filter(|rule| **rule == Rule::Vlan(5)).count();
        assert_eq!((vlans(&with_vlan), vlans(&without)), (1, 1));
    }

    #[test]
    fn a_driver_that_begins_again_finds_its_addresses() {
        let mut filter = Filter::RESET;
        let began = rules(&filter, OWN);
        filter.set_mode(ReceiveMode::Promiscuous, false);
        filter.set_vlan_filter(true);
        let groups = (1..4).map(|last| [1, 0, 0x5e, 0, 0, last]);
        filter.set_tables(Some(std::iter::empty()), Some(groups));
        let before = rules(&filter, OWN);
        let at_once: Vec<_> = changes(before.iter().copied(), &began).collect();
        let kinds = [Rule::Tagged, Rule::AllUnicast, Rule::AllMulticast];
        assert_eq!(at_once, kinds.map(Change::Add));
        let mut installed = [&before[..], &kinds].concat();
        installed.sort();
        let later: Vec<_> = changes(installed.iter().copied(), &before).collect();
        assert_eq!(later, kinds.map(Change::Remove));
    }

    #[test]
    fn an_address_that_changes_is_one_rule_more_and_one_less() {
        let mut filter = Filter::RESET;
        filter.set_mode(ReceiveMode::Promiscuous, false);
        filter.set_vlan_filter(true);
        for id in 1..100 {
            filter.set_vlan(id, true);
        }
        let before = rules(&filter, OWN);
        let after = rules(&filter, [2, 9, 9, 9, 9, 9]);
        assert_eq!(changes(before.iter().copied(), &after).count(), 2);
        filter.set_vlan(100, true);
        assert_eq!(
            changes(before.iter().copied(), &rules(&filter, OWN)).count(),
            1
        );
    }

    #[test]
    fn places_run_out() {
        let mut places = Places::new();
        let rule = Rule::Address(OWN);
        for index in 0..MAC_KINDS {
            assert_eq!(places.take(&rule), Some(index));
        }
        assert_eq!(places.take(&rule), None);
        places.give(&rule, 77);
        assert_eq!(places.take(&rule), Some(77));
        assert_eq!(places.take(&Rule::Vlan(4096)), None);
    }
}
