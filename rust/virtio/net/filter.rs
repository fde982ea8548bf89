// SPDX-License-Identifier: GPL-2.0

//! What a driver wants to receive (virtio 1.3, 5.1.6.5.1 to 5.1.6.5.3).
//!
//! It sets the filter by control commands. Before it does, and after a reset, the device is
//! promiscuous, as QEMU's own virtio-net is and as its vhost-vdpa backend expects when it restores
//! a device's state.

use super::control::{ReceiveMode, VLANS};
use super::{is_group_address, MacAddress, BROADCAST};

/// Addresses that each of the two MAC tables holds; a longer table makes the device receive every
/// address of the kind, as the standard allows ("the device MAY use a hash filter or silently
/// switch to allmulti or promiscuous mode if it is given too many addresses").
pub const MAC_TABLE_LEN: usize = 64;

/// Words of the VLAN table, one bit for each VLAN.
const WORDS: usize = VLANS as usize / 64;

/// The receive modes, one for each command of class `VIRTIO_NET_CTRL_RX`.
#[derive(Clone, Copy, Debug)]
struct Modes {
    promisc: bool,
    allmulti: bool,
    alluni: bool,
    nomulti: bool,
    nouni: bool,
    nobcast: bool,
}

/// A table of MAC addresses, or "all of them" when it was too long to keep.
#[derive(Clone, Debug)]
struct MacTable {
    macs: [MacAddress; MAC_TABLE_LEN],
    len: usize,
    overflow: bool,
}

impl MacTable {
    const EMPTY: Self = Self {
        macs: [[0; 6]; MAC_TABLE_LEN],
        len: 0,
        overflow: false,
    };

    fn set(&mut self, macs: Option<impl Iterator<Item = MacAddress>>) {
        *self = Self::EMPTY;
        let Some(macs) = macs else {
            self.overflow = true;
            return;
        };
        for mac in macs {
            match self.macs.get_mut(self.len) {
                Some(place) => {
                    *place = mac;
                    self.len += 1;
                }
                None => self.overflow = true,
            }
        }
    }

    fn has(&self, mac: &MacAddress) -> bool {
        self.overflow || self.addresses().any(|m| m == *mac)
    }

    fn addresses(&self) -> impl Iterator<Item = MacAddress> + '_ {
        self.macs.iter().take(self.len).copied()
    }
}

/// The receive filter of a device.
#[derive(Clone, Debug)]
pub struct Filter {
    modes: Modes,
    unicast: MacTable,
    multicast: MacTable,
    /// Whether the driver filters VLANs at all (`VIRTIO_NET_F_CTRL_VLAN` acknowledged).
    vlan_filter: bool,
    vlans: [u64; WORDS],
}

impl Filter {
    /// The filter after a reset: promiscuous, no VLAN filter.
    pub const RESET: Self = Self {
        modes: Modes {
            promisc: true,
            allmulti: false,
            alluni: false,
            nomulti: false,
            nouni: false,
            nobcast: false,
        },
        unicast: MacTable::EMPTY,
        multicast: MacTable::EMPTY,
        vlan_filter: false,
        vlans: [0; WORDS],
    };

    /// Returns to [`Filter::RESET`].
    pub fn reset(&mut self) {
        *self = Self::RESET;
    }

    /// Switches a receive mode on or off.
    pub fn set_mode(&mut self, mode: ReceiveMode, on: bool) {
        *match mode {
            ReceiveMode::Promiscuous => &mut self.modes.promisc,
            ReceiveMode::AllMulticast => &mut self.modes.allmulti,
            ReceiveMode::AllUnicast => &mut self.modes.alluni,
            ReceiveMode::NoMulticast => &mut self.modes.nomulti,
            ReceiveMode::NoUnicast => &mut self.modes.nouni,
            ReceiveMode::NoBroadcast => &mut self.modes.nobcast,
        } = on;
    }

    /// Replaces both MAC tables (`VIRTIO_NET_CTRL_MAC_TABLE_SET`); `None` stands for one that was
    /// too long to read.
    pub fn set_tables(
        &mut self,
        unicast: Option<impl Iterator<Item = MacAddress>>,
        multicast: Option<impl Iterator<Item = MacAddress>>,
    ) {
        self.unicast.set(unicast);
        self.multicast.set(multicast);
    }

    /// Turns the VLAN filter on or off. It is on exactly while a driver runs that acknowledged
    /// `VIRTIO_NET_F_CTRL_VLAN`.
    pub fn set_vlan_filter(&mut self, on: bool) {
        self.vlan_filter = on;
    }

