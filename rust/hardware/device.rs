// SPDX-License-Identifier: GPL-2.0

//! A PCI device that is used as long as it is bound.
//!
//! C header: [`include/linux/pci.h`](srctree/include/linux/pci.h)

use kernel::{
    bindings,
    device::{
        self,
        Bound,
        Core, //
    },
    devres,
    dma::{
        Device as _,
        DmaMask, //
    },
    error::to_result,
    new_mutex,
    page::PAGE_SIZE,
    pci,
    prelude::*,
    str::CString,
    sync::{
        aref::ARef,
        Arc,
        Mutex, //
    }, //
};

use vdpa::NotificationArea;

/// A PCI device that a driver was given, for whoever cannot know whether it still has it.
///
/// # Invariants
///
/// While `bound` is true, the device is bound to the driver that made this value.
#[pin_data]
pub struct Device {
    pdev: ARef<pci::Device>,
    #[pin]
    bound: Mutex<bool>,
}

/// Ends the use of a [`Device`] when the driver core releases what the device was given to keep.
struct Release(Arc<Device>);

impl Drop for Release {
    fn drop(&mut self) {
        // Who uses the device is waited for.
        let mut bound = self.0.bound.lock();
        *bound = false;
        // SAFETY: The device is valid, was enabled once, and is bound until this returns.
        unsafe { bindings::pci_disable_device(self.0.as_raw()) };
    }
}

impl Device {
    /// Enables a device: its memory resources, and DMA by addresses of `DMA_BITS` bits, as soon as
    /// that [is let](Self::start_dma). It is disabled when it is unbound, after everything that it
    /// is given to keep from here on was released.
    ///
    /// To be called once, by `probe` and before any DMA.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EIO` if the platform has no such addresses; what C reports if the device cannot
    /// be enabled.
    pub fn enable<const DMA_BITS: u32>(pdev: &pci::Device<Core<'_>>) -> Result<Arc<Self>> {
        let this = Arc::pin_init(
            pin_init!(Self {
                pdev: pdev.into(),
                bound <- new_mutex!(false),
            }),
            GFP_KERNEL,
        )?;
        pdev.enable_device_mem()?;
        // INVARIANT: `probe` has the device, and `Release` takes the mark back.
        *this.bound.lock() = true;
        devres::register(pdev.as_ref(), Release(this.clone()), GFP_KERNEL)?;
        // SAFETY: The device has not been used for DMA yet: that needs this function to return.
        unsafe { pdev.dma_set_mask_and_coherent(DmaMask::new::<DMA_BITS>())? };
        Ok(this)
    }

    /// Resets the function, which forgets everything but its configuration.
    ///
    /// # Errors
    ///
    /// `ENOTTY` if it cannot be reset; what C reports if it does not come back.
    pub fn reset(pdev: &pci::Device<Core<'_>>) -> Result {
        let pdev: *const pci::Device<Core<'_>> = pdev;
        // SAFETY: `pci::Device` is transparent; the device is valid, and its lock is held: that is
        // what its context says.
        to_result(unsafe { bindings::pci_reset_function_locked(pdev.cast_mut().cast()) })
    }

    /// Remembers the configuration, with interrupt vectors if there are any by now, for
    /// [`Self::restore`].
    ///
    /// # Errors
    ///
    /// What C reports.
    pub fn save(&self) -> Result {
        // SAFETY: The device is valid, and bound.
        self.bound(|_| to_result(unsafe { bindings::pci_save_state(self.as_raw()) }))
    }

    /// Puts the configuration back, if somebody reset the device without saying so. Returns whether
    /// that was so. To be called when the device neither is used nor interrupts.
    pub fn restore(&self) -> bool {
        // SAFETY: The device is valid, and bound.
        let restore = || Ok(unsafe { vdpa_bindings::rust_vdpa_pci_restore(self.as_raw()) });
        self.bound(|_| restore()).unwrap_or(false)
    }

    /// The serial number of the function, or of the physical one that it is of, by PCI Express.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is not bound any more; `ENOENT` if it has none that can be read,
    /// `ENOMEM`.
    pub fn serial_number(&self) -> Result<CString> {
        // SAFETY: The device is valid, and bound.
        match self.bound(|_| Ok(unsafe { vdpa_bindings::rust_vdpa_pci_serial(self.as_raw()) }))? {
            0 => Err(ENOENT),
            serial => {
                let bytes = serial.to_be_bytes();
                let [a, b, c, d, e, f, g, h] = bytes;
                CString::try_from_fmt(fmt!(
                    "{a:02x}-{b:02x}-{c:02x}-{d:02x}-{e:02x}-{f:02x}-{g:02x}-{h:02x}"
                ))
            }
        }
    }

