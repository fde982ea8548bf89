// SPDX-License-Identifier: GPL-2.0

//! Abstractions for the vDPA bus.
//!
//! A driver that has virtio devices to offer (a *parent*, in the words of the C side) registers a
//! management device ([`mgmt::Registration`]); the `vdpa` tool then asks it to add and delete
//! devices. A device is a type that implements [`Operations`]: what vhost-vdpa or the kernel's own
//! virtio drivers want from it arrives there, with every index and length already checked.
//!
//! What is easily got wrong is not left to the driver:
//!
//! * Interrupts of the driver side ([`Callbacks`]) can be fired while they are replaced, and are
//!   cut off when a virtqueue is disabled or the device reset.
//! * The memory of the driver side ([`memory`]) is reached through snapshots that keep their pages
//!   alive, and that an unmap waits for.
//! * A device is unregistered, its users gone and its last reference dropped before the management
//!   device is, and that before the module is unloaded.
//!
//! C header: [`include/linux/vdpa.h`](srctree/include/linux/vdpa.h)
//!
//! # Limits
//!
//! Of C's operations `get_vq_map` is left out: all virtqueues of a device have the same map
//! operations. Taking a reference to an eventfd relies on the layout of `struct eventfd_ctx` in
//! `fs/eventfd.c`, which has its reference count first; look there with each new kernel.
//!
//! # Example
//!
//! ```ignore
//! use kernel::{prelude::*, sync::Arc};
//! use vdpa::{mgmt, worker, Device, Operations, Setup, Worker};
//!
//! /// What the worker needs.
//! struct Queues {
//!     callbacks: Arc<vdpa::Callbacks>,
//!     memory: Arc<vdpa::memory::Spaces>,
//! }
//!
//! impl worker::Run for Queues {
//!     fn run(&self) {
//!         // Take a view of `memory`, use what the rings have in it, then tell the driver.
//!         self.callbacks.queue(0);
//!     }
//! }
//!
//! struct Net {
//!     work: worker::Handle,
//!     /// Ends with the device's data.
//!     _worker: Worker,
//! }
//!
//! #[vtable]
//! impl Operations for Net {
//!     const SOFTWARE: bool = true;
//!
//!     fn kick_vq(dev: &Device<Self>, _index: u16) {
//!         // `dev` dereferences to `Net`. Interrupts are off here, and nothing may be fired.
//!         dev.work.queue();
//!     }
//!     // ...
//! }
//!
//! struct Manager;
//!
//! #[vtable]
//! impl mgmt::Management for Manager {
//!     type Device = Net;
//!
//!     fn dev_add(&self, name: &CStr, _config: &mgmt::Config) -> Result<(Setup, Arc<Net>)> {
//!         // Three virtqueues, two groups of them, two address spaces.
//!         let setup = Setup::software(3, 2, 2)?;
//!         let queues = Arc::new(
//!             Queues {
//!                 callbacks: setup.callbacks(),
//!                 memory: setup.spaces().ok_or(EINVAL)?,
//!             },
//!             GFP_KERNEL,
//!         )?;
//!         let worker = Worker::new(name, queues)?;
//!         let work = worker.handle();
//!         let net = Net { work, _worker: worker };
//!         Ok((setup, Arc::new(net, GFP_KERNEL)?))
//!     }
//! }
//!
//! // In the module's `init`; the value is kept for the life of the module.
//! let registration = mgmt::Registration::new(
//!     c"example",
//!     mgmt::Attributes {
//!         device_ids: &[vdpa::ID_NET],
//!         mac: true,
//!         ..mgmt::Attributes::default()
//!     },
//!     Manager,
//! )?;
//! ```

pub mod callback;
mod count;
pub mod device;
pub mod executor;
pub mod frame;
mod iotlb;
mod legacy;
pub mod memory;
pub mod mgmt;
pub mod notification;
pub mod ops;
mod parent;
mod ratelimit;
pub mod stats;
mod vtable;
pub mod worker;

pub use callback::Callbacks;
pub use device::{
    Device,
    Setup,
    User, //
};
pub use notification::NotificationArea;
pub use ops::Operations;
pub use ratelimit::RateLimit;
pub use stats::Stats;
pub use worker::Worker;

/// The virtio device id of a network device (virtio 1.3, 5).
pub const ID_NET: u32 = vdpa_bindings::VIRTIO_ID_NET;

/// Backend feature `VHOST_BACKEND_F_ENABLE_AFTER_DRIVER_OK`, for
/// [`Operations::get_backend_features`]: queues may be enabled while the device runs.
pub const ENABLE_AFTER_DRIVER_OK: u64 = 1 << 6;

/// What this crate's messages begin with.
const __LOG_PREFIX: &[u8] = b"vdpa\0";
