// SPDX-License-Identifier: GPL-2.0

//! From the operations of C to those of [`Operations`].

use core::{
    marker::PhantomData,
    ptr::null, //
    slice,
};

use kernel::{
    bindings,
    cpumask::Cpumask,
    error::from_result,
    ffi::{
        c_int,
        c_uint,
        c_void, //
    },
    mm::Mm,
    prelude::*, //
};

use vdpa_bindings::{
    vdpa_callback,
    vdpa_config_ops,
    vdpa_device,
    vdpa_iova_range,
    vdpa_notification_area,
    vdpa_vq_state,
    vhost_iotlb, //
};

use crate::{
    iotlb::Iotlb,
    legacy,
    memory::Snapshot,
    ops::{
        Extent,
        Operations,
        VqState, //
    },
    stats::Stats,
    Device, //
};

/// The operations of a device with the data `T`, as C calls them.
///
/// # Safety
///
/// The functions are for C to call, on a device made with [`Self::OPS`], as
/// `include/linux/vdpa.h` has it. Most callers check a virtqueue's index, but not all; here it is
/// checked always.
pub(crate) struct VTable<T: Operations>(PhantomData<T>);

/// The device C means.
///
/// # Safety
///
/// `vdpa` must be what C passed to an operation of `VTable<T>`; the reference must not outlive the
/// operation.
unsafe fn device<'a, T: Operations>(vdpa: *const vdpa_device) -> &'a Device<T> {
    // SAFETY: C calls operations only on a registered device, whose parts are set, and which it
    // holds a reference of.
    unsafe { Device::from_raw(vdpa) }
}

/// As [`device`], for an operation on virtqueue `index`.
///
/// # Safety
///
/// As for [`device`].
unsafe fn queue<'a, T: Operations>(vdpa: *const vdpa_device, index: u16) -> Result<&'a Device<T>> {
    // SAFETY: By the function requirements.
    let dev = unsafe { device::<T>(vdpa) };
    if index < dev.queues() {
        Ok(dev)
    } else {
        Err(EINVAL)
    }
}

/// As [`device`], for an operation on address space `asid`.
///
/// # Safety
///
/// As for [`device`].
unsafe fn space<'a, T: Operations>(vdpa: *const vdpa_device, asid: u32) -> Result<&'a Device<T>> {
    // SAFETY: By the function requirements.
    let dev = unsafe { device::<T>(vdpa) };
    if asid < dev.asids() {
        Ok(dev)
    } else {
        Err(EINVAL)
    }
}

/// `Some` of an operation if the driver implements it.
macro_rules! optional {
    ($has:expr, $function:expr) => {
        if $has {
            Some($function)
        } else {
            None
        }
    };
}

impl<T: Operations> VTable<T> {
    const MAPS: bool = T::SOFTWARE || T::HAS_DMA_MAP;
    const SPACES: bool = T::SOFTWARE || T::HAS_SET_MAP;

