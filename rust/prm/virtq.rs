// SPDX-License-Identifier: GPL-2.0

//! Virtqueues of network devices, and their counters.

use crate::{
    command::{
        ObjectInputHeader,
        ObjectOutputHeader, //
    },
    layout::Info,
    Layout, //
};

crate::values! {
    /// The layout of the rings.
    pub enum QueueType: u8 {
        /// Split: descriptors, available and used ring apart.
        SPLIT = 0,
        /// Packed: one ring.
        PACKED = 1,
    }

    /// How the driver is told of used buffers.
    pub enum EventMode: u8 {
        /// Not at all.
        NO_MSIX_MODE = 0,
        /// By a completion of a queue pair.
        QP_MODE = 1,
        /// By an interrupt vector.
        MSIX_MODE = 2,
    }

    /// The state of a virtqueue.
    pub enum State: u8 {
        /// It was made and never started.
        INIT = 0,
        /// It moves frames.
        RDY = 1,
        /// It was stopped, and its indices stand.
        SUSPEND = 2,
        /// It failed; it can only be destroyed.
        ERR = 3,
    }
}

/// What MODIFY changes of a virtqueue: bits of `modify_field_select`. The names are those of the C
/// headers, without `MLX5_VIRTQ_MODIFY_MASK_`.
pub mod modify {
    /// The state.
    pub const STATE: u64 = 1 << 0;
    /// Where dirty pages are written down.
    pub const DIRTY_BITMAP_PARAMS: u64 = 1 << 3;
    /// Whether dirty pages are written down.
    pub const DIRTY_BITMAP_DUMP_ENABLE: u64 = 1 << 4;
    /// The addresses of the three areas.
    pub const VIRTIO_Q_ADDRS: u64 = 1 << 6;
    /// The available index.
    pub const VIRTIO_Q_AVAIL_IDX: u64 = 1 << 7;
    /// The used index.
    pub const VIRTIO_Q_USED_IDX: u64 = 1 << 8;
    /// Whether the driver is one of virtio 1.0 or later.
    pub const QUEUE_VIRTIO_VERSION: u64 = 1 << 10;
    /// The memory key of everything, or of the buffers if the rings have one of their own.
    pub const VIRTIO_Q_MKEY: u64 = 1 << 11;
    /// The features.
    pub const QUEUE_FEATURES: u64 = 1 << 12;
    /// The memory key of the rings.
    pub const DESC_GROUP_MKEY: u64 = 1 << 14;
}

