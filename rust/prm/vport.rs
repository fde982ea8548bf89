// SPDX-License-Identifier: GPL-2.0

//! The function's port on the switch of the board.

use crate::{
    command::OutputHeader,
    layout::Info,
    Layout,
    Opcode,
    Status, //
};

crate::values! {
    /// Which port QUERY_VPORT_STATE and MODIFY_VPORT_STATE are about: their `op_mod`.
    pub enum VportOpMod: u16 {
        /// The function's, from inside.
        VNIC_VPORT = 0x0,
        /// The function's, as the switch sees it.
        ESW_VPORT = 0x1,
        /// The one out of the board.
        UPLINK = 0x2,
    }

    /// The link of a port.
    pub enum VportState: u8 {
        /// It is down.
        DOWN = 0x0,
        /// It is up.
        UP = 0x1,
    }

    /// What the link of a port is to be.
    pub enum VportAdminState: u8 {
        /// Down.
        DOWN = 0x0,
        /// Up.
        UP = 0x1,
        /// As that of the uplink.
        AUTO = 0x2,
    }

    /// Which list of addresses of a port's context.
    pub enum AllowedListType: u8 {
        /// Unicast addresses.
        UC = 0x0,
        /// Multicast addresses.
        MC = 0x1,
        /// VLANs.
        VLAN = 0x2,
    }
}

