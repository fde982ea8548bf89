// SPDX-License-Identifier: GPL-2.0

//! What a device offers to its driver: what the firmware can do, what this driver adds, and what
//! the administrator wants of it.

use core::fmt;

use prm::cap::{
    virtio_feature,
    CmdHcaCap,
    VirtioEmulationCap, //
};
use virtio::{
    features::{
        Features,
        Unmet, //
    },
    lifecycle::Legacy,
    net::{
        config::{
            self,
            Invalid, //
        },
        features,
        rss::{
            Limits,
            KEY_LEN,
            TABLE_LEN, //
        },
        MacAddress, //
    }, //
};

use super::steering::spread::HASH_TYPES;

/// The most pairs of virtqueues, whatever the firmware has: kicks are remembered in a word of 64
/// bits.
const MAX_PAIRS: u16 = 32;

/// The features that are matters of the virtqueue object, and their bits in it.
const HARDWARE: [(Features, u16); 9] = [
    (features::CSUM, virtio_feature::CSUM),
    (features::GUEST_CSUM, virtio_feature::GUEST_CSUM),
    (features::GUEST_TSO4, virtio_feature::GUEST_TSO4),
    (features::GUEST_TSO6, virtio_feature::GUEST_TSO6),
    (features::GUEST_ECN, virtio_feature::GUEST_ECN),
    (features::HOST_TSO4, virtio_feature::HOST_TSO4),
    (features::HOST_TSO6, virtio_feature::HOST_TSO6),
    (features::HOST_ECN, virtio_feature::HOST_ECN),
    (features::MRG_RXBUF, virtio_feature::MRG_RXBUF),
];

/// What every function can offer: this driver does it, with steering and the port, or it is the
/// way the hardware works.
const ALWAYS: Features = features::MAC
    .union(features::MTU)
    .union(features::STATUS)
    .union(features::CTRL_VQ)
    .union(features::CTRL_RX)
    .union(features::CTRL_VLAN)
    .union(features::CTRL_MAC_ADDR)
    .union(Features::ANY_LAYOUT)
    .union(Features::ACCESS_PLATFORM);

/// What devices offer only if they are asked to.
///
/// QEMU announces a guest that moved itself, shows GUEST_ANNOUNCE to it whether the device offers
/// it or not, and refuses shadow virtqueues and so migration if it does.
const ON_REQUEST: Features = features::CTRL_RX_EXTRA
    .union(features::GUEST_ANNOUNCE)
    .union(features::RSS);

/// What is not offered, and why not, as far as somebody may ask.
const REASONS: [(Features, &str); 6] = [
    (
        Features::NOTIFY_ON_EMPTY,
        "the hardware does not interrupt for a ring that ran empty",
    ),
    (
        Features::INDIRECT_DESC,
        "the hardware's virtqueues have no setting for it",
    ),
    (
        Features::EVENT_IDX,
        "the hardware's virtqueues have no setting for it",
    ),
    (
        Features::RING_PACKED,
        "the hardware's virtqueues are split ones",
    ),
    (
        features::RSS,
        "the firmware's tables of queues are too small for it, or there is one pair of queues",
    ),
    (
        features::HASH_REPORT,
        "the firmware has no capability for it",
    ),
];

/// The capabilities that an offer follows from.
#[derive(Clone, Copy)]
pub(crate) struct Caps<'a> {
    /// Of the function as a whole.
    pub(crate) general: &'a CmdHcaCap,
    /// Of virtqueues.
    pub(crate) vdpa: &'a VirtioEmulationCap,
}

impl Caps<'_> {
    /// The most entries of a table of queues.
    fn places(&self) -> u32 {
        1u32.checked_shl(u32::from(self.general.log_max_rqt_size()))
            .unwrap_or(u32::MAX)
    }

    /// The most pairs of virtqueues of a device.
    pub(crate) fn max_pairs(&self) -> u16 {
        let queues = self.vdpa.max_num_virtio_queues() / 2;
        // The firmware counts the places of all virtqueues, not of those that receive.
        let places = self.places() / 2;
        // No more than 32, which fits.
        queues.min(places).min(u32::from(MAX_PAIRS)) as u16
    }
}

