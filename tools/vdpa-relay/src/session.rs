// SPDX-License-Identifier: GPL-2.0

//! One monitor and the device: what the monitor said, and what becomes of it.
//!
//! What is said of rings, features and memory is kept. The device is set up from that in one go
//! when it is to run, and is suspended, asked where its rings are and reset when it is not. So it
//! does not matter in which order a monitor says things, or that vhost-vdpa wants another.

mod run;

use std::{
    fs::File,
    os::fd::{
        AsFd,
        OwnedFd, //
    },
};

use tracing::{
    debug,
    info, //
};
use virtio::byte_order::ByteOrder;

use crate::{
    device::{
        status,
        Device,
        Mapping, //
    },
    failure::{
        Failure,
        Result, //
    },
    mapping::Mappings,
    memory::{
        Region,
        Table, //
    },
    offer::{
        self,
        KIND_NET, //
    },
    ring::{
        Addresses,
        Ring, //
    },
    wire::{
        protocol,
        PROTOCOL_FEATURES, //
    },
};

/// How many regions of memory a monitor may have one by one.
pub const MEMORY_SLOTS: u64 = 509;

/// One monitor and the device. It ends with the monitor.
#[derive(Debug)]
pub struct Session<D> {
    device: D,
    /// What the monitor acknowledged of the protocol.
    protocol: u64,
    /// What the driver acknowledged.
    features: u64,
    /// The guest's memory.
    table: Table,
    /// What the device reaches of it.
    installed: Table,
    mappings: Mappings,
    rings: Vec<Ring>,
    /// The device status as the monitor has it.
    status: u8,
    /// Whether the device runs.
    running: bool,
    /// Whether the device waits for the monitor to say that it goes on: a ring was stopped, and
    /// others of the same device soon will be.
    held: bool,
}

