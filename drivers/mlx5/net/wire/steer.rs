// SPDX-License-Identifier: GPL-2.0

//! Commands for flow tables, and for what they lead to: receive interfaces (TIR) and tables of
//! queues (RQT).
//!
//! Table, group and index of an entry are all that says which it is, when it is made and when it is
//! taken away.

use prm::{
    flow::{
        CreateFlowGroupIn,
        CreateFlowTableIn,
        DeleteFteIn,
        DestFormat,
        DestroyFlowGroupIn,
        DestroyFlowTableIn,
        FlowDestinationType,
        FlowTableType,
        FteMatchSetLyr24,
        SetFlowTableRootIn,
        SetFteIn,
        ACTION_DROP,
        ACTION_FWD_DEST,
        MATCH_OUTER_HEADERS, //
    },
    rqt::{
        CreateRqtIn,
        ListQType,
        ModifyRqtIn,
        RqNum, //
    },
    tir::{
        CreateTirIn,
        DispType,
        RxHashFn, //
    },
    Layout, //
};
use virtio::net::{
    MacAddress,
    BROADCAST, //
};
use zerocopy::IntoBytes;

use crate::net::steering::{
    rules::{
        Group,
        Rule,
        Table, //
    },
    spread::{
        Compared,
        Hashing,
        Traffic, //
    }, //
};

/// The bytes of an entry of a table of queues, and of a destination of an entry.
pub(crate) const QUEUE_BYTES: usize = size_of::<RqNum>();

/// What the entries of a group compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Criteria {
    /// Those of a table of the filter.
    Filter(Table, Group),
    /// Those of the table that tells kinds of traffic apart.
    Traffic(Compared),
}

impl Criteria {
    /// Fills in which bits are compared.
    fn write(self, mask: &mut FteMatchSetLyr24) {
        match self {
            Self::Filter(Table::Vlan, group) => {
                mask.set_cvlan_tag(true);
                if group == Group::Exact {
                    mask.set_first_vid(0xfff);
                }
            }
            Self::Filter(Table::Mac, Group::Exact) => write_address(mask, BROADCAST),
            Self::Filter(Table::Mac, Group::Kind) => write_address(mask, GROUP_BIT),
            Self::Traffic(Compared::Transport) => {
                mask.set_ethertype(u16::MAX).set_ip_protocol(u8::MAX);
            }
            Self::Traffic(Compared::Network) => {
                mask.set_ethertype(u16::MAX);
            }
            Self::Traffic(Compared::Nothing) => {}
        }
    }
}

/// The bit of addresses of groups.
const GROUP_BIT: MacAddress = [1, 0, 0, 0, 0, 0];

fn write_address(set: &mut FteMatchSetLyr24, address: MacAddress) {
    let [a, b, c, d, e, f] = address;
    set.set_dmac_47_16(u32::from_be_bytes([a, b, c, d]))
        .set_dmac_15_0(u16::from_be_bytes([e, f]));
}

/// What an entry matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// What a rule of the filter is for.
    Rule(Rule),
    /// A kind of traffic.
    Traffic(Traffic),
}

impl Match {
    /// Fills in the values of the bits that its group compares.
    fn write(self, value: &mut FteMatchSetLyr24) {
        match self {
            Self::Rule(Rule::Untagged | Rule::AllUnicast) => {}
            Self::Rule(Rule::Tagged) => {
                value.set_cvlan_tag(true);
            }
            Self::Rule(Rule::Vlan(id)) => {
                value.set_cvlan_tag(true).set_first_vid(id);
            }
            Self::Rule(Rule::AllMulticast) => write_address(value, GROUP_BIT),
            Self::Rule(Rule::Address(address)) => write_address(value, address),
            Self::Rule(Rule::DropBroadcast) => write_address(value, BROADCAST),
            Self::Traffic(traffic) => {
                value
                    .set_ethertype(traffic.ethertype())
                    .set_ip_protocol(traffic.protocol());
            }
        }
    }
}

/// Where an entry sends frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// To another table.
    Table(u32),
    /// To a receive interface.
    Tir(u32),
    /// Nowhere.
    Nowhere,
}

impl Destination {
    /// What follows the fixed part of the command that makes the entry.
    pub(crate) fn list(self) -> Option<DestFormat> {
        let (kind, id) = match self {
            Self::Table(id) => (FlowDestinationType::FLOW_TABLE, id),
            Self::Tir(id) => (FlowDestinationType::TIR, id),
            Self::Nowhere => return None,
        };
        let mut format = DestFormat::new();
        format.set_destination_type(kind).set_destination_id(id);
        Some(format)
    }
}

