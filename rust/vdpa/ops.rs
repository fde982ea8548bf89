// SPDX-License-Identifier: GPL-2.0

//! What a vDPA device does.
//!
//! C header: [`include/linux/vdpa.h`](srctree/include/linux/vdpa.h), `struct vdpa_config_ops`

use core::ops::RangeInclusive;

use kernel::{
    build_error,
    cpumask::Cpumask,
    error::VTABLE_DEFAULT_ERROR,
    mm::Mm,
    prelude::*, //
};
use virtio::{
    byte_order::ByteOrder,
    lifecycle::{
        Legacy,
        LegacySupport, //
    }, //
};

use crate::{
    memory::Snapshot,
    notification::NotificationArea,
    stats::Stats,
    Device, //
};

/// The state of a virtqueue that is not running: where the device goes on reading and writing.
///
/// Whether it is that of a split or a packed virtqueue follows from VIRTIO_F_RING_PACKED in the
/// driver's features; C has the two in one union. While the driver has set none since the last
/// reset, it is taken for that of a split one, by vhost-vdpa for what the driver before had. It
/// means nothing then: a driver sets its features first, as `virtio_vdpa` and QEMU do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VqState {
    /// The next entry of the available ring; for a packed virtqueue, the offset of the next
    /// available descriptor, with the driver's wrap counter in bit 15.
    pub avail: u16,
    /// For a packed virtqueue, the offset of the next used descriptor, with the device's wrap
    /// counter in bit 15. Without meaning for a split one.
    pub used: u16,
}

impl VqState {
    /// The state of a split virtqueue.
    pub const fn split(avail: u16) -> Self {
        Self { avail, used: 0 }
    }

    /// The state of a packed virtqueue, the wrap counters in bit 15 (virtio 1.3, 4.1.4.3).
    pub const fn packed(avail: u16, used: u16) -> Self {
        Self { avail, used }
    }
}

/// A range of the device's address space and the memory behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first IO virtual address.
    pub iova: u64,
    /// The length in bytes.
    pub size: u64,
    /// The physical address of the first byte.
    pub pa: u64,
    /// The device may read.
    pub readable: bool,
    /// The device may write.
    pub writable: bool,
}

impl Extent {
    /// Cuts it at the first multiple of `window`, a power of two, behind its beginning: what lies
    /// before, and what lies behind if anything does. One that wraps around stays whole.
    pub(crate) fn cut(self, window: u64) -> (Self, Option<Self>) {
        let size = window - (self.iova & (window - 1));
        match (self.iova.checked_add(size), self.pa.checked_add(size)) {
            (Some(iova), Some(pa)) if size < self.size => {
                let behind = Self {
                    iova,
                    pa,
                    size: self.size - size,
                    ..self
                };
                (Self { size, ..self }, Some(behind))
            }
            _ => (self, None),
        }
    }
}