    /// Lets the VLAN `id`, which is below 4096, in or no longer in.
    pub fn set_vlan(&mut self, id: u16, on: bool) {
        if let Some(word) = self.vlans.get_mut(usize::from(id / 64)) {
            let bit = 1u64 << (id % 64);
            if on {
                *word |= bit;
            } else {
                *word &= !bit;
            }
        }
    }

    /// Makes the device receive what a network interface usually does: its own address, broadcast
    /// and all multicast. For a driver that has no way to ask for that, on a device that had better
    /// not be promiscuous.
    pub fn set_ordinary(&mut self) {
        self.set_mode(ReceiveMode::Promiscuous, false);
        self.set_mode(ReceiveMode::AllMulticast, true);
    }

    /// Returns whether everything is received, whatever else the filter says.
    pub fn is_promiscuous(&self) -> bool {
        self.modes.promisc
    }

    /// Returns whether every address of a single station is received.
    pub fn all_unicast(&self) -> bool {
        !self.modes.nouni && (self.modes.alluni || self.unicast.overflow)
    }

    /// Returns whether every address of a group is received, but for broadcast.
    pub fn all_multicast(&self) -> bool {
        !self.modes.nomulti && (self.modes.allmulti || self.multicast.overflow)
    }

    /// Returns whether broadcast is received.
    pub fn broadcast(&self) -> bool {
        !self.modes.nobcast
    }