impl<D: Device> Session<D> {
    /// Makes one with a device that was just opened.
    pub fn new(device: D) -> Self {
        let rings = offer::rings(device.traits());
        Self {
            device,
            protocol: 0,
            features: 0,
            table: Table::default(),
            installed: Table::default(),
            mappings: Mappings::default(),
            rings: (0..rings).map(|_| Ring::default()).collect(),
            status: 0,
            running: false,
            held: false,
        }
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// Returns the features that the monitor is offered.
    pub fn offered(&self) -> u64 {
        offer::features(self.device.traits()).bits() | PROTOCOL_FEATURES
    }

    /// Takes what the driver acknowledged of them.
    ///
    /// # Errors
    ///
    /// If that is more, or something else while the device runs.
    pub fn set_features(&mut self, features: u64) -> Result<()> {
        let unknown = features & !self.offered();
        if unknown != 0 {
            return Err(Failure::Features { unknown });
        }
        if self.running && features != self.features {
            return Err(Failure::Running);
        }
        self.features = features;
        if features & PROTOCOL_FEATURES == 0 {
            // Without it a monitor cannot enable rings, and they always are.
            self.rings.iter_mut().for_each(|ring| ring.enabled = true);
        }
        Ok(())
    }

    /// Returns the protocol features that the monitor is offered.
    pub fn offered_protocol(&self) -> u64 {
        offer::protocol(self.device.traits())
    }

    /// Takes what the monitor acknowledged of them.
    ///
    /// # Errors
    ///
    /// If that is more.
    pub fn set_protocol(&mut self, features: u64) -> Result<()> {
        let unknown = features & !self.offered_protocol();
        if unknown != 0 {
            return Err(Failure::Features { unknown });
        }
        self.protocol = features;
        Ok(())
    }

    /// Returns whether the monitor may ask how a request went.
    pub fn acknowledges(&self) -> bool {
        self.protocol & protocol::REPLY_ACK != 0
    }

    /// Returns how many queues the monitor may use: pairs of a network device, else rings.
    pub fn queues(&self) -> u64 {
        let rings = self.rings.len() as u64;
        if self.device.traits().id == KIND_NET {
            rings / 2
        } else {
            rings
        }
    }

    /// Takes the guest's whole memory, with the file of each region.
    ///
    /// # Errors
    ///
    /// If it is not as it should be, or cannot be mapped.
    pub fn set_memory(&mut self, regions: Vec<(Region, File)>) -> Result<()> {
        let table = Table::new(regions.iter().map(|(region, _)| *region).collect())?;
        self.change_memory(table, regions)
    }

    /// Takes one more region of the guest's memory.
    ///
    /// # Errors
    ///
    /// As those of [`Session::set_memory`].
    pub fn add_memory(&mut self, region: Region, file: File) -> Result<()> {
        let table = self.table.with(region)?;
        self.change_memory(table, vec![(region, file)])
    }

    /// Lets go of a region of the guest's memory.
    ///
    /// # Errors
    ///
    /// If there is none like that, or the device does not let go of it.
    pub fn remove_memory(&mut self, guest: u64, size: u64, user: u64) -> Result<()> {
        let table = self.table.without(guest, size, user)?;
        self.change_memory(table, Vec::new())
    }

    fn change_memory(&mut self, table: Table, files: Vec<(Region, File)>) -> Result<()> {
        for (region, file) in files {
            let guest = region.guest;
            self.mappings
                .add(region, file)
                .map_err(|source| Failure::Mapping { guest, source })?;
        }
        self.table = table;
        if self.running || self.device.traits().keeps_maps {
            self.install()?;
        }
        self.let_go();
        Ok(())
    }

    /// Unmaps from this process what neither the monitor has nor the device.
    fn let_go(&mut self) {
        let (table, installed) = (&self.table, &self.installed);
        self.mappings.keep(&[table, installed]);
    }

    /// Has the device reach the guest's memory as it is now.
    fn install(&mut self) -> Result<()> {
        let table = self.table.clone();
        self.install_table(table)
    }

    fn install_table(&mut self, table: Table) -> Result<()> {
        let difference = table.since(&self.installed);
        if difference.is_empty() {
            return Ok(());
        }
        let unmap: Vec<_> = difference.unmap.iter().map(|r| (r.guest, r.size)).collect();
        let map: Vec<_> = difference
            .map
            .iter()
            .filter_map(|region| {
                Some(Mapping {
                    guest: region.guest,
                    size: region.size,
                    address: self.mappings.address(region)?,
                })
            })
            .collect();
        debug!("memory: {} regions go, {} come", unmap.len(), map.len());
        self.device.change_memory(&unmap, &map)?;
        self.installed = table;
        Ok(())
    }

    fn ring(&mut self, ring: u32) -> Result<&mut Ring> {
        let rings = self.rings.len();
        self.rings
            .get_mut(ring as usize)
            .ok_or(Failure::NoRing { ring, rings })
    }

    /// Takes the size of a ring.
    ///
    /// # Errors
    ///
    /// If there is no such ring.
    pub fn set_size(&mut self, ring: u32, size: u32) -> Result<()> {
        self.ring(ring)?.size = size;
        Ok(())
    }

    /// Takes where a ring is, by the monitor's addresses.
    ///
    /// # Errors
    ///
    /// If there is no such ring.
    pub fn set_addresses(&mut self, ring: u32, addresses: Addresses) -> Result<()> {
        self.ring(ring)?.addresses = Some(addresses);
        Ok(())
    }

    /// Takes where a ring begins.
    ///
    /// # Errors
    ///
    /// If there is no such ring.
    pub fn set_base(&mut self, ring: u32, base: u32) -> Result<()> {
        self.ring(ring)?.base = base;
        Ok(())
    }

    /// Takes the byte order of a ring.
    ///
    /// # Errors
    ///
    /// If there is no such ring, or the device serves the native order only and this is another.
    pub fn set_order(&mut self, ring: u32, order: ByteOrder) -> Result<()> {
        if order != ByteOrder::NATIVE && !self.device.traits().any_byte_order {
            return Err(Failure::ByteOrder(order));
        }
        self.ring(ring)?.order = Some(order);
        Ok(())
    }

    /// Takes what a ring is kicked by, which starts it.
    ///
    /// # Errors
    ///
    /// If there is no such ring, or the device does not start.
    pub fn set_kick(&mut self, index: u32, by: Option<OwnedFd>) -> Result<()> {
        let ring = self.ring(index)?;
        ring.kick = by;
        ring.started = true;
        if ring.live {
            let by = self.rings[index as usize].kick.as_ref();
            self.device.set_kick(index, by.map(AsFd::as_fd))?;
        }
        self.held = false;
        self.update()
    }

    /// Takes what a ring calls by.
    ///
    /// # Errors
    ///
    /// If there is no such ring.
    pub fn set_call(&mut self, index: u32, by: Option<OwnedFd>) -> Result<()> {
        let ring = self.ring(index)?;
        ring.call = by;
        if ring.live {
            let by = self.rings[index as usize].call.as_ref();
            self.device.set_call(index, by.map(AsFd::as_fd))?;
        }
        Ok(())
    }

    /// Takes what a ring tells of errors by.
    ///
    /// # Errors
    ///
    /// If there is no such ring.
    pub fn set_error(&mut self, index: u32, by: Option<OwnedFd>) -> Result<()> {
        let ring = self.ring(index)?;
        ring.error = by;
        if ring.live {
            let by = self.rings[index as usize].error.as_ref();
            self.device.set_error(index, by.map(AsFd::as_fd))?;
        }
        Ok(())
    }

    /// Has a ring be used, or not.
    ///
    /// # Errors
    ///
    /// If there is no such ring, or the device does not start or stop.
    pub fn set_enabled(&mut self, ring: u32, enabled: bool) -> Result<()> {
        self.ring(ring)?.enabled = enabled;
        if enabled {
            self.held = false;
        }
        self.update()
    }

    /// Stops a ring, and with it the device. Returns where the ring is.
    ///
    /// # Errors
    ///
    /// If there is no such ring, or the device does not stop.
    pub fn stop_ring(&mut self, ring: u32) -> Result<u32> {
        self.ring(ring)?;
        self.held = true;
        self.stop()?;
        let ring = self.ring(ring)?;
        ring.started = false;
        ring.kick = None;
        Ok(ring.base)
    }

    /// Returns the device status: the monitor's, and whether the device has failed.
    ///
    /// # Errors
    ///
    /// If the device is not asked.
    pub fn status(&self) -> Result<u8> {
        let failed = if self.running {
            self.device.status()? & status::NEEDS_RESET
        } else {
            0
        };
        Ok(self.status | failed)
    }

    /// Takes the device status.
    ///
    /// # Errors
    ///
    /// If the device does not start.
    pub fn set_status(&mut self, value: u8) -> Result<()> {
        if value == 0 {
            return self.reset();
        }
        if value & !self.status & status::DRIVER_OK != 0 {
            self.held = false;
        }
        self.status = value;
        let result = self.update();
        if result.is_err() {
            self.status &= !status::DRIVER_OK;
        }
        result
    }

    /// Resets the device. The memory remains, and what is acknowledged.
    ///
    /// # Errors
    ///
    /// If the device cannot be reset.
    pub fn reset(&mut self) -> Result<()> {
        let always = self.features & PROTOCOL_FEATURES == 0;
        for ring in &mut self.rings {
            ring.reset();
            ring.enabled = always;
        }
        self.status = 0;
        self.held = false;
        if self.running {
            info!("the VMM resets the device");
            self.end()?;
        }
        Ok(())
    }

    /// Reads `size` bytes of the configuration space.
    ///
    /// # Errors
    ///
    /// If it has not as many there.
    pub fn config(&self, offset: u32, size: u32) -> Result<Vec<u8>> {
        self.check_config(offset, u64::from(size))?;
        let mut bytes = vec![0; size as usize];
        self.device.config(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes the configuration space.
    ///
    /// # Errors
    ///
    /// If it has not as many bytes there.
    pub fn set_config(&mut self, offset: u32, bytes: &[u8]) -> Result<()> {
        self.check_config(offset, bytes.len() as u64)?;
        Ok(self.device.set_config(offset, bytes)?)
    }

    fn check_config(&self, offset: u32, size: u64) -> Result<()> {
        let value = u64::from(offset) + size;
        if value > u64::from(self.device.traits().config_size) {
            let what = "the end of a piece of the configuration space";
            return Err(Failure::Value { what, value });
        }
        Ok(())
    }
}
