// SPDX-License-Identifier: GPL-2.0

//! Feature bits of a network device (virtio 1.3, 5.1.3).
//!
//! `HOST_` features let the driver send what they name, `GUEST_` features let it receive it.

use crate::features::{check_common, name_in, unmet, Features, Unmet};

macro_rules! bits {
    ($($(#[$doc:meta])* $name:ident = $bit:literal;)*) => {
        $($(#[$doc])* pub const $name: Features = Features::bit($bit);)*

        /// Every feature of this class with the name of the standard.
        const NAMES: &[(Features, &str)] = &[$(($name, stringify!($name)),)*];
    };
}

bits! {
    /// The device takes packets with a partial checksum.
    CSUM = 0;
    /// The driver takes packets with a partial checksum.
    GUEST_CSUM = 1;
    /// Offloads can be changed by a control command.
    CTRL_GUEST_OFFLOADS = 2;
    /// The configuration holds the maximum MTU.
    MTU = 3;
    /// The configuration holds a MAC address.
    MAC = 5;
    /// Legacy: the device takes packets with any segmentation offload.
    GSO = 6;
    /// The driver takes TCP segmentation offload over IPv4.
    GUEST_TSO4 = 7;
    /// The driver takes TCP segmentation offload over IPv6.
    GUEST_TSO6 = 8;
    /// The driver takes TCP segmentation offload with congestion notification.
    GUEST_ECN = 9;
    /// The driver takes UDP fragmentation offload.
    GUEST_UFO = 10;
    /// The device takes TCP segmentation offload over IPv4.
    HOST_TSO4 = 11;
    /// The device takes TCP segmentation offload over IPv6.
    HOST_TSO6 = 12;
    /// The device takes TCP segmentation offload with congestion notification.
    HOST_ECN = 13;
    /// The device takes UDP fragmentation offload.
    HOST_UFO = 14;
    /// Received packets may span several buffers.
    MRG_RXBUF = 15;
    /// The configuration holds the link status.
    STATUS = 16;
    /// There is a control virtqueue.
    CTRL_VQ = 17;
    /// Receive modes are set by control commands.
    CTRL_RX = 18;
    /// VLAN filters are set by control commands.
    CTRL_VLAN = 19;
    /// More receive modes are set by control commands.
    CTRL_RX_EXTRA = 20;
    /// The device can ask the driver to announce itself.
    GUEST_ANNOUNCE = 21;
    /// There are several pairs of virtqueues, with automatic receive steering.
    MQ = 22;
    /// The MAC address is set by a control command.
    CTRL_MAC_ADDR = 23;
    /// Statistics can be asked for by control commands.
    DEVICE_STATS = 50;
    /// Notification coalescing can be set for each virtqueue.
    VQ_NOTF_COAL = 52;
    /// Notification coalescing can be set.
    NOTF_COAL = 53;
    /// The driver takes UDP segmentation offload over IPv4.
    GUEST_USO4 = 54;
    /// The driver takes UDP segmentation offload over IPv6.
    GUEST_USO6 = 55;
    /// The device takes UDP segmentation offload.
    HOST_USO = 56;
    /// Packet headers carry a hash.
    HASH_REPORT = 57;
    /// The driver gives the exact length of headers in `hdr_len`.
    GUEST_HDRLEN = 59;
    /// Receive-side scaling.
    RSS = 60;
    /// The device reports coalesced segments and duplicated acknowledgements.
    RSC_EXT = 61;
    /// The device stands by for another one with the same MAC address.
    STANDBY = 62;
    /// The configuration holds speed and duplex.
    SPEED_DUPLEX = 63;
}

/// What features need (virtio 1.3, 5.1.3.1): a feature, and of what one must be there too.
const RULES: &[(Features, Features)] = &[
    (GUEST_TSO4, GUEST_CSUM),
    (GUEST_TSO6, GUEST_CSUM),
    (GUEST_ECN, GUEST_TSO4.union(GUEST_TSO6)),
    (GUEST_UFO, GUEST_CSUM),
    (GUEST_USO4, GUEST_CSUM),
    (GUEST_USO6, GUEST_CSUM),
    (HOST_TSO4, CSUM),
    (HOST_TSO6, CSUM),
    (HOST_ECN, HOST_TSO4.union(HOST_TSO6)),
    (HOST_UFO, CSUM),
    (HOST_USO, CSUM),
    (CTRL_RX, CTRL_VQ),
    (CTRL_RX_EXTRA, CTRL_VQ),
    (CTRL_VLAN, CTRL_VQ),
    (GUEST_ANNOUNCE, CTRL_VQ),
    (MQ, CTRL_VQ),
    (CTRL_MAC_ADDR, CTRL_VQ),
    (CTRL_GUEST_OFFLOADS, CTRL_VQ),
    (NOTF_COAL, CTRL_VQ),
    (VQ_NOTF_COAL, CTRL_VQ),
    (RSS, CTRL_VQ),
    (HASH_REPORT, CTRL_VQ),
    (DEVICE_STATS, CTRL_VQ),
    (RSC_EXT, HOST_TSO4.union(HOST_TSO6)),
];

/// Features that only a legacy driver may use on a network device.
pub const LEGACY_ONLY: Features = Features::LEGACY_ONLY.union(GSO);

/// Checks that every feature comes with what it builds on.
///
/// It serves what an administrator provisions and what a driver acknowledges alike.
///
/// # Errors
///
/// The first feature whose prerequisite is missing.
pub fn check(features: Features) -> Result<(), Unmet> {
    match unmet(RULES, features) {
        Some(pair) => Err(Unmet::from_pair(pair)),
        None => check_common(features),
    }
}

/// Returns the standard's name of a feature of a network device, for a set of exactly one bit.
pub fn name(feature: Features) -> Option<&'static str> {
    name_in(NAMES, feature).or_else(|| feature.common_name())
}

/// Iterates over the names of the features in a set, from the lowest bit up.
///
/// Bits without a name are left out.
pub fn names(features: Features) -> impl Iterator<Item = &'static str> {
    features.iter().filter_map(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prerequisites_are_asked_for() {
        assert_eq!(
            check(MQ),
            Err(Unmet {
                feature: MQ,
                needs: CTRL_VQ
            })
        );
        assert_eq!(check(MQ | CTRL_VQ), Ok(()));
        assert!(check(GUEST_TSO4).is_err());
        assert!(check(HOST_TSO6 | GUEST_CSUM).is_err());
        assert_eq!(check(HOST_TSO6 | CSUM), Ok(()));
        assert_eq!(check(GUEST_ECN | GUEST_TSO6 | GUEST_CSUM), Ok(()));
        assert!(check(GUEST_ECN | GUEST_CSUM).is_err());
        assert!(check(Features::RING_PACKED).is_err());
        assert_eq!(check(Features::NONE), Ok(()));
    }

    #[test]
    fn names_are_the_standards() {
        let set = MAC | Features::VERSION_1 | CTRL_MAC_ADDR;
        assert_eq!(
            names(set).collect::<Vec<_>>(),
            ["MAC", "CTRL_MAC_ADDR", "VERSION_1"]
        );
    }

    #[test]
    fn no_bit_has_two_names() {
        for (at, (bit, _)) in NAMES.iter().enumerate() {
            assert!(NAMES[at + 1..].iter().all(|(other, _)| other != bit));
            assert!(bit.common_name().is_none());
        }
    }
}
