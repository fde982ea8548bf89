// SPDX-License-Identifier: GPL-2.0

//! A parent whose devices do nothing but keep records of what they are called for, so that a test
//! sees what arrives of each call of vhost-vdpa: see [`wire`].
//!
//! It has the operations that a device in software has no use for. It is for tests only.

use core::marker::PhantomData;

use kernel::{
    faux,
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    }, //
};
use vdpa::{
    mgmt::{
        self,
        Attributes,
        Config,
        Management,
        Registration, //
    },
    Device,
    Setup, //
};

use crate::{
    device::{
        Bare,
        Kind,
        Whole,
        FEATURES, //
    },
    notes::{
        Notes,
        REMOVED, //
    },
    wire::{
        QUEUES,
        SPACES, //
    }, //
};

mod device;
mod notes;
mod required;
mod wire;

module! {
    type: VdpaOps,
    name: "rust_vdpa_ops",
    authors: ["The rust-vdpa project"],
    description: "vDPA devices that keep records of their operations, for tests",
    license: "GPL",
}

/// The management device of one kind of devices.
struct Manager<T>(PhantomData<fn() -> T>);

#[vtable]
impl<T: Kind> Management for Manager<T> {
    type Device = T;

    fn dev_add(&self, _name: &CStr, config: &Config) -> Result<(Setup, Arc<T>)> {
        let setup = T::SETUP(QUEUES, u32::from(QUEUES), SPACES)?;
        // The MTU says how rings are to be aligned; the device has no other use for it.
        let align = config.mtu.map_or(4096, u32::from);
        let notes = Notes::new(setup.callbacks(), align)?;
        Ok((setup, Arc::new(T::new(notes), GFP_KERNEL)?))
    }

    fn dev_removed(&self, _dev: &Device<T>) {
        REMOVED.add(1, Relaxed);
    }
}

/// The module.
struct VdpaOps {
    _bare: Registration<Manager<Bare>>,
    /// Keeps the other management device.
    _faux: faux::Registration,
}

impl kernel::Module for VdpaOps {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let attributes = Attributes {
            device_ids: &[vdpa::ID_NET],
            supported_features: FEATURES.bits(),
            max_vqs: u32::from(QUEUES),
            mtu: true,
            ..Attributes::default()
        };
        let bare = Registration::new(c"rust_vdpa_ops_bare", attributes, Manager(PhantomData))?;
        let faux = faux::Registration::new(c"rust_vdpa_ops", None)?;
        let device: &faux::Device<_> = faux.as_ref();
        mgmt::register(device.as_ref(), attributes, Manager::<Whole>(PhantomData))?;
        Ok(Self {
            _bare: bare,
            _faux: faux,
        })
    }
}
