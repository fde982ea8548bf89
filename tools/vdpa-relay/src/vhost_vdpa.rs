// SPDX-License-Identifier: GPL-2.0

//! `/dev/vhost-vdpa-N`.
//!
//! The crate `vhost` has most calls. What it lacks, or has for other types, is in [`Vdpa::set`]:
//! descriptors as they come from a monitor, also none, and indices of 32 bits.

use std::{
    ffi::{
        c_int,
        c_ulong, //
    },
    fs::OpenOptions,
    io,
    os::{
        fd::{
            AsRawFd,
            BorrowedFd,
            OwnedFd, //
        },
        unix::fs::OpenOptionsExt, //
    },
    sync::Arc, //
};

use rustix::event::{
    eventfd,
    EventfdFlags, //
};
use tracing::debug;
use vhost::{
    vdpa::VhostVdpa,
    vhost_kern::{
        vdpa::VhostKernVdpa,
        vhost_binding::{
            vhost_vring_file,
            vhost_vring_state,
            VHOST_BACKEND_F_IOTLB_BATCH,
            VHOST_BACKEND_F_IOTLB_MSG_V2,
            VHOST_SET_VRING_BASE,
            VHOST_SET_VRING_CALL,
            VHOST_SET_VRING_ERR,
            VHOST_SET_VRING_KICK,
            VHOST_SET_VRING_NUM,
            VHOST_VDPA_SET_CONFIG_CALL, //
        },
        VhostKernFeatures, //
    },
    VhostAccess,
    VhostBackend,
    VhostIotlbBackend,
    VhostIotlbMsg,
    VhostIotlbType,
    VringConfigData, //
};
use virtio::byte_order::ByteOrder;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::ioctl::ioctl_with_ref;

use crate::{
    byte_order::Attribute,
    device::{
        Device,
        Mapping,
        Refused,
        Result,
        Traits, //
    },
    ring::Addresses,
    sysfs::Place, //
};

/// Backend features (`<linux/vhost_types.h>`), as bits, which the crate does not name.
const SUSPEND: u64 = 1 << 4;
const PERSIST: u64 = 1 << 8;

/// What the relay makes use of, if the kernel has it.
const WANTED: u64 =
    (1 << VHOST_BACKEND_F_IOTLB_MSG_V2) | (1 << VHOST_BACKEND_F_IOTLB_BATCH) | SUSPEND | PERSIST;

/// A device that is open, and that nobody else can open.
pub struct Vdpa {
    kernel: VhostKernVdpa<Arc<GuestMemoryMmap>>,
    traits: Traits,
    batches: bool,
    order: Option<Attribute>,
    config_call: OwnedFd,
}

/// Gives an error of the crate the name of the call.
fn called<T>(call: &'static str, result: vhost::Result<T>) -> Result<T> {
    result.map_err(|error| {
        let source = match error {
            vhost::Error::IoctlError(e) | vhost::Error::IOError(e) | vhost::Error::VhostOpen(e) => {
                e
            }
            other => io::Error::other(other),
        };
        Refused { call, source }
    })
}

/// Gives an error of the system the name of the call.
fn tried<T>(call: &'static str, result: io::Result<T>) -> Result<T> {
    result.map_err(|source| Refused { call, source })
}

impl Vdpa {
    /// Opens a device, which is reset by that.
    ///
    /// # Errors
    ///
    /// If there is none, it is in use, or it lacks what every kernel has that can be used.
    pub fn open(place: &Place) -> Result<Self> {
        let file = tried(
            "open",
            OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK)
                .open(&place.path),
        )?;
        // The crate wants memory of a guest, but for calls that are not used here.
        let mut kernel = VhostKernVdpa::with(file, Arc::new(GuestMemoryMmap::new()), 0);
        called("VHOST_SET_OWNER", kernel.set_owner())?;
        let offered = called("VHOST_GET_BACKEND_FEATURES", kernel.get_backend_features())?;
        let backend = offered & WANTED;
        called(
            "VHOST_SET_BACKEND_FEATURES",
            kernel.set_backend_features(backend),
        )?;
        let order = place.sysfs.as_deref().and_then(Attribute::find);
        let traits = Traits {
            id: called("VHOST_VDPA_GET_DEVICE_ID", kernel.get_device_id())?,
            features: called("VHOST_GET_FEATURES", kernel.get_features())?,
            rings: called("VHOST_VDPA_GET_VQS_COUNT", kernel.get_vqs_count())?,
            ring_size: called("VHOST_VDPA_GET_VRING_NUM", kernel.get_vring_num())?,
            config_size: called("VHOST_VDPA_GET_CONFIG_SIZE", kernel.get_config_size())?,
            suspends: backend & SUSPEND != 0,
            keeps_maps: backend & PERSIST != 0,
            any_byte_order: order.is_some(),
        };
        let config_call = tried(
            "eventfd",
            eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).map_err(io::Error::from),
        )?;
        debug!(
            "{}: {traits:x?}, backend features {backend:#x}",
            place.path.display()
        );
        let device = Self {
            kernel,
            traits,
            batches: backend & (1 << VHOST_BACKEND_F_IOTLB_BATCH) != 0,
            order,
            config_call,
        };
        let fd: c_int = device.config_call.as_raw_fd();
        device.set(
            "VHOST_VDPA_SET_CONFIG_CALL",
            VHOST_VDPA_SET_CONFIG_CALL(),
            &fd,
        )?;
        Ok(device)
    }

    /// What the kernel tells of changes of the configuration space by: an eventfd, which does not
    /// block.
    pub fn config_call(&self) -> &OwnedFd {
        &self.config_call
    }

    /// Makes a call that takes a structure and changes nothing in it.
    fn set<T>(&self, call: &'static str, number: c_ulong, argument: &T) -> Result<()> {
        // SAFETY: The calls made by this are those below, whose argument the kernel only reads, and
        // `T` is the structure of each by its C definition; it is alive during the call.
        let answer = unsafe { ioctl_with_ref(&self.kernel, number, argument) };
        let done = if answer < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        };
        tried(call, done)
    }

    fn set_file(
        &self,
        call: &'static str,
        number: c_ulong,
        index: u32,
        by: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        let fd = by.map_or(-1, |fd| fd.as_raw_fd());
        self.set(call, number, &vhost_vring_file { index, fd })
    }

    /// Sends a message about the device's memory.
    fn send(&self, call: &'static str, message: VhostIotlbMsg) -> Result<()> {
        called(call, self.kernel.send_iotlb_msg(&message))
    }

    fn change_each(&self, unmap: &[(u64, u64)], map: &[Mapping]) -> Result<()> {
        for &(iova, size) in unmap {
            self.send(
                "unmap memory",
                VhostIotlbMsg {
                    iova,
                    size,
                    msg_type: VhostIotlbType::Invalidate,
                    ..Default::default()
                },
            )?;
        }
        for mapping in map {
            self.send(
                "map memory",
                VhostIotlbMsg {
                    iova: mapping.guest,
                    size: mapping.size,
                    userspace_addr: mapping.address,
                    perm: VhostAccess::ReadWrite,
                    msg_type: VhostIotlbType::Update,
                },
            )?;
        }
        Ok(())
    }
}

