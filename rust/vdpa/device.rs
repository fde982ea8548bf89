// SPDX-License-Identifier: GPL-2.0

//! A device on the vDPA bus.
//!
//! C header: [`include/linux/vdpa.h`](srctree/include/linux/vdpa.h), `struct vdpa_device`

use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    ops::Deref,
    ptr::{
        null,
        NonNull, //
    }, //
};

use kernel::{
    bindings,
    device,
    error::{
        from_err_ptr,
        to_result, //
    },
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        ArcBorrow,
        SetOnce, //
    },
    types::Opaque, //
};

use vdpa_bindings::vdpa_notification_area;

use crate::{
    callback::Callbacks,
    count::Counted,
    legacy::Attributes,
    memory::{
        identity,
        refusal,
        Spaces, //
    },
    ops::Operations,
    parent::Parent,
    vtable::VTable, //
};

/// What the crate makes for a device before the device itself exists: its shape, and what its data
/// hold on to.
pub struct Setup {
    queues: u16,
    groups: u32,
    asids: u32,
    callbacks: Arc<Callbacks>,
    spaces: Option<Arc<Spaces>>,
}

impl Setup {
    /// A device that works in software, with `queues` virtqueues in `groups` groups, and `asids`
    /// address spaces.
    ///
    /// # Errors
    ///
    /// `EINVAL` if one of the numbers is 0, `ENOMEM`.
    pub fn software(queues: u16, groups: u32, asids: u32) -> Result<Self> {
        let mut setup = Self::hardware(queues, groups, asids)?;
        setup.spaces = Some(Arc::new(Spaces::new(groups, asids)?, GFP_KERNEL)?);
        Ok(setup)
    }

    /// A device that reaches memory by itself.
    ///
    /// It does so as the parent of the management device ([`mgmt::register`](crate::mgmt::register)):
    /// the kernel's own drivers give it addresses that the DMA API made for the parent, and so does
    /// vhost-vdpa by the parent's IOMMU unless the device implements
    /// [`Operations::set_map`] or [`Operations::dma_map`]. If the parent does no DMA, as one that
    /// [`Registration::new`](crate::mgmt::Registration::new) makes, the kernel's own drivers get no
    /// memory, and vhost-vdpa serves devices with one of these operations only.
    ///
    /// Of the kernel's own drivers this is true if the device offers ACCESS_PLATFORM
    /// ([`Operations::get_device_features`]). If not, they give it physical addresses, whatever the
    /// parent is.
    ///
    /// # Errors
    ///
    /// As [`Self::software`].
    pub fn hardware(queues: u16, groups: u32, asids: u32) -> Result<Self> {
        if queues == 0 || groups == 0 || asids == 0 {
            return Err(EINVAL);
        }
        Ok(Self {
            queues,
            groups,
            asids,
            callbacks: Arc::new(Callbacks::new(queues)?, GFP_KERNEL)?,
            spaces: None,
        })
    }

    /// As [`Self::hardware`], for a device that implements [`Operations::set_map`]: with address
    /// spaces, which the crate keeps, also for what the device does in software.
    ///
    /// # Errors
    ///
    /// As [`Self::software`].
    pub fn hardware_with_spaces(queues: u16, groups: u32, asids: u32) -> Result<Self> {
        // Who keeps them is all the difference.
        Self::software(queues, groups, asids)
    }

    /// The callbacks of the device.
    pub fn callbacks(&self) -> Arc<Callbacks> {
        self.callbacks.clone()
    }

    /// The address spaces, if the crate keeps them.
    pub fn spaces(&self) -> Option<Arc<Spaces>> {
        self.spaces.clone()
    }
}

/// Whose driver drives a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// It has set no status since the last reset; or it is one that nobody here knows.
    Nobody,
    /// The kernel's own, which gives addresses that the DMA API made, and makes no maps.
    Kernel,
    /// That of a process, by vhost-vdpa, which makes maps.
    Process,
}

/// What belongs to a device, beside what C has.
struct Parts<T> {
    data: Arc<T>,
    setup: Setup,
    /// Which [`User`] it is.
    user: Atomic<u32>,
    /// Set before it is registered.
    answers: SetOnce<Answers>,
    /// Dropped last: the management device waits for it.
    _alive: Counted,
}

/// [`User::Nobody`]
const NOBODY: u32 = 0;
/// [`User::Kernel`]
const KERNEL: u32 = 1;
/// [`User::Process`]
const PROCESS: u32 = 2;

