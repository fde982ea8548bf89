// SPDX-License-Identifier: GPL-2.0
//! What `<linux/vhost.h>` and `<linux/vhost_types.h>` say of vhost-vdpa.

/// Direction of an ioctl's argument.
const WRITE: u64 = 1;
const READ: u64 = 2;

/// The number of a vhost ioctl, as `_IOC()` makes it.
const fn ioc(direction: u64, number: u64, size: usize) -> u64 {
    (direction << 30) | ((size as u64) << 16) | (0xaf << 8) | number
}

const STATE: usize = size_of::<VringState>();
const FILE: usize = size_of::<VringFile>();

pub(crate) const GET_FEATURES: u64 = ioc(READ, 0x00, 8);
pub(crate) const SET_FEATURES: u64 = ioc(WRITE, 0x00, 8);
pub(crate) const SET_OWNER: u64 = ioc(0, 0x01, 0);
pub(crate) const RESET_OWNER: u64 = ioc(0, 0x02, 0);
pub(crate) const SET_LOG_BASE: u64 = ioc(WRITE, 0x04, 8);
pub(crate) const SET_LOG_FD: u64 = ioc(WRITE, 0x07, 4);
pub(crate) const SET_VRING_NUM: u64 = ioc(WRITE, 0x10, STATE);
pub(crate) const SET_VRING_ADDR: u64 = ioc(WRITE, 0x11, size_of::<VringAddr>());
pub(crate) const SET_VRING_BASE: u64 = ioc(WRITE, 0x12, STATE);
pub(crate) const GET_VRING_BASE: u64 = ioc(READ | WRITE, 0x12, STATE);
pub(crate) const SET_VRING_ENDIAN: u64 = ioc(WRITE, 0x13, STATE);
pub(crate) const GET_VRING_ENDIAN: u64 = ioc(WRITE, 0x14, STATE);
pub(crate) const SET_VRING_KICK: u64 = ioc(WRITE, 0x20, FILE);
pub(crate) const SET_VRING_CALL: u64 = ioc(WRITE, 0x21, FILE);
pub(crate) const SET_VRING_ERR: u64 = ioc(WRITE, 0x22, FILE);
pub(crate) const SET_VRING_BUSYLOOP_TIMEOUT: u64 = ioc(WRITE, 0x23, STATE);
pub(crate) const GET_VRING_BUSYLOOP_TIMEOUT: u64 = ioc(WRITE, 0x24, STATE);
pub(crate) const SET_BACKEND_FEATURES: u64 = ioc(WRITE, 0x25, 8);
// The kernel's own definition has this one with the direction of a read.
pub(crate) const GET_BACKEND_FEATURES: u64 = ioc(READ, 0x26, 8);
pub(crate) const GET_DEVICE_ID: u64 = ioc(READ, 0x70, 4);
pub(crate) const GET_STATUS: u64 = ioc(READ, 0x71, 1);
pub(crate) const SET_STATUS: u64 = ioc(WRITE, 0x72, 1);
pub(crate) const GET_CONFIG: u64 = ioc(READ, 0x73, 8);
pub(crate) const SET_CONFIG: u64 = ioc(WRITE, 0x74, 8);
pub(crate) const SET_VRING_ENABLE: u64 = ioc(WRITE, 0x75, STATE);
pub(crate) const GET_VRING_NUM: u64 = ioc(READ, 0x76, 2);
pub(crate) const SET_CONFIG_CALL: u64 = ioc(WRITE, 0x77, 4);
pub(crate) const GET_IOVA_RANGE: u64 = ioc(READ, 0x78, 16);
pub(crate) const GET_CONFIG_SIZE: u64 = ioc(READ, 0x79, 4);
pub(crate) const GET_AS_NUM: u64 = ioc(READ, 0x7a, 4);
pub(crate) const GET_VRING_GROUP: u64 = ioc(READ | WRITE, 0x7b, STATE);
pub(crate) const SET_GROUP_ASID: u64 = ioc(WRITE, 0x7c, STATE);
pub(crate) const SUSPEND: u64 = ioc(0, 0x7d, 0);
pub(crate) const RESUME: u64 = ioc(0, 0x7e, 0);
pub(crate) const GET_VRING_DESC_GROUP: u64 = ioc(READ | WRITE, 0x7f, STATE);
pub(crate) const GET_VQS_COUNT: u64 = ioc(READ, 0x80, 4);
pub(crate) const GET_GROUP_NUM: u64 = ioc(READ, 0x81, 4);
pub(crate) const GET_VRING_SIZE: u64 = ioc(READ | WRITE, 0x82, STATE);

