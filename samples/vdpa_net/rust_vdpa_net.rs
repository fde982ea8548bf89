// SPDX-License-Identifier: GPL-2.0

//! Software virtio-net devices on the vDPA bus, joined by a learning switch.
//!
//! Each device added with the `vdpa` tool is a port of one switch, whoever drives it: a guest
//! through `vhost_vdpa`, or the host through `virtio_vdpa`. No hardware is needed.
//!
//! How a frame goes: the transmit worker of its queue pair ([`transmit`]) takes it from the ring,
//! asks the [`switch`] for its way ([`forward`]), takes receive buffers of the other port, and copies
//! it from one driver's memory to the other's ([`handover`]). Who may use the device, when its queues run and in
//! which byte order is decided by `virtio::lifecycle` and executed by [`machine`].
//!
//! Limits: frames that the receiver's driver cannot take as they are are reworked in kernel memory;
//! a frame that waits for receive buffers delays those behind it in the same transmit queue, for
//! up to 20 ms at a time.

use kernel::{
    prelude::*,
    sync::Arc, //
};
use vdpa::{
    mgmt::{
        Attributes,
        Config,
        Management,
        Registration, //
    },
    Device,
    Setup, //
};
use virtio::{
    features::Features,
    lifecycle::{
        self,
        Lifecycle, //
    },
    net::{
        config::{
            self,
            ConfigSpace, //
        },
        features,
        rss::Limits,
        MacAddress, //
    }, //
};

use crate::{
    device::NetDevice,
    machine::Machine,
    port::{
        Port,
        GROUPS, //
    },
    switch::Switch, //
};

mod control;
mod device;
mod fdb;
mod forward;
mod frame;
mod handover;
mod machine;
mod owners;
mod peer;
mod port;
mod queue;
mod reserve;
mod rework;
mod show;
mod stats;
mod switch;
mod transmit;

/// Queue pairs a device may have.
const MAX_PAIRS: u16 = 16;

/// Address spaces of a device, one for each virtqueue group.
const SPACES: u32 = GROUPS;

/// The MTU of a device added without one.
const DEFAULT_MTU: u16 = 1500;

/// What devices offer if nothing else is asked for. None of it keeps QEMU from migrating a guest.
const DEFAULT_FEATURES: Features = features::MAC
    .union(features::MTU)
    .union(features::STATUS)
    .union(features::CTRL_VQ)
    .union(features::CTRL_RX)
    .union(features::CTRL_VLAN)
    .union(features::CTRL_MAC_ADDR)
    .union(features::MQ)
    .union(features::CSUM)
    .union(features::GUEST_CSUM)
    .union(features::HOST_TSO4)
    .union(features::HOST_TSO6)
    .union(features::HOST_ECN)
    .union(features::GUEST_TSO4)
    .union(features::GUEST_TSO6)
    .union(features::GUEST_ECN)
    .union(features::MRG_RXBUF)
    .union(Features::INDIRECT_DESC)
    .union(Features::EVENT_IDX)
    .union(Features::ANY_LAYOUT)
    .union(Features::VERSION_1)
    .union(Features::ACCESS_PLATFORM);

/// What devices can offer besides, to be asked for.
///
/// QEMU announces a guest that moved itself, shows GUEST_ANNOUNCE to it whether the device offers
/// it or not, and refuses shadow virtqueues and so migration if it does.
const MORE_FEATURES: Features = features::CTRL_RX_EXTRA
    .union(features::GUEST_ANNOUNCE)
    .union(Features::RING_PACKED)
    .union(Features::IN_ORDER)
    .union(Features::ORDER_PLATFORM)
    .union(Features::NOTIFICATION_DATA);

module! {
    type: VdpaNet,
    name: "rust_vdpa_net",
    authors: ["The rust-vdpa project"],
    description: "Software virtio-net vDPA devices joined by a switch",
    license: "GPL",
}

/// Says why an attribute cannot be had.
fn invalid(why: config::Invalid) -> Error {
    pr_err!("{}\n", show::Show(why));
    EINVAL
}

/// The management device.
struct Manager {
    switch: Arc<Switch>,
}