/// What the data said of a device when they were asked once.
struct Answers {
    /// The alignment of rings, found good.
    vq_align: u32,
    /// The doorbell of each virtqueue, if there are any.
    notifications: KVec<vdpa_notification_area>,
}

/// A device on the vDPA bus, and the data of its driver.
///
/// # Invariants
///
/// - `vdpa` is a device made by `__vdpa_alloc_device` with the operations of `VTable<T>`, and the
///   whole of this type lies in the allocation that made.
/// - `parts` is a valid pointer from [`KBox::into_raw`] while a reference to this type exists.
#[repr(C)]
pub struct Device<T: Operations> {
    /// Has to be the first member: C frees the allocation by its address.
    vdpa: Opaque<vdpa_bindings::vdpa_device>,
    /// Null from the allocation by C until it is set for the rest of the device's life.
    parts: UnsafeCell<*mut Parts<T>>,
    _data: PhantomData<Arc<T>>,
}

// SAFETY: What the device owns is `Send` and `Sync`, and C counts its references atomically.
unsafe impl<T: Operations> Send for Device<T> {}
// SAFETY: As above; `parts` does not change while references exist.
unsafe impl<T: Operations> Sync for Device<T> {}

impl<T: Operations> Device<T> {
    /// The driver's data, as something that can be held on to.
    pub fn data(&self) -> ArcBorrow<'_, T> {
        self.parts().data.as_arc_borrow()
    }

    /// The name of the device, as the administrator gave it.
    pub fn name(&self) -> &CStr {
        let dev: &device::Device = self.as_ref();
        dev.name()
    }

    /// The number of virtqueues.
    pub fn queues(&self) -> u16 {
        self.parts().setup.queues
    }

    /// The number of groups of virtqueues.
    pub fn groups(&self) -> u32 {
        self.parts().setup.groups
    }

    /// The number of address spaces.
    pub fn asids(&self) -> u32 {
        self.parts().setup.asids
    }

    /// The callbacks.
    pub fn callbacks(&self) -> &Callbacks {
        &self.parts().setup.callbacks
    }

    /// The address spaces, if the crate keeps them.
    pub fn spaces(&self) -> Option<&Spaces> {
        self.parts().setup.spaces.as_deref()
    }

    /// Who drives the device. May be called in any context.
    pub fn user(&self) -> User {
        match self.parts().user.load(Relaxed) {
            KERNEL => User::Kernel,
            PROCESS => User::Process,
            _ => User::Nobody,
        }
    }

    /// Notes who drives the device.
    ///
    /// # Safety
    ///
    /// Must be called from an operation that only the driver which is bound to the device calls.
    pub(crate) unsafe fn note_user(&self) {
        // SAFETY: By the function requirements a driver is bound, and stays so during the call. Its
        // name lives as long as it does.
        let name = unsafe {
            let driver = (*self.as_raw()).dev.driver;
            CStr::from_char_ptr((*driver).name)
        };
        let user = match name.to_bytes() {
            b"virtio_vdpa" => KERNEL,
            b"vhost_vdpa" => PROCESS,
            _ => NOBODY,
        };
        self.parts().user.store(user, Relaxed);
        if let (false, KERNEL, Some(spaces)) = (T::SOFTWARE, user, self.spaces()) {
            // A device in software knows it from the first address that is asked for.
            spaces.set_dma_user();
        }
    }

    /// The driver reset the device; the next one may be another.
    pub(crate) fn forget_user(&self) {
        self.parts().user.store(NOBODY, Relaxed);
    }

    /// The alignment of rings in bytes, of a registered device: a power of two, and no more than a
    /// page.
    pub(crate) fn vq_align(&self) -> u32 {
        self.parts()
            .answers
            .as_ref()
            .map_or(0, |answers| answers.vq_align)
    }

    /// The doorbell of a virtqueue, of a registered device: always at the same address. Its size is
    /// 0 as long as it is not heard.
    pub(crate) fn notification(&self, index: u16) -> vdpa_notification_area {
        let answers = self.parts().answers.as_ref();
        answers
            .and_then(|answers| answers.notifications.get(usize::from(index)))
            .map_or_else(Default::default, |area| vdpa_notification_area {
                addr: area.addr,
                // vhost-vdpa lets nobody map what is not as large as a page. For who did before,
                // it maps the address, whatever the size, so that one has to be good.
                size: if T::hears_doorbell(self, index) {
                    area.size
                } else {
                    0
                },
            })
    }

    fn parts(&self) -> &Parts<T> {
        // SAFETY: By the type invariant `parts` is valid, and not written to.
        unsafe { &**self.parts.get() }
    }

    /// # Safety
    ///
    /// `vdpa` must point to the first member of a `Device<T>` whose parts are set, and which lives
    /// for `'a`.
    pub(crate) unsafe fn from_raw<'a>(vdpa: *const vdpa_bindings::vdpa_device) -> &'a Self {
        // SAFETY: By the function requirements, and because `vdpa` is the first member of a
        // `repr(C)` type.
        unsafe { &*vdpa.cast() }
    }

    pub(crate) fn as_raw(&self) -> *mut vdpa_bindings::vdpa_device {
        self.vdpa.get()
    }

    /// Drops what belongs to the device. For the `free` operation.
    ///
    /// # Safety
    ///
    /// `vdpa` must point to the first member of a `Device<T>` of which no reference is left.
    pub(crate) unsafe extern "C" fn free(vdpa: *mut vdpa_bindings::vdpa_device) {
        let this = vdpa.cast::<Self>();
        // SAFETY: By the function requirements the allocation is still there, and ours alone.
        let parts = unsafe { *(*this).parts.get() };
        if let Some(parts) = NonNull::new(parts) {
            // SAFETY: By the type invariant it came from `KBox::into_raw`. It is not used again.
            drop(unsafe { KBox::from_raw(parts.as_ptr()) });
        }
    }
}

