// SPDX-License-Identifier: GPL-2.0

//! When the device runs, and how it is set up for that and stopped.

use std::os::fd::AsFd;

use tracing::{
    debug,
    info,
    warn, //
};
use virtio::{
    byte_order::ByteOrder,
    features::Features, //
};

use super::Session;
use crate::{
    byte_order,
    device::{
        status,
        Device, //
    },
    failure::{
        Failure,
        Result, //
    },
    memory::Table,
    offer,
    ring::Addresses,
    wire::protocol, //
};

impl<D: Device> Session<D> {
    /// Returns whether the device is to run.
    fn is_wanted(&self) -> bool {
        let driver_ok =
            self.protocol & protocol::STATUS == 0 || self.status & status::DRIVER_OK != 0;
        let any = self
            .rings
            .iter()
            .any(|ring| ring.is_ready() && ring.enabled);
        !self.held && driver_ok && any
    }

    /// Has the device run or not, as is wanted now, and with all rings that are ready.
    pub(super) fn update(&mut self) -> Result<()> {
        let wanted = self.is_wanted();
        let more = self.rings.iter().any(|ring| ring.is_ready() && !ring.live);
        if self.running && (!wanted || more) {
            self.stop()?;
        }
        if wanted && !self.running {
            if let Err(error) = self.start() {
                // It is not known how far that came, and a reset forgives everything.
                if let Err(worse) = self.end() {
                    warn!("the device that did not start cannot be reset: {worse}");
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Returns the byte order of the driver, which is a legacy one.
    fn legacy_order(&self) -> Result<ByteOrder> {
        let mut orders = self.rings.iter().filter(|r| r.is_ready()).map(|r| r.order);
        let first = orders.next().flatten();
        if orders.any(|order| order != first) {
            return Err(Failure::MixedByteOrder);
        }
        Ok(first.unwrap_or(ByteOrder::NATIVE))
    }

    /// Returns where a ring is, by the guest's addresses.
    fn to_guest(&self, ring: u32, addresses: &Addresses) -> Result<Addresses> {
        let of = |user| {
            self.table
                .to_guest(user, 1)
                .ok_or(Failure::RingAddress { ring, user })
        };
        Ok(Addresses {
            descriptor: of(addresses.descriptor)?,
            available: of(addresses.available)?,
            used: of(addresses.used)?,
        })
    }

    /// Sets up the device and has it run.
    fn start(&mut self) -> Result<()> {
        self.running = true;
        self.device.set_status(0)?;
        self.install()?;
        let features = offer::acknowledged(self.device.traits(), self.features);
        let legacy = features.legacy();
        let kind = if legacy {
            let order = self.legacy_order()?;
            self.device.set_byte_order(order)?;
            format!("legacy, {} byte order", byte_order::name(order))
        } else {
            "modern".into()
        };
        let mut value = status::ACKNOWLEDGE | status::DRIVER;
        self.device.set_status(value)?;
        self.device.set_features(features.bits())?;
        value |= status::FEATURES_OK;
        self.device.set_status(value)?;
        if !legacy && self.device.status()? & status::FEATURES_OK == 0 {
            return Err(Failure::NotAccepted(features.bits()));
        }
        for index in 0..self.rings.len() {
            self.start_ring(index)?;
        }
        value |= status::DRIVER_OK;
        self.device.set_status(value)?;
        let value = self.device.status()?;
        if value & status::DRIVER_OK == 0 || value & status::NEEDS_RESET != 0 {
            return Err(Failure::NotStarted(value));
        }
        let live = self.rings.iter().filter(|ring| ring.live).count();
        info!(
            "the device runs: {kind} driver, features {:#x}, {live} rings",
            features.bits()
        );
        Ok(())
    }

    /// Gives the device a ring, if that is ready.
    fn start_ring(&mut self, index: usize) -> Result<()> {
        let ring = &self.rings[index];
        let Some(addresses) = ring.addresses.filter(|_| ring.is_ready()) else {
            return Ok(());
        };
        let number = index as u32;
        let addresses = self.to_guest(number, &addresses)?;
        let device = &mut self.device;
        device.set_ring_size(number, ring.size)?;
        device.set_ring_base(number, ring.base)?;
        device.set_ring_addresses(number, &addresses)?;
        device.set_error(number, ring.error.as_ref().map(AsFd::as_fd))?;
        device.set_call(number, ring.call.as_ref().map(AsFd::as_fd))?;
        device.set_kick(number, ring.kick.as_ref().map(AsFd::as_fd))?;
        device.set_ring_ready(number, true)?;
        debug!(
            "ring {number}: {} descriptors, from {:#x} on",
            ring.size, ring.base
        );
        self.rings[index].live = true;
        Ok(())
    }

    /// Stops the device, if it runs, and notes where its rings are.
    pub(super) fn stop(&mut self) -> Result<()> {
        if !self.running {
            return Ok(());
        }
        if self.device.traits().suspends {
            self.device.suspend()?;
            for (index, ring) in self.rings.iter_mut().enumerate() {
                if ring.live {
                    ring.base = self.device.ring_base(index as u32)?;
                }
            }
            self.end()?;
        } else {
            // It must not use anything any more when the used index is read.
            let live: Vec<_> = self.rings.iter().map(|ring| ring.live).collect();
            self.device.set_status(0)?;
            for (index, _) in live.iter().enumerate().filter(|(_, live)| **live) {
                self.rings[index].base = self.used_index(index)?;
            }
            self.end()?;
        }
        let at: Vec<_> = self.rings.iter().map(|ring| ring.base).collect();
        info!("the device is stopped; its rings are at {at:?}");
        Ok(())
    }

    /// Returns the used index of a split ring, as the guest's memory has it: what was available
    /// and not used is seen again from there on.
    fn used_index(&self, index: usize) -> Result<u32> {
        let (ring, number) = (&self.rings[index], index as u32);
        let features = Features::from_bits(self.features);
        if features.contains(Features::RING_PACKED) {
            return Err(Failure::Position(number));
        }
        let order = if features.legacy() {
            self.legacy_order()?
        } else {
            ByteOrder::Little
        };
        let user = ring.addresses.map_or(0, |addresses| addresses.used);
        let bytes = self
            .table
            .to_guest(user, 4)
            .and_then(|guest| self.mappings.read(guest + 2))
            .ok_or(Failure::RingAddress { ring: number, user })?;
        Ok(order.read_u16(bytes).into())
    }

    /// Resets the device, whatever it does.
    pub(super) fn end(&mut self) -> Result<()> {
        self.device.set_status(0)?;
        self.running = false;
        self.rings.iter_mut().for_each(|ring| ring.live = false);
        if !self.device.traits().keeps_maps {
            // The kernel still has the maps, and the device has none any more.
            self.install_table(Table::default())?;
            self.let_go();
        }
        Ok(())
    }
}
