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
use virtio::net::{
    filter::Filter,
    MacAddress,
    BROADCAST, //
};

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

/// Fills in the command that says which addresses of a kind are to come to the port. [`address`] of
/// each follows, `count` in all.
pub(crate) fn set_list(input: &mut ModifyNicVportContextIn, kind: AllowedListType, count: u16) {
    input.field_select_mut().set_addresses_list(true);
    input
        .nic_vport_context_mut()
        .set_allowed_list_type(kind)
        .set_allowed_list_size(count);
}

/// Fills in the command that says whether all frames are to come to the port, and whether all to
/// groups.
pub(crate) fn set_modes(input: &mut ModifyNicVportContextIn, modes: Modes) {
    input.field_select_mut().set_promisc(true);
    input
        .nic_vport_context_mut()
        .set_promisc_all(modes.all)
        .set_promisc_mc(modes.groups);
}

/// What is to come to the port beside what is in its lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Modes {
    /// Everything.
    pub(crate) all: bool,
    /// Frames to all groups.
    pub(crate) groups: bool,
}

/// What is to come to the port of a device whose address is `own` and whose filter is `filter`, or
/// without one what comes to a network interface usually. `each` is called with every address; some
/// may come twice.
///
/// # Errors
///
/// The first error of `each`.
pub(crate) fn wanted<E>(
    filter: Option<&Filter>,
    own: MacAddress,
    mut each: impl FnMut(AllowedListType, MacAddress) -> Result<(), E>,
) -> Result<Modes, E> {
    let Some(filter) = filter else {
        each(AllowedListType::UC, own)?;
        each(AllowedListType::MC, BROADCAST)?;
        return Ok(Modes {
            all: false,
            groups: true,
        });
    };
    for address in filter.unicast(own) {
        each(AllowedListType::UC, address)?;
    }
    for address in filter.multicast() {
        each(AllowedListType::MC, address)?;
    }
    if filter.broadcast() {
        each(AllowedListType::MC, BROADCAST)?;
    }
    Ok(Modes {
        // There is no mode for all single stations: what comes besides is dropped.
        all: filter.is_promiscuous() || filter.all_unicast(),
        groups: filter.all_multicast(),
    })
}

/// An address as an entry of a list.
pub(crate) fn address(mac: MacAddress) -> MacAddressLayout {
    let mut entry = MacAddressLayout::new();
    entry.set_address(mac);
    entry
}

#[cfg(test)]
mod tests {
    use core::convert::Infallible;

    use virtio::net::control::ReceiveMode;

    use super::*;

    const OWN: MacAddress = [2, 0, 0, 0, 0, 1];
    const OTHER: MacAddress = [2, 0, 0, 0, 0, 2];
    const GROUP: MacAddress = [1, 0, 0x5e, 0, 0, 1];

    /// Modes, single stations and groups.
    fn of(filter: Option<&Filter>) -> (bool, bool, Vec<MacAddress>, Vec<MacAddress>) {
        let (mut single, mut groups) = (Vec::new(), Vec::new());
        let modes = wanted(filter, OWN, |kind, address| {
            match kind {
                AllowedListType::UC => single.push(address),
                _ => groups.push(address),
            }
            Ok::<_, Infallible>(())
        });
        let Ok(modes) = modes;
        (modes.all, modes.groups, single, groups)
    }

    #[test]
    fn what_comes_to_the_port() {
        assert_eq!(of(None), (false, true, vec![OWN], vec![BROADCAST]));
        let mut filter = Filter::RESET;
        assert_eq!(of(Some(&filter)), (true, false, vec![OWN], vec![BROADCAST]));
        filter.set_mode(ReceiveMode::Promiscuous, false);
        filter.set_tables(Some([OTHER].into_iter()), Some([GROUP].into_iter()));
        let tables = (vec![OWN, OTHER], vec![GROUP, BROADCAST]);
        assert_eq!(
            of(Some(&filter)),
            (false, false, tables.0.clone(), tables.1.clone())
        );
        filter.set_mode(ReceiveMode::AllUnicast, true);
        filter.set_mode(ReceiveMode::AllMulticast, true);
        assert_eq!(of(Some(&filter)), (true, true, tables.0, tables.1));
        filter.set_mode(ReceiveMode::NoUnicast, true);
        filter.set_mode(ReceiveMode::NoMulticast, true);
        filter.set_mode(ReceiveMode::NoBroadcast, true);
        assert_eq!(of(Some(&filter)), (false, false, vec![], vec![]));
    }

    #[test]
    fn commands() {
        let mut input = ModifyNicVportContextIn::new();
        set_modes(
            &mut input,
            Modes {
                all: true,
                groups: false,
            },
        );
        let (select, context) = (input.field_select(), input.nic_vport_context());
        assert!(select.promisc() && !select.addresses_list() && !select.mtu());
        assert!(context.promisc_all() && !context.promisc_mc() && !context.promisc_uc());
        let mut input = ModifyNicVportContextIn::new();
        set_list(&mut input, AllowedListType::MC, 3);
        let (select, context) = (input.field_select(), input.nic_vport_context());
        assert!(select.addresses_list() && !select.promisc());
        assert_eq!(context.allowed_list_type(), Ok(AllowedListType::MC));
        assert_eq!(context.allowed_list_size(), 3);
    }
}