impl<T: Operations> Deref for Device<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.parts().data
    }
}

impl<T: Operations> AsRef<device::Device> for Device<T> {
    fn as_ref(&self) -> &device::Device {
        // SAFETY: The embedded device is initialised for as long as `self` lives.
        unsafe { device::Device::from_raw(&raw mut (*self.as_raw()).dev) }
    }
}

/// A reference to a device that is not registered.
///
/// # Invariants
///
/// The pointer is to a device whose parts are set, and one reference belongs to this value.
pub(crate) struct Unregistered<T: Operations>(NonNull<Device<T>>);

impl<T: Operations> Unregistered<T> {
    /// Makes a device named `name` below `parent`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `setup` is not for such a device, and what C reports.
    pub(crate) fn new(
        parent: &Parent,
        name: &CStr,
        setup: Setup,
        data: Arc<T>,
        alive: Counted,
    ) -> Result<Self> {
        if (T::SOFTWARE || T::HAS_SET_MAP) != setup.spaces.is_some() {
            return Err(EINVAL);
        }
        let spaces = setup.spaces.clone();
        let parts = KBox::new(
            Parts {
                data,
                setup,
                user: Atomic::new(NOBODY),
                answers: SetOnce::new(),
                _alive: alive,
            },
            GFP_KERNEL,
        )?;

        let parent_dev = parent.as_raw();
        let map_ops: *const _ = match (T::SOFTWARE, parent.does_dma()) {
            (true, _) => &identity::OPS,
            (false, true) => null(),
            (false, false) => &refusal::OPS,
        };
        if let (false, true, Some(spaces)) = (T::SOFTWARE, parent.does_dma(), &spaces) {
            spaces.set_dma(parent.device());
        }

        // SAFETY: The operations and the map operations are static. The parent is a live device,
        // of which C takes a reference when the device is registered; until then `parent` itself
        // outlives this value. Bound to a driver it is for longer than the device is registered,
        // as the DMA API needs it. The name is copied.
        let vdpa = from_err_ptr(unsafe {
            vdpa_bindings::__vdpa_alloc_device(
                parent_dev,
                &VTable::<T>::OPS,
                map_ops,
                parts.setup.groups,
                parts.setup.asids,
                core::mem::size_of::<Device<T>>(),
                name.as_char_ptr(),
                T::USE_VA,
            )
        })?;
        let this = vdpa.cast::<Device<T>>();

        // SAFETY: The allocation is as large as `Device<T>`, and nobody else knows of it. The
        // address spaces live as long as the parts, which live as long as the device. The groups
        // are static, and C does not write to them.
        unsafe {
            *(*this).parts.get() = KBox::into_raw(parts);
            (*vdpa).dev.groups = Attributes::<T>::GROUPS.as_ptr().cast_mut();
            match &spaces {
                Some(spaces) if T::SOFTWARE => {
                    (*vdpa).vmap.group = Arc::as_ptr(spaces).cast_mut().cast()
                }
                _ => (*vdpa).vmap.dma_dev = parent_dev,
            }
        }

        // INVARIANT: The parts were set; the reference is the one the allocation made.
        Ok(Self(NonNull::new(this).ok_or(ENOMEM)?))
    }

