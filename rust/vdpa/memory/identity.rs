// SPDX-License-Identifier: GPL-2.0

//! Addresses for the kernel's own drivers: those of physical memory.
//!
//! C header: [`include/linux/virtio_config.h`](srctree/include/linux/virtio_config.h),
//! `struct virtio_map_ops`

use kernel::{
    bindings,
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

use super::Spaces;

/// The operations by which a driver in the kernel maps its buffers for a device in software.
///
/// They are for C to call with the `vmap` of such a device, which is a pointer to its [`Spaces`].
pub(crate) static OPS: virtio_map_ops = virtio_map_ops {
    map_page: Some(map_page),
    unmap_page: Some(unmap_page),
    sync_single_for_cpu: Some(sync),
    sync_single_for_device: Some(sync),
    alloc: Some(alloc),
    free: Some(free),
    need_sync: Some(need_sync),
    mapping_error: Some(mapping_error),
    max_mapping_size: Some(max_mapping_size),
};

/// # Safety
///
/// `map` must be the `vmap` of a device in software that lives for `'a`.
unsafe fn spaces<'a>(map: virtio_map) -> &'a Spaces {
    // SAFETY: By the function requirements the pointer is that to the `Spaces` the device owns.
    unsafe { &*map.group.cast::<Spaces>() }
}

/// # Safety
///
/// See [`OPS`].
unsafe extern "C" fn map_page(
    map: virtio_map,
    page: *mut bindings::page,
    offset: c_ulong,
    _size: usize,
    _dir: bindings::dma_data_direction,
    _attrs: c_ulong,
) -> bindings::dma_addr_t {
    // SAFETY: C passes the `vmap` of a device it uses.
    unsafe { spaces(map) }.set_kernel_user();
    // SAFETY: C passes a valid page.
    unsafe { vdpa_bindings::rust_vdpa_page_to_phys(page) + offset as u64 }
}

/// # Safety
///
/// See [`OPS`].
unsafe extern "C" fn unmap_page(
    _map: virtio_map,
    _addr: bindings::dma_addr_t,
    _size: usize,
    _dir: bindings::dma_data_direction,
    _attrs: c_ulong,
) {
}

/// # Safety
///
/// See [`OPS`].
unsafe extern "C" fn sync(
    _map: virtio_map,
    _addr: bindings::dma_addr_t,
    _size: usize,
    _dir: bindings::dma_data_direction,
) {
}

/// # Safety
///
/// See [`OPS`].
unsafe extern "C" fn alloc(
    map: virtio_map,
    size: usize,
    addr: *mut bindings::dma_addr_t,
    gfp: bindings::gfp_t,
) -> *mut c_void {
    // SAFETY: C passes the `vmap` of a device it uses.
    unsafe { spaces(map) }.set_kernel_user();
    // SAFETY: C passes a pointer to where the address goes.
    unsafe { vdpa_bindings::rust_vdpa_alloc(size, addr, gfp) }
}

/// # Safety
///
/// See [`OPS`].
unsafe extern "C" fn free(
    _map: virtio_map,
    size: usize,
    vaddr: *mut c_void,
    _addr: bindings::dma_addr_t,
    _attrs: c_ulong,
) {
    // SAFETY: C passes what `alloc` gave it, with the same size.
    unsafe { vdpa_bindings::rust_vdpa_free(vaddr, size) };
}

/// # Safety
///
/// See [`OPS`].
unsafe extern "C" fn need_sync(_map: virtio_map, _addr: bindings::dma_addr_t) -> bool {
    false
}

/// # Safety
///
/// See [`OPS`].
unsafe extern "C" fn mapping_error(_map: virtio_map, _addr: bindings::dma_addr_t) -> c_int {
    0
}

/// # Safety
///
/// See [`OPS`].
unsafe extern "C" fn max_mapping_size(_map: virtio_map) -> usize {
    usize::MAX
}
