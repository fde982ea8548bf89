// SPDX-License-Identifier: GPL-2.0

//! Capabilities: what the firmware can do, and what of it is in use.

use crate::{
    command::OutputHeader,
    layout::Info,
    Layout,
    Opcode,
    Status, //
};

crate::values! {
    /// A group of capabilities: bits 15 to 1 of `op_mod` of QUERY_HCA_CAP and SET_HCA_CAP.
    pub enum CapType: u16 {
        /// Of the function as a whole: [`CmdHcaCap`].
        GENERAL = 0x0,
        /// Of Ethernet send and receive queues.
        ETHERNET_OFFLOADS = 0x1,
        /// Of paging on demand.
        ODP = 0x2,
        /// Of atomic operations.
        ATOMIC = 0x3,
        /// Of RDMA over Ethernet.
        ROCE = 0x4,
        /// Of the flow tables of the function: [`FlowTableNicCap`].
        FLOW_TABLE = 0x7,
        /// Of virtqueues: [`VirtioEmulationCap`].
        VDPA_EMULATION = 0x13,
        /// More of the function as a whole: [`CmdHcaCap2`].
        GENERAL_2 = 0x20,
    }

    /// Which of two values of a capability: bit 0 of `op_mod` of QUERY_HCA_CAP.
    pub enum CapMode: u8 {
        /// The largest that can be chosen.
        GET_MAX = 0,
        /// The one that is in use.
        GET_CUR = 1,
    }

    /// What kind of network the port is on.
    pub enum PortType: u8 {
        /// InfiniBand.
        IB = 0,
        /// Ethernet.
        ETH = 1,
    }
}

/// The most bytes of one group of capabilities.
pub const CAPABILITY_BYTES: usize = 0x1000;