/// The features as a virtqueue object has them: one field of bits
/// ([`prm::cap::virtio_feature`]).
pub(crate) fn hardware_bits(features: Features) -> u16 {
    HARDWARE
        .iter()
        .filter(|(feature, _)| features.contains(*feature))
        .fold(0, |bits, (_, bit)| bits | (1 << bit))
}

/// What a device of a function with these capabilities can offer.
pub(crate) fn possible(caps: &Caps<'_>) -> Features {
    let bits = caps.vdpa.device_features_bits_mask();
    let mut possible = HARDWARE
        .iter()
        .filter(|(_, bit)| bits & (1 << bit) != 0)
        .fold(ALWAYS | ON_REQUEST, |all, (feature, _)| all | *feature);
    if caps.vdpa.virtio_version_1_0() {
        possible |= Features::VERSION_1;
    }
    if caps.max_pairs() > 1 {
        possible |= features::MQ;
        if caps.places() >= u32::from(TABLE_LEN) {
            possible |= features::RSS;
        }
    }
    without_unmet(possible)
}

/// What a device with `pairs` pairs of virtqueues offers if nothing else is asked for, of what is
/// possible. None of it keeps QEMU from migrating a guest.
pub(crate) fn default_of(possible: Features, pairs: u16) -> Features {
    let default = possible - ON_REQUEST;
    if pairs > 1 {
        default
    } else {
        default - features::MQ
    }
}

/// Leaves out what is there without what it needs: firmware may be able to cut segments, and not to
/// sum them up.
fn without_unmet(mut features: Features) -> Features {
    while let Err(unmet) = features::check(features) {
        features = features - unmet.feature;
    }
    features
}

/// What an administrator wants of a device. What was not said is `None`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    /// The MAC address.
    pub(crate) mac: Option<MacAddress>,
    /// The MTU in bytes.
    pub(crate) mtu: Option<u16>,
    /// The number of pairs of virtqueues.
    pub(crate) pairs: Option<u16>,
    /// The features, exactly.
    pub(crate) features: Option<Features>,
}

/// Why a device cannot be what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Features that this function cannot offer: those.
    Unavailable(Features),
    /// A feature without one it needs.
    Unmet(Unmet),
    /// An attribute by itself.
    Invalid(Invalid),
}

impl From<Invalid> for Why {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(bits) => {
                write!(f, "features {bits:#x} cannot be offered:")?;
                for feature in bits.iter() {
                    match features::name(feature) {
                        Some(name) => write!(f, " {name}")?,
                        None => write!(f, " {feature:#x}")?,
                    }
                    if let Some((_, reason)) = REASONS.iter().find(|(one, _)| *one == feature) {
                        write!(f, " ({reason})")?;
                    }
                }
                Ok(())
            }
            Self::Unmet(unmet) => {
                let name = features::name(unmet.feature).unwrap_or("a feature");
                write!(f, "{name} needs")?;
                for (number, needed) in features::names(unmet.needs).enumerate() {
                    let or = if number > 0 { " or" } else { "" };
                    write!(f, "{or} {needed}")?;
                }
                Ok(())
            }
            Self::Invalid(invalid) => invalid.fmt(f),
        }
    }
}

/// Checks the features that an administrator wants, of what is possible.
///
/// # Errors
///
/// [`Why::Unavailable`], [`Why::Unmet`].
pub(crate) fn check(wanted: Features, possible: Features) -> Result<(), Why> {
    let unavailable = wanted - possible;
    if !unavailable.is_empty() {
        return Err(Why::Unavailable(unavailable));
    }
    features::check(wanted).map_err(Why::Unmet)
}

/// What a device offers and is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// The features.
    pub(crate) features: Features,
    /// Pairs of virtqueues.
    pub(crate) pairs: u16,
    /// Which drivers are let in, as far as the administrator has a say: see [`Offer::new`].
    pub(crate) legacy: Legacy,
    /// The MAC address, if it was chosen.
    pub(crate) mac: Option<MacAddress>,
    /// The MTU in bytes, if it was chosen.
    pub(crate) mtu: Option<u16>,
}