crate::layout! {
    /// Input of QUERY_VPORT_STATE.
    pub struct QueryVportStateIn = "query_vport_state_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// Which port, seen from where.
        op_mod: VportOpMod @ 0x30, 16;
        /// Whether it is another's.
        other_vport: bool @ 0x40, 1;
        /// Whose.
        vport_number: u16 @ 0x50, 16;
    }

    /// Output of QUERY_VPORT_STATE.
    pub struct QueryVportStateOut = "query_vport_state_out", 0x10 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// A limit of the transmit rate, in units of 100 Mbit/s; 0 is none.
        max_tx_speed: u16 @ 0x60, 16;
        /// What the link is to be.
        admin_state: VportAdminState @ 0x78, 4;
        /// What it is.
        state: VportState @ 0x7c, 4;
    }

    /// Input of MODIFY_VPORT_STATE.
    pub struct ModifyVportStateIn = "modify_vport_state_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// Which port, seen from where.
        op_mod: VportOpMod @ 0x30, 16;
        /// Whether it is another's.
        other_vport: bool @ 0x40, 1;
        /// Whose.
        vport_number: u16 @ 0x50, 16;
        /// A limit of the transmit rate, in units of 100 Mbit/s; 0 is none.
        max_tx_speed: u16 @ 0x60, 16;
        /// What the link is to be.
        admin_state: VportAdminState @ 0x78, 4;
    }

    /// An Ethernet address, after two bytes that mean nothing.
    pub struct MacAddressLayout = "mac_address_layout", 0x8 {
        /// Its first two bytes.
        mac_addr_47_32: u16 @ 0x10, 16;
        /// The others.
        mac_addr_31_0: u32 @ 0x20, 32;
    }

    /// A VLAN.
    pub struct VlanLayout = "vlan_layout", 0x8 {
        /// Its number.
        vlan: u16 @ 0x14, 12;
    }

    /// The Ethernet side of a port. A list of addresses or VLANs follows.
    pub struct NicVportContext = "nic_vport_context", 0x100 {
        /// How much of a packet a send queue must be given inline.
        min_wqe_inline_mode: u8 @ 0x05, 3;
        /// Keep multicast frames of the function itself from it.
        disable_mc_local_lb: bool @ 0x1d, 1;
        /// The same for unicast frames.
        disable_uc_local_lb: bool @ 0x1e, 1;
        /// RDMA over Ethernet.
        roce_en: bool @ 0x1f, 1;
        /// Tell of the next change; the following say of which.
        arm_change_event: bool @ 0x20, 1;
        /// Of the MTU.
        event_on_mtu: bool @ 0x3b, 1;
        /// Of the promiscuous modes.
        event_on_promisc_change: bool @ 0x3c, 1;
        /// Of the list of VLANs.
        event_on_vlan_change: bool @ 0x3d, 1;
        /// Of the list of multicast addresses.
        event_on_mc_address_change: bool @ 0x3e, 1;
        /// Of the list of unicast addresses.
        event_on_uc_address_change: bool @ 0x3f, 1;
        /// The largest frame in bytes, with header, VLAN tag and check sequence.
        mtu: u16 @ 0x130, 16;
        /// Identifies the board.
        system_image_guid: u64 @ 0x140, 64;
        /// Identifies the port.
        port_guid: u64 @ 0x180, 64;
        /// Identifies the function.
        node_guid: u64 @ 0x1c0, 64;
        /// Keys that did not match.
        qkey_violation_counter: u16 @ 0x340, 16;
        /// Receive all unicast frames.
        promisc_uc: bool @ 0x780, 1;
        /// Receive all multicast frames.
        promisc_mc: bool @ 0x781, 1;
        /// Receive everything, also what steering would drop.
        promisc_all: bool @ 0x782, 1;
        /// What the list is of.
        allowed_list_type: AllowedListType @ 0x785, 3;
        /// How many entries it has.
        allowed_list_size: u16 @ 0x790, 16;
        /// The address of the port.
        permanent_address: &MacAddressLayout @ 0x7a0;
    }

    /// Input of QUERY_NIC_VPORT_CONTEXT.
    pub struct QueryNicVportContextIn = "query_nic_vport_context_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// Whether it is another's port.
        other_vport: bool @ 0x40, 1;
        /// Whose.
        vport_number: u16 @ 0x50, 16;
        /// Which list is asked for.
        allowed_list_type: AllowedListType @ 0x65, 3;
    }

    /// Output of QUERY_NIC_VPORT_CONTEXT. The list follows: [`MacAddressLayout`]s or
    /// [`VlanLayout`]s.
    pub struct QueryNicVportContextOut = "query_nic_vport_context_out", 0x110 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// The context.
        nic_vport_context: &NicVportContext @ 0x80;
    }

    /// Which fields MODIFY_NIC_VPORT_CONTEXT changes.
    pub struct ModifyNicVportFieldSelect = "modify_nic_vport_field_select", 0x4 {
        /// Which board the port belongs to.
        affiliation: bool @ 0x12, 1;
        /// `disable_uc_local_lb`.
        disable_uc_local_lb: bool @ 0x14, 1;
        /// `disable_mc_local_lb`.
        disable_mc_local_lb: bool @ 0x15, 1;
        /// `node_guid`.
        node_guid: bool @ 0x16, 1;
        /// `port_guid`.
        port_guid: bool @ 0x17, 1;
        /// `min_wqe_inline_mode`.
        min_inline: bool @ 0x18, 1;
        /// `mtu`.
        mtu: bool @ 0x19, 1;
        /// `arm_change_event` and `event_on_...`.
        change_event: bool @ 0x1a, 1;
        /// `promisc_...`.
        promisc: bool @ 0x1b, 1;
        /// `permanent_address`.
        permanent_address: bool @ 0x1c, 1;
        /// The list.
        addresses_list: bool @ 0x1d, 1;
        /// `roce_en`.
        roce_en: bool @ 0x1e, 1;
    }

    /// Input of MODIFY_NIC_VPORT_CONTEXT. A list follows: [`MacAddressLayout`]s or
    /// [`VlanLayout`]s.
    pub struct ModifyNicVportContextIn = "modify_nic_vport_context_in", 0x200 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// Whether it is another's port.
        other_vport: bool @ 0x40, 1;
        /// Whose.
        vport_number: u16 @ 0x50, 16;
        /// What to change.
        field_select: &ModifyNicVportFieldSelect @ 0x60;
        /// To what.
        nic_vport_context: &NicVportContext @ 0x800;
    }

    /// The InfiniBand side of a port.
    pub struct HcaVportContext = "hca_vport_context", 0x200 {
        /// Which fields to change.
        field_select: u32 @ 0x00, 32;
        /// Raw frames are allowed.
        has_raw: bool @ 0x102, 1;
        /// The physical state: 5 is up.
        port_physical_state: u8 @ 0x110, 4;
        /// What the link is to be.
        vport_state_policy: u8 @ 0x114, 4;
        /// The state of the board's port: 4 is active.
        port_state: u8 @ 0x118, 4;
        /// The state of this port: 4 is active.
        vport_state: u8 @ 0x11c, 4;
        /// Identifies the board.
        system_image_guid: u64 @ 0x140, 64;
        /// Identifies the port.
        port_guid: u64 @ 0x180, 64;
        /// Identifies the function.
        node_guid: u64 @ 0x1c0, 64;
    }

    /// Input of QUERY_HCA_VPORT_CONTEXT.
    pub struct QueryHcaVportContextIn = "query_hca_vport_context_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// Whether it is another's port.
        other_vport: bool @ 0x40, 1;
        /// The port of the board.
        port_num: u8 @ 0x4c, 4;
        /// Whose.
        vport_number: u16 @ 0x50, 16;
    }

    /// Output of QUERY_HCA_VPORT_CONTEXT.
    pub struct QueryHcaVportContextOut = "query_hca_vport_context_out", 0x210 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// The context.
        hca_vport_context: &HcaVportContext @ 0x80;
    }

    /// Frames, and the bytes in them.
    pub struct TrafficCounter = "traffic_counter", 0x10 {
        /// How many frames.
        packets: u64 @ 0x00, 64;
        /// How many bytes.
        octets: u64 @ 0x40, 64;
    }

    /// Input of QUERY_VPORT_COUNTER.
    pub struct QueryVportCounterIn = "query_vport_counter_in", 0x20 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// Whether it is another's port.
        other_vport: bool @ 0x40, 1;
        /// The port of the board.
        port_num: u8 @ 0x4c, 4;
        /// Whose.
        vport_number: u16 @ 0x50, 16;
        /// Whether they begin from 0 again.
        clear: bool @ 0xc0, 1;
    }

    /// Output of QUERY_VPORT_COUNTER. Received is what the port gave to the function.
    pub struct QueryVportCounterOut = "query_vport_counter_out", 0x210 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// Frames that could not be received.
        received_errors: &TrafficCounter @ 0x80;
        /// Frames that could not be sent.
        transmit_errors: &TrafficCounter @ 0x100;
        /// Broadcast frames.
        received_eth_broadcast: &TrafficCounter @ 0x380;
        /// The same, sent.
        transmitted_eth_broadcast: &TrafficCounter @ 0x400;
        /// Unicast frames.
        received_eth_unicast: &TrafficCounter @ 0x480;
        /// The same, sent.
        transmitted_eth_unicast: &TrafficCounter @ 0x500;
        /// Multicast frames.
        received_eth_multicast: &TrafficCounter @ 0x580;
        /// The same, sent.
        transmitted_eth_multicast: &TrafficCounter @ 0x600;
    }

    /// Input of QUERY_VNIC_ENV.
    pub struct QueryVnicEnvIn = "query_vnic_env_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// Whether it is another's port.
        other_vport: bool @ 0x40, 1;
        /// Whose.
        vport_number: u16 @ 0x50, 16;
    }

    /// Diagnostic counters of a function.
    pub struct VnicDiagnosticStatistics = "vnic_diagnostic_statistics", 0x200 {
        /// Queues in error.
        total_error_queues: u32 @ 0x20, 32;
        /// Frames that steering dropped.
        nic_receive_steering_discard: u64 @ 0x80, 64;
        /// Frames that were not received as the port was down.
        receive_discard_vport_down: u64 @ 0xc0, 64;
        /// Frames that were not sent as the port was down.
        transmit_discard_vport_down: u64 @ 0x100, 64;
        /// Overruns of the queue of asynchronous events.
        async_eq_overrun: u32 @ 0x140, 32;
        /// Overruns of event queues of completions.
        comp_eq_overrun: u32 @ 0x160, 32;
        /// Commands that were refused.
        invalid_command: u32 @ 0x1a0, 32;
        /// Commands that were refused as there was too much already.
        quota_exceeded_command: u32 @ 0x1c0, 32;
        /// Frames for which a receive queue had no buffer.
        internal_rq_out_of_buffer: u32 @ 0x1e0, 32;
        /// Overruns of completion queues.
        cq_overrun: u32 @ 0x200, 32;
    }

    /// Output of QUERY_VNIC_ENV.
    pub struct QueryVnicEnvOut = "query_vnic_env_out", 0x210 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// The counters.
        vport_env: &VnicDiagnosticStatistics @ 0x80;
    }

    /// Input of ALLOC_Q_COUNTER.
    pub struct AllocQCounterIn = "alloc_q_counter_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
    }

    /// Output of ALLOC_Q_COUNTER.
    pub struct AllocQCounterOut = "alloc_q_counter_out", 0x10 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// The number of the set.
        counter_set_id: u8 @ 0x58, 8;
    }

    /// Input of DEALLOC_Q_COUNTER.
    pub struct DeallocQCounterIn = "dealloc_q_counter_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the set.
        counter_set_id: u8 @ 0x58, 8;
    }

    /// Input of QUERY_Q_COUNTER.
    pub struct QueryQCounterIn = "query_q_counter_in", 0x20 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// Whether it is another's port.
        other_vport: bool @ 0x40, 1;
        /// Whose.
        vport_number: u16 @ 0x50, 16;
        /// Whether they begin from 0 again.
        clear: bool @ 0xc0, 1;
        /// The number of the set.
        counter_set_id: u8 @ 0xf8, 8;
    }

    /// Output of QUERY_Q_COUNTER: those that Ethernet queues have.
    pub struct QueryQCounterOut = "query_q_counter_out", 0x100 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// Messages that found no buffer.
        out_of_buffer: u32 @ 0x180, 32;
    }
}