crate::layout! {
    /// What a virtqueue of any device has.
    pub struct VirtioQ = "virtio_q", 0x80 {
        /// The layout of the rings.
        virtio_q_type: QueueType @ 0x00, 8;
        /// How the driver is told of used buffers.
        event_mode: EventMode @ 0x0d, 3;
        /// Its number in the device: what a doorbell says.
        queue_index: u16 @ 0x10, 16;
        /// Whether the firmware emulates the PCI device too.
        full_emulation: bool @ 0x20, 1;
        /// Whether the driver is one of virtio 1.0 or later.
        virtio_version_1_0: bool @ 0x21, 1;
        /// Whether frames or descriptors are passed on.
        offload_type: u8 @ 0x24, 4;
        /// The queue pair or the vector the driver is told by.
        event_qpn_or_msix: u32 @ 0x28, 24;
        /// Where the doorbell lies, in strides.
        doorbell_stride_index: u16 @ 0x40, 16;
        /// The number of entries.
        queue_size: u16 @ 0x50, 16;
        /// Which emulated PCI device it belongs to.
        device_emulation_id: u32 @ 0x60, 32;
        /// The address of the descriptor area.
        desc_addr: u64 @ 0x80, 64;
        /// The address of the device area.
        used_addr: u64 @ 0xc0, 64;
        /// The address of the driver area.
        available_addr: u64 @ 0x100, 64;
        /// The memory key of all addresses.
        virtio_q_mkey: u32 @ 0x140, 32;
        /// The most descriptors that are passed on at once.
        max_tunnel_desc: u16 @ 0x160, 16;
        /// What went wrong, in state ERR.
        error_type: u8 @ 0x178, 8;
        /// The first of three pieces of memory for the firmware's own use.
        umem_1_id: u32 @ 0x180, 32;
        /// Its length in bytes.
        umem_1_size: u32 @ 0x1a0, 32;
        /// Where in the umem it begins, in bytes.
        umem_1_offset: u64 @ 0x1c0, 64;
        /// The second.
        umem_2_id: u32 @ 0x200, 32;
        /// Its length in bytes.
        umem_2_size: u32 @ 0x220, 32;
        /// Where in the umem it begins, in bytes.
        umem_2_offset: u64 @ 0x240, 64;
        /// The third.
        umem_3_id: u32 @ 0x280, 32;
        /// Its length in bytes.
        umem_3_size: u32 @ 0x2a0, 32;
        /// Where in the umem it begins, in bytes.
        umem_3_offset: u64 @ 0x2c0, 64;
        /// The counters it counts in; 0 if it does not.
        counter_set_id: u32 @ 0x300, 32;
        /// The protection domain.
        pd: u32 @ 0x328, 24;
        /// The memory key of the rings, if they have one of their own.
        desc_group_mkey: u32 @ 0x360, 32;
    }

    /// A virtqueue of a network device.
    pub struct VirtioNetQObject = "virtio_net_q_object", 0xc0 {
        /// What is to be changed; see [`modify`].
        modify_field_select: u64 @ 0x00, 64;
        /// The function it belongs to.
        vhca_id: u16 @ 0x60, 16;
        /// Bits 12 to 3 of the features; see [`virtio_feature`](crate::cap::virtio_feature).
        queue_feature_bit_mask_12_3: u16 @ 0x80, 10;
        /// Whether dirty pages are written down.
        dirty_bitmap_dump_enable: bool @ 0x8a, 1;
        /// The logarithm of the size of what a bit of the dirty bitmap stands for.
        vhost_log_page: u8 @ 0x8b, 5;
        /// Its state.
        state: State @ 0x9c, 4;
        /// Bits 2 to 0 of the features.
        queue_feature_bit_mask_2_0: u8 @ 0xa5, 3;
        /// The transmit interface frames go out by.
        tisn_or_qpn: u32 @ 0xa8, 24;
        /// The memory key of the dirty bitmap.
        dirty_bitmap_mkey: u32 @ 0xc0, 32;
        /// The length of the dirty bitmap.
        dirty_bitmap_size: u32 @ 0xe0, 32;
        /// Where the dirty bitmap is.
        dirty_bitmap_addr: u64 @ 0x100, 64;
        /// The index of the next available entry to take.
        hw_available_index: u16 @ 0x140, 16;
        /// The index of the next used entry to write.
        hw_used_index: u16 @ 0x150, 16;
        /// What a virtqueue of any device has.
        virtio_q_context: &VirtioQ @ 0x200;
    }

    /// Input of CREATE for a virtqueue.
    pub struct CreateVirtioNetQIn = "create_virtio_net_q_in", 0xd0 {
        /// Which command it is.
        general_obj_in_cmd_hdr: &ObjectInputHeader @ 0x00;
        /// What to make.
        obj_context: &VirtioNetQObject @ 0x80;
    }

    /// Input of MODIFY for a virtqueue.
    pub struct ModifyVirtioNetQIn = "modify_virtio_net_q_in", 0xd0 {
        /// Which command it is, and for which virtqueue.
        general_obj_in_cmd_hdr: &ObjectInputHeader @ 0x00;
        /// What to change, and to what.
        obj_context: &VirtioNetQObject @ 0x80;
    }

    /// Output of QUERY for a virtqueue.
    pub struct QueryVirtioNetQOut = "query_virtio_net_q_out", 0xd0 {
        /// How the command ended.
        general_obj_out_cmd_hdr: &ObjectOutputHeader @ 0x00;
        /// What it is like.
        obj_context: &VirtioNetQObject @ 0x80;
    }

    /// What happened in virtqueues.
    pub struct VirtioQCounters = "virtio_q_counters", 0x80 {
        /// What is to be changed; nothing can be.
        modify_field_select: u64 @ 0x00, 64;
        /// Descriptor chains taken from the driver.
        received_desc: u64 @ 0x80, 64;
        /// Descriptor chains given back to it.
        completed_desc: u64 @ 0xc0, 64;
        /// Frames that could not be moved.
        error_cqes: u32 @ 0x100, 32;
        /// Descriptors that cannot be.
        bad_desc_errors: u32 @ 0x120, 32;
        /// Chains that are too long.
        exceed_max_chain: u32 @ 0x140, 32;
        /// Buffers in memory that may not be used so.
        invalid_buffer: u32 @ 0x160, 32;
    }

    /// Input of CREATE for counters.
    pub struct CreateVirtioQCountersIn = "create_virtio_q_counters_in", 0x90 {
        /// Which command it is.
        hdr: &ObjectInputHeader @ 0x00;
        /// Nothing: counters begin at 0.
        virtio_q_counters: &VirtioQCounters @ 0x80;
    }

    /// Output of QUERY for counters.
    pub struct QueryVirtioQCountersOut = "query_virtio_q_counters_out", 0x90 {
        /// How the command ended.
        hdr: &ObjectOutputHeader @ 0x00;
        /// What happened so far.
        counters: &VirtioQCounters @ 0x80;
    }
}

