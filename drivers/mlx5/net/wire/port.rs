// SPDX-License-Identifier: GPL-2.0

//! Commands for the port of the function on its switch.

use prm::{
    vport::{
        AllowedListType,
        MacAddressLayout,
        ModifyNicVportContextIn,
        QueryNicVportContextOut,
        QueryVportStateOut,
        VportState, //
    },
    Layout, //
};
use virtio::net::MacAddress;

/// The bytes of a frame that the MTU of a port counts besides those that an Ethernet MTU counts:
/// header, VLAN tag and check sequence.
const OVERHEAD: u16 = 22;

/// What the port is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// Its address; zero if the administrator of the board gave it none.
    pub(crate) mac: MacAddress,
    /// The largest payload of an Ethernet frame in bytes.
    pub(crate) mtu: u16,
    /// Whether the link is up.
    pub(crate) up: bool,
}

/// Reads what the port is like.
pub(crate) fn read(context: &QueryNicVportContextOut, state: &QueryVportStateOut) -> Port {
    let context = context.nic_vport_context();
    Port {
        mac: context.permanent_address().address(),
        mtu: context.mtu().saturating_sub(OVERHEAD),
        up: is_up(state),
    }
}

/// Returns whether the link is up.
pub(crate) fn is_up(state: &QueryVportStateOut) -> bool {
    state.state() == Ok(VportState::UP)
}

/// Fills in the command that gives the port an MTU, by the largest payload of an Ethernet frame.
pub(crate) fn set_mtu(input: &mut ModifyNicVportContextIn, mtu: u16) {
    input.field_select_mut().set_mtu(true);
    input
        .nic_vport_context_mut()
        .set_mtu(mtu.saturating_add(OVERHEAD));
}

/// Fills in the command that says which single stations the function is. [`address`] of each
/// follows, `count` in all.
pub(crate) fn set_stations(input: &mut ModifyNicVportContextIn, count: u16) {
    input.field_select_mut().set_addresses_list(true);
    input
        .nic_vport_context_mut()
        .set_allowed_list_type(AllowedListType::UC)
        .set_allowed_list_size(count);
}

/// An address as an entry of a list.
pub(crate) fn address(mac: MacAddress) -> MacAddressLayout {
    let mut entry = MacAddressLayout::new();
    entry.set_address(mac);
    entry
}