    /// What C sees of the device.
    pub(crate) const OPS: vdpa_config_ops = {
        assert!(
            !(T::SOFTWARE && (T::HAS_SET_MAP || T::HAS_DMA_MAP || T::HAS_RESET_MAP)),
            "the crate maps memory for a device in software"
        );
        assert!(
            T::HAS_DMA_MAP == T::HAS_DMA_UNMAP,
            "dma_map and dma_unmap come together"
        );
        assert!(
            T::HAS_SET_MAP == T::HAS_RESET_MAP || T::HAS_DMA_MAP,
            "set_map and reset_map come together"
        );
        assert!(
            !T::USE_VA || T::HAS_DMA_MAP && !T::HAS_SET_MAP,
            "virtual addresses need dma_map, and cannot be held"
        );
        vdpa_config_ops {
            set_vq_address: Some(Self::set_vq_address),
            set_vq_num: Some(Self::set_vq_num),
            kick_vq: Some(Self::kick_vq),
            kick_vq_with_data: optional!(T::HAS_KICK_VQ_WITH_DATA, Self::kick_vq_with_data),
            set_vq_cb: Some(Self::set_vq_cb),
            set_vq_ready: Some(Self::set_vq_ready),
            get_vq_ready: Some(Self::get_vq_ready),
            set_vq_state: Some(Self::set_vq_state),
            get_vq_state: Some(Self::get_vq_state),
            get_vendor_vq_stats: optional!(T::HAS_GET_VENDOR_VQ_STATS, Self::get_vendor_vq_stats),
            get_vq_notification: optional!(T::HAS_GET_VQ_NOTIFICATION, Self::get_vq_notification),
            get_vq_irq: optional!(T::HAS_GET_VQ_IRQ, Self::get_vq_irq),
            get_vq_size: optional!(T::HAS_GET_VQ_SIZE, Self::get_vq_size),
            get_vq_align: Some(Self::get_vq_align),
            get_vq_group: optional!(T::HAS_GET_VQ_GROUP, Self::get_vq_group),
            get_vq_desc_group: optional!(T::HAS_GET_VQ_DESC_GROUP, Self::get_vq_desc_group),
            get_device_features: Some(Self::get_device_features),
            get_backend_features: optional!(
                T::HAS_GET_BACKEND_FEATURES || T::HAS_GET_LEGACY_SUPPORT,
                Self::get_backend_features
            ),
            set_driver_features: Some(Self::set_driver_features),
            get_driver_features: Some(Self::get_driver_features),
            set_config_cb: Some(Self::set_config_cb),
            get_vq_num_max: Some(Self::get_vq_num_max),
            get_vq_num_min: optional!(T::HAS_GET_VQ_NUM_MIN, Self::get_vq_num_min),
            get_device_id: Some(Self::get_device_id),
            get_vendor_id: Some(Self::get_vendor_id),
            get_status: Some(Self::get_status),
            set_status: Some(Self::set_status),
            reset: Some(Self::reset),
            compat_reset: optional!(T::HAS_COMPAT_RESET, Self::compat_reset),
            suspend: optional!(T::HAS_SUSPEND, Self::suspend),
            resume: optional!(T::HAS_RESUME, Self::resume),
            get_config_size: Some(Self::get_config_size),
            get_config: Some(Self::get_config),
            set_config: Some(Self::set_config),
            get_generation: optional!(T::HAS_GET_GENERATION, Self::get_generation),
            get_iova_range: optional!(T::HAS_GET_IOVA_RANGE, Self::get_iova_range),
            set_vq_affinity: optional!(T::HAS_SET_VQ_AFFINITY, Self::set_vq_affinity),
            get_vq_affinity: optional!(T::HAS_GET_VQ_AFFINITY, Self::get_vq_affinity),
            set_map: optional!(T::HAS_SET_MAP, Self::set_map),
            dma_map: optional!(Self::MAPS, Self::dma_map),
            dma_unmap: optional!(Self::MAPS, Self::dma_unmap),
            reset_map: optional!(T::SOFTWARE || T::HAS_RESET_MAP, Self::reset_map),
            set_group_asid: optional!(Self::SPACES || T::HAS_SET_GROUP_ASID, Self::set_group_asid),
            // The one map of the device, in `struct vdpa_device`, serves every virtqueue.
            get_vq_map: None,
            bind_mm: optional!(T::HAS_BIND_MM, Self::bind_mm),
            unbind_mm: optional!(T::HAS_UNBIND_MM, Self::unbind_mm),
            free: Some(Device::<T>::free),
        }
    };

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn set_vq_address(
        vdpa: *mut vdpa_device,
        index: u16,
        desc: u64,
        driver: u64,
        device: u64,
    ) -> c_int {
        from_result(|| {
            // SAFETY: By the type's contract with C.
            let dev = unsafe { queue::<T>(vdpa, index) }?;
            T::set_vq_address(dev, index, desc, driver, device)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn set_vq_num(vdpa: *mut vdpa_device, index: u16, num: u32) {
        // SAFETY: By the type's contract with C.
        if let Ok(dev) = unsafe { queue::<T>(vdpa, index) } {
            T::set_vq_num(dev, index, num);
        }
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn kick_vq(vdpa: *mut vdpa_device, index: u16) {
        // SAFETY: By the type's contract with C.
        if let Ok(dev) = unsafe { queue::<T>(vdpa, index) } {
            T::kick_vq(dev, index);
        }
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn kick_vq_with_data(vdpa: *mut vdpa_device, data: u32) {
        // CAST: The lower half is the virtqueue, the upper one the next available index.
        let (index, next) = (data as u16, (data >> 16) as u16);
        // SAFETY: By the type's contract with C.
        if let Ok(dev) = unsafe { queue::<T>(vdpa, index) } {
            T::kick_vq_with_data(dev, index, next);
        }
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn set_vq_cb(vdpa: *mut vdpa_device, index: u16, cb: *mut vdpa_callback) {
        // SAFETY: By the type's contract with C.
        let Ok(dev) = (unsafe { queue::<T>(vdpa, index) }) else {
            return;
        };
        // SAFETY: C passes a valid callback. Its function may be called until it is replaced, the
        // virtqueue disabled or the device reset: only then do the bus drivers free what it needs.
        unsafe { dev.callbacks().set_queue(index, &*cb) };
        if T::HAS_SET_VQ_CB {
            T::set_vq_cb(dev, index, dev.callbacks().is_set(index));
        }
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn set_vq_ready(vdpa: *mut vdpa_device, index: u16, ready: bool) {
        // SAFETY: By the type's contract with C.
        let Ok(dev) = (unsafe { queue::<T>(vdpa, index) }) else {
            return;
        };
        // The callback is open whenever the device may want to fire it.
        if ready {
            dev.callbacks().open_queue(index, true);
        }
        T::set_vq_ready(dev, index, ready);
        if !ready {
            dev.callbacks().open_queue(index, false);
        }
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn get_vq_ready(vdpa: *mut vdpa_device, index: u16) -> bool {
        // SAFETY: By the type's contract with C.
        unsafe { queue::<T>(vdpa, index) }.is_ok_and(|dev| T::get_vq_ready(dev, index))
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn set_vq_state(
        vdpa: *mut vdpa_device,
        index: u16,
        state: *const vdpa_vq_state,
    ) -> c_int {
        from_result(|| {
            // SAFETY: By the type's contract with C.
            let dev = unsafe { queue::<T>(vdpa, index) }?;
            // SAFETY: C passes a valid state.
            let state = vq_state::load(unsafe { &*state }, packed(dev));
            T::set_vq_state(dev, index, state)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn get_vq_state(
        vdpa: *mut vdpa_device,
        index: u16,
        state: *mut vdpa_vq_state,
    ) -> c_int {
        from_result(|| {
            // SAFETY: By the type's contract with C.
            let dev = unsafe { queue::<T>(vdpa, index) }?;
            let value = vq_state::store(T::get_vq_state(dev, index)?, packed(dev));
            // SAFETY: C passes a pointer to a state to be filled in.
            unsafe { state.write(value) };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn get_vendor_vq_stats(
        vdpa: *mut vdpa_device,
        index: u16,
        msg: *mut bindings::sk_buff,
        extack: *mut bindings::netlink_ext_ack,
    ) -> c_int {
        from_result(|| {
            // SAFETY: C passes a message being built and, possibly, an extack, for the time of
            // this call.
            let mut stats = unsafe { Stats::new(msg, extack) };
            // SAFETY: By the type's contract with C.
            let dev = unsafe { queue::<T>(vdpa, index) }.inspect_err(|_| {
                stats.refuse(c"queue index exceeds the number of virtqueues");
            })?;
            T::get_vendor_vq_stats(dev, index, &mut stats)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn get_vq_notification(
        vdpa: *mut vdpa_device,
        index: u16,
    ) -> vdpa_notification_area {
        // SAFETY: By the type's contract with C.
        unsafe { queue::<T>(vdpa, index) }
            .map(|dev| dev.notification(index))
            .unwrap_or_default()
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn get_vq_irq(vdpa: *mut vdpa_device, index: u16) -> c_int {
        from_result(|| {
            // SAFETY: By the type's contract with C.
            let dev = unsafe { queue::<T>(vdpa, index) }?;
            let irq = T::get_vq_irq(dev, index).ok_or(EINVAL)?;
            Ok(c_int::try_from(irq)?)
        })
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn get_vq_size(vdpa: *mut vdpa_device, index: u16) -> u16 {
        // SAFETY: By the type's contract with C.
        unsafe { queue::<T>(vdpa, index) }.map_or(0, |dev| T::get_vq_size(dev, index))
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn get_vq_align(vdpa: *mut vdpa_device) -> u32 {
        // SAFETY: By the type's contract with C.
        unsafe { device::<T>(vdpa) }.vq_align()
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn get_vq_group(vdpa: *mut vdpa_device, index: u16) -> u32 {
        // No group has this number, and vhost-vdpa reports an error.
        // SAFETY: By the type's contract with C.
        unsafe { queue::<T>(vdpa, index) }.map_or(u32::MAX, |dev| T::get_vq_group(dev, index))
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn get_vq_desc_group(vdpa: *mut vdpa_device, index: u16) -> u32 {
        // SAFETY: By the type's contract with C.
        unsafe { queue::<T>(vdpa, index) }.map_or(u32::MAX, |dev| T::get_vq_desc_group(dev, index))
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn get_device_features(vdpa: *mut vdpa_device) -> u64 {
        // SAFETY: By the type's contract with C.
        T::get_device_features(unsafe { device(vdpa) })
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn get_backend_features(vdpa: *const vdpa_device) -> u64 {
        // SAFETY: By the type's contract with C.
        let dev = unsafe { device(vdpa) };
        let mut features = 0;
        if T::HAS_GET_BACKEND_FEATURES {
            features |= T::get_backend_features(dev);
        }
        if T::HAS_GET_LEGACY_SUPPORT {
            features |= legacy::backend_features(T::get_legacy_support(dev));
        }
        features
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn set_driver_features(vdpa: *mut vdpa_device, features: u64) -> c_int {
        from_result(|| {
            // SAFETY: By the type's contract with C.
            T::set_driver_features(unsafe { device(vdpa) }, features)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn get_driver_features(vdpa: *mut vdpa_device) -> u64 {
        // SAFETY: By the type's contract with C.
        T::get_driver_features(unsafe { device(vdpa) })
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn set_config_cb(vdpa: *mut vdpa_device, cb: *mut vdpa_callback) {
        // SAFETY: By the type's contract with C.
        let dev = unsafe { device::<T>(vdpa) };
        // SAFETY: C passes a valid callback, whose function may be called until it is replaced or
        // the device is reset.
        unsafe { dev.callbacks().set_config(&*cb) };
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn get_vq_num_max(vdpa: *mut vdpa_device) -> u16 {
        // SAFETY: By the type's contract with C.
        T::get_vq_num_max(unsafe { device(vdpa) })
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn get_vq_num_min(vdpa: *mut vdpa_device) -> u16 {
        // SAFETY: By the type's contract with C.
        T::get_vq_num_min(unsafe { device(vdpa) })
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn get_device_id(vdpa: *mut vdpa_device) -> u32 {
        // SAFETY: By the type's contract with C.
        T::get_device_id(unsafe { device(vdpa) })
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn get_vendor_id(vdpa: *mut vdpa_device) -> u32 {
        // SAFETY: By the type's contract with C.
        T::get_vendor_id(unsafe { device(vdpa) })
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn get_status(vdpa: *mut vdpa_device) -> u8 {
        // SAFETY: By the type's contract with C.
        T::get_status(unsafe { device(vdpa) })
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn set_status(vdpa: *mut vdpa_device, status: u8) {
        // SAFETY: By the type's contract with C.
        let dev = unsafe { device::<T>(vdpa) };
        if status == 0 {
            // The kernel's own drivers write 0 only through the reset operation, but may.
            let _ = T::reset(dev);
            Self::after_reset(dev);
        } else {
            // SAFETY: The status is set by the driver that is bound to the device, by nobody else.
            unsafe { dev.note_user() };
            T::set_status(dev, status);
        }
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn reset(vdpa: *mut vdpa_device) -> c_int {
        // SAFETY: By the type's contract with C.
        let dev = unsafe { device::<T>(vdpa) };
        let result = T::reset(dev);
        Self::after_reset(dev);
        from_result(|| result.map(|()| 0))
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn compat_reset(vdpa: *mut vdpa_device, flags: u32) -> c_int {
        // SAFETY: By the type's contract with C.
        let dev = unsafe { device::<T>(vdpa) };
        let clean_map = flags & vdpa_bindings::VDPA_RESET_F_CLEAN_MAP != 0;
        let result = T::compat_reset(dev, clean_map);
        Self::after_reset(dev);
        if let (true, Some(spaces)) = (clean_map, dev.spaces()) {
            spaces.clear();
        }
        from_result(|| result.map(|()| 0))
    }

    /// Cuts the driver side off, whether or not the device could be reset: what the callbacks and
    /// the memory belong to may be gone when C goes on.
    fn after_reset(dev: &Device<T>) {
        dev.forget_user();
        dev.callbacks().clear();
        if let Some(spaces) = dev.spaces() {
            spaces.reset();
        }
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn suspend(vdpa: *mut vdpa_device) -> c_int {
        from_result(|| {
            // SAFETY: By the type's contract with C.
            T::suspend(unsafe { device(vdpa) })?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn resume(vdpa: *mut vdpa_device) -> c_int {
        from_result(|| {
            // SAFETY: By the type's contract with C.
            T::resume(unsafe { device(vdpa) })?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn get_config_size(vdpa: *mut vdpa_device) -> usize {
        // SAFETY: By the type's contract with C.
        T::get_config_size(unsafe { device(vdpa) })
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn get_config(
        vdpa: *mut vdpa_device,
        offset: c_uint,
        buf: *mut c_void,
        len: c_uint,
    ) {
        // SAFETY: By the type's contract with C.
        let dev = unsafe { device::<T>(vdpa) };
        // SAFETY: C passes a buffer of this length. What it holds is not read before it is
        // written, and `u8` needs no alignment.
        let to = unsafe {
            buf.write_bytes(0, len as usize);
            slice::from_raw_parts_mut(buf.cast::<u8>(), len as usize)
        };
        // The kernel's drivers may read past the end; they find zeros there.
        let offset = offset as usize;
        let within = T::get_config_size(dev).saturating_sub(offset).min(to.len());
        if let (Some(to), true) = (to.get_mut(..within), within > 0) {
            T::get_config(dev, offset, to);
        }
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn set_config(
        vdpa: *mut vdpa_device,
        offset: c_uint,
        buf: *const c_void,
        len: c_uint,
    ) {
        // SAFETY: By the type's contract with C.
        let dev = unsafe { device::<T>(vdpa) };
        // SAFETY: C passes a buffer of this length.
        let from = unsafe { slice::from_raw_parts(buf.cast::<u8>(), len as usize) };
        let offset = offset as usize;
        let within = T::get_config_size(dev)
            .saturating_sub(offset)
            .min(from.len());
        if let (Some(from), true) = (from.get(..within), within > 0) {
            T::set_config(dev, offset, from);
        }
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn get_generation(vdpa: *mut vdpa_device) -> u32 {
        // SAFETY: By the type's contract with C.
        T::get_generation(unsafe { device(vdpa) })
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn get_iova_range(vdpa: *mut vdpa_device) -> vdpa_iova_range {
        // SAFETY: By the type's contract with C.
        let range = T::get_iova_range(unsafe { device(vdpa) });
        vdpa_iova_range {
            first: *range.start(),
            last: *range.end(),
        }
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn set_vq_affinity(
        vdpa: *mut vdpa_device,
        index: u16,
        mask: *const bindings::cpumask,
    ) -> c_int {
        from_result(|| {
            // SAFETY: By the type's contract with C.
            let dev = unsafe { queue::<T>(vdpa, index) }?;
            let mask = if mask.is_null() {
                None
            } else {
                // SAFETY: C passes a valid mask for the time of this call.
                Some(unsafe { Cpumask::from_raw(mask) })
            };
            T::set_vq_affinity(dev, index, mask)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn get_vq_affinity(
        vdpa: *mut vdpa_device,
        index: u16,
    ) -> *const bindings::cpumask {
        // SAFETY: By the type's contract with C.
        unsafe { queue::<T>(vdpa, index) }
            .ok()
            .and_then(|dev| T::get_vq_affinity(dev, index))
            .map_or(null(), |mask| mask.as_raw().cast_const())
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn set_map(
        vdpa: *mut vdpa_device,
        asid: c_uint,
        iotlb: *mut vhost_iotlb,
    ) -> c_int {
        from_result(|| {
            // SAFETY: By the type's contract with C.
            let dev = unsafe { space::<T>(vdpa, asid) }?;
            let spaces = dev.spaces().ok_or(EINVAL)?;
            // SAFETY: C passes a map that does not change during this call.
            let map = unsafe { Iotlb::from_raw(iotlb) };
            // SAFETY: C pinned the pages of what is in the map, and takes it out of there before it
            // unpins them. They are pages, not addresses of a process: see `OPS`.
            let snapshot = unsafe { spaces.replace(asid, map.iter()) };
            match snapshot {
                Ok(snapshot) => T::set_map(dev, asid, &snapshot)?,
                Err(error) => {
                    // The device is not to reach what the user may have taken away.
                    let _ = T::set_map(dev, asid, &Snapshot::EMPTY);
                    return Err(error);
                }
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn dma_map(
        vdpa: *mut vdpa_device,
        asid: c_uint,
        iova: u64,
        size: u64,
        pa: u64,
        perm: u32,
        _opaque: *mut c_void,
    ) -> c_int {
        from_result(|| {
            // SAFETY: By the type's contract with C.
            let dev = unsafe { space::<T>(vdpa, asid) }?;
            let extent = Extent {
                iova,
                size,
                pa,
                readable: perm & vdpa_bindings::VHOST_MAP_RO != 0,
                writable: perm & vdpa_bindings::VHOST_MAP_WO != 0,
            };
            if T::SOFTWARE {
                let spaces = dev.spaces().ok_or(EINVAL)?;
                // SAFETY: C pinned the pages, and unpins them only after this call.
                unsafe { spaces.map(asid, &extent) }?;
            } else {
                T::dma_map(dev, asid, &extent)?;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn dma_unmap(
        vdpa: *mut vdpa_device,
        asid: c_uint,
        iova: u64,
        size: u64,
    ) -> c_int {
        from_result(|| {
            // SAFETY: By the type's contract with C.
            let dev = unsafe { space::<T>(vdpa, asid) }?;
            if T::SOFTWARE {
                dev.spaces().ok_or(EINVAL)?.unmap(asid, iova, size)?;
            } else {
                T::dma_unmap(dev, asid, iova, size)?;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn reset_map(vdpa: *mut vdpa_device, asid: c_uint) -> c_int {
        from_result(|| {
            // SAFETY: By the type's contract with C.
            let dev = unsafe { space::<T>(vdpa, asid) }?;
            if let Some(spaces) = dev.spaces() {
                spaces.unmap_all(asid)?;
            }
            if T::HAS_RESET_MAP {
                T::reset_map(dev, asid)?;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn set_group_asid(
        vdpa: *mut vdpa_device,
        group: c_uint,
        asid: c_uint,
    ) -> c_int {
        from_result(|| {
            // SAFETY: By the type's contract with C.
            let dev = unsafe { space::<T>(vdpa, asid) }?;
            if group >= dev.groups() {
                return Err(EINVAL);
            }
            let old = match dev.spaces() {
                Some(spaces) => Some((spaces, spaces.set_group_asid(group, asid)?)),
                None => None,
            };
            if T::HAS_SET_GROUP_ASID {
                T::set_group_asid(dev, group, asid).or_else(|error| {
                    if let Some((spaces, old)) = old {
                        spaces.set_group_asid(group, old)?;
                    }
                    Err(error)
                })?;
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn bind_mm(vdpa: *mut vdpa_device, mm: *mut bindings::mm_struct) -> c_int {
        from_result(|| {
            // SAFETY: C passes an address space that is valid for the time of this call.
            let mm = unsafe { Mm::from_raw(mm) };
            // SAFETY: By the type's contract with C.
            T::bind_mm(unsafe { device(vdpa) }, mm)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`VTable`].
    unsafe extern "C" fn unbind_mm(vdpa: *mut vdpa_device) {
        // SAFETY: By the type's contract with C.
        T::unbind_mm(unsafe { device(vdpa) });
    }
}

/// Whether the driver's virtqueues are packed.
fn packed<T: Operations>(dev: &Device<T>) -> bool {
    virtio::features::Features::from_bits(T::get_driver_features(dev))
        .contains(virtio::features::Features::RING_PACKED)
}

/// The state of a virtqueue in C's union.
mod vq_state {
    use super::*;
    use vdpa_bindings::vdpa_vq_state_packed;

    const INDEX: u16 = 0x7fff;

    pub(super) fn load(state: &vdpa_vq_state, packed: bool) -> VqState {
        if packed {
            // SAFETY: All members of the union are plain 16-bit words, valid in any form.
            let state = unsafe { state.__bindgen_anon_1.packed.as_ref() };
            VqState::packed(
                state.last_avail_idx() | state.last_avail_counter() << 15,
                state.last_used_idx() | state.last_used_counter() << 15,
            )
        } else {
            // SAFETY: As above.
            VqState::split(unsafe { state.__bindgen_anon_1.split.as_ref() }.avail_index)
        }
    }

    pub(super) fn store(state: VqState, packed: bool) -> vdpa_vq_state {
        let mut raw = vdpa_vq_state::default();
        if packed {
            let mut value = vdpa_vq_state_packed::default();
            value.set_last_avail_idx(state.avail & INDEX);
            value.set_last_avail_counter(state.avail >> 15);
            value.set_last_used_idx(state.used & INDEX);
            value.set_last_used_counter(state.used >> 15);
            // SAFETY: All members of the union are plain 16-bit words, valid in any form.
            unsafe { *raw.__bindgen_anon_1.packed.as_mut() = value };
        } else {
            // SAFETY: As above.
            unsafe { raw.__bindgen_anon_1.split.as_mut() }.avail_index = state.avail;
        }
        raw
    }
}