/// The operations of a vDPA device.
///
/// The type that implements this trait is the device's data; [`Device`] dereferences to it. All
/// operations may be called at the same time as any other, except where one says otherwise.
///
/// An `index` is always less than the number of virtqueues the device was set up with, a `group`
/// less than that of its groups and an `asid` less than that of its address spaces.
///
/// Operations with a default are optional. C sees only those that are implemented.
///
/// # Context
///
/// All but [`Self::kick_vq`] and [`Self::kick_vq_with_data`] may sleep. Of C's locks,
///
/// - [`Self::set_status`], [`Self::reset`], [`Self::compat_reset`], [`Self::set_config`] and
///   [`Self::set_driver_features`] are called with the device's configuration locked for writing,
///   so that they exclude each other and [`Self::get_config`]; only the 0 that comes before the
///   first reading is set with it locked for reading.
///   [`Management::dev_set_attr`](crate::mgmt::Management::dev_set_attr) is called with it locked
///   for writing as well, the operations on virtqueues are not.
/// - [`Self::dma_map`] and [`Self::set_map`], and [`Self::dma_unmap`] where a map fails halfway,
///   are called with the user's address space locked for reading. They must neither access the
///   user's memory, which may fault, nor wait for somebody who does or who changes that address
///   space.
/// - The operations of [`Management`](crate::mgmt::Management) are called with the bus locked.
#[vtable]
pub trait Operations: Send + Sync + Sized + 'static {
    /// The device works in software, on memory the crate gives it access to.
    ///
    /// Set it if and only if the device is set up by [`Setup::software`](crate::Setup::software).
    /// The crate implements the mapping operations then.
    const SOFTWARE: bool = false;

    /// The device works on virtual addresses of the process that [`Self::bind_mm`] was called
    /// with, and maps are made of those.
    const USE_VA: bool = false;

    /// Sets where the three areas of a virtqueue are: IO virtual addresses, not checked.
    ///
    /// # Errors
    ///
    /// Any, if the device cannot work there. The caller sees `EINVAL`.
    fn set_vq_address(
        dev: &Device<Self>,
        index: u16,
        desc: u64,
        driver: u64,
        device: u64,
    ) -> Result;

    /// Sets the size of a virtqueue, in entries. vhost-vdpa lets powers of two up to
    /// [`Self::get_vq_num_max`] through.
    fn set_vq_num(dev: &Device<Self>, index: u16, num: u32);

    /// The driver made buffers available. May be called at any time: before the virtqueue is ready
    /// or the driver either.
    ///
    /// vhost-vdpa calls it where the user's eventfd is signalled, with interrupts off and the
    /// eventfd locked. That eventfd may be the callback of a virtqueue too, of this device or any
    /// other, so the caller may be [`Callbacks::queue`](crate::Callbacks::queue) on the way. It
    /// must not sleep, fire callbacks, or take a lock with which callbacks are fired. Have a
    /// [`Worker`](crate::Worker) do the work, by its [`Handle`](crate::worker::Handle).
    fn kick_vq(dev: &Device<Self>, index: u16);

    /// As [`Self::kick_vq`], with what the driver says about the ring when
    /// VIRTIO_F_NOTIFICATION_DATA was negotiated: the next available index, for a packed virtqueue
    /// the offset and the wrap counter in bit 15 (virtio 1.3, 2.9).
    fn kick_vq_with_data(_dev: &Device<Self>, _index: u16, _next: u16) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The driver set a callback for a virtqueue, or took it away. The crate keeps the callback
    /// itself; see [`Callbacks`](crate::Callbacks).
    fn set_vq_cb(_dev: &Device<Self>, _index: u16, _set: bool) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Enables or disables a virtqueue. When it returns after disabling, the device does not use
    /// the ring any more.
    fn set_vq_ready(dev: &Device<Self>, index: u16, ready: bool);

    /// Whether the virtqueue is enabled.
    fn get_vq_ready(dev: &Device<Self>, index: u16) -> bool;

    /// Sets the state a virtqueue starts from.
    ///
    /// # Errors
    ///
    /// Any, if the state is not possible or the virtqueue runs.
    fn set_vq_state(dev: &Device<Self>, index: u16, state: VqState) -> Result;

    /// The state a virtqueue would go on from.
    ///
    /// # Errors
    ///
    /// Any, if it is not known.
    fn get_vq_state(dev: &Device<Self>, index: u16) -> Result<VqState>;

    /// Fills in the statistics of a virtqueue.
    ///
    /// # Errors
    ///
    /// Those of [`Stats::put`], and any other; [`Stats::refuse`] gives a reason.
    fn get_vendor_vq_stats(_dev: &Device<Self>, _index: u16, _stats: &mut Stats<'_>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The page of a virtqueue's doorbell.
    ///
    /// Called once for each virtqueue, before the device is registered. A user may have the page
    /// mapped for as long as it is.
    fn get_vq_notification(_dev: &Device<Self>, _index: u16) -> NotificationArea<'_> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Whether stores to the page of a virtqueue's doorbell are heard, as the device is driven now.
    ///
    /// If not, the page cannot be mapped, and kicks come by [`Self::kick_vq`]. This is for
    /// virtqueues that only some drivers have served by the hardware. One that a user mapped before
    /// stays mapped.
    fn hears_doorbell(_dev: &Device<Self>, _index: u16) -> bool {
        true
    }

    /// The number of the interrupt that means used buffers of this virtqueue and nothing else, if
    /// it has one. It does not change while the driver is ready.
    ///
    /// KVM may pass this interrupt on to a guest without the kernel seeing it, so it must be one
    /// that the device's driver requested, for nothing else.
    fn get_vq_irq(_dev: &Device<Self>, _index: u16) -> Option<u32> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The greatest size of this virtqueue, in entries.
    fn get_vq_size(_dev: &Device<Self>, _index: u16) -> u16 {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The alignment of rings in bytes: a power of two, and no more than a page.
    ///
    /// Called once, before the device is registered, which fails if it is something else.
    fn get_vq_align(dev: &Device<Self>) -> u32;

    /// The group a virtqueue belongs to. All virtqueues of a group share an address space.
    fn get_vq_group(_dev: &Device<Self>, _index: u16) -> u32 {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The group of the areas of a virtqueue, if other than that of its buffers.
    fn get_vq_desc_group(_dev: &Device<Self>, _index: u16) -> u32 {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The virtio features the device offers.
    fn get_device_features(dev: &Device<Self>) -> u64;

    /// Additional features of the vhost-vdpa interface the device offers (`VHOST_BACKEND_F_*`).
    /// What VMMs are told of legacy drivers the crate adds, if there is
    /// [`Self::get_legacy_support`].
    fn get_backend_features(_dev: &Device<Self>) -> u64 {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Which legacy drivers the device can serve, if they are let in.
    ///
    /// This operation, [`Self::get_legacy`], [`Self::set_legacy`], [`Self::get_byte_order`] and
    /// [`Self::set_byte_order`] come together. A device that has them has the attributes `legacy`
    /// and `legacy_byte_order` in its directory in sysfs, and tells VMMs
    /// `VHOST_BACKEND_F_LEGACY` and `VHOST_BACKEND_F_LEGACY_BE`. What they mean is what
    /// [`Lifecycle`](virtio::lifecycle::Lifecycle) says of them; all may be called at any time
    /// while the device is registered, also by several at once.
    fn get_legacy_support(_dev: &Device<Self>) -> LegacySupport {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Which drivers are let in.
    fn get_legacy(_dev: &Device<Self>) -> Legacy {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The administrator chooses which drivers are let in. It stays so over resets.
    ///
    /// # Errors
    ///
    /// `EBUSY` while a driver runs the device; `EOPNOTSUPP` if it cannot serve those. The latter is
    /// in the log.
    fn set_legacy(_dev: &Device<Self>, _legacy: Legacy) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The byte order that legacy drivers have, as it was set: that of the device (`None`), or of
    /// one virtqueue with what goes through it.
    fn get_byte_order(_dev: &Device<Self>, _index: Option<u16>) -> ByteOrder {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Sets the byte order that legacy drivers have: of the device with its configuration space and
    /// all its virtqueues (`None`), or of one virtqueue. It stays so over resets, and means nothing
    /// to a driver that acknowledges VERSION_1.
    ///
    /// # Errors
    ///
    /// `EBUSY` while a driver runs the device; `EINVAL` if there is no such virtqueue; `EOPNOTSUPP`
    /// if the device does not know that order. The latter is in the log.
    fn set_byte_order(_dev: &Device<Self>, _index: Option<u16>, _order: ByteOrder) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The features the driver wants.
    ///
    /// C calls it with 0 before the first reading of the configuration space, for whatever driver,
    /// and then possibly several times at once.
    ///
    /// # Errors
    ///
    /// Any, if the device cannot work with these.
    fn set_driver_features(dev: &Device<Self>, features: u64) -> Result;

    /// The features of the driver.
    fn get_driver_features(dev: &Device<Self>) -> u64;

    /// The greatest size of any virtqueue, in entries.
    fn get_vq_num_max(dev: &Device<Self>) -> u16;

    /// The smallest size of any virtqueue, in entries.
    fn get_vq_num_min(_dev: &Device<Self>) -> u16 {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The virtio device id (virtio 1.3, 5).
    fn get_device_id(dev: &Device<Self>) -> u32;

    /// The id of the vendor.
    fn get_vendor_id(dev: &Device<Self>) -> u32;

    /// The device status (virtio 1.3, 2.1).
    fn get_status(dev: &Device<Self>) -> u8;

    /// Sets the device status. Never 0, which is a reset.
    fn set_status(dev: &Device<Self>, status: u8);

    /// Resets the device. When it returns, the device uses no ring and no memory of the driver.
    /// The crate then forgets the callbacks, and puts all groups into address space 0 if it keeps
    /// those. Maps stay. If its user was a driver in the kernel, it waits until the last
    /// [`View`](crate::memory::View) is dropped, so this must not leave one to the caller's task.
    ///
    /// # Errors
    ///
    /// Any, if the device did not stop.
    fn reset(dev: &Device<Self>) -> Result;

    /// As [`Self::reset`], for a user that relies on an old parent's habit: with `clean_map`, on
    /// maps being dropped, which the crate does if it keeps them.
    ///
    /// # Errors
    ///
    /// As [`Self::reset`].
    fn compat_reset(_dev: &Device<Self>, _clean_map: bool) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Stops the device so that its state can be read. When it returns, no ring is used any more.
    ///
    /// # Errors
    ///
    /// Any, if the device runs on.
    fn suspend(_dev: &Device<Self>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Lets a suspended device go on.
    ///
    /// # Errors
    ///
    /// Any, if it does not.
    fn resume(_dev: &Device<Self>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The length of the configuration space in bytes, conditional fields included.
    fn get_config_size(dev: &Device<Self>) -> usize;

    /// Reads the configuration space. The range lies within [`Self::get_config_size`]. Several
    /// readers may come at once, but none while [`Self::set_config`], [`Self::set_status`] or
    /// [`Self::reset`] runs.
    fn get_config(dev: &Device<Self>, offset: usize, to: &mut [u8]);

    /// Writes the configuration space. The range lies within [`Self::get_config_size`].
    fn set_config(dev: &Device<Self>, offset: usize, from: &[u8]);

    /// A number that changes whenever the configuration does.
    fn get_generation(_dev: &Device<Self>) -> u32 {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The addresses that can be mapped.
    fn get_iova_range(_dev: &Device<Self>) -> RangeInclusive<u64> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Sets the processors the work for a virtqueue is best done on; `None` stands for any.
    ///
    /// # Errors
    ///
    /// Any, if that is not possible.
    fn set_vq_affinity(_dev: &Device<Self>, _index: u16, _mask: Option<&Cpumask>) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The processors set last, if any were. The mask lives as long as the device.
    fn get_vq_affinity(_dev: &Device<Self>, _index: u16) -> Option<&Cpumask> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Makes the whole of an address space what `map` says. For a device with an IOMMU of its own
    /// that takes everything at once, and is set up by
    /// [`Setup::hardware_with_spaces`](crate::Setup::hardware_with_spaces); [`Self::reset_map`]
    /// comes with it.
    ///
    /// What is not in `map` any more the user has back already; but its pages are nobody else's as
    /// long as a snapshot holds them, which is to be kept until the device does not reach them.
    ///
    /// Without memory for what is mapped, `map` is empty, and the caller learns that it failed.
    ///
    /// # Errors
    ///
    /// Any. The caller ignores it at the end of a batch, and where something is removed.
    fn set_map(_dev: &Device<Self>, _asid: u32, _map: &Snapshot) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Adds to an address space. For a device with an IOMMU of its own; [`Self::dma_unmap`] comes
    /// with it. With [`Self::USE_VA`], `extent.pa` is a virtual address of the user.
    ///
    /// # Errors
    ///
    /// Any.
    fn dma_map(_dev: &Device<Self>, _asid: u32, _extent: &Extent) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Removes from an address space. The pages are unpinned already.
    ///
    /// # Errors
    ///
    /// Any. The caller ignores it.
    fn dma_unmap(_dev: &Device<Self>, _asid: u32, _iova: u64, _size: u64) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Puts an address space back into the state it had at first: nothing is mapped. A device that
    /// has it keeps its maps over [`Self::reset`].
    ///
    /// # Errors
    ///
    /// Any. The caller ignores it.
    fn reset_map(_dev: &Device<Self>, _asid: u32) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Puts a group of virtqueues into an address space. Not called while the driver is ready.
    ///
    /// A device whose address spaces the crate keeps need not implement it; if it does, it is called
    /// after the crate did the move, which is taken back on an error.
    ///
    /// # Errors
    ///
    /// Any.
    fn set_group_asid(_dev: &Device<Self>, _group: u32, _asid: u32) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The user's address space, with [`Self::USE_VA`].
    ///
    /// # Errors
    ///
    /// Any.
    fn bind_mm(_dev: &Device<Self>, _mm: &Mm) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The end of what [`Self::bind_mm`] began.
    fn unbind_mm(_dev: &Device<Self>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}
