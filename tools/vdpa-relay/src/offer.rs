// SPDX-License-Identifier: GPL-2.0

//! What a monitor is offered of a device, and what the device is told that was acknowledged.

use virtio::{
    features::Features,
    net::features as net, //
};

use crate::{
    device::Traits,
    wire::protocol, //
};

/// Network devices, as virtio numbers them.
pub const KIND_NET: u32 = 1;

/// What vhost-user has no words for, or other words.
const NOT_RELAYED: Features = Features::BAD_FEATURE
    .union(Features::ACCESS_PLATFORM)
    .union(Features::SR_IOV)
    .union(Features::NOTIFICATION_DATA)
    .union(Features::NOTIF_CONFIG_DATA)
    .union(Features::RING_RESET)
    .union(Features::ADMIN_VQ)
    .union(Features::SUSPEND)
    // Writes to memory would have to be logged.
    .union(Features::bit(26));

/// Features of network devices that need the control queue.
///
/// A VMM with vhost-user answers the control queue itself and tells a back end next to nothing of
/// it. So the device has none, and then is promiscuous: what the driver sets with the VMM cannot
/// matter to it.
const CONTROLLED: Features = net::CTRL_VQ
    .union(net::CTRL_GUEST_OFFLOADS)
    .union(net::CTRL_RX)
    .union(net::CTRL_VLAN)
    .union(net::CTRL_RX_EXTRA)
    .union(net::GUEST_ANNOUNCE)
    .union(net::MQ)
    .union(net::CTRL_MAC_ADDR)
    .union(net::DEVICE_STATS)
    .union(net::VQ_NOTF_COAL)
    .union(net::NOTF_COAL)
    .union(net::HASH_REPORT)
    .union(net::RSS);

/// Returns the features that a monitor is offered.
pub fn features(traits: &Traits) -> Features {
    let offered = Features::from_bits(traits.features).without(NOT_RELAYED);
    if traits.id == KIND_NET {
        offered.without(CONTROLLED)
    } else {
        offered
    }
}

/// Returns what a device is told when the monitor acknowledged `features`.
///
/// The addresses it is given are those of its map, whatever the driver thinks they are.
pub fn acknowledged(traits: &Traits, acknowledged: u64) -> Features {
    let platform = Features::from_bits(traits.features).intersection(Features::ACCESS_PLATFORM);
    Features::from_bits(acknowledged)
        .intersection(features(traits))
        .union(platform)
}

/// Returns the protocol features that a monitor is offered.
pub fn protocol(traits: &Traits) -> u64 {
    let order = if traits.any_byte_order {
        protocol::CROSS_ENDIAN
    } else {
        0
    };
    order
        | protocol::MQ
        | protocol::REPLY_ACK
        | protocol::BACKEND_REQ
        | protocol::CONFIG
        | protocol::RESET_DEVICE
        | protocol::CONFIGURE_MEM_SLOTS
        | protocol::STATUS
}

/// Returns how many rings a monitor may use: of a network device those of one queue pair.
pub fn rings(traits: &Traits) -> u32 {
    if traits.id == KIND_NET {
        traits.rings.min(2)
    } else {
        traits.rings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered_and_what_is_added() {
        let whole = Traits {
            id: KIND_NET,
            features: u64::MAX,
            rings: 5,
            ..Traits::default()
        };
        let offered = features(&whole);
        assert!(offered.contains(Features::VERSION_1.union(net::CSUM)));
        assert!(!offered.intersects(NOT_RELAYED.union(CONTROLLED)));
        assert_eq!(virtio::net::features::check(offered), Ok(()));
        assert_eq!(rings(&whole), 2);
        // What was not offered is not passed on, but for what the relay answers for itself.
        assert_eq!(
            acknowledged(&whole, u64::MAX),
            offered.union(Features::ACCESS_PLATFORM)
        );
        let plain = Traits {
            features: Features::VERSION_1.bits(),
            ..whole
        };
        assert_eq!(acknowledged(&plain, 0), Features::NONE);

        let other = Traits { id: 2, ..whole };
        assert!(features(&other).contains(net::MQ));
        assert_eq!(rings(&other), 5);
        assert_eq!(protocol(&other) & protocol::CROSS_ENDIAN, 0);
        let both = Traits {
            any_byte_order: true,
            ..other
        };
        assert_ne!(protocol(&both) & protocol::CROSS_ENDIAN, 0);
    }
}