impl Offer {
    /// What a function with these capabilities makes of what is wanted.
    ///
    /// ANY_LAYOUT says something to legacy drivers only. So a device that was provisioned with
    /// VERSION_1 and without ANY_LAYOUT is meant for no legacy driver, and lets none in.
    ///
    /// # Errors
    ///
    /// The reason, if it cannot be.
    pub(crate) fn new(caps: &Caps<'_>, wanted: &Wanted) -> Result<Self, Why> {
        let pairs = config::check_pairs(wanted.pairs.unwrap_or(1), caps.max_pairs())?;
        let possible = possible(caps);
        let mut legacy = Legacy::Allow;
        let features = match wanted.features {
            None => default_of(possible, pairs),
            Some(features) => {
                check(features, possible)?;
                if !features.legacy() && !features.contains(Features::ANY_LAYOUT) {
                    legacy = Legacy::Off;
                }
                features
            }
        };
        Ok(Self {
            features,
            pairs,
            legacy,
            mac: wanted.mac.map(config::check_mac).transpose()?,
            mtu: wanted
                .mtu
                .map(|mtu| config::check_mtu(mtu, u16::MAX))
                .transpose()?,
        })
    }

    /// What drivers can configure of receive-side scaling.
    pub(crate) fn rss(&self) -> Limits {
        if self.features.contains(features::RSS) {
            Limits {
                key_len: KEY_LEN,
                table_len: TABLE_LEN,
                types: HASH_TYPES,
            }
        } else {
            Limits::default()
        }
    }