/// Fills in CREATE of a table.
pub(crate) fn table(input: &mut CreateFlowTableIn, level: u8, log_size: u8) {
    input
        .set_table_type(FlowTableType::NIC_RX)
        .flow_table_context_mut()
        .set_level(level)
        .set_log_size(log_size);
}

/// Fills in DESTROY of a table, but for its number.
pub(crate) fn end_table(input: &mut DestroyFlowTableIn) {
    input.set_table_type(FlowTableType::NIC_RX);
}

/// Fills in the command by which matching begins in a table.
pub(crate) fn root(input: &mut SetFlowTableRootIn, table: u32) {
    input
        .set_table_type(FlowTableType::NIC_RX)
        .set_table_id(table);
}

/// Fills in CREATE of a group of a table, whose entries have the indices `first` to `last`.
pub(crate) fn group(
    input: &mut CreateFlowGroupIn,
    table: u32,
    (first, last): (u32, u32),
    criteria: Criteria,
) {
    input
        .set_table_type(FlowTableType::NIC_RX)
        .set_table_id(table)
        .set_start_flow_index(first)
        .set_end_flow_index(last);
    if criteria != Criteria::Traffic(Compared::Nothing) {
        input.set_match_criteria_enable(MATCH_OUTER_HEADERS);
        criteria.write(input.match_criteria_mut().outer_headers_mut());
    }
}

/// Fills in DESTROY of a group of a table, but for its number.
pub(crate) fn end_group(input: &mut DestroyFlowGroupIn, table: u32) {
    input
        .set_table_type(FlowTableType::NIC_RX)
        .set_table_id(table);
}

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    /// The number of its table.
    pub(crate) table: u32,
    /// The number of its group.
    pub(crate) group: u32,
    /// Its index in the table.
    pub(crate) index: u32,
}

/// Fills in the command that makes an entry. What [`Destination::list`] gives follows.
pub(crate) fn entry(input: &mut SetFteIn, spot: Spot, what: Match, to: Destination) {
    input
        .set_table_type(FlowTableType::NIC_RX)
        .set_table_id(spot.table)
        .set_flow_index(spot.index);
    let context = input.flow_context_mut();
    context.set_group_id(spot.group);
    match to {
        Destination::Nowhere => context.set_action(ACTION_DROP),
        Destination::Table(_) | Destination::Tir(_) => context
            .set_action(ACTION_FWD_DEST)
            .set_destination_list_size(1),
    };
    what.write(context.match_value_mut().outer_headers_mut());
}

/// Fills in the command that takes an entry away.
pub(crate) fn end_entry(input: &mut DeleteFteIn, spot: Spot) {
    input
        .set_table_type(FlowTableType::NIC_RX)
        .set_table_id(spot.table)
        .set_flow_index(spot.index);
}

/// Fills in CREATE of a table of `count` queues. As many times [`queue`] follows.
pub(crate) fn rqt(input: &mut CreateRqtIn, count: u16) {
    input
        .rqt_context_mut()
        .set_list_q_type(ListQType::VIRTIO_NET_Q)
        .set_rqt_max_size(count)
        .set_rqt_actual_size(count);
}

/// Fills in the command that changes the `count` queues of a table. As many times [`queue`] follows.
pub(crate) fn change_rqt(input: &mut ModifyRqtIn, rqt: u32, count: u16) {
    input.set_rqtn(rqt).bitmask_mut().set_rqn_list(true);
    input
        .ctx_mut()
        .set_list_q_type(ListQType::VIRTIO_NET_Q)
        .set_rqt_max_size(count)
        .set_rqt_actual_size(count);
}

/// A queue as an entry of a table of queues.
pub(crate) fn queue(id: u32) -> [u8; QUEUE_BYTES] {
    let mut entry = RqNum::new();
    entry.set_rq_num(id);
    let mut bytes = [0; QUEUE_BYTES];
    bytes.copy_from_slice(entry.as_bytes());
    bytes
}

/// Fills in CREATE of a receive interface that spreads frames of a kind over a table of queues.
pub(crate) fn tir(
    input: &mut CreateTirIn,
    domain: u32,
    rqt: u32,
    traffic: Traffic,
    hashing: &Hashing,
) {
    let hashed = traffic.hashed(hashing.types);
    let context = input.ctx_mut();
    context
        .set_disp_type(DispType::INDIRECT)
        .set_indirect_table(rqt)
        .set_transport_domain(domain)
        .set_rx_hash_fn(RxHashFn::TOEPLITZ)
        .set_rx_hash_symmetric(hashing.symmetric);
    *context.rx_hash_toeplitz_key_mut() = hashing.key;
    context
        .rx_hash_field_selector_outer_mut()
        .set_l3_prot_type(hashed.network)
        .set_l4_prot_type(hashed.transport)
        .set_selected_fields(hashed.fields);
}