    /// Iterates over the single stations that are received beside others: `own`, and those of the
    /// table. Some may come twice.
    pub fn unicast(&self, own: MacAddress) -> impl Iterator<Item = MacAddress> + '_ {
        let table = self.unicast.addresses();
        core::iter::once(own)
            .chain(table)
            .filter(|mac| !self.modes.nouni && !is_group_address(mac))
    }

    /// Iterates over the groups of the table, without broadcast. Some may come twice.
    pub fn multicast(&self) -> impl Iterator<Item = MacAddress> + '_ {
        self.multicast
            .addresses()
            .filter(|mac| !self.modes.nomulti && is_group_address(mac) && *mac != BROADCAST)
    }

    /// Returns whether VLANs are filtered.
    pub fn filters_vlans(&self) -> bool {
        self.vlan_filter
    }

    /// Iterates over the VLANs that the driver let in.
    pub fn vlans(&self) -> impl Iterator<Item = u16> + '_ {
        (0..VLANS).filter(|&id| {
            let word = self.vlans.get(usize::from(id / 64)).copied().unwrap_or(0);
            word & (1u64 << (id % 64)) != 0
        })
    }

    /// Returns whether the device whose address is `own` receives a frame sent to `to`.
    ///
    /// `vlan` is the frame's VLAN if it carries an 802.1Q tag. Other frames pass the VLAN filter, as
    /// Linux tells the device of no service VLANs. A promiscuous device receives whatever there is, as
    /// one of QEMU's does: a driver that wants that, for a bridge or a sniffer, adds no VLANs.
    pub fn accepts(&self, own: &MacAddress, to: &MacAddress, vlan: Option<u16>) -> bool {
        let modes = &self.modes;
        if modes.promisc {
            return true;
        }
        if let (true, Some(id)) = (self.vlan_filter, vlan) {
            let word = self.vlans.get(usize::from(id / 64)).copied().unwrap_or(0);
            // Tag 0 carries a priority and no VLAN.
            if id != 0 && word & (1u64 << (id % 64)) == 0 {
                return false;
            }
        }

        if *to == BROADCAST {
            !modes.nobcast
        } else if is_group_address(to) {
            !modes.nomulti && (modes.allmulti || self.multicast.has(to))
        } else {
            !modes.nouni && (modes.alluni || to == own || self.unicast.has(to))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: MacAddress = [2, 0, 0, 0, 0, 1];
    const OTHER: MacAddress = [2, 0, 0, 0, 0, 2];
    const GROUP: MacAddress = [1, 0, 0x5e, 0, 0, 1];

    fn quiet() -> Filter {
        let mut filter = Filter::RESET;
        filter.set_mode(ReceiveMode::Promiscuous, false);
        filter
    }

    #[test]
    fn promiscuous_after_reset() {
        let mut filter = quiet();
        filter.reset();
        for to in [OWN, OTHER, GROUP, BROADCAST] {
            assert!(filter.accepts(&OWN, &to, None));
            assert!(filter.accepts(&OWN, &to, Some(7)));
        }
    }

    #[test]
    fn own_address_and_broadcast_only() {
        let filter = quiet();
        assert!(filter.accepts(&OWN, &OWN, None));
        assert!(filter.accepts(&OWN, &BROADCAST, None));
        assert!(!filter.accepts(&OWN, &OTHER, None));
        assert!(!filter.accepts(&OWN, &GROUP, None));
    }

    #[test]
    fn modes() {
        let mut filter = quiet();
        filter.set_mode(ReceiveMode::AllMulticast, true);
        assert!(filter.accepts(&OWN, &GROUP, None));
        filter.set_mode(ReceiveMode::NoMulticast, true);
        assert!(!filter.accepts(&OWN, &GROUP, None));
        filter.set_mode(ReceiveMode::AllUnicast, true);
        assert!(filter.accepts(&OWN, &OTHER, None));
        filter.set_mode(ReceiveMode::NoUnicast, true);
        assert!(!filter.accepts(&OWN, &OWN, None));
        filter.set_mode(ReceiveMode::NoBroadcast, true);
        assert!(!filter.accepts(&OWN, &BROADCAST, None));
        filter.set_mode(ReceiveMode::Promiscuous, true);
        assert!(filter.accepts(&OWN, &OTHER, None));
    }

    #[test]
    fn tables_are_replaced() {
        let mut filter = quiet();
        filter.set_tables(Some([OTHER].into_iter()), Some([GROUP].into_iter()));
        assert!(filter.accepts(&OWN, &OTHER, None));
        assert!(filter.accepts(&OWN, &GROUP, None));
        filter.set_tables(Some([].into_iter()), Some([].into_iter()));
        assert!(!filter.accepts(&OWN, &OTHER, None));
        assert!(!filter.accepts(&OWN, &GROUP, None));
    }

    #[test]
    fn a_table_too_long_admits_all_of_its_kind() {
        let mut filter = quiet();
        let many = (0..=MAC_TABLE_LEN).map(|i| [2, 1, 0, 0, 0, i as u8]);
        filter.set_tables(Some(many), Some([].into_iter()));
        assert!(filter.accepts(&OWN, &OTHER, None));
        assert!(!filter.accepts(&OWN, &GROUP, None));
        filter.set_tables(Some([].into_iter()), None::<core::iter::Empty<MacAddress>>);
        assert!(!filter.accepts(&OWN, &OTHER, None));
        assert!(filter.accepts(&OWN, &GROUP, None));
    }

    #[test]
    fn what_is_received_can_be_listed() {
        let mut filter = quiet();
        assert!(filter.broadcast() && !filter.all_unicast() && !filter.all_multicast());
        let unicast = [OTHER, GROUP, OTHER];
        let multicast = [GROUP, BROADCAST, OTHER];
        filter.set_tables(Some(unicast.into_iter()), Some(multicast.into_iter()));
        assert!(filter.unicast(OWN).eq([OWN, OTHER, OTHER]));
        assert!(filter.multicast().eq([GROUP]));
        filter.set_mode(ReceiveMode::NoUnicast, true);
        filter.set_mode(ReceiveMode::NoMulticast, true);
        filter.set_mode(ReceiveMode::NoBroadcast, true);
        assert_eq!(filter.unicast(OWN).count() + filter.multicast().count(), 0);
        assert!(!filter.broadcast());

        filter.reset();
        assert!(filter.is_promiscuous());
        filter.set_ordinary();
        assert!(!filter.is_promiscuous() && filter.all_multicast() && filter.broadcast());
        assert!(filter.unicast(OWN).eq([OWN]));

        for id in [0, 64, 4095] {
            filter.set_vlan(id, true);
        }
        assert!(filter.vlans().eq([0, 64, 4095]));
    }

    #[test]
    fn vlans() {
        let mut filter = quiet();
        filter.set_vlan_filter(true);
        assert!(filter.accepts(&OWN, &OWN, None));
        assert!(filter.accepts(&OWN, &OWN, Some(0)));
        assert!(!filter.accepts(&OWN, &OWN, Some(7)));
        filter.set_vlan(7, true);
        assert!(filter.accepts(&OWN, &OWN, Some(7)));
        assert!(!filter.accepts(&OWN, &OWN, Some(8)));
        filter.set_vlan(7, false);
        assert!(!filter.accepts(&OWN, &OWN, Some(7)));
        filter.set_vlan(4095, true);
        assert!(filter.accepts(&OWN, &OWN, Some(4095)));
        filter.set_mode(ReceiveMode::Promiscuous, true);
        assert!(filter.accepts(&OWN, &OTHER, Some(7)));
    }
}