impl VirtioNetQObject {
    /// The features, a bit each; see [`virtio_feature`](crate::cap::virtio_feature).
    pub fn queue_features(&self) -> u16 {
        (self.queue_feature_bit_mask_12_3() << 3) | u16::from(self.queue_feature_bit_mask_2_0())
    }

    /// Sets the features.
    pub fn set_queue_features(&mut self, features: u16) -> &mut Self {
        self.set_queue_feature_bit_mask_12_3(features >> 3)
            .set_queue_feature_bit_mask_2_0((features & 7) as u8)
    }
}

crate::commands! {
    /// Makes a virtqueue.
    pub CreateVirtioNetQ = CREATE_GENERAL_OBJECT(VIRTIO_NET_Q):
        CreateVirtioNetQIn => ObjectOutputHeader;
    /// Changes it.
    pub ModifyVirtioNetQ = MODIFY_GENERAL_OBJECT(VIRTIO_NET_Q):
        ModifyVirtioNetQIn => ObjectOutputHeader;
    /// Reads it.
    pub QueryVirtioNetQ = QUERY_GENERAL_OBJECT(VIRTIO_NET_Q):
        ObjectInputHeader => QueryVirtioNetQOut;
    /// Takes it away.
    pub DestroyVirtioNetQ = DESTROY_GENERAL_OBJECT(VIRTIO_NET_Q):
        ObjectInputHeader => ObjectOutputHeader;
    /// Makes counters.
    pub CreateVirtioQCounters = CREATE_GENERAL_OBJECT(VIRTIO_Q_COUNTERS):
        CreateVirtioQCountersIn => ObjectOutputHeader;
    /// Reads them.
    pub QueryVirtioQCounters = QUERY_GENERAL_OBJECT(VIRTIO_Q_COUNTERS):
        ObjectInputHeader => QueryVirtioQCountersOut;
    /// Takes them away.
    pub DestroyVirtioQCounters = DESTROY_GENERAL_OBJECT(VIRTIO_Q_COUNTERS):
        ObjectInputHeader => ObjectOutputHeader;
}

/// The structures of this module.
pub const LAYOUTS: &[Info] = &[
    VirtioQ::INFO,
    VirtioNetQObject::INFO,
    CreateVirtioNetQIn::INFO,
    ModifyVirtioNetQIn::INFO,
    QueryVirtioNetQOut::INFO,
    VirtioQCounters::INFO,
    CreateVirtioQCountersIn::INFO,
    QueryVirtioQCountersOut::INFO,
];
