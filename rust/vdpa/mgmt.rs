// SPDX-License-Identifier: GPL-2.0

//! Management devices: what the `vdpa` tool adds devices with.
//!
//! C header: [`include/linux/vdpa.h`](srctree/include/linux/vdpa.h), `struct vdpa_mgmt_dev`

use kernel::{
    build_error,
    device::{
        self,
        Bound, //
    },
    devres::{
        self,
        Devres, //
    },
    error::{
        from_result,
        to_result,
        VTABLE_DEFAULT_ERROR, //
    },
    ffi::{
        c_char,
        c_int, //
    },
    prelude::*,
    sync::Arc,
    types::Opaque, //
};

use vdpa_bindings::{
    vdpa_dev_set_config,
    vdpa_device,
    vdpa_mgmt_dev,
    vdpa_mgmtdev_ops,
    virtio_device_id, //
};

use crate::{
    count::{
        Count,
        Counted, //
    },
    device::Unregistered,
    parent::Parent,
    worker,
    Device,
    Operations,
    Setup, //
};

/// What the administrator wants of a device. Attributes that were not given are `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The MAC address.
    pub mac: Option<[u8; 6]>,
    /// The MTU in bytes, as the device shows it to its driver.
    pub mtu: Option<u16>,
    /// The number of pairs of data virtqueues. Not 0.
    pub max_vq_pairs: Option<u16>,
    /// The virtio features to offer, exactly.
    pub features: Option<u64>,
}

impl Config {
    fn from_raw(raw: &vdpa_dev_set_config) -> Self {
        let given = |attribute: u32| raw.mask & (1 << attribute) != 0;
        Self {
            mac: given(vdpa_bindings::VDPA_ATTR_DEV_NET_CFG_MACADDR).then_some(raw.net.mac),
            mtu: given(vdpa_bindings::VDPA_ATTR_DEV_NET_CFG_MTU).then_some(raw.net.mtu),
            max_vq_pairs: given(vdpa_bindings::VDPA_ATTR_DEV_NET_CFG_MAX_VQP)
                .then_some(raw.net.max_vq_pairs),
            features: given(vdpa_bindings::VDPA_ATTR_DEV_FEATURES).then_some(raw.device_features),
        }
    }
}

/// What a management device can do, as `vdpa mgmtdev show` has it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes {
    /// The virtio device ids of the devices it can add (virtio 1.3, 5).
    pub device_ids: &'static [u32],
    /// The virtio features its devices can offer.
    pub supported_features: u64,
    /// The greatest number of virtqueues of a device.
    pub max_vqs: u32,
    /// [`Config::mac`] may be given.
    pub mac: bool,
    /// [`Config::mtu`] may be given.
    pub mtu: bool,
    /// [`Config::max_vq_pairs`] may be given.
    pub max_vq_pairs: bool,
    /// [`Config::features`] may be given.
    pub features: bool,
}

impl Attributes {
    fn mask(&self) -> u64 {
        [
            (self.mac, vdpa_bindings::VDPA_ATTR_DEV_NET_CFG_MACADDR),
            (self.mtu, vdpa_bindings::VDPA_ATTR_DEV_NET_CFG_MTU),
            (
                self.max_vq_pairs,
                vdpa_bindings::VDPA_ATTR_DEV_NET_CFG_MAX_VQP,
            ),
            (self.features, vdpa_bindings::VDPA_ATTR_DEV_FEATURES),
        ]
        .iter()
        .filter(|(offered, _)| *offered)
        .fold(0, |mask, (_, attribute)| mask | 1 << attribute)
    }
}

