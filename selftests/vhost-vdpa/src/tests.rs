// SPDX-License-Identifier: GPL-2.0
//! All tests, in the order they run.

mod attributes;
mod calls;
mod config;
mod control;
mod datapath;
mod endian;
mod hostile;
mod iotlb;
mod legacy;
mod ops;
mod parent;
mod queues;
mod receivers;
mod state;
mod switch;

use crate::device::{maker, Device, Vhost};
use crate::ktap::{Stop, Test};
use crate::uapi;

/// The address of the first device of a test; further ones count up.
pub(crate) const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x78, 0x00, 0x01];

/// What all tests are given.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) mgmtdev: String,
}

impl Context {
    /// A device of the test's own: the `number`th, with that MAC address.
    pub(crate) fn device(&self, number: u8) -> Result<Device, Stop> {
        self.device_with(number, &[])
    }

    /// A device with more attributes of `vdpa dev add`.
    pub(crate) fn device_with(&self, number: u8, more: &[&str]) -> Result<Device, Stop> {
        self.add(&format!("test{number}"), number, more)
    }

    /// Another device with the MAC address of the `number`th.
    pub(crate) fn twin(&self, number: u8, name: &str) -> Result<Device, Stop> {
        self.add(name, number, &[])
    }

    fn add(&self, name: &str, number: u8, more: &[&str]) -> Result<Device, Stop> {
        let mac: Vec<_> = mac(number)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let mac = mac.join(":");
        let mut words = vec!["mac", mac.as_str()];
        words.extend_from_slice(more);
        Device::kept(maker(&self.mgmtdev, number.into()), name, &words)
    }

    /// The first device and its open file.
    pub(crate) fn open(&self) -> Result<(Device, Vhost), Stop> {
        let device = self.device(0)?;
        let vhost = device.open()?;
        Ok((device, vhost))
    }

    /// The same with an owner, without whom queues cannot be told anything.
    pub(crate) fn open_owned(&self) -> Result<(Device, Vhost), Stop> {
        let (device, vhost) = self.open()?;
        let known = uapi::F_MSG_V2 | uapi::F_BATCH | uapi::F_ASID;
        vhost.set_backend_features(vhost.backend_features()? & known)?;
        vhost.set_owner()?;
        Ok((device, vhost))
    }

    /// Devices that offer what is usual and `more` features.
    pub(crate) fn provisioned(&self, more: u64, count: u8) -> Result<Vec<Device>, Stop> {
        let usual = {
            let (_device, vhost) = self.open()?;
            vhost.features()?
        };
        let features = format!("{:#x}", usual | more);
        (0..count)
            .map(|number| {
                self.device_with(number, &["device_features", &features])
                    .map_err(|error| Stop::Skip(format!("cannot provision {more:#x}: {error}")))
            })
            .collect()
    }

    /// Whether frames go from one device to another.  Each device of the C
    /// simulator is alone and hears itself.
    pub(crate) fn require_switch(&self) -> Result<(), Stop> {
        if self.simulated() {
            return Err(Stop::Skip("devices of the simulator are not joined".into()));
        }
        Ok(())
    }

    /// Whether this is the C simulator, which is asked for less.
    pub(crate) fn simulated(&self) -> bool {
        self.mgmtdev.starts_with("vdpasim")
    }
}

/// The MAC address of the `number`th device of a test.
pub(crate) fn mac(number: u8) -> [u8; 6] {
    let mut mac = MAC;
    mac[5] += number;
    mac
}

/// Every test.
pub(crate) fn all() -> Vec<Test<Context>> {
    let lists = [
        calls::TESTS,
        queues::TESTS,
        config::TESTS,
        iotlb::TESTS,
        state::TESTS,
        legacy::TESTS,
        attributes::TESTS,
        endian::TESTS,
        datapath::TESTS,
        receivers::TESTS,
        switch::TESTS,
        control::TESTS,
        hostile::TESTS,
        ops::TESTS,
        parent::TESTS,
    ];
    lists
        .into_iter()
        .flatten()
        .map(|&(title, run)| Test { title, run })
        .collect()
}

/// A list of tests, as each module has one.
pub(crate) type Tests = &'static [(&'static str, fn(&Context) -> crate::ktap::Outcome)];
