// SPDX-License-Identifier: GPL-2.0

//! Feature bits: what the device offers and the driver acknowledges (virtio 1.3, 2.2 and 6).
//!
//! Bits 0 to 23 and 50 to 63 belong to the device class; those of a network device are in
//! [`crate::net::features`].

use core::fmt;
use core::ops::{BitAnd, BitOr, BitOrAssign, Sub};

/// A set of feature bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Features(u64);

impl Features {
    /// No feature at all.
    pub const NONE: Self = Self(0);
    /// Legacy: notify on an empty ring even when notifications are suppressed.
    pub const NOTIFY_ON_EMPTY: Self = Self::bit(24);
    /// Legacy: the device takes any framing of messages in descriptors.
    pub const ANY_LAYOUT: Self = Self::bit(27);
    /// Buffers may be described by indirect tables (2.7.5.3).
    pub const INDIRECT_DESC: Self = Self::bit(28);
    /// `used_event` and `avail_event` are in use (2.7.7, 2.7.8, 2.8.10).
    pub const EVENT_IDX: Self = Self::bit(29);
    /// Legacy: acknowledged only by drivers that acknowledge whatever they see. Never offered.
    pub const BAD_FEATURE: Self = Self::bit(30);
    /// Compliance with virtio 1.0 or later; a driver without it is a legacy driver.
    pub const VERSION_1: Self = Self::bit(32);
    /// The driver gives addresses as the platform translates them, not physical ones.
    pub const ACCESS_PLATFORM: Self = Self::bit(33);
    /// The packed virtqueue layout (2.8).
    pub const RING_PACKED: Self = Self::bit(34);
    /// Buffers are used in the order in which they were made available.
    pub const IN_ORDER: Self = Self::bit(35);
    /// Memory accesses are ordered as the platform wants it, not only as processors do.
    pub const ORDER_PLATFORM: Self = Self::bit(36);
    /// Single Root I/O Virtualization.
    pub const SR_IOV: Self = Self::bit(37);
    /// Driver notifications carry more than the virtqueue's index (2.9).
    pub const NOTIFICATION_DATA: Self = Self::bit(38);
    /// Driver notifications use an identifier that the device gives.
    pub const NOTIF_CONFIG_DATA: Self = Self::bit(39);
    /// Virtqueues can be reset one by one (2.6.1).
    pub const RING_RESET: Self = Self::bit(40);
    /// Administration virtqueues (2.13). Seen by legacy Windows drivers as something else.
    pub const ADMIN_VQ: Self = Self::bit(41);
    /// Status bit 0x10 suspends the device (virtio 1.4).
    pub const SUSPEND: Self = Self::bit(43);

    /// Bits that only mean something to a legacy driver, whatever the class of the device.
    pub const LEGACY_ONLY: Self =
        Self(Self::NOTIFY_ON_EMPTY.0 | Self::ANY_LAYOUT.0 | Self::BAD_FEATURE.0);

    /// The 32 bits a legacy driver can see.
    pub const LEGACY_RANGE: Self = Self(0xffff_ffff);

    /// Returns the set of just bit `n`, which must be less than 64; else the empty set.
    pub const fn bit(n: u32) -> Self {
        match 1u64.checked_shl(n) {
            Some(bits) => Self(bits),
            None => Self(0),
        }
    }

