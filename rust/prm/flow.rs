// SPDX-License-Identifier: GPL-2.0

//! Flow tables: which frames go where.

use crate::{
    command::OutputHeader,
    layout::Info,
    Layout,
    Opcode,
    Status, //
};

crate::values! {
    /// What a flow table is for.
    pub enum FlowTableType: u8 {
        /// What a function receives.
        NIC_RX = 0,
        /// What it sends.
        NIC_TX = 1,
        /// What leaves the switch to a port.
        ESW_EGRESS_ACL = 2,
        /// What enters the switch from a port.
        ESW_INGRESS_ACL = 3,
        /// How the switch forwards.
        FDB = 4,
        /// Copies of what is received.
        SNIFFER_RX = 5,
        /// Copies of what is sent.
        SNIFFER_TX = 6,
    }

    /// What happens to a frame that no entry matches.
    pub enum FlowTableMissAction: u8 {
        /// What is usual for the type of table.
        DEF = 0,
        /// Another table is looked at.
        FWD = 1,
        /// It goes to another domain.
        SWITCH_DOMAIN = 2,
    }

    /// Where an entry sends frames.
    pub enum FlowDestinationType: u8 {
        /// To a port.
        VPORT = 0,
        /// To another table.
        FLOW_TABLE = 1,
        /// To a receive interface.
        TIR = 2,
        /// To the receive side of a function.
        VHCA_RX = 4,
        /// To a sampler.
        FLOW_SAMPLER = 6,
        /// To the uplink.
        UPLINK = 8,
        /// To a table of another type.
        TABLE_TYPE = 0xa,
    }
}

/// A bit of `match_criteria_enable`: the outer headers.
pub const MATCH_OUTER_HEADERS: u8 = 1 << 0;

/// A bit of `modify_field_select`: where a frame goes that no entry matches.
pub const MODIFY_MISS_TABLE_ID: u16 = 1 << 0;

/// A bit of `action`: the frame is let through.
pub const ACTION_ALLOW: u16 = 1 << 0;
/// A bit of `action`: it is dropped.
pub const ACTION_DROP: u16 = 1 << 1;
/// A bit of `action`: it goes to the destinations.
pub const ACTION_FWD_DEST: u16 = 1 << 2;
/// A bit of `action`: it is counted.
pub const ACTION_COUNT: u16 = 1 << 3;

/// A bit of `modify_enable_mask`: the action.
pub const FTE_ACTION: u8 = 1 << 0;
/// A bit of `modify_enable_mask`: the tag.
pub const FTE_FLOW_TAG: u8 = 1 << 1;
/// A bit of `modify_enable_mask`: the list of destinations.
pub const FTE_DESTINATION_LIST: u8 = 1 << 2;
/// A bit of `modify_enable_mask`: the list of counters.
pub const FTE_FLOW_COUNTERS: u8 = 1 << 3;

