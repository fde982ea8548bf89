// SPDX-License-Identifier: GPL-2.0

//! State and contexts of the port, by commands.

use prm::{
    command::OutputHeader,
    vport::{
        AllowedListType,
        MacAddressLayout,
        ModifyNicVportContext,
        ModifyNicVportContextIn,
        ModifyVportState,
        ModifyVportStateIn,
        NicVportContext,
        QueryHcaVportContext,
        QueryHcaVportContextIn,
        QueryHcaVportContextOut,
        QueryNicVportContext,
        QueryNicVportContextIn,
        QueryNicVportContextOut,
        QueryVportState,
        QueryVportStateIn,
        QueryVportStateOut,
        VlanLayout,
        VportAdminState,
        VportOpMod,
        VportState, //
    },
    Layout, //
};
use zerocopy::IntoBytes;

use super::{
    Filters,
    Vport,
    MAX_MTU, //
};
use crate::{
    command::{
        handler,
        Execute,
        Handler,
        Reply, //
    },
    eq::Event,
    hca::Hca,
    refusal::Refusal, //
};

/// The smallest MTU: the smallest frame there is.
const MIN_MTU: u16 = 64;

/// What the context of a port says of its link: physically up, and active.
const PHYSICAL_UP: u8 = 5;
const PORT_DOWN: u8 = 1;
const PORT_ACTIVE: u8 = 4;

/// The size of an entry of a list in bytes, whatever the list is of.
const ENTRY_BYTES: usize = 8;

/// Refuses a port other than the function's own.
///
/// # Errors
///
/// [`Refusal::OtherVport`].
pub(super) fn own_vport(other: bool, number: u16) -> Result<(), Refusal> {
    if other || number != 0 {
        return Err(Refusal::OtherVport);
    }
    Ok(())
}