crate::layout! {
    /// Input of QUERY_HCA_CAP.
    pub struct QueryHcaCapIn = "query_hca_cap_in", 0x10 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The group ([`CapType`]) in bits 15 to 1, and [`CapMode`] in bit 0.
        op_mod: u16 @ 0x30, 16;
        /// Whether it asks about another function than the caller.
        other_function: bool @ 0x40, 1;
        /// Which other function.
        function_id: u16 @ 0x50, 16;
    }

    /// Output of QUERY_HCA_CAP.
    pub struct QueryHcaCapOut = "query_hca_cap_out", 0x1010 {
        /// How the command ended.
        status: Status @ 0x00, 8;
        /// Why it ended so.
        syndrome: u32 @ 0x20, 32;
        /// The group, from its beginning.
        capability: [u8; 0x1000] @ 0x80;
    }

    /// Input of SET_HCA_CAP.
    pub struct SetHcaCapIn = "set_hca_cap_in", 0x1010 {
        /// Which command it is.
        opcode: Opcode @ 0x00, 16;
        /// The group ([`CapType`]) in bits 15 to 1.
        op_mod: u16 @ 0x30, 16;
        /// Whether it is about another function than the caller.
        other_function: bool @ 0x40, 1;
        /// Which other function.
        function_id: u16 @ 0x50, 16;
        /// The group, from its beginning, with the values that are to be in use.
        capability: [u8; 0x1000] @ 0x80;
    }

    /// Capabilities of the function as a whole. `log_` is a logarithm to base 2.
    pub struct CmdHcaCap = "cmd_hca_cap", 0x100 {
        /// The firmware never asks for pages by an event.
        page_request_disable: bool @ 0x06, 1;
        /// The number of the port is that of the board.
        abs_native_port_num: bool @ 0x07, 1;
        /// There is a second group of general capabilities.
        hca_cap_2: bool @ 0x20, 1;
        /// The register of default time limits can be read.
        dtor: bool @ 0x22, 1;
        /// The function's number among all of the board.
        vhca_id: u16 @ 0x30, 16;
        /// The largest shared receive queue.
        log_max_srq_sz: u8 @ 0x80, 8;
        /// The largest queue of a queue pair.
        log_max_qp_sz: u8 @ 0x88, 8;
        /// There is a group of capabilities of events.
        event_cap: bool @ 0x90, 1;
        /// Queue pairs.
        log_max_qp: u8 @ 0x9b, 5;
        /// Shared receive queues.
        log_max_srq: u8 @ 0xab, 5;
        /// The largest completion queue.
        log_max_cq_sz: u8 @ 0xc8, 8;
        /// Completion queues.
        log_max_cq: u8 @ 0xdb, 5;
        /// The largest event queue.
        log_max_eq_sz: u8 @ 0xe0, 8;
        /// Memory keys.
        log_max_mkey: u8 @ 0xea, 6;
        /// TEARDOWN_HCA can prepare for a fast end.
        fast_teardown: bool @ 0xfb, 1;
        /// Event queues, if `max_num_eqs` is 0.
        log_max_eq: u8 @ 0xfc, 4;
        /// How deep memory keys may refer to each other.
        max_indirection: u8 @ 0x100, 8;
        /// Memory keys may be of entries of one size.
        fixed_buffer_size: bool @ 0x108, 1;
        /// The largest memory region.
        log_max_mrw_sz: u8 @ 0x109, 7;
        /// TEARDOWN_HCA can be forced.
        force_teardown: bool @ 0x110, 1;
        /// There is a key that reads as zero and drops what is written.
        null_mkey: bool @ 0x119, 1;
        /// Entries of a memory key made of other keys.
        log_max_klm_list_size: u8 @ 0x11a, 6;
        /// An event can give all pages back at once.
        release_all_pages: bool @ 0x145, 1;
        /// Cache lines may be of 128 bytes.
        cache_line_128byte: bool @ 0x164, 1;
        /// Pairs of queue counters for each queue can be read.
        vnic_env_int_rq_oob: bool @ 0x16c, 1;
        /// The register of capabilities of quality of service is there.
        qcam_reg: bool @ 0x16f, 1;
        /// Entries of the table of identifiers, encoded.
        gid_table_size: u16 @ 0x170, 16;
        /// The port has counters.
        vport_counters: bool @ 0x181, 1;
        /// There is a group of capabilities of diagnosis.
        debug: bool @ 0x183, 1;
        /// Sets of queue counters.
        max_qp_cnt: u16 @ 0x186, 10;
        /// Entries of the table of partition keys, encoded: 0 is 128.
        pkey_table_size: u16 @ 0x190, 16;
        /// The function manages the ports of others.
        vport_group_manager: bool @ 0x1a0, 1;
        /// Diagnostic counters of queues can be read.
        vnic_env_queue_counters: bool @ 0x1a4, 1;
        /// The function has flow tables.
        nic_flow_table: bool @ 0x1a6, 1;
        /// The function manages the switch.
        eswitch_manager: bool @ 0x1a7, 1;
        /// The register of capabilities of management is there.
        mcam_reg: bool @ 0x1a9, 1;
        /// The register of capabilities of the port is there.
        pcam_reg: bool @ 0x1aa, 1;
        /// The network of the port.
        port_type: PortType @ 0x1b6, 2;
        /// Ports.
        num_ports: u8 @ 0x1b8, 8;
        /// The largest message.
        log_max_msg: u8 @ 0x1c3, 5;
        /// Traffic classes.
        max_tc: u8 @ 0x1cc, 4;
        /// There are events of general notifications.
        general_notification_event: bool @ 0x1d2, 1;
        /// The driver is told of an update of the firmware.
        pci_sync_for_fw_update_event: bool @ 0x1f1, 1;
        /// The version of completion entries.
        cqe_version: u8 @ 0x1fc, 4;
        /// Checksums of commands: 0 is none.
        cmdif_checksum: u8 @ 0x210, 2;
        /// Dynamically connected transport.
        dct: bool @ 0x21a, 1;
        /// There is a group of capabilities of quality of service.
        qos: bool @ 0x21b, 1;
        /// The function has Ethernet send and receive queues.
        eth_net_offloads: bool @ 0x21c, 1;
        /// RDMA over Ethernet.
        roce: bool @ 0x21d, 1;
        /// Atomic operations.
        atomic: bool @ 0x21e, 1;
        /// A completion queue can be told to ignore overruns.
        cq_oi: bool @ 0x220, 1;
        /// A completion queue can be resized.
        cq_resize: bool @ 0x221, 1;
        /// A completion queue can be moderated.
        cq_moderation: bool @ 0x222, 1;
        /// A completion queue can be moved to another event queue.
        cq_eq_remap: bool @ 0x226, 1;
        /// Paging on demand.
        pg: bool @ 0x227, 1;
        /// Pages of doorbells are of 4096 bytes whatever the page size.
        uar_4k: bool @ 0x240, 1;
        /// The size of BAR 0: the logarithm of the number of its megabytes.
        uar_sz: u8 @ 0x24a, 6;
        /// There is a group of capabilities of port selection.
        port_selection_cap: bool @ 0x250, 1;
        /// The driver itself, user context 0, may register memory for objects.
        umem_uid_0: bool @ 0x252, 1;
        /// The smallest page.
        log_pg_sz: u8 @ 0x258, 8;
        /// Pages of doorbells take whole entries.
        bf: bool @ 0x260, 1;
        /// The driver may tell its name.
        driver_version: bool @ 0x261, 1;
        /// Memory keys can be named.
        mkey_by_name: bool @ 0x266, 1;
        /// The size of a doorbell register that takes whole entries.
        log_bf_reg_size: u8 @ 0x26b, 5;
        /// Pages are asked for under the function's number on the board.
        icm_mng_function_id_mode: bool @ 0x2a0, 1;
        /// The high half of the number of flow counters.
        max_flow_counter_31_16: u16 @ 0x2c0, 16;
        /// How many flow counters can be made at once, a bit for each power of 2 from 128.
        flow_counter_bulk_alloc: u8 @ 0x310, 8;
        /// Transport domains.
        log_max_transport_domain: u8 @ 0x323, 5;
        /// Protection domains.
        log_max_pd: u8 @ 0x32b, 5;
        /// What steering dropped is counted.
        nic_receive_steering_discard: bool @ 0x340, 1;
        /// What was dropped as the port was down is counted, on receive.
        receive_discard_vport_down: bool @ 0x341, 1;
        /// The same on transmit.
        transmit_discard_vport_down: bool @ 0x342, 1;
        /// Overruns of event queues are counted.
        eq_overrun_count: bool @ 0x343, 1;
        /// Commands that were refused are counted.
        invalid_command_count: bool @ 0x345, 1;
        /// The low half of the number of flow counters.
        max_flow_counter_15_0: u16 @ 0x350, 16;
        /// Receive queues.
        log_max_rq: u8 @ 0x363, 5;
        /// Send queues.
        log_max_sq: u8 @ 0x36b, 5;
        /// Receive destinations.
        log_max_tir: u8 @ 0x373, 5;
        /// Transmit interfaces.
        log_max_tis: u8 @ 0x37b, 5;
        /// Tables of receive queues.
        log_max_rqt: u8 @ 0x38b, 5;
        /// Entries of such a table.
        log_max_rqt_size: u8 @ 0x393, 5;
        /// Transmit interfaces of one send queue.
        log_max_tis_per_sq: u8 @ 0x39b, 5;
        /// `roce` can be chosen.
        roce_rw_supported: bool @ 0x3a1, 1;
        /// `log_max_current_uc_list` can be chosen.
        log_max_current_uc_list_wr_supported: bool @ 0x3a2, 1;
        /// The largest work queue.
        log_max_wq_sz: u8 @ 0x3db, 5;
        /// There are events of changes of the port's context.
        nic_vport_change_event: bool @ 0x3e0, 1;
        /// Unicast frames of the function itself can be kept from it.
        disable_local_lb_uc: bool @ 0x3e1, 1;
        /// The same for multicast frames.
        disable_local_lb_mc: bool @ 0x3e2, 1;
        /// VLANs in the port's list.
        log_max_vlan_list: u8 @ 0x3eb, 5;
        /// Multicast addresses in the port's list.
        log_max_current_mc_list: u8 @ 0x3f3, 5;
        /// Unicast addresses in the port's list.
        log_max_current_uc_list: u8 @ 0x3fb, 5;
        /// A bit for each type of general object ([`ObjectType`](crate::ObjectType)).
        general_obj_types: u64 @ 0x400, 64;
        /// The format of steering entries.
        steering_format_version: u8 @ 0x444, 4;
        /// User contexts; 0 if there are none.
        log_max_uctx: u8 @ 0x463, 5;
        /// Registrations of memory for objects.
        log_max_umem: u8 @ 0x46b, 5;
        /// Event queues.
        max_num_eqs: u16 @ 0x470, 16;
        /// Entries of the table of the physical function's addresses.
        log_max_l2_table: u8 @ 0x483, 5;
        /// The page size of doorbells, in units of 4096 bytes.
        log_uar_page_sz: u16 @ 0x490, 16;
        /// The frequency of the clock in MHz.
        device_frequency_mhz: u32 @ 0x4c0, 32;
        /// The same in kHz.
        device_frequency_khz: u32 @ 0x4e0, 32;
        /// Pages of doorbells in one page of the host.
        num_of_uars_per_page: u32 @ 0x520, 32;
        /// Ports of the board.
        num_vhca_ports: u8 @ 0x610, 8;
        /// INIT_HCA takes an owner.
        sw_owner_id: bool @ 0x61e, 1;
        /// The smallest BAR of a sub-function, in units of 4096 bytes.
        log_min_sf_size: u8 @ 0x690, 8;
        /// What a user context may be allowed, a bit each.
        uctx_cap: u32 @ 0x6a0, 32;
        /// Vectors that can be moved among virtual functions.
        num_total_dynamic_vf_msix: u32 @ 0x708, 24;
    }

    /// More capabilities of the function as a whole.
    pub struct CmdHcaCap2 = "cmd_hca_cap_2", 0x100 {
        /// The driver may number functions itself.
        sw_vhca_id_valid: bool @ 0x221, 1;
        /// Event queues, in more bits.
        max_num_eqs_24b: u32 @ 0x448, 24;
    }

    /// Capabilities of virtqueues.
    pub struct VirtioEmulationCap = "virtio_emulation_cap", 0x100 {
        /// Packets may be sent in a tunnel.
        desc_tunnel_offload_type: bool @ 0x00, 1;
        /// Packets are Ethernet frames.
        eth_frame_offload_type: bool @ 0x01, 1;
        /// Virtqueues may be as the standard has them since version 1.
        virtio_version_1_0: bool @ 0x02, 1;
        /// The features of virtqueues, a bit each: [`virtqueue features`](virtio_feature).
        device_features_bits_mask: u16 @ 0x03, 13;
        /// How virtqueues tell of used entries, a bit for each way: bit 1 for one by a queue pair,
        /// bit 2 for one by an interrupt vector. Linux takes bit 0 for the queue pair.
        event_mode: u8 @ 0x10, 8;
        /// The formats of virtqueues: bit 0 for split ones, bit 1 for packed ones.
        virtio_queue_type: u8 @ 0x18, 8;
        /// Descriptors of a packet in a tunnel.
        max_tunnel_desc: u16 @ 0x20, 16;
        /// The bytes from doorbell to doorbell; all are one if it is 0.
        log_doorbell_stride: u8 @ 0x33, 5;
        /// The size of the region of doorbells, in pages.
        log_doorbell_bar_size: u8 @ 0x3b, 5;
        /// The first doorbell in BAR 0, in bytes.
        doorbell_bar_offset: u64 @ 0x40, 64;
        /// Devices that can be emulated whole.
        max_emulated_devices: u8 @ 0x80, 8;
        /// Virtqueues.
        max_num_virtio_queues: u32 @ 0x88, 24;
        /// The descriptor area may be reached by a memory key of its own.
        desc_group_mkey_supported: bool @ 0xd3, 1;
        /// A virtqueue that was suspended can be made ready again.
        freeze_to_rdy_supported: bool @ 0xd4, 1;
        /// The bytes of the first registration of memory that an entry of the queue needs.
        umem_1_buffer_param_a: u32 @ 0x100, 32;
        /// The bytes it needs besides.
        umem_1_buffer_param_b: u32 @ 0x120, 32;
        /// The second, for each entry.
        umem_2_buffer_param_a: u32 @ 0x140, 32;
        /// The second, besides.
        umem_2_buffer_param_b: u32 @ 0x160, 32;
        /// The third, for each entry.
        umem_3_buffer_param_a: u32 @ 0x180, 32;
        /// The third, besides.
        umem_3_buffer_param_b: u32 @ 0x1a0, 32;
    }

    /// Capabilities of one type of flow tables.
    pub struct FlowTablePropLayout = "flow_table_prop_layout", 0x40 {
        /// There are such tables.
        ft_support: bool @ 0x00, 1;
        /// Entries may count.
        flow_counter: bool @ 0x02, 1;
        /// Entries may be changed.
        flow_modify_en: bool @ 0x03, 1;
        /// The root may be changed.
        modify_root: bool @ 0x04, 1;
        /// A table may say where to go on when nothing matches.
        identified_miss_table_mode: bool @ 0x05, 1;
        /// A table may be changed.
        flow_table_modify: bool @ 0x06, 1;
        /// The default root can be restored.
        reset_root_to_default: bool @ 0x09, 1;
        /// Entries of a table.
        log_max_ft_size: u8 @ 0x22, 6;
        /// Levels.
        max_ft_level: u8 @ 0x38, 8;
        /// Tables.
        log_max_ft_num: u8 @ 0x78, 8;
        /// Flow counters of an entry.
        log_max_flow_counter: u8 @ 0x90, 8;
        /// Destinations of an entry.
        log_max_destination: u8 @ 0x98, 8;
        /// Entries of all tables.
        log_max_flow: u8 @ 0xb8, 8;
        /// The fields that can be matched on.
        ft_field_support: &FlowTableFieldsSupported @ 0x100;
        /// Those of them that can be matched on in part.
        ft_field_bitmask_support: &FlowTableFieldsSupported @ 0x180;
    }

    /// Fields that can be matched on, those of Ethernet, IP, TCP and UDP headers outside tunnels.
    pub struct FlowTableFieldsSupported = "flow_table_fields_supported", 0x10 {
        /// The destination address.
        outer_dmac: bool @ 0x00, 1;
        /// The source address.
        outer_smac: bool @ 0x01, 1;
        /// The type of the frame.
        outer_ether_type: bool @ 0x02, 1;
        /// The version of IP.
        outer_ip_version: bool @ 0x03, 1;
        /// The priority in the first VLAN tag.
        outer_first_prio: bool @ 0x04, 1;
        /// The drop indicator in it.
        outer_first_cfi: bool @ 0x05, 1;
        /// The VLAN in it.
        outer_first_vid: bool @ 0x06, 1;
        /// The source address of IP.
        outer_sip: bool @ 0x0c, 1;
        /// The destination address of IP.
        outer_dip: bool @ 0x0d, 1;
        /// Whether it is a fragment.
        outer_frag: bool @ 0x0e, 1;
        /// The protocol.
        outer_ip_protocol: bool @ 0x0f, 1;
        /// The source port of UDP.
        outer_udp_sport: bool @ 0x12, 1;
        /// The destination port of UDP.
        outer_udp_dport: bool @ 0x13, 1;
        /// The source port of TCP.
        outer_tcp_sport: bool @ 0x14, 1;
        /// The destination port of TCP.
        outer_tcp_dport: bool @ 0x15, 1;
    }

    /// Capabilities of the flow tables of the function.
    pub struct FlowTableNicCap = "flow_table_nic_cap", 0x1000 {
        /// Those of received frames.
        flow_table_properties_nic_receive: &FlowTablePropLayout @ 0x200;
        /// Those of sent frames.
        flow_table_properties_nic_transmit: &FlowTablePropLayout @ 0x800;
    }
}