    /// Asks the data what is not to change.
    ///
    /// # Errors
    ///
    /// `EINVAL` if rings cannot be aligned as the device wants it, and `ENOMEM`.
    fn ask(&self) -> Result<Answers> {
        // Kernel drivers lay out their rings with this and do not check: a number that is no power
        // of two, or more than what their memory is aligned to, puts parts of a ring outside of it.
        let vq_align = T::get_vq_align(self);
        if !vq_align.is_power_of_two() || vq_align as usize > PAGE_SIZE {
            pr_err!("rings cannot be aligned to {} bytes\n", vq_align);
            return Err(EINVAL);
        }

        // vhost-vdpa checks what it is told when a user maps a doorbell, asks again when he first
        // writes to it, and maps what it is told then unchecked. By its type an area lasts as long
        // as the reference that it was asked for with, and the driver cannot tell how long that is:
        // it lasts as long as any, so until the data are dropped.
        let mut notifications = KVec::new();
        if T::HAS_GET_VQ_NOTIFICATION {
            for index in 0..self.queues() {
                let area = T::get_vq_notification(self, index);
                let (addr, size) = (area.addr(), area.size());
                notifications.push(vdpa_notification_area { addr, size }, GFP_KERNEL)?;
            }
        }
        Ok(Answers {
            vq_align,
            notifications,
        })
    }

    /// Registers the device for the management device `mdev`.
    ///
    /// The reference passes to the bus, until [`Self::unregister`] takes it back; on an error, it
    /// comes back at once.
    ///
    /// # Errors
    ///
    /// Those of [`Self::ask`], and what C reports: `EEXIST` if the name is taken.
    ///
    /// # Safety
    ///
    /// Must be called from the `dev_add` operation of `mdev`, in which the returned reference is
    /// good.
    pub(crate) unsafe fn register<'a>(
        self,
        mdev: *mut vdpa_bindings::vdpa_mgmt_dev,
    ) -> Result<&'a Device<T>, (Self, Error)> {
        match self.ask() {
            Ok(answers) => self.parts().answers.populate(answers),
            Err(error) => return Err((self, error)),
        };

        let vdpa = self.as_raw();
        let queues = u32::from(self.queues());
        // SAFETY: By the function requirements the bus lock is held, and the device is not
        // registered yet.
        let result = to_result(unsafe {
            (*vdpa).mdev = mdev;
            vdpa_bindings::_vdpa_register_device(vdpa, queues)
        });
        if let Err(error) = result {
            return Err((self, error));
        }
        let this = self.0;
        core::mem::forget(self);
        // SAFETY: The bus holds the reference, and nobody takes it back while its lock is held.
        Ok(unsafe { this.as_ref() })
    }

    /// Unregisters a device, which waits until its users are gone.
    ///
    /// # Safety
    ///
    /// Must be called from the `dev_del` operation of the management device that `vdpa` was
    /// registered for by [`Self::register`].
    pub(crate) unsafe fn unregister(vdpa: *mut vdpa_bindings::vdpa_device) -> Self {
        // SAFETY: By the function requirements the device is registered, so the bus has a
        // reference. What follows drops the bus's one, so take one of our own before.
        unsafe { bindings::get_device(&raw mut (*vdpa).dev) };
        // INVARIANT: This is the reference just taken. The parts were set before registration.
        // SAFETY: The pointer is that of a live device.
        let this = Self(unsafe { NonNull::new_unchecked(vdpa.cast()) });
        // SAFETY: By the function requirements the bus lock is held.
        unsafe { vdpa_bindings::_vdpa_unregister_device(vdpa) };
        // Not every driver resets the device when its probing fails, and what the callbacks belong
        // to is gone now.
        this.callbacks().clear();
        this
    }
}

impl<T: Operations> Deref for Unregistered<T> {
    type Target = Device<T>;

    fn deref(&self) -> &Device<T> {
        // SAFETY: By the type invariant.
        unsafe { self.0.as_ref() }
    }
}

impl<T: Operations> Drop for Unregistered<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this gives back a reference that is ours.
        unsafe { bindings::put_device(&raw mut (*self.as_raw()).dev) };
    }
}