/// `struct vhost_vring_state`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct VringState {
    pub(crate) index: u32,
    pub(crate) num: u32,
}

/// `struct vhost_vring_file`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct VringFile {
    pub(crate) index: u32,
    pub(crate) fd: i32,
}

/// `struct vhost_vring_addr`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct VringAddr {
    pub(crate) index: u32,
    pub(crate) flags: u32,
    pub(crate) desc: u64,
    pub(crate) used: u64,
    pub(crate) avail: u64,
    pub(crate) log: u64,
}

/// `struct vhost_vdpa_config` with room for a whole virtio-net configuration
/// and more.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Config {
    pub(crate) offset: u32,
    pub(crate) length: u32,
    pub(crate) bytes: [u8; 256],
}

/// `struct vhost_vdpa_iova_range`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct IovaRange {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// `struct vhost_msg_v2`, also good for a message of the first version, whose
/// address space and padding lie at the same place.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Message {
    pub(crate) version: u32,
    pub(crate) asid: u32,
    pub(crate) iova: u64,
    pub(crate) size: u64,
    pub(crate) uaddr: u64,
    pub(crate) perm: u8,
    pub(crate) kind: u8,
    pub(crate) padding: [u8; 38],
}

const _: () = assert!(size_of::<Message>() == 72);

pub(crate) const MSG_V1: u32 = 1;
pub(crate) const MSG_V2: u32 = 2;

pub(crate) const RO: u8 = 1;
pub(crate) const WO: u8 = 2;
pub(crate) const RW: u8 = 3;

pub(crate) const UPDATE: u8 = 2;
pub(crate) const INVALIDATE: u8 = 3;
pub(crate) const BATCH_BEGIN: u8 = 5;
pub(crate) const BATCH_END: u8 = 6;

/// Backend features, as bits.
pub(crate) const F_MSG_V2: u64 = 1 << 1;
pub(crate) const F_BATCH: u64 = 1 << 2;
pub(crate) const F_ASID: u64 = 1 << 3;
pub(crate) const F_SUSPEND: u64 = 1 << 4;
pub(crate) const F_RESUME: u64 = 1 << 5;
pub(crate) const F_DESC_ASID: u64 = 1 << 7;
pub(crate) const F_PERSIST: u64 = 1 << 8;
/// The device serves legacy drivers; it serves those of big-endian guests.
pub(crate) const F_LEGACY: u64 = 1 << 9;
pub(crate) const F_LEGACY_BE: u64 = 1 << 10;

/// The status field.
pub(crate) const ACKNOWLEDGE: u8 = 0x01;
pub(crate) const DRIVER: u8 = 0x02;
pub(crate) const DRIVER_OK: u8 = 0x04;
pub(crate) const FEATURES_OK: u8 = 0x08;
pub(crate) const STOP: u8 = 0x10;
pub(crate) const NEEDS_RESET: u8 = 0x40;
pub(crate) const FAILED: u8 = 0x80;

/// Features, as bits.
pub(crate) const NET_F_CSUM: u64 = 1;
pub(crate) const NET_F_GUEST_CSUM: u64 = 1 << 1;
pub(crate) const NET_F_MTU: u64 = 1 << 3;
pub(crate) const NET_F_MAC: u64 = 1 << 5;
pub(crate) const NET_F_GUEST_TSO4: u64 = 1 << 7;
pub(crate) const NET_F_HOST_TSO4: u64 = 1 << 11;
pub(crate) const NET_F_MRG_RXBUF: u64 = 1 << 15;
pub(crate) const NET_F_STATUS: u64 = 1 << 16;
pub(crate) const NET_F_CTRL_VQ: u64 = 1 << 17;
pub(crate) const NET_F_CTRL_RX: u64 = 1 << 18;
pub(crate) const NET_F_CTRL_VLAN: u64 = 1 << 19;
pub(crate) const NET_F_GUEST_ANNOUNCE: u64 = 1 << 21;
pub(crate) const NET_F_MQ: u64 = 1 << 22;
pub(crate) const NET_F_CTRL_MAC_ADDR: u64 = 1 << 23;
pub(crate) const F_INDIRECT_DESC: u64 = 1 << 28;
pub(crate) const F_EVENT_IDX: u64 = 1 << 29;
pub(crate) const F_VERSION_1: u64 = 1 << 32;
pub(crate) const F_ACCESS_PLATFORM: u64 = 1 << 33;
pub(crate) const F_RING_PACKED: u64 = 1 << 34;
