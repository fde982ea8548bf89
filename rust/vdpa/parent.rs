// SPDX-License-Identifier: GPL-2.0

//! What the devices of a management device are children of.

use core::ptr::NonNull;

use kernel::{
    bindings,
    device,
    error::from_err_ptr,
    prelude::*,
    sync::aref::ARef, //
};

/// The parent of a management device and its devices.
pub(crate) enum Parent {
    /// A device of our own.
    Root(Root),
    /// A device of a bus, which stays bound to its driver for as long as this value lives.
    Bound(ARef<device::Device>),
}

impl Parent {
    /// A device called `name`, which is no other's child and belongs to no bus.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and what C reports if the name is taken.
    pub(crate) fn root(name: &CStr, module: &'static ThisModule) -> Result<Self> {
        // SAFETY: The name is copied, and the module is the one this code runs in.
        let dev = from_err_ptr(unsafe {
            bindings::__root_device_register(name.as_char_ptr(), module.as_ptr())
        })?;
        // INVARIANT: It was just registered.
        Ok(Self::Root(Root(NonNull::new(dev).ok_or(ENOMEM)?)))
    }

    /// `dev`, of which a reference is taken. The caller sees to it that what is returned is dropped
    /// before the driver is unbound.
    ///
    /// # Errors
    ///
    /// `EINVAL` if its driver is another module's: `module` could be gone before it is unbound.
    pub(crate) fn bound(
        dev: &device::Device<device::Bound>,
        module: &'static ThisModule,
    ) -> Result<Self> {
        let this = Self::Bound(dev.into());
        // SAFETY: The device is valid. It is bound, so it has a driver, whose owner never changes.
        let owner = unsafe { (*(*this.as_raw()).driver).owner };
        if !owner.is_null() && owner != module.as_ptr() {
            return Err(EINVAL);
        }
        Ok(this)
    }

    pub(crate) fn device(&self) -> &device::Device {
        match self {
            // SAFETY: By the type invariant the device is valid as long as `self` is.
            Self::Root(root) => unsafe { device::Device::from_raw(root.0.as_ptr()) },
            Self::Bound(dev) => dev,
        }
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::device {
        // `device::Device` is a transparent wrapper of C's type.
        core::ptr::from_ref(self.device()).cast_mut().cast()
    }

    /// Whether memory can be mapped for the device by the DMA API.
    pub(crate) fn does_dma(&self) -> bool {
        // SAFETY: The device is valid. The pointer is set where the device is made. A driver sets
        // the masks by `unsafe` functions, and so answers for what uses them meanwhile; it does so
        // before `mgmt::register`, without which nobody asks this.
        unsafe {
            let dev = self.as_raw();
            !(*dev).dma_mask.is_null() && (*dev).coherent_dma_mask != 0
        }
    }
}

/// A device without a bus or a driver.
///
/// # Invariants
///
/// The pointer is from `root_device_register`.
pub(crate) struct Root(NonNull<bindings::device>);

// SAFETY: A device may be used and unregistered by any task.
unsafe impl Send for Root {}
// SAFETY: As above.
unsafe impl Sync for Root {}

impl Drop for Root {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, and it is not used after this.
        unsafe { bindings::root_device_unregister(self.0.as_ptr()) };
    }
}
