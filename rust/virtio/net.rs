// SPDX-License-Identifier: GPL-2.0

//! The network device (virtio 1.3, 5.1).

pub mod config;
pub mod control;
pub mod features;
pub mod filter;
pub mod header;
pub mod relay;
pub mod rss;

/// The length of an Ethernet address in bytes.
pub const MAC_LEN: usize = 6;

/// An Ethernet address, first byte on the wire first.
pub type MacAddress = [u8; MAC_LEN];

/// The address of every station.
pub const BROADCAST: MacAddress = [0xff; MAC_LEN];

/// Returns whether an address is that of a group of stations, broadcast among them.
pub fn is_group_address(mac: &MacAddress) -> bool {
    mac[0] & 1 != 0
}

/// Returns whether an address can be that of one network interface: neither that of a group, nor
/// nobody's.
pub fn is_station_address(mac: &MacAddress) -> bool {
    !is_group_address(mac) && *mac != [0; MAC_LEN]
}