impl MacAddressLayout {
    /// The address, first byte first.
    pub fn address(&self) -> [u8; 6] {
        let [a, b] = self.mac_addr_47_32().to_be_bytes();
        let [c, d, e, f] = self.mac_addr_31_0().to_be_bytes();
        [a, b, c, d, e, f]
    }

    /// Sets the address.
    pub fn set_address(&mut self, [a, b, c, d, e, f]: [u8; 6]) -> &mut Self {
        self.set_mac_addr_47_32(u16::from_be_bytes([a, b]))
            .set_mac_addr_31_0(u32::from_be_bytes([c, d, e, f]))
    }
}

crate::commands! {
    /// Asks for the link.
    pub QueryVportState = QUERY_VPORT_STATE: QueryVportStateIn => QueryVportStateOut;
    /// Sets the administrative state of the link.
    pub ModifyVportState = MODIFY_VPORT_STATE: ModifyVportStateIn => OutputHeader;
    /// Reads MAC, MTU and filters of the port.
    pub QueryNicVportContext = QUERY_NIC_VPORT_CONTEXT:
        QueryNicVportContextIn => QueryNicVportContextOut;
    /// Changes them.
    pub ModifyNicVportContext = MODIFY_NIC_VPORT_CONTEXT:
        ModifyNicVportContextIn => OutputHeader;
    /// Reads the port's identity.
    pub QueryHcaVportContext = QUERY_HCA_VPORT_CONTEXT:
        QueryHcaVportContextIn => QueryHcaVportContextOut;
    /// Reads traffic counters of the port.
    pub QueryVportCounter = QUERY_VPORT_COUNTER: QueryVportCounterIn => QueryVportCounterOut;
    /// Reads diagnostic counters of the port.
    pub QueryVnicEnv = QUERY_VNIC_ENV: QueryVnicEnvIn => QueryVnicEnvOut;
    /// Makes a set of queue counters.
    pub AllocQCounter = ALLOC_Q_COUNTER: AllocQCounterIn => AllocQCounterOut;
    /// Takes it away.
    pub DeallocQCounter = DEALLOC_Q_COUNTER: DeallocQCounterIn => OutputHeader;
    /// Reads it.
    pub QueryQCounter = QUERY_Q_COUNTER: QueryQCounterIn => QueryQCounterOut;
}

/// The structures of this module.
pub const LAYOUTS: &[Info] = &[
    QueryVportStateIn::INFO,
    QueryVportStateOut::INFO,
    ModifyVportStateIn::INFO,
    MacAddressLayout::INFO,
    VlanLayout::INFO,
    NicVportContext::INFO,
    QueryNicVportContextIn::INFO,
    QueryNicVportContextOut::INFO,
    ModifyNicVportFieldSelect::INFO,
    ModifyNicVportContextIn::INFO,
    HcaVportContext::INFO,
    QueryHcaVportContextIn::INFO,
    QueryHcaVportContextOut::INFO,
    TrafficCounter::INFO,
    QueryVportCounterIn::INFO,
    QueryVportCounterOut::INFO,
    QueryVnicEnvIn::INFO,
    VnicDiagnosticStatistics::INFO,
    QueryVnicEnvOut::INFO,
    AllocQCounterIn::INFO,
    AllocQCounterOut::INFO,
    DeallocQCounterIn::INFO,
    QueryQCounterIn::INFO,
    QueryQCounterOut::INFO,
];