/// Features of virtqueues, as [`VirtioEmulationCap::device_features_bits_mask`] and virtqueue
/// objects have them: bit numbers.
///
/// A virtqueue object has bits 12 to 3 in one field and 2 to 0 in another.
pub mod virtio_feature {
    /// `VIRTIO_NET_F_MRG_RXBUF`.
    pub const MRG_RXBUF: u16 = 2;
    /// `VIRTIO_NET_F_HOST_ECN`.
    pub const HOST_ECN: u16 = 4;
    /// `VIRTIO_NET_F_GUEST_ECN`.
    pub const GUEST_ECN: u16 = 6;
    /// `VIRTIO_NET_F_GUEST_TSO6`.
    pub const GUEST_TSO6: u16 = 7;
    /// `VIRTIO_NET_F_GUEST_TSO4`.
    pub const GUEST_TSO4: u16 = 8;
    /// `VIRTIO_NET_F_GUEST_CSUM`.
    pub const GUEST_CSUM: u16 = 9;
    /// `VIRTIO_NET_F_CSUM`.
    pub const CSUM: u16 = 10;
    /// `VIRTIO_NET_F_HOST_TSO6`.
    pub const HOST_TSO6: u16 = 11;
    /// `VIRTIO_NET_F_HOST_TSO4`.
    pub const HOST_TSO4: u16 = 12;
}

crate::commands! {
    /// Reads capabilities.
    pub QueryHcaCap = QUERY_HCA_CAP: QueryHcaCapIn => QueryHcaCapOut;
    /// Chooses among the capabilities that can be chosen.
    pub SetHcaCap = SET_HCA_CAP: SetHcaCapIn => OutputHeader;
}

/// The structures of this module.
pub const LAYOUTS: &[Info] = &[
    QueryHcaCapIn::INFO,
    QueryHcaCapOut::INFO,
    SetHcaCapIn::INFO,
    CmdHcaCap::INFO,
    CmdHcaCap2::INFO,
    VirtioEmulationCap::INFO,
    FlowTablePropLayout::INFO,
    FlowTableFieldsSupported::INFO,
    FlowTableNicCap::INFO,
];