    /// The serial number of the board, as it says of itself in the product data of the physical
    /// function.
    ///
    /// # Errors
    ///
    /// As [`Self::serial_number`].
    pub fn board_serial_number(&self) -> Result<CString> {
        let mut serial = [0u8; 64];
        self.bound(|_| {
            // SAFETY: The device is valid, and bound; there is room for as many bytes.
            to_result(unsafe {
                vdpa_bindings::rust_vdpa_pci_board_serial(
                    self.as_raw(),
                    serial.as_mut_ptr().cast(),
                    serial.len(),
                )
            })
        })?;
        let serial = CStr::from_bytes_until_nul(&serial).map_err(|_| EINVAL)?;
        Ok(CString::try_from(serial)?)
    }

    /// Calls `f` with the device, which stays bound meanwhile. Not to be called again by `f`.
    ///
    /// May sleep. The device may be about to be unbound: what `f` gave it to keep might not be
    /// released, so `f` gives it nothing.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is not bound any more; what `f` returns.
    pub(crate) fn bound<R>(&self, f: impl FnOnce(&pci::Device<Bound>) -> Result<R>) -> Result<R> {
        let bound = self.bound.lock();
        if !*bound {
            return Err(ENODEV);
        }
        let pdev: *const pci::Device = &raw const *self.pdev;
        // SAFETY: `pci::Device` is transparent, whatever its context. By the type invariant this
        // one is bound, and it stays so until `Release` has the lock that is held here.
        f(unsafe { &*pdev.cast::<pci::Device<Bound>>() })
    }

    /// Keeps the device from reaching memory and from interrupting: it may have to be stopped
    /// without being asked.
    pub fn stop_dma(&self) {
        let bound = self.bound.lock();
        if *bound {
            // SAFETY: The device is valid, and bound by the type invariant.
            unsafe { bindings::pci_clear_master(self.as_raw()) };
        }
    }

    /// Lets the device reach memory and interrupt.
    pub fn start_dma(&self) {
        let bound = self.bound.lock();
        if *bound {
            // SAFETY: The device is valid, and bound by the type invariant.
            unsafe { bindings::pci_set_master(self.as_raw()) };
        }
    }

    /// The page at `offset` of BAR `bar`, for a user to write to: one of doorbells, and of nothing else
    /// that the driver keeps to itself. What is written there is for the device to understand, as
    /// with any register.
    ///
    /// # Errors
    ///
    /// `EINVAL` if that is no page of the BAR, or vectors are in it; `ENODEV` if the device is not
    /// bound.
    pub fn doorbell_page(&self, bar: u32, offset: u64) -> Result<NotificationArea<'_>> {
        self.bound(|pdev| {
            let size = PAGE_SIZE as u64;
            let end = offset.checked_add(size).ok_or(EINVAL)?;
            let addr = pdev
                .resource_start(bar)?
                .checked_add(offset)
                .ok_or(EINVAL)?;
            if end > pdev.resource_len(bar)? || addr % size != 0 {
                return Err(EINVAL);
            }
            let index = i32::try_from(bar)?;
            // SAFETY: The device is valid, and bound.
            let is_apart = unsafe {
                vdpa_bindings::rust_vdpa_pci_apart_from_msix(self.as_raw(), index, offset, size)
            };
            if !is_apart {
                return Err(EINVAL);
            }
            // SAFETY: They are registers of a device that is bound for as long as there are vDPA
            // devices of it: registers without the table of interrupts, by which a write could get
            // at memory. What the others do is as harmless as it is for the driver to write there.
            Ok(unsafe { NotificationArea::new(addr, size) })
        })
    }

    /// Returns whether the administrator gave the device to its driver, by `driver_override`.
    pub fn is_chosen(pdev: &pci::Device<Core<'_>>) -> bool {
        let dev: &device::Device<Core<'_>> = pdev.as_ref();
        let dev: *const device::Device<Core<'_>> = dev;
        // SAFETY: `device::Device` is transparent; the device is valid and `probe` runs for it, so
        // that its driver is set.
        unsafe { vdpa_bindings::rust_vdpa_driver_override(dev.cast_mut().cast()) }
    }

    /// Returns whether this is `pdev`.
    pub(crate) fn is(&self, pdev: &pci::Device<Bound>) -> bool {
        let pdev: *const pci::Device<Bound> = pdev;
        // `pci::Device` is transparent, whatever its context.
        pdev.cast() == self.as_raw().cast_const()
    }

    fn as_raw(&self) -> *mut bindings::pci_dev {
        let pdev: *const pci::Device = &raw const *self.pdev;
        // `pci::Device` is transparent.
        pdev.cast_mut().cast()
    }
}

impl AsRef<device::Device> for Device {
    fn as_ref(&self) -> &device::Device {
        (*self.pdev).as_ref()
    }
}