/// What a management device does.
///
/// The bus calls these one at a time. C has no place for a reason when adding fails but the number
/// of the error, so a driver logs what the number does not say.
#[vtable]
pub trait Management: Send + Sync + Sized + 'static {
    /// The devices.
    type Device: Operations;

    /// Makes a device. It is registered under `name` when this returns.
    ///
    /// If that fails, because the name is taken for one, [`Self::dev_removed`] is called without
    /// [`Self::dev_added`]. If it does not come so far, for want of memory, the data are just
    /// dropped: what dropping does not end is to be begun in [`Self::dev_added`].
    ///
    /// # Errors
    ///
    /// Any; `EINVAL` for a combination that is not possible, `EOPNOTSUPP` for one the device does
    /// not support.
    fn dev_add(&self, name: &CStr, config: &Config) -> Result<(Setup, Arc<Self::Device>)>;

    /// The device was registered. It may be in use already.
    fn dev_added(&self, _dev: &Device<Self::Device>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// The device was unregistered, or could not be registered: its users are gone, and none of its
    /// operations runs or will.
    /// Here its threads are stopped, and what refers to its data in a circle is taken apart.
    fn dev_removed(&self, _dev: &Device<Self::Device>) {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Changes a device that may be in use. C lets only a MAC address through.
    ///
    /// # Errors
    ///
    /// Any.
    fn dev_set_attr(&self, _dev: &Device<Self::Device>, _config: &Config) -> Result {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// A management device, from its registration on.
///
/// When it is dropped, all of its devices are deleted, once their users have let go of them, and it
/// waits until the last reference to one is gone. Keep it in the module, so that it is dropped
/// before the module's code is gone.
///
/// [`register`] keeps it where a device of a bus is the parent.
pub struct Registration<M: Management>(Pin<KBox<Inner<M>>>);

/// # Invariants
///
/// `mdev` refers to `ids` and `parent`.
#[repr(C)]
#[pin_data]
struct Inner<M: Management> {
    /// Has to be the first member: `Inner::from_raw` relies on it.
    #[pin]
    mdev: Opaque<vdpa_mgmt_dev>,
    management: M,
    /// The devices of which a reference is left.
    alive: Arc<Count>,
    _ids: KVec<virtio_device_id>,
    parent: Parent,
    /// Dropped last.
    _stay: worker::Stay,
}

// SAFETY: `mdev` is C's, which has a lock for it; the rest is `Send` or not changed.
unsafe impl<M: Management> Send for Inner<M> {}
// SAFETY: As above.
unsafe impl<M: Management> Sync for Inner<M> {}

impl<M: Management> Registration<M> {
    /// Registers a management device, and the device of the same name that is the parent of those
    /// that are added. For devices that need none to reach memory by.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and what C reports if the name is taken.
    pub fn new(name: &CStr, attributes: Attributes, management: M) -> Result<Self> {
        let module = kernel::module::this_module::<M::OwnerModule>();
        Self::with_parent(Parent::root(name, module)?, attributes, management)
    }

    fn with_parent(parent: Parent, attributes: Attributes, management: M) -> Result<Self> {
        // A list that ends with id 0.
        let mut ids = KVec::with_capacity(attributes.device_ids.len() + 1, GFP_KERNEL)?;
        for &device in attributes.device_ids {
            let vendor = VIRTIO_DEV_ANY_ID;
            ids.push(virtio_device_id { device, vendor }, GFP_KERNEL)?;
        }
        ids.push(virtio_device_id::default(), GFP_KERNEL)?;

        let mdev = vdpa_mgmt_dev {
            device: parent.as_raw(),
            ops: &Inner::<M>::OPS,
            id_table: ids.as_mut_ptr(),
            config_attr_mask: attributes.mask(),
            supported_features: attributes.supported_features,
            max_supported_vqs: attributes.max_vqs,
            ..Default::default()
        };
        let inner = KBox::pin_init(
            try_pin_init!(Inner {
                mdev <- Opaque::ffi_init(|to: *mut vdpa_mgmt_dev| {
                    // SAFETY: The memory is ours and not initialised yet.
                    unsafe { to.write(mdev) };
                }),
                management,
                alive: Arc::new(Count::new(), GFP_KERNEL)?,
                _ids: ids,
                parent,
                _stay: worker::Stay::new(),
            }? Error),
            GFP_KERNEL,
        )?;
        // SAFETY: All members are set, and stay where they are until it is unregistered.
        to_result(unsafe { vdpa_bindings::vdpa_mgmtdev_register(inner.mdev.get()) })?;
        Ok(Self(inner))
    }
}

impl<M: Management> Drop for Registration<M> {
    fn drop(&mut self) {
        // SAFETY: It was registered by `new`. C deletes all devices, which waits for their users.
        unsafe { vdpa_bindings::vdpa_mgmtdev_unregister(self.0.mdev.get()) };

        // Somebody may have a reference to a device yet, and its last one ends in our code.
        while !self.0.alive.wait(10_000) {
            pr_warn!("waiting for references to devices of a management device\n");
        }
        // That the task which dropped it has returned from our code, `Stay` waits for.
    }
}

/// Registers a management device for `parent`, which is also the parent of the devices that are
/// added, and what they reach memory by: its DMA addresses are those that the kernel's own drivers
/// use, and its IOMMU that of a device that does not map memory itself.
///
/// The driver of `parent` sets the DMA masks before: what a device reaches memory by follows from
/// them when it is added.
///
/// It lasts until the driver of `parent` is unbound, which waits for the users of the devices. It
/// is gone before anything that was given to `parent` to keep earlier is, such as a mapped BAR.
///
/// But the driver's `unbind` (C's `remove`) has run and its data are dropped before it ends: until
/// then the devices are in use, and others may be added. What they need, they share, and neither
/// `unbind` nor the end of the data may switch off any of it.
///
/// `parent` has to be unbound before the module is gone: its driver is the module's own, or it is a
/// device that the module made, such as a faux one, and takes away.
///
/// # Errors
///
/// `EINVAL` if the driver of `parent` is another module's, as that of the parent of an auxiliary
/// device is; `ENOMEM`, and what C reports.
pub fn register<M: Management>(
    parent: &device::Device<Bound>,
    attributes: Attributes,
    management: M,
) -> Result {
    let module = kernel::module::this_module::<M::OwnerModule>();
    let parent_of_all = Parent::bound(parent, module)?;
    let registration = Registration::with_parent(parent_of_all, attributes, management)?;
    devres::register(parent, registration, GFP_KERNEL)
}

/// A management device that [`attach`] registered. It ends with this value, and with the binding of
/// its parent at the latest.
pub struct Attached<M: Management> {
    _registration: Devres<Registration<M>>,
}

/// As [`register`], but it lasts no longer than the value that is returned.
///
/// Dropped in the driver's `unbind`, that has the devices gone, and waits for their users, before
/// anything of what they need ends.
///
/// # Errors
///
/// As [`register`].
pub fn attach<M: Management>(
    parent: &device::Device<Bound>,
    attributes: Attributes,
    management: M,
) -> Result<Attached<M>> {
    let module = kernel::module::this_module::<M::OwnerModule>();
    let parent_of_all = Parent::bound(parent, module)?;
    let registration = Registration::with_parent(parent_of_all, attributes, management)?;
    Ok(Attached {
        _registration: Devres::new(parent, Ok::<_, Error>(registration))?,
    })
}

/// `VIRTIO_DEV_ANY_ID`
const VIRTIO_DEV_ANY_ID: u32 = u32::MAX;

impl<M: Management> Inner<M> {
    /// The operations, for C to call on a registered `Inner<M>` and the devices it added, with the
    /// bus lock held.
    const OPS: vdpa_mgmtdev_ops = vdpa_mgmtdev_ops {
        dev_add: Some(Self::dev_add),
        dev_del: Some(Self::dev_del),
        dev_set_attr: if M::HAS_DEV_SET_ATTR {
            Some(Self::dev_set_attr)
        } else {
            None
        },
    };

    /// # Safety
    ///
    /// `mdev` must be the first member of a registered `Inner<M>`, for `'a`.
    unsafe fn from_raw<'a>(mdev: *mut vdpa_mgmt_dev) -> &'a Self {
        // SAFETY: By the function requirements.
        unsafe { &*mdev.cast() }
    }

    /// # Safety
    ///
    /// See [`Inner::OPS`].
    unsafe extern "C" fn dev_add(
        mdev: *mut vdpa_mgmt_dev,
        name: *const c_char,
        config: *const vdpa_dev_set_config,
    ) -> c_int {
        from_result(|| {
            // SAFETY: C calls this for a registered management device.
            let this = unsafe { Self::from_raw(mdev) };
            // SAFETY: C passes a string that lives during this call.
            let name = unsafe { CStr::from_char_ptr(name) };
            // SAFETY: C passes a valid configuration.
            let config = Config::from_raw(unsafe { &*config });

            let (setup, data) = this.management.dev_add(name, &config)?;
            let alive = Counted::new(this.alive.clone());
            let dev = Unregistered::<M::Device>::new(&this.parent, name, setup, data, alive)?;
            // SAFETY: This is the `dev_add` operation of `mdev`.
            let dev = unsafe { dev.register(mdev) }.map_err(|(dev, error)| {
                if M::HAS_DEV_REMOVED {
                    this.management.dev_removed(&dev);
                }
                error
            })?;
            if M::HAS_DEV_ADDED {
                // The bus lock is held, so the device is not deleted meanwhile.
                this.management.dev_added(dev);
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`Inner::OPS`].
    unsafe extern "C" fn dev_del(mdev: *mut vdpa_mgmt_dev, vdpa: *mut vdpa_device) {
        // SAFETY: C calls this for a registered management device.
        let this = unsafe { Self::from_raw(mdev) };
        // SAFETY: C passes a device that was registered by `dev_add` of this management device.
        let dev = unsafe { Unregistered::<M::Device>::unregister(vdpa) };
        if M::HAS_DEV_REMOVED {
            this.management.dev_removed(&dev);
        }
    }

    /// # Safety
    ///
    /// See [`Inner::OPS`].
    unsafe extern "C" fn dev_set_attr(
        mdev: *mut vdpa_mgmt_dev,
        vdpa: *mut vdpa_device,
        config: *const vdpa_dev_set_config,
    ) -> c_int {
        from_result(|| {
            // SAFETY: C calls this for a registered management device.
            let this = unsafe { Self::from_raw(mdev) };
            // SAFETY: C passes a device that was registered by `dev_add` of this management
            // device, and holds the lock without which it is not deleted.
            let dev = unsafe { Device::from_raw(vdpa) };
            // SAFETY: C passes a valid configuration.
            let config = Config::from_raw(unsafe { &*config });
            this.management.dev_set_attr(dev, &config)?;
            Ok(0)
        })
    }
}
