// SPDX-License-Identifier: GPL-2.0

//! A PCI driver that is told what happens to its device beside binding and unbinding.
//!
//! The kernel crate's [`pci::Adapter`] fills in `probe` and `remove` of a `struct pci_driver`. This
//! one fills in `shutdown`, `err_handler` and `driver.pm` as well, and leaves the rest to it.
//!
//! C header: [`include/linux/pci.h`](srctree/include/linux/pci.h)

use core::marker::PhantomData;

use kernel::{
    bindings,
    device::CoreInternal,
    driver,
    pci,
    prelude::*,
    types::Opaque, //
};

/// What happens to a device of a driver. All of it is called with the device's lock held, so
/// neither at once nor while `probe` or `unbind` runs.
pub trait Driver: pci::Driver {
    /// The device is about to be reset, or to lose its power, or it broke: it reaches no memory and
    /// raises no interrupt any more when this returns. Every such call is followed by one of the
    /// others, or `unbind`, at some time; there may be more than one before.
    fn pause(this: Pin<&Self::Data<'_>>);

    /// The device came back. It knows nothing of what was before, but for its configuration space,
    /// which is as it was.
    fn resume(this: Pin<&Self::Data<'_>>);

    /// The system goes down, or another kernel is started: the device reaches no memory any more when
    /// this returns. Nothing comes after it.
    fn shutdown(this: Pin<&Self::Data<'_>>);
}

/// An adapter for the registration of drivers that are told of all that.
pub struct Adapter<T: Driver>(PhantomData<T>);

// SAFETY: The types and the offset are those of the kernel crate's adapter.
unsafe impl<T: Driver> driver::DriverLayout for Adapter<T> {
    type DriverType = bindings::pci_driver;
    type DriverData<'bound> = T::Data<'bound>;
    const DEVICE_DRIVER_OFFSET: usize =
        <pci::Adapter<T> as driver::DriverLayout>::DEVICE_DRIVER_OFFSET;
}

// SAFETY: The kernel crate's adapter registers and unregisters.
unsafe impl<T: Driver> driver::RegistrationOps for Adapter<T> {
    unsafe fn register(
        pdrv: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        // They live as long as the module's code.
        let (errors, power): (
            &'static bindings::pci_error_handlers,
            &'static bindings::dev_pm_ops,
        ) = (&Self::ERRORS, &Self::POWER);
        // SAFETY: The driver is not registered yet, so its fields can be set.
        unsafe {
            (*pdrv.get()).shutdown = Some(Self::shutdown);
            (*pdrv.get()).err_handler = errors;
            (*pdrv.get()).driver.pm = power;
        }
        // SAFETY: By the function requirements.
        unsafe { <pci::Adapter<T> as driver::RegistrationOps>::register(pdrv, name, module) }
    }

    unsafe fn unregister(pdrv: &Opaque<Self::DriverType>) {
        // SAFETY: By the function requirements.
        unsafe { <pci::Adapter<T> as driver::RegistrationOps>::unregister(pdrv) }
    }
}

impl<T: Driver> Adapter<T> {
    const ERRORS: bindings::pci_error_handlers = bindings::pci_error_handlers {
        error_detected: Some(Self::error_detected),
        mmio_enabled: None,
        slot_reset: Some(Self::slot_reset),
        reset_prepare: Some(Self::pause),
        reset_done: Some(Self::resume),
        resume: Some(Self::resume),
        cor_error_detected: None,
    };

    /// Also for hibernation: the firmware of the kernel that is started for the image, and that of
    /// the one that was saved, are not the same.
    const POWER: bindings::dev_pm_ops = bindings::dev_pm_ops {
        suspend: Some(Self::sleep),
        resume: Some(Self::wake),
        freeze: Some(Self::sleep),
        thaw: Some(Self::wake),
        poweroff: Some(Self::sleep),
        restore: Some(Self::wake),
        // SAFETY: All of its fields are operations, none of which is there then.
        ..unsafe { core::mem::zeroed() }
    };

    /// Calls `f` with the driver's data of a device, if `probe` has come so far.
    ///
    /// # Safety
    ///
    /// `pdev` must be a valid device that this driver has, the lock of which is held.
    unsafe fn tell(pdev: *mut bindings::pci_dev, f: fn(Pin<&T::Data<'_>>)) {
        // SAFETY: `pci::Device` is transparent, and the device valid for the length of this call.
        let pdev = unsafe { &*pdev.cast::<pci::Device<CoreInternal<'_>>>() };
        let dev: &kernel::device::Device<CoreInternal<'_>> = pdev.as_ref();
        let raw: *const kernel::device::Device<CoreInternal<'_>> = dev;
        // SAFETY: `device::Device` is transparent, and the device valid.
        if unsafe { bindings::dev_get_drvdata(raw.cast_mut().cast()) }.is_null() {
            // A reset that `probe` itself asked for.
            return;
        }
        // SAFETY: Data that are there were set behind `probe`, with this type. They are taken away
        // with the device's lock held, and so after this call.
        f(unsafe { dev.drvdata_borrow::<T::Data<'_>>() });
    }

    /// # Safety
    ///
    /// For C to call, for a device that this driver has, with its lock held.
    unsafe extern "C" fn shutdown(pdev: *mut bindings::pci_dev) {
        // SAFETY: C calls this for a device of this driver, with its lock held.
        unsafe { Self::tell(pdev, T::shutdown) };
    }

    /// # Safety
    ///
    /// For C to call, for a device that this driver has, with its lock held.
    unsafe extern "C" fn pause(pdev: *mut bindings::pci_dev) {
        // SAFETY: As in `shutdown`.
        unsafe { Self::tell(pdev, T::pause) };
    }

    /// # Safety
    ///
    /// For C to call, for a device that this driver has, with its lock held.
    unsafe extern "C" fn resume(pdev: *mut bindings::pci_dev) {
        // SAFETY: As in `shutdown`.
        unsafe { Self::tell(pdev, T::resume) };
    }

    /// An error of the bus: whatever it is, the device is stopped, and is to be reset if it can be.
    ///
    /// # Safety
    ///
    /// For C to call, for a device that this driver has, with its lock held.
    unsafe extern "C" fn error_detected(
        pdev: *mut bindings::pci_dev,
        state: bindings::pci_channel_state_t,
    ) -> bindings::pci_ers_result_t {
        // SAFETY: As in `shutdown`.
        unsafe { Self::tell(pdev, T::pause) };
        if state == bindings::pci_channel_io_perm_failure {
            bindings::pci_ers_result_PCI_ERS_RESULT_DISCONNECT
        } else {
            bindings::pci_ers_result_PCI_ERS_RESULT_NEED_RESET
        }
    }

    /// It was reset. `resume` follows when all on the bus have said that they are well.
    ///
    /// # Safety
    ///
    /// For C to call, for a device that this driver has, with its lock held.
    unsafe extern "C" fn slot_reset(pdev: *mut bindings::pci_dev) -> bindings::pci_ers_result_t {
        // SAFETY: The device is valid. Its state was saved at the latest when it was found.
        unsafe { bindings::pci_restore_state(pdev) };
        bindings::pci_ers_result_PCI_ERS_RESULT_RECOVERED
    }

    /// # Safety
    ///
    /// For C to call, for a device that this driver has, with its lock held.
    unsafe extern "C" fn sleep(dev: *mut bindings::device) -> c_int {
        // SAFETY: C calls this for the `dev` of a PCI device of this driver, with its lock held.
        unsafe { Self::pause(vdpa_bindings::rust_vdpa_to_pci_dev(dev)) };
        0
    }

    /// # Safety
    ///
    /// For C to call, for a device that this driver has, with its lock held.
    unsafe extern "C" fn wake(dev: *mut bindings::device) -> c_int {
        // SAFETY: As in `sleep`.
        unsafe { Self::resume(vdpa_bindings::rust_vdpa_to_pci_dev(dev)) };
        0
    }
}