impl Manager {
    /// Features of a new device.
    fn features(config: &Config) -> Result<Features> {
        let Some(bits) = config.features else {
            return Ok(DEFAULT_FEATURES);
        };
        let wanted = Features::from_bits(bits);
        let unknown = wanted.without(DEFAULT_FEATURES.union(MORE_FEATURES));
        if !unknown.is_empty() {
            pr_err!("features {:#x} cannot be offered\n", unknown);
            return Err(EINVAL);
        }
        if let Err(unmet) = features::check(wanted) {
            let (feature, needs) = (unmet.feature, unmet.needs);
            pr_err!("feature {:#x} needs one of {:#x}\n", feature, needs);
            return Err(EINVAL);
        }
        Ok(wanted)
    }

    /// An address for a device that was given none: locally administered, and different for each
    /// device with all likelihood, on other hosts as well.
    fn any_mac(&self, number: u32) -> MacAddress {
        let now = self.switch.nanos();
        config::local_mac(now ^ u64::from(number) << 48)
    }

    fn check_mtu(mtu: u16) -> Result<u16> {
        config::check_mtu(mtu, u16::MAX).map_err(invalid)
    }

    fn check_mac(mac: MacAddress) -> Result<MacAddress> {
        config::check_mac(mac).map_err(invalid)
    }
}

#[vtable]
impl Management for Manager {
    type Device = NetDevice;

    fn dev_add(&self, name: &CStr, config: &Config) -> Result<(Setup, Arc<NetDevice>)> {
        let offered = Self::features(config)?;
        let pairs = config.max_vq_pairs.unwrap_or(1);
        let pairs = config::check_pairs(pairs, MAX_PAIRS).map_err(invalid)?;
        let mtu = config.mtu.map_or(Ok(DEFAULT_MTU), Self::check_mtu)?;
        let mac = config.mac.map(Self::check_mac).transpose()?;

        let number = self.switch.number();
        let space = ConfigSpace::new(config::Attributes {
            mac: mac.unwrap_or_else(|| self.any_mac(number)),
            mac_provisioned: mac.is_some(),
            mtu,
            max_virtqueue_pairs: pairs,
            rss: Limits::default(),
        });
        let queues = 2 * pairs + 1;
        let life = Lifecycle::new(lifecycle::Config {
            queues,
            offered,
            // Software on the processors that the driver runs on needs no more than they promise.
            required: Features::NONE,
            legacy: true,
            big_endian: true,
            check: features::check,
        });

        let setup = Setup::software(queues, GROUPS, SPACES)?;
        let port = Port::new(
            number,
            name,
            setup.spaces().ok_or(EINVAL)?,
            setup.callbacks(),
            queues,
            space,
        )?;
        let machine = Machine::new(port.clone(), self.switch.clone(), life, pairs)?;
        let device = NetDevice::new(machine, self.switch.clone(), port.clone())?;
        self.switch.connect(port)?;
        Ok((setup, device))
    }

    fn dev_removed(&self, dev: &Device<NetDevice>) {
        dev.end();
    }

    fn dev_set_attr(&self, dev: &Device<NetDevice>, config: &Config) -> Result {
        let mac = config.mac.map(Self::check_mac).transpose()?;
        let mtu = config.mtu.map(Self::check_mtu).transpose()?;
        if mac.is_none() && mtu.is_none() {
            return Err(EOPNOTSUPP);
        }
        dev.machine().change_config(|space| {
            if let Some(mac) = mac {
                space.set_mac(mac);
            }
            if let Some(mtu) = mtu {
                space.set_mtu(mtu);
            }
        })
    }
}

/// The module.
struct VdpaNet {
    _registration: Registration<Manager>,
}

impl kernel::Module for VdpaNet {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let manager = Manager {
            switch: Switch::new()?,
        };
        let attributes = Attributes {
            device_ids: &[vdpa::ID_NET],
            supported_features: DEFAULT_FEATURES.union(MORE_FEATURES).bits(),
            max_vqs: u32::from(2 * MAX_PAIRS + 1),
            mac: true,
            mtu: true,
            max_vq_pairs: true,
            features: true,
        };
        Ok(Self {
            _registration: Registration::new(c"rust_vdpa_net", attributes, manager)?,
        })
    }
}
