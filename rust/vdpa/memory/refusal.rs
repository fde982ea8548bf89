// SPDX-License-Identifier: GPL-2.0

//! No addresses for the kernel's own drivers, for a device that could not use them: it reaches
//! memory by itself, but its parent does no DMA. They fail for want of memory.
//!
//! That is if the device offers ACCESS_PLATFORM. Drivers of one that does not use physical
//! addresses without asking.
//!
//! C header: [`include/linux/virtio_config.h`](srctree/include/linux/virtio_config.h),
//! `struct virtio_map_ops`

use kernel::{
    bindings,
    error::code::ENOMEM,
    ffi::{
        c_int,
        c_ulong,
        c_void, //
    }, //
};

use vdpa_bindings::{
    virtio_map,
    virtio_map_ops, //
};

use super::identity;

/// The operations. For C to call with any `vmap`, which is not looked at.
pub(crate) static OPS: virtio_map_ops = virtio_map_ops {
    map_page: Some(map_page),
    alloc: Some(alloc),
    mapping_error: Some(mapping_error),
    // What was not mapped needs nothing to be done about it.
    ..identity::OPS
};

/// `DMA_MAPPING_ERROR`
const NO_ADDRESS: bindings::dma_addr_t = bindings::dma_addr_t::MAX;

/// # Safety
///
/// See [`OPS`].
unsafe extern "C" fn map_page(
    _map: virtio_map,
    _page: *mut bindings::page,
    _offset: c_ulong,
    _size: usize,
    _dir: bindings::dma_data_direction,
    _attrs: c_ulong,
) -> bindings::dma_addr_t {
    NO_ADDRESS
}

/// # Safety
///
/// See [`OPS`].
unsafe extern "C" fn alloc(
    _map: virtio_map,
    _size: usize,
    _addr: *mut bindings::dma_addr_t,
    _gfp: bindings::gfp_t,
) -> *mut c_void {
    core::ptr::null_mut()
}

/// # Safety
///
/// See [`OPS`].
unsafe extern "C" fn mapping_error(_map: virtio_map, _addr: bindings::dma_addr_t) -> c_int {
    ENOMEM.to_errno()
}