/// A number that identifies the function, made from its permanent address as an EUI-64 is.
fn guid(vport: &Vport) -> u64 {
    let [a, b, c, d, e, f] = vport.permanent_mac;
    u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

impl Execute for QueryVportState {
    fn execute(
        hca: &mut Hca,
        input: &QueryVportStateIn,
        _: &[u8],
    ) -> Result<Reply<QueryVportStateOut>, Refusal> {
        own_vport(input.other_vport(), input.vport_number())?;
        let state = hca.vport.state();
        let up = match input.op_mod().map_err(|_| Refusal::UnknownVariant)? {
            VportOpMod::VNIC_VPORT | VportOpMod::ESW_VPORT => state.is_up(),
            VportOpMod::UPLINK => state.uplink,
        };
        let mut output = QueryVportStateOut::new();
        output.set_admin_state(state.admin).set_state(match up {
            true => VportState::UP,
            false => VportState::DOWN,
        });
        Ok(output.into())
    }
}

impl Execute for ModifyVportState {
    fn execute(
        hca: &mut Hca,
        input: &ModifyVportStateIn,
        _: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        own_vport(input.other_vport(), input.vport_number())?;
        if input.op_mod() != Ok(VportOpMod::VNIC_VPORT) || input.max_tx_speed() != 0 {
            return Err(Refusal::NotOfVport);
        }
        let admin = input.admin_state().map_err(|_| Refusal::NotOfVport)?;
        let changed = hca.vport.change(|state| {
            state.admin = admin;
            Ok(())
        })?;
        if let Some(up) = changed {
            hca.platform.events.post(Event::PortChange { up });
        }
        Ok(Reply::done())
    }
}

/// The entries of a list, as they follow a context.
fn list(filters: &Filters, list: AllowedListType) -> Vec<u8> {
    let address = |address: &[u8; 6]| {
        let mut entry = MacAddressLayout::new();
        entry.set_address(*address);
        entry.as_bytes().to_vec()
    };
    let vlan = |vlan: &u16| {
        let mut entry = VlanLayout::new();
        entry.set_vlan(*vlan);
        entry.as_bytes().to_vec()
    };
    match list {
        AllowedListType::UC => filters.unicast.iter().flat_map(address).collect(),
        AllowedListType::MC => filters.multicast.iter().flat_map(address).collect(),
        AllowedListType::VLAN => filters.vlans.iter().flat_map(vlan).collect(),
    }
}

impl Execute for QueryNicVportContext {
    fn execute(
        hca: &mut Hca,
        input: &QueryNicVportContextIn,
        _: &[u8],
    ) -> Result<Reply<QueryNicVportContextOut>, Refusal> {
        own_vport(input.other_vport(), input.vport_number())?;
        let which = input
            .allowed_list_type()
            .map_err(|_| Refusal::UnknownList)?;
        let guid = guid(&hca.vport);
        let state = hca.vport.state();
        let filters = &state.filters;
        let mut output = QueryNicVportContextOut::new();
        let context = output.nic_vport_context_mut();
        context
            .set_disable_mc_local_lb(filters.disable_mc_local_lb)
            .set_disable_uc_local_lb(filters.disable_uc_local_lb)
            .set_mtu(state.mtu)
            .set_system_image_guid(guid)
            .set_port_guid(guid)
            .set_node_guid(guid)
            .set_promisc_uc(filters.promisc_uc)
            .set_promisc_mc(filters.promisc_mc)
            .set_promisc_all(filters.promisc_all)
            .set_allowed_list_type(which)
            // No list is longer than its capability, of 5 bits, says: 4096 VLANs at most.
            .set_allowed_list_size(filters.len(which) as u16)
            .permanent_address_mut()
            .set_address(state.mac);
        let tail = list(filters, which);
        Ok(Reply { output, tail })
    }
}

/// Reads a list that follows a context.
fn read_list(
    hca: &Hca,
    context: &NicVportContext,
    tail: &[u8],
    filters: &mut Filters,
) -> Result<(), Refusal> {
    let which = context
        .allowed_list_type()
        .map_err(|_| Refusal::UnknownList)?;
    let count = usize::from(context.allowed_list_size());
    let general = &hca.platform.profile.general;
    let log_most = match which {
        AllowedListType::UC => general.log_max_current_uc_list(),
        AllowedListType::MC => general.log_max_current_mc_list(),
        // There are no more than 4096, and 4095 is none.
        AllowedListType::VLAN => general.log_max_vlan_list().min(12),
    };
    if count > 1 << log_most {
        return Err(Refusal::TooManyAddresses);
    }
    let entries = tail.chunks_exact(ENTRY_BYTES).take(count);
    if entries.len() < count {
        return Err(Refusal::ListTooShort);
    }
    let addresses = |group: bool| {
        let addresses = entries
            .clone()
            .map(|entry| match MacAddressLayout::split(entry) {
                Some((entry, _)) if (entry.address()[0] & 1 == 1) == group => Ok(entry.address()),
                _ => Err(Refusal::NotOfVport),
            });
        addresses.collect::<Result<Vec<_>, _>>()
    };
    match which {
        AllowedListType::UC => filters.unicast = addresses(false)?,
        AllowedListType::MC => filters.multicast = addresses(true)?,
        AllowedListType::VLAN => {
            let vlans =
                entries.map(|entry| VlanLayout::split(entry).map(|(entry, _)| entry.vlan()));
            filters.vlans = vlans.flatten().collect();
        }
    }
    Ok(())
}

impl Execute for ModifyNicVportContext {
    fn execute(
        hca: &mut Hca,
        input: &ModifyNicVportContextIn,
        tail: &[u8],
    ) -> Result<Reply<OutputHeader>, Refusal> {
        own_vport(input.other_vport(), input.vport_number())?;
        let select = input.field_select();
        let context = input.nic_vport_context();
        if select.affiliation()
            || select.node_guid()
            || select.port_guid()
            || select.min_inline()
            || select.change_event()
            || select.roce_en()
        {
            return Err(Refusal::NotOfVport);
        }
        hca.vport.change(|state| {
            if select.mtu() {
                if !(MIN_MTU..=MAX_MTU).contains(&context.mtu()) {
                    return Err(Refusal::MtuOutOfRange);
                }
                state.mtu = context.mtu();
            }
            if select.permanent_address() {
                let address = context.permanent_address().address();
                if address == [0; 6] || address[0] & 1 == 1 {
                    return Err(Refusal::NotOfVport);
                }
                state.mac = address;
            }
            if select.disable_uc_local_lb() {
                state.filters.disable_uc_local_lb = context.disable_uc_local_lb();
            }
            if select.disable_mc_local_lb() {
                state.filters.disable_mc_local_lb = context.disable_mc_local_lb();
            }
            if select.promisc() {
                state.filters.promisc_uc = context.promisc_uc();
                state.filters.promisc_mc = context.promisc_mc();
                state.filters.promisc_all = context.promisc_all();
            }
            if select.addresses_list() {
                read_list(hca, context, tail, &mut state.filters)?;
            }
            Ok(())
        })?;
        Ok(Reply::done())
    }
}

impl Execute for QueryHcaVportContext {
    fn execute(
        hca: &mut Hca,
        input: &QueryHcaVportContextIn,
        _: &[u8],
    ) -> Result<Reply<QueryHcaVportContextOut>, Refusal> {
        own_vport(input.other_vport(), input.vport_number())?;
        if input.port_num() > 1 {
            return Err(Refusal::OtherVport);
        }
        let guid = guid(&hca.vport);
        let state = hca.vport.state();
        let link = |up| if up { PORT_ACTIVE } else { PORT_DOWN };
        let mut output = QueryHcaVportContextOut::new();
        output
            .hca_vport_context_mut()
            .set_has_raw(true)
            .set_port_physical_state(if state.uplink { PHYSICAL_UP } else { 0 })
            .set_vport_state_policy(match state.admin {
                VportAdminState::DOWN => 0,
                VportAdminState::UP => 1,
                VportAdminState::AUTO => 2,
            })
            .set_port_state(link(state.uplink))
            .set_vport_state(link(state.is_up()))
            .set_system_image_guid(guid)
            .set_port_guid(guid)
            .set_node_guid(guid);
        Ok(output.into())
    }
}

/// The commands of this area.
pub(crate) const COMMANDS: &[Handler] = &[
    handler::<QueryVportState>(),
    handler::<ModifyVportState>(),
    handler::<QueryNicVportContext>(),
    handler::<ModifyNicVportContext>(),
    handler::<QueryHcaVportContext>(),
];