    /// Makes a set from its 64-bit form.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the 64-bit form.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Returns whether every feature of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns whether any feature of `other` is in this set.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Returns whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the features in either set.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the features in both sets.
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns the features of this set that are not in `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns whether a driver that acknowledged exactly this set is a legacy driver.
    ///
    /// This alone decides it (virtio 1.3, 2.2.3 and 6.1): not the status, not what was read.
    pub const fn legacy(self) -> bool {
        !self.contains(Self::VERSION_1)
    }

    /// Returns what an acknowledged set means once it is known who acknowledged it.
    ///
    /// For a legacy driver bits 32 to 63 count as not acknowledged; for any other the bits that
    /// only legacy drivers know mean nothing.
    pub const fn effective(self) -> Self {
        if self.legacy() {
            self.intersection(Self::LEGACY_RANGE)
        } else {
            self.without(Self::LEGACY_ONLY)
        }
    }

    /// Iterates over the members, each a set of one bit, from the lowest up.
    pub fn iter(self) -> impl Iterator<Item = Self> {
        (0..64)
            .map(Self::bit)
            .filter(move |&one| self.contains(one))
    }

    /// Returns the standard's name of a common feature, for a set of exactly one bit.
    pub fn common_name(self) -> Option<&'static str> {
        name_in(COMMON_NAMES, self)
    }
}

/// The common features with the names of the standard.
const COMMON_NAMES: &[(Features, &str)] = &[
    (Features::NOTIFY_ON_EMPTY, "NOTIFY_ON_EMPTY"),
    (Features::ANY_LAYOUT, "ANY_LAYOUT"),
    (Features::INDIRECT_DESC, "INDIRECT_DESC"),
    (Features::EVENT_IDX, "EVENT_IDX"),
    (Features::BAD_FEATURE, "BAD_FEATURE"),
    (Features::VERSION_1, "VERSION_1"),
    (Features::ACCESS_PLATFORM, "ACCESS_PLATFORM"),
    (Features::RING_PACKED, "RING_PACKED"),
    (Features::IN_ORDER, "IN_ORDER"),
    (Features::ORDER_PLATFORM, "ORDER_PLATFORM"),
    (Features::SR_IOV, "SR_IOV"),
    (Features::NOTIFICATION_DATA, "NOTIFICATION_DATA"),
    (Features::NOTIF_CONFIG_DATA, "NOTIF_CONFIG_DATA"),
    (Features::RING_RESET, "RING_RESET"),
    (Features::ADMIN_VQ, "ADMIN_VQ"),
    (Features::SUSPEND, "SUSPEND"),
];

/// Looks a feature up in a table of names.
pub(crate) fn name_in(
    names: &[(Features, &'static str)],
    feature: Features,
) -> Option<&'static str> {
    names
        .iter()
        .find(|(named, _)| *named == feature)
        .map(|&(_, name)| name)
}

/// Finds the first feature of `features` whose prerequisites are not all met.
///
/// Each rule is a feature and the alternatives for what it needs: any one of them is enough.
/// Returns the feature and what it lacks.
pub(crate) fn unmet(
    rules: &[(Features, Features)],
    features: Features,
) -> Option<(Features, Features)> {
    rules
        .iter()
        .copied()
        .find(|&(feature, any_of)| features.contains(feature) && !features.intersects(any_of))
}

/// What common features need (virtio 1.3, 2.2.1 and 6.1): a feature, and what must be there too.
const COMMON_RULES: &[(Features, Features)] = &[
    (Features::RING_PACKED, Features::VERSION_1),
    (Features::IN_ORDER, Features::VERSION_1),
    (Features::ORDER_PLATFORM, Features::VERSION_1),
    (Features::NOTIFICATION_DATA, Features::VERSION_1),
    (Features::NOTIF_CONFIG_DATA, Features::VERSION_1),
    (Features::RING_RESET, Features::VERSION_1),
    (Features::ADMIN_VQ, Features::VERSION_1),
    (Features::SUSPEND, Features::VERSION_1),
];

/// A feature was chosen without one it builds on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Unmet {
    /// The feature that was chosen.
    pub feature: Features,
    /// What it needs; where several bits are set, any one of them would do.
    pub needs: Features,
}

impl Unmet {
    /// Makes one from what [`unmet`] found.
    pub(crate) fn from_pair((feature, needs): (Features, Features)) -> Self {
        Self { feature, needs }
    }
}

/// Checks that common features come with what they build on.
///
/// # Errors
///
/// The first feature whose prerequisite is missing.
pub fn check_common(features: Features) -> Result<(), Unmet> {
    match unmet(COMMON_RULES, features) {
        Some(pair) => Err(Unmet::from_pair(pair)),
        None => Ok(()),
    }
}

impl BitOr for Features {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl BitOrAssign for Features {
    fn bitor_assign(&mut self, other: Self) {
        *self = self.union(other);
    }
}

impl BitAnd for Features {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        self.intersection(other)
    }
}

impl Sub for Features {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.without(other)
    }
}

impl fmt::LowerHex for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_have_the_numbers_of_the_standard() {
        assert_eq!(Features::VERSION_1.bits(), 1 << 32);
        assert_eq!(Features::ACCESS_PLATFORM.bits(), 1 << 33);
        assert_eq!(Features::ANY_LAYOUT.bits(), 0x0800_0000);
        assert_eq!(Features::bit(64), Features::NONE);
    }

    #[test]
    fn only_version_1_decides_who_is_legacy() {
        assert!(Features::NONE.legacy());
        assert!(Features::from_bits(0x2_008b_1803).legacy());
        assert!((Features::from_bits(u64::MAX) - Features::VERSION_1).legacy());
        assert!(!Features::VERSION_1.legacy());
    }

    #[test]
    fn a_legacy_driver_has_32_bits() {
        let acked = Features::from_bits(u64::MAX) - Features::VERSION_1;
        assert_eq!(acked.effective(), Features::LEGACY_RANGE);
        let acked = Features::VERSION_1 | Features::ANY_LAYOUT | Features::RING_PACKED;
        assert_eq!(
            acked.effective(),
            Features::VERSION_1 | Features::RING_PACKED
        );
    }

    #[test]
    fn members_are_named() {
        let set = Features::VERSION_1 | Features::EVENT_IDX;
        let names: Vec<_> = set.iter().filter_map(Features::common_name).collect();
        assert_eq!(names, ["EVENT_IDX", "VERSION_1"]);
        assert_eq!(set.common_name(), None);
    }

    #[test]
    fn packed_rings_need_version_1() {
        let err = check_common(Features::RING_PACKED).unwrap_err();
        assert_eq!(err.needs, Features::VERSION_1);
        assert_eq!(
            check_common(Features::RING_PACKED | Features::VERSION_1),
            Ok(())
        );
    }
}