impl Device for Vdpa {
    fn traits(&self) -> &Traits {
        &self.traits
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        called("VHOST_SET_FEATURES", self.kernel.set_features(features))
    }

    fn status(&self) -> Result<u8> {
        called("VHOST_VDPA_GET_STATUS", self.kernel.get_status())
    }

    fn set_status(&mut self, status: u8) -> Result<()> {
        called("VHOST_VDPA_SET_STATUS", self.kernel.set_status(status))
    }

    fn config(&self, offset: u32, bytes: &mut [u8]) -> Result<()> {
        called(
            "VHOST_VDPA_GET_CONFIG",
            self.kernel.get_config(offset, bytes),
        )
    }

    fn set_config(&mut self, offset: u32, bytes: &[u8]) -> Result<()> {
        called(
            "VHOST_VDPA_SET_CONFIG",
            self.kernel.set_config(offset, bytes),
        )
    }

    fn set_byte_order(&mut self, order: ByteOrder) -> Result<()> {
        let done = match &self.order {
            Some(attribute) => attribute.set(order),
            None if order == ByteOrder::NATIVE => Ok(()),
            None => Err(io::ErrorKind::Unsupported.into()),
        };
        tried("set the byte order of legacy drivers", done)
    }

    fn set_ring_size(&mut self, index: u32, num: u32) -> Result<()> {
        self.set(
            "VHOST_SET_VRING_NUM",
            VHOST_SET_VRING_NUM(),
            &vhost_vring_state { index, num },
        )
    }

    fn set_ring_addresses(&mut self, ring: u32, at: &Addresses) -> Result<()> {
        // The size was set, and judged by the kernel; the crate checks this one only.
        let config = VringConfigData {
            queue_max_size: 1,
            queue_size: 1,
            desc_table_addr: at.descriptor,
            avail_ring_addr: at.available,
            used_ring_addr: at.used,
            ..Default::default()
        };
        called(
            "VHOST_SET_VRING_ADDR",
            self.kernel.set_vring_addr(ring as usize, &config),
        )
    }

    fn set_ring_base(&mut self, index: u32, num: u32) -> Result<()> {
        self.set(
            "VHOST_SET_VRING_BASE",
            VHOST_SET_VRING_BASE(),
            &vhost_vring_state { index, num },
        )
    }

    fn ring_base(&self, ring: u32) -> Result<u32> {
        called(
            "VHOST_GET_VRING_BASE",
            self.kernel.get_vring_base(ring as usize),
        )
    }

    fn set_ring_ready(&mut self, ring: u32, ready: bool) -> Result<()> {
        called(
            "VHOST_VDPA_SET_VRING_ENABLE",
            self.kernel.set_vring_enable(ring as usize, ready),
        )
    }

    fn set_kick(&mut self, ring: u32, by: Option<BorrowedFd<'_>>) -> Result<()> {
        self.set_file("VHOST_SET_VRING_KICK", VHOST_SET_VRING_KICK(), ring, by)
    }

    fn set_call(&mut self, ring: u32, by: Option<BorrowedFd<'_>>) -> Result<()> {
        self.set_file("VHOST_SET_VRING_CALL", VHOST_SET_VRING_CALL(), ring, by)
    }

    fn set_error(&mut self, ring: u32, by: Option<BorrowedFd<'_>>) -> Result<()> {
        self.set_file("VHOST_SET_VRING_ERR", VHOST_SET_VRING_ERR(), ring, by)
    }

    fn suspend(&mut self) -> Result<()> {
        called("VHOST_VDPA_SUSPEND", self.kernel.suspend())
    }

    fn change_memory(&mut self, unmap: &[(u64, u64)], map: &[Mapping]) -> Result<()> {
        let mark = |msg_type| VhostIotlbMsg {
            msg_type,
            ..Default::default()
        };
        if !self.batches {
            return self.change_each(unmap, map);
        }
        self.send("begin to map", mark(VhostIotlbType::BatchBegin))?;
        let done = self.change_each(unmap, map);
        // A batch that has begun has to end, whatever came of it.
        let ended = self.send("end to map", mark(VhostIotlbType::BatchEnd));
        done.and(ended)
    }
}