    /// The number of virtqueues, the control queue included.
    pub(crate) fn queues(&self) -> u16 {
        // No more than 32 pairs.
        2 * self.pairs + 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Those of a function with every capability of virtqueues.
    fn full() -> (CmdHcaCap, VirtioEmulationCap) {
        let mut general = prm::Layout::new();
        let mut vdpa: VirtioEmulationCap = prm::Layout::new();
        CmdHcaCap::set_log_max_rqt_size(&mut general, 7);
        vdpa.set_max_num_virtio_queues(64)
            .set_virtio_version_1_0(true)
            .set_device_features_bits_mask(0x1fff);
        (general, vdpa)
    }

    fn offer(
        change: impl FnOnce(&mut CmdHcaCap, &mut VirtioEmulationCap),
        wanted: &Wanted,
    ) -> Result<Offer, Why> {
        let (mut general, mut vdpa) = full();
        change(&mut general, &mut vdpa);
        let caps = Caps {
            general: &general,
            vdpa: &vdpa,
        };
        Offer::new(&caps, wanted)
    }

    fn default(pairs: u16) -> Features {
        let wanted = Wanted {
            pairs: Some(pairs),
            ..Wanted::default()
        };
        offer(|_, _| {}, &wanted).unwrap().features
    }

    #[test]
    fn the_default_can_be_migrated() {
        // What QEMU cannot move, or a legacy guest's driver would trip over.
        let never = [2, 20, 21, 24, 28, 29, 34, 35, 36, 38, 40, 41, 43, 57, 60];
        for pairs in [1, 32] {
            for bit in never {
                assert!(!default(pairs).contains(Features::bit(bit)), "{bit}");
            }
        }
        for bit in [0, 1, 3, 5, 7, 8, 11, 12, 15, 16, 17, 18, 19, 23, 27, 32, 33] {
            assert!(default(1).contains(Features::bit(bit)), "{bit}");
        }
        assert!(!default(1).contains(features::MQ));
        assert!(default(2).contains(features::MQ));
    }

    #[test]
    fn every_feature_of_the_queue_reaches_it() {
        assert_eq!(hardware_bits(Features::from_bits(u64::MAX)), 0x1fd4);
        assert_eq!(hardware_bits(features::GUEST_CSUM), 1 << 9);
        assert_eq!(hardware_bits(ALWAYS | Features::VERSION_1), 0);
    }

    #[test]
    fn nothing_is_offered_that_the_firmware_has_not() {
        let nothing = |_: &mut CmdHcaCap, vdpa: &mut VirtioEmulationCap| {
            vdpa.set_device_features_bits_mask(0)
                .set_virtio_version_1_0(false)
                .set_max_num_virtio_queues(2);
        };
        let least = offer(nothing, &Wanted::default()).unwrap();
        assert_eq!(least.features, ALWAYS);
        assert_eq!((least.pairs, least.queues()), (1, 3));
        let more = Wanted {
            pairs: Some(2),
            ..Wanted::default()
        };
        assert_eq!(
            offer(nothing, &more),
            Err(Why::Invalid(Invalid::Pairs(2, 1)))
        );

        // Segments that it could cut, and not sum up.
        let tso = (1 << virtio_feature::HOST_TSO4) | (1 << virtio_feature::HOST_ECN);
        let no_csum = |_: &mut CmdHcaCap, vdpa: &mut VirtioEmulationCap| {
            vdpa.set_device_features_bits_mask(tso);
        };
        let without = offer(no_csum, &Wanted::default()).unwrap().features;
        assert_eq!(hardware_bits(without), 0);
    }

    #[test]
    fn pairs_are_bounded_by_queues_and_the_table_of_them() {
        let most = |queues, log| {
            let (mut general, mut vdpa) = full();
            vdpa.set_max_num_virtio_queues(queues);
            general.set_log_max_rqt_size(log);
            Caps {
                general: &general,
                vdpa: &vdpa,
            }
            .max_pairs()
        };
        assert_eq!(most(64, 6), 32);
        assert_eq!(most(1000, 31), 32);
        assert_eq!(most(64, 3), 4);
        assert_eq!(most(2, 1), 1);
        assert_eq!(most(7, 6), 3);
    }

    #[test]
    fn refusals_say_why() {
        let why = |wanted| offer(|_, _| {}, &wanted).unwrap_err().to_string();
        let features = |features| Wanted {
            features: Some(features),
            ..Wanted::default()
        };
        assert_eq!(
            why(features(Features::NOTIFY_ON_EMPTY | features::MAC)),
            "features 0x1000000 cannot be offered: NOTIFY_ON_EMPTY (the hardware does not interrupt \
             for a ring that ran empty)"
        );
        assert_eq!(why(features(features::HOST_TSO4)), "HOST_TSO4 needs CSUM");
        assert_eq!(
            why(features(features::CSUM | features::HOST_ECN)),
            "HOST_ECN needs HOST_TSO4 or HOST_TSO6"
        );
        let group = Wanted {
            mac: Some([1; 6]),
            ..Wanted::default()
        };
        assert_eq!(
            why(group),
            "01:01:01:01:01:01 is not the address of a station"
        );
        let small = Wanted {
            mtu: Some(60),
            ..Wanted::default()
        };
        assert_eq!(why(small), "an MTU of 60 is below 68");
    }

    #[test]
    fn who_leaves_any_layout_out_wants_no_legacy_driver() {
        let legacy = |features| {
            let wanted = Wanted {
                features: Some(features),
                ..Wanted::default()
            };
            offer(|_, _| {}, &wanted).unwrap().legacy
        };
        assert_eq!(legacy(Features::VERSION_1 | features::MAC), Legacy::Off);
        assert_eq!(
            legacy(Features::VERSION_1 | Features::ANY_LAYOUT),
            Legacy::Allow
        );
        assert_eq!(legacy(features::MAC), Legacy::Allow);
        assert_eq!(
            offer(|_, _| {}, &Wanted::default()).unwrap().legacy,
            Legacy::Allow
        );
    }

    proptest! {
        #[test]
        fn what_is_offered_is_possible_and_whole(
            bits in 0u16..1 << 13, version_1: bool, queues in 2u32..100, log in 1u8..8,
            pairs in proptest::option::of(any::<u16>()), wanted in proptest::option::of(any::<u64>()),
        ) {
            let (mut general, mut vdpa) = full();
            general.set_log_max_rqt_size(log);
            vdpa.set_device_features_bits_mask(bits)
                .set_virtio_version_1_0(version_1)
                .set_max_num_virtio_queues(queues);
            let caps = Caps { general: &general, vdpa: &vdpa };
            // Now and then something that can be.
            let features = wanted.map(Features::from_bits)
                .map(|wanted| if pairs.is_some() { wanted & possible(&caps) } else { wanted });
            let wanted = Wanted { pairs, features, ..Wanted::default() };
            if let Ok(offer) = Offer::new(&caps, &wanted) {
                prop_assert!(possible(&caps).contains(offer.features));
                prop_assert_eq!(features::check(offer.features), Ok(()));
                prop_assert_eq!(hardware_bits(offer.features) & !bits, 0);
                prop_assert!((1..=caps.max_pairs()).contains(&offer.pairs));
                if let Some(features) = features {
                    prop_assert_eq!(offer.features, features);
                }
            }
        }
    }
}