crate::layout! {
    /// The context of a flow table.
    pub struct FlowTableContext = "flow_table_context", 0x28 {
        /// Whether its entries may encapsulate.
        reformat_en: bool @ 0x00, 1;
        /// Whether its entries may decapsulate.
        decap_en: bool @ 0x01, 1;
        /// Whether software writes its entries to memory.
        sw_owner: bool @ 0x02, 1;
        /// Whether nothing follows it.
        termination_table: bool @ 0x03, 1;
        /// What happens to a frame that no entry matches.
        table_miss_action: FlowTableMissAction @ 0x04, 4;
        /// Its level: a frame only goes to tables of higher levels.
        level: u8 @ 0x08, 8;
        /// Whether it is written by hardware queues.
        rtc_valid: bool @ 0x10, 1;
        /// The logarithm of the number of entries.
        log_size: u8 @ 0x18, 8;
        /// The table that is looked at when no entry matches.
        table_miss_id: u32 @ 0x28, 24;
        /// The same, of a table that serves a bond.
        lag_master_next_table_id: u32 @ 0x48, 24;
    }

    /// Input of CREATE_FLOW_TABLE.
    pub struct CreateFlowTableIn = "create_flow_table_in", 0x40 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The user context on whose behalf it is.
        uid: u16 @ 0x10, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// Whether it is about the port of another function.
        other_vport: bool @ 0x40, 1;
        /// Whether that hangs on another switch.
        other_eswitch: bool @ 0x41, 1;
        /// The port, if it is of another function.
        vport_number: u16 @ 0x50, 16;
        /// The type of the table.
        table_type: FlowTableType @ 0x80, 8;
        /// The function that owns the other switch.
        eswitch_owner_vhca_id: u16 @ 0x90, 16;
        /// What to make.
        flow_table_context: &FlowTableContext @ 0xc0;
    }

    /// Output of CREATE_FLOW_TABLE.
    pub struct CreateFlowTableOut = "create_flow_table_out", 0x10 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// The number of the table.
        table_id: u32 @ 0x48, 24;
    }

    /// Input of DESTROY_FLOW_TABLE.
    pub struct DestroyFlowTableIn = "destroy_flow_table_in", 0x40 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// Whether it is about the port of another function.
        other_vport: bool @ 0x40, 1;
        /// Whether that hangs on another switch.
        other_eswitch: bool @ 0x41, 1;
        /// The port, if it is of another function.
        vport_number: u16 @ 0x50, 16;
        /// The type of the table.
        table_type: FlowTableType @ 0x80, 8;
        /// The function that owns the other switch.
        eswitch_owner_vhca_id: u16 @ 0x90, 16;
        /// The number of the table.
        table_id: u32 @ 0xa8, 24;
    }

    /// Input of MODIFY_FLOW_TABLE.
    pub struct ModifyFlowTableIn = "modify_flow_table_in", 0x40 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// Whether it is about the port of another function.
        other_vport: bool @ 0x40, 1;
        /// Whether that hangs on another switch.
        other_eswitch: bool @ 0x41, 1;
        /// The port, if it is of another function.
        vport_number: u16 @ 0x50, 16;
        /// What to change: `MODIFY_*`.
        modify_field_select: u16 @ 0x70, 16;
        /// The type of the table.
        table_type: FlowTableType @ 0x80, 8;
        /// The function that owns the other switch.
        eswitch_owner_vhca_id: u16 @ 0x90, 16;
        /// The number of the table.
        table_id: u32 @ 0xa8, 24;
        /// The values.
        flow_table_context: &FlowTableContext @ 0xc0;
    }

    /// Input of QUERY_FLOW_TABLE.
    pub struct QueryFlowTableIn = "query_flow_table_in", 0x40 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The type of the table.
        table_type: FlowTableType @ 0x80, 8;
        /// The number of the table.
        table_id: u32 @ 0xa8, 24;
    }

    /// Output of QUERY_FLOW_TABLE.
    pub struct QueryFlowTableOut = "query_flow_table_out", 0x40 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// What it is.
        flow_table_context: &FlowTableContext @ 0xc0;
    }

    /// Input of SET_FLOW_TABLE_ROOT. Its `op_mod` 1 says that there is no root.
    pub struct SetFlowTableRootIn = "set_flow_table_root_in", 0x40 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// Whether it is about the port of another function.
        other_vport: bool @ 0x40, 1;
        /// Whether that hangs on another switch.
        other_eswitch: bool @ 0x41, 1;
        /// The port, if it is of another function.
        vport_number: u16 @ 0x50, 16;
        /// The function that owns the other switch.
        eswitch_owner_vhca_id: u16 @ 0x70, 16;
        /// The type of the table.
        table_type: FlowTableType @ 0x80, 8;
        /// Whether the table is of another port.
        table_of_other_vport: bool @ 0x8f, 1;
        /// That port.
        table_vport_number: u16 @ 0x90, 16;
        /// The number of the table.
        table_id: u32 @ 0xa8, 24;
        /// The queue pair beneath, on InfiniBand.
        underlay_qpn: u32 @ 0xc8, 24;
        /// Whether the table is of another switch.
        table_eswitch_owner_vhca_id_valid: bool @ 0xe0, 1;
        /// The function that owns that switch.
        table_eswitch_owner_vhca_id: u16 @ 0xf0, 16;
    }

    /// The headers of a frame that entries can match. What a frame has not is 0.
    pub struct FteMatchSetLyr24 = "fte_match_set_lyr_2_4", 0x40 {
        /// The first four bytes of the source address.
        smac_47_16: u32 @ 0x00, 32;
        /// The last two.
        smac_15_0: u16 @ 0x20, 16;
        /// The protocol, after VLAN tags.
        ethertype: u16 @ 0x30, 16;
        /// The first four bytes of the destination address.
        dmac_47_16: u32 @ 0x40, 32;
        /// The last two.
        dmac_15_0: u16 @ 0x60, 16;
        /// The priority of the outermost VLAN tag.
        first_prio: u8 @ 0x70, 3;
        /// Its drop-eligible bit.
        first_cfi: bool @ 0x73, 1;
        /// Its VLAN.
        first_vid: u16 @ 0x74, 12;
        /// The protocol of an IP packet.
        ip_protocol: u8 @ 0x80, 8;
        /// Its differentiated services codepoint.
        ip_dscp: u8 @ 0x88, 6;
        /// Its congestion bits.
        ip_ecn: u8 @ 0x8e, 2;
        /// Whether the outermost VLAN tag is a customer's (0x8100).
        cvlan_tag: bool @ 0x90, 1;
        /// Whether it is a service provider's (0x88a8).
        svlan_tag: bool @ 0x91, 1;
        /// Whether it is a fragment of an IP packet.
        frag: bool @ 0x92, 1;
        /// The version of IP: 4 or 6.
        ip_version: u8 @ 0x93, 4;
        /// The flags of a TCP segment.
        tcp_flags: u16 @ 0x97, 9;
        /// The source port of a TCP segment.
        tcp_sport: u16 @ 0xa0, 16;
        /// Its destination port.
        tcp_dport: u16 @ 0xb0, 16;
        /// What kind of transport protocol it is.
        l4_type: u8 @ 0xc0, 2;
        /// The same, in more kinds.
        l4_type_ext: u8 @ 0xc2, 4;
        /// The length of an IPv4 header, in units of 4 bytes.
        ipv4_ihl: u8 @ 0xd0, 4;
        /// How many hops a packet may still make.
        ttl_hoplimit: u8 @ 0xd8, 8;
        /// The source port of a UDP datagram.
        udp_sport: u16 @ 0xe0, 16;
        /// Its destination port.
        udp_dport: u16 @ 0xf0, 16;
        /// The source address; one of IPv4 in the last four bytes.
        src_ipv4_src_ipv6: [u8; 16] @ 0x100;
        /// The destination address, likewise.
        dst_ipv4_dst_ipv6: [u8; 16] @ 0x180;
    }

    /// Everything that entries can match.
    pub struct FteMatchParam = "fte_match_param", 0x200 {
        /// The headers.
        outer_headers: &FteMatchSetLyr24 @ 0x00;
        /// Of tunnels and of ports.
        misc_parameters: [u8; 64] @ 0x200;
        /// The headers within a tunnel.
        inner_headers: &FteMatchSetLyr24 @ 0x400;
        /// Labels, metadata and outcomes of decryption.
        misc_parameters_2: [u8; 64] @ 0x600;
        /// More of TCP, ICMP and tunnels.
        misc_parameters_3: [u8; 64] @ 0x800;
        /// What a programmable parser found.
        misc_parameters_4: [u8; 64] @ 0xa00;
        /// More of tunnels.
        misc_parameters_5: [u8; 64] @ 0xc00;
        /// More of encryption.
        misc_parameters_6: [u8; 64] @ 0xe00;
    }

    /// Input of CREATE_FLOW_GROUP.
    pub struct CreateFlowGroupIn = "create_flow_group_in", 0x400 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// Whether it is about the port of another function.
        other_vport: bool @ 0x40, 1;
        /// Whether that hangs on another switch.
        other_eswitch: bool @ 0x41, 1;
        /// The port, if it is of another function.
        vport_number: u16 @ 0x50, 16;
        /// The type of the table.
        table_type: FlowTableType @ 0x80, 8;
        /// How it matches; 0 is by masks.
        group_type: u8 @ 0x8c, 4;
        /// The function that owns the other switch.
        eswitch_owner_vhca_id: u16 @ 0x90, 16;
        /// The number of the table.
        table_id: u32 @ 0xa8, 24;
        /// Whether frames of another switch are told by its owner.
        source_eswitch_owner_vhca_id_valid: bool @ 0xc0, 1;
        /// The first index of its entries.
        start_flow_index: u32 @ 0xe0, 32;
        /// The last one.
        end_flow_index: u32 @ 0x120, 32;
        /// What its entries match, of a group that is not by masks.
        match_definer_id: u16 @ 0x150, 16;
        /// Which parts of `match_criteria` count: `MATCH_*`.
        match_criteria_enable: u8 @ 0x1f8, 8;
        /// Which bits are compared.
        match_criteria: &FteMatchParam @ 0x200;
    }

    /// Output of CREATE_FLOW_GROUP.
    pub struct CreateFlowGroupOut = "create_flow_group_out", 0x10 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// The number of the group in its table.
        group_id: u32 @ 0x48, 24;
    }

    /// Input of DESTROY_FLOW_GROUP.
    pub struct DestroyFlowGroupIn = "destroy_flow_group_in", 0x40 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// Whether it is about the port of another function.
        other_vport: bool @ 0x40, 1;
        /// Whether that hangs on another switch.
        other_eswitch: bool @ 0x41, 1;
        /// The port, if it is of another function.
        vport_number: u16 @ 0x50, 16;
        /// The type of the table.
        table_type: FlowTableType @ 0x80, 8;
        /// The function that owns the other switch.
        eswitch_owner_vhca_id: u16 @ 0x90, 16;
        /// The number of the table.
        table_id: u32 @ 0xa8, 24;
        /// The number of the group.
        group_id: u32 @ 0xc0, 32;
    }

    /// Input of QUERY_FLOW_GROUP.
    pub struct QueryFlowGroupIn = "query_flow_group_in", 0x40 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The type of the table.
        table_type: FlowTableType @ 0x80, 8;
        /// The number of the table.
        table_id: u32 @ 0xa8, 24;
        /// The number of the group.
        group_id: u32 @ 0xc0, 32;
    }

    /// Output of QUERY_FLOW_GROUP.
    pub struct QueryFlowGroupOut = "query_flow_group_out", 0x400 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// The first index of its entries.
        start_flow_index: u32 @ 0xe0, 32;
        /// The last one.
        end_flow_index: u32 @ 0x120, 32;
        /// Which parts of `match_criteria` count: `MATCH_*`.
        match_criteria_enable: u8 @ 0x1f8, 8;
        /// Which bits are compared.
        match_criteria: &FteMatchParam @ 0x200;
    }

    /// A VLAN tag.
    pub struct Vlan = "vlan", 0x4 {
        /// Its type.
        ethtype: u16 @ 0x00, 16;
        /// Its priority.
        prio: u8 @ 0x10, 3;
        /// Its drop-eligible bit.
        cfi: bool @ 0x13, 1;
        /// Its VLAN.
        vid: u16 @ 0x14, 12;
    }

    /// An entry of a flow table. Its destinations follow, one [`DestFormat`] each, and then its
    /// counters, one [`FlowCounterList`] each.
    pub struct FlowContext = "flow_context", 0x300 {
        /// The tag to put in front.
        push_vlan: &Vlan @ 0x00;
        /// The group it belongs to.
        group_id: u32 @ 0x20, 32;
        /// What the driver is told of frames that match.
        flow_tag: u32 @ 0x48, 24;
        /// What is done: `ACTION_*`.
        action: u16 @ 0x70, 16;
        /// Whether destinations are twice as long.
        extended_destination: bool @ 0x80, 1;
        /// Whether a frame may leave through the uplink it came by.
        uplink_hairpin_en: bool @ 0x81, 1;
        /// Where frames come from.
        flow_source: u8 @ 0x82, 2;
        /// How frames are encrypted.
        encrypt_decrypt_type: u8 @ 0x84, 4;
        /// How many destinations there are.
        destination_list_size: u32 @ 0x88, 24;
        /// How many counters there are.
        flow_counter_list_size: u32 @ 0xa8, 24;
        /// How frames are encapsulated.
        packet_reformat_id: u32 @ 0xc0, 32;
        /// How headers are rewritten.
        modify_header_id: u32 @ 0xe0, 32;
        /// A second tag to put in front.
        push_vlan_2: &Vlan @ 0x100;
        /// The keys of encryption.
        encrypt_decrypt_obj_id: u32 @ 0x120, 32;
        /// The values of the bits that its group compares.
        match_value: &FteMatchParam @ 0x200;
        /// Meters and the like.
        execute_aso: [u8; 32] @ 0x1200;
    }

    /// A destination of an entry.
    pub struct DestFormat = "dest_format_struct", 0x8 {
        /// What it is.
        destination_type: FlowDestinationType @ 0x00, 8;
        /// Its number.
        destination_id: u32 @ 0x08, 24;
        /// Whether it is of another function.
        destination_eswitch_owner_vhca_id_valid: bool @ 0x20, 1;
        /// Whether frames to it are encapsulated.
        packet_reformat: bool @ 0x21, 1;
        /// The type of a table of another type.
        destination_table_type: FlowTableType @ 0x28, 8;
        /// That function.
        destination_eswitch_owner_vhca_id: u16 @ 0x30, 16;
    }

    /// A counter of an entry.
    pub struct FlowCounterList = "flow_counter_list", 0x8 {
        /// Its number.
        flow_counter_id: u32 @ 0x00, 32;
    }

    /// Input of SET_FLOW_TABLE_ENTRY. Its `op_mod` 0 makes an entry, 1 changes it. The lists of the
    /// entry follow.
    pub struct SetFteIn = "set_fte_in", 0x340 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// Whether it is about the port of another function.
        other_vport: bool @ 0x40, 1;
        /// Whether that hangs on another switch.
        other_eswitch: bool @ 0x41, 1;
        /// The port, if it is of another function.
        vport_number: u16 @ 0x50, 16;
        /// The type of the table.
        table_type: FlowTableType @ 0x80, 8;
        /// The function that owns the other switch.
        eswitch_owner_vhca_id: u16 @ 0x90, 16;
        /// The number of the table.
        table_id: u32 @ 0xa8, 24;
        /// Whether it may lead to a table of any level.
        ignore_flow_level: bool @ 0xc0, 1;
        /// What to change: `FTE_*`.
        modify_enable_mask: u8 @ 0xd8, 8;
        /// The index of the entry.
        flow_index: u32 @ 0x100, 32;
        /// The entry.
        flow_context: &FlowContext @ 0x200;
    }

    /// Input of DELETE_FLOW_TABLE_ENTRY.
    pub struct DeleteFteIn = "delete_fte_in", 0x40 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// Whether it is about the port of another function.
        other_vport: bool @ 0x40, 1;
        /// Whether that hangs on another switch.
        other_eswitch: bool @ 0x41, 1;
        /// The port, if it is of another function.
        vport_number: u16 @ 0x50, 16;
        /// The type of the table.
        table_type: FlowTableType @ 0x80, 8;
        /// The function that owns the other switch.
        eswitch_owner_vhca_id: u16 @ 0x90, 16;
        /// The number of the table.
        table_id: u32 @ 0xa8, 24;
        /// The index of the entry.
        flow_index: u32 @ 0x100, 32;
    }

    /// Input of QUERY_FLOW_TABLE_ENTRY.
    pub struct QueryFteIn = "query_fte_in", 0x40 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The type of the table.
        table_type: FlowTableType @ 0x80, 8;
        /// The number of the table.
        table_id: u32 @ 0xa8, 24;
        /// The index of the entry.
        flow_index: u32 @ 0x100, 32;
    }

    /// Output of QUERY_FLOW_TABLE_ENTRY. The lists of the entry follow.
    pub struct QueryFteOut = "query_fte_out", 0x340 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// The entry.
        flow_context: &FlowContext @ 0x200;
    }

    /// Input of ALLOC_FLOW_COUNTER.
    pub struct AllocFlowCounterIn = "alloc_flow_counter_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The logarithm of how many to make.
        flow_counter_bulk_log_size: u8 @ 0x73, 5;
        /// How many to make, in units of 128; 0 makes one.
        flow_counter_bulk: u8 @ 0x78, 8;
    }

    /// Output of ALLOC_FLOW_COUNTER.
    pub struct AllocFlowCounterOut = "alloc_flow_counter_out", 0x10 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// The number of the first one.
        flow_counter_id: u32 @ 0x40, 32;
    }

    /// Input of DEALLOC_FLOW_COUNTER.
    pub struct DeallocFlowCounterIn = "dealloc_flow_counter_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// The number of the counter.
        flow_counter_id: u32 @ 0x40, 32;
    }

    /// Input of QUERY_FLOW_COUNTER.
    pub struct QueryFlowCounterIn = "query_flow_counter_in", 0x20 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// A variant of the command.
        op_mod: u16 @ 0x30, 16;
        /// Whether to begin again from 0.
        clear: bool @ 0xc0, 1;
        /// How many to read; 0 reads one.
        num_of_counters: u16 @ 0xd0, 16;
        /// The number of the first one.
        flow_counter_id: u32 @ 0xe0, 32;
    }

    /// Output of QUERY_FLOW_COUNTER. One [`TrafficCounter`] for each counter follows.
    pub struct QueryFlowCounterOut = "query_flow_counter_out", 0x10 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
    }

    /// What was counted.
    pub struct TrafficCounter = "traffic_counter", 0x10 {
        /// Frames.
        packets: u64 @ 0x00, 64;
        /// Their bytes.
        octets: u64 @ 0x40, 64;
    }
}

