// SPDX-License-Identifier: GPL-2.0

//! What the administrator adds devices with: `vdpa dev add mgmtdev pci/ADDRESS`.
//!
//! C has no place for a reason when something is refused but the number of the error, so each
//! refusal has a line in the log.

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full, //
        },
        Arc, //
    }, //
};
use vdpa::{
    mgmt::{
        Attributes,
        Config,
        Management, //
    },
    Device,
    Setup, //
};
use virtio::{
    features::Features,
    net::config::{
        check_mac,
        check_mtu, //
    }, //
};

use super::{
    device::NetDevice,
    machine::{
        ADDRESS_SPACES,
        GROUPS, //
    },
    offer::{
        self,
        Caps,
        Offer,
        Wanted, //
    }, //
};
use crate::{
    hca::{
        Capabilities,
        Function, //
    },
    show::Show, //
};

/// Whether a function has a device.
///
/// A doorbell says a queue's number, and the numbers are the function's: through a page of doorbells
/// that is mapped for it, the driver of a second device would ring for the queues of the first.
struct Taken(Atomic<bool>);

/// The place of the only device of a function, free again when this is dropped.
pub(crate) struct Place(Arc<Taken>);

impl Place {
    fn take(taken: &Arc<Taken>) -> Option<Self> {
        match taken.0.cmpxchg(false, true, Full) {
            Ok(_) => Some(Self(taken.clone())),
            Err(_) => None,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0 .0.store(false, kernel::sync::atomic::Release);
    }
}

/// Adds and deletes the network device of a function.
pub(crate) struct Manager {
    function: Arc<Function>,
    taken: Arc<Taken>,
}

/// What an offer follows from; `None` of a function without virtqueues.
fn caps(capabilities: &Capabilities) -> Option<Caps<'_>> {
    Some(Caps {
        general: &capabilities.general,
        vdpa: capabilities.vdpa.as_ref()?,
    })
}

impl Manager {
    /// A manager for a function, and what its devices can be.
    ///
    /// # Errors
    ///
    /// `ENODEV` if no network device can be made of the function, or its firmware died; `ENOMEM`.
    pub(crate) fn new(function: &Arc<Function>) -> Result<(Self, Attributes)> {
        let era = function.era().ok_or(ENODEV)?;
        let capabilities = era.capabilities();
        let caps = caps(capabilities)
            .filter(|_| capabilities.obstacle().is_none())
            .ok_or(ENODEV)?;
        let attributes = Attributes {
            device_ids: &[vdpa::ID_NET],
            supported_features: offer::possible(&caps).bits(),
            // The control queue beside those of pairs.
            max_vqs: u32::from(2 * caps.max_pairs() + 1),
            mac: true,
            mtu: true,
            max_vq_pairs: true,
            features: true,
        };
        let this = Self {
            function: function.clone(),
            taken: Arc::new(Taken(Atomic::new(false)), GFP_KERNEL)?,
        };
        Ok((this, attributes))
    }

    /// Says why something is refused.
    fn refuse(&self, why: impl core::fmt::Display) -> Error {
        let device: &hardware::Device = self.function.device();
        dev_warn!(device, "refused: {}\n", Show(why));
        EINVAL
    }
}

#[vtable]
impl Management for Manager {
    type Device = NetDevice;

    fn dev_add(&self, name: &CStr, config: &Config) -> Result<(Setup, Arc<NetDevice>)> {
        let Some(place) = Place::take(&self.taken) else {
            self.refuse("a function has one device only, for doorbells are not told apart");
            return Err(ENOSPC);
        };
        let era = self.function.era().ok_or_else(|| {
            self.refuse("the firmware is not up");
            ENODEV
        })?;
        let caps = caps(era.capabilities()).ok_or(ENODEV)?;
        let wanted = Wanted {
            mac: config.mac,
            mtu: config.mtu,
            pairs: config.max_vq_pairs,
            features: config.features.map(Features::from_bits),
        };
        let offer = Offer::new(&caps, &wanted).map_err(|why| self.refuse(why))?;
        let setup = Setup::hardware_with_spaces(offer.queues(), GROUPS, ADDRESS_SPACES)?;
        let device = NetDevice::new(name, &self.function, place, &offer, &setup)
            .inspect_err(|_| self.function.tidy())?;
        Ok((setup, device))
    }

    fn dev_removed(&self, dev: &Device<NetDevice>) {
        dev.end();
    }

    fn dev_set_attr(&self, dev: &Device<NetDevice>, config: &Config) -> Result {
        let mac = config.mac.map(check_mac).transpose();
        let mtu = config.mtu.map(|mtu| check_mtu(mtu, u16::MAX)).transpose();
        let mac = mac.map_err(|why| self.refuse(why))?;
        let mtu = mtu.map_err(|why| self.refuse(why))?;
        if mac.is_none() && mtu.is_none() {
            return Err(EOPNOTSUPP);
        }
        if let Some(mtu) = mtu {
            dev.set_mtu(mtu)?;
        }
        mac.map_or(Ok(()), |mac| dev.set_mac(mac))
    }
}