crate::commands! {
    /// Makes a flow table.
    pub CreateFlowTable = CREATE_FLOW_TABLE: CreateFlowTableIn => CreateFlowTableOut;
    /// Takes it away.
    pub DestroyFlowTable = DESTROY_FLOW_TABLE: DestroyFlowTableIn => OutputHeader;
    /// Changes where it leads when nothing matches.
    pub ModifyFlowTable = MODIFY_FLOW_TABLE: ModifyFlowTableIn => OutputHeader;
    /// Reads its context.
    pub QueryFlowTable = QUERY_FLOW_TABLE: QueryFlowTableIn => QueryFlowTableOut;
    /// Says in which flow table matching begins.
    pub SetFlowTableRoot = SET_FLOW_TABLE_ROOT: SetFlowTableRootIn => OutputHeader;
    /// Makes a group of entries that match the same fields.
    pub CreateFlowGroup = CREATE_FLOW_GROUP: CreateFlowGroupIn => CreateFlowGroupOut;
    /// Takes it away.
    pub DestroyFlowGroup = DESTROY_FLOW_GROUP: DestroyFlowGroupIn => OutputHeader;
    /// Reads it.
    pub QueryFlowGroup = QUERY_FLOW_GROUP: QueryFlowGroupIn => QueryFlowGroupOut;
    /// Writes an entry.
    pub SetFlowTableEntry = SET_FLOW_TABLE_ENTRY: SetFteIn => OutputHeader;
    /// Takes it away.
    pub DeleteFlowTableEntry = DELETE_FLOW_TABLE_ENTRY: DeleteFteIn => OutputHeader;
    /// Reads it.
    pub QueryFlowTableEntry = QUERY_FLOW_TABLE_ENTRY: QueryFteIn => QueryFteOut;
    /// Makes a flow counter.
    pub AllocFlowCounter = ALLOC_FLOW_COUNTER: AllocFlowCounterIn => AllocFlowCounterOut;
    /// Takes it away.
    pub DeallocFlowCounter = DEALLOC_FLOW_COUNTER: DeallocFlowCounterIn => OutputHeader;
    /// Reads it.
    pub QueryFlowCounter = QUERY_FLOW_COUNTER: QueryFlowCounterIn => QueryFlowCounterOut;
}

/// The structures of this module.
pub const LAYOUTS: &[Info] = &[
    FlowTableContext::INFO,
    CreateFlowTableIn::INFO,
    CreateFlowTableOut::INFO,
    DestroyFlowTableIn::INFO,
    ModifyFlowTableIn::INFO,
    QueryFlowTableIn::INFO,
    QueryFlowTableOut::INFO,
    SetFlowTableRootIn::INFO,
    FteMatchSetLyr24::INFO,
    FteMatchParam::INFO,
    CreateFlowGroupIn::INFO,
    CreateFlowGroupOut::INFO,
    DestroyFlowGroupIn::INFO,
    QueryFlowGroupIn::INFO,
    QueryFlowGroupOut::INFO,
    Vlan::INFO,
    FlowContext::INFO,
    DestFormat::INFO,
    FlowCounterList::INFO,
    SetFteIn::INFO,
    DeleteFteIn::INFO,
    QueryFteIn::INFO,
    QueryFteOut::INFO,
    AllocFlowCounterIn::INFO,
    AllocFlowCounterOut::INFO,
    DeallocFlowCounterIn::INFO,
    QueryFlowCounterIn::INFO,
    QueryFlowCounterOut::INFO,
    TrafficCounter::INFO,
];
