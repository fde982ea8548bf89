// SPDX-License-Identifier: GPL-2.0

//! A vhost-user back end whose device is `/dev/vhost-vdpa-N`.
//!
//! ```text
//!   virtual machine monitor                          kernel
//!        │                                             │
//!        │ vhost-user, a Unix socket                   │ vhost-vdpa, ioctls
//!        ▼                                             ▲
//!   serve ──> front ──> session ──> device (a trait) ──┘ vhost_vdpa
//!     │        │           ├── memory     regions of the guest, and what of them changes
//!     │        └── wire    ├── mapping    the same, in this process
//!     │                    ├── offer      what of the device a monitor is offered
//!     │                    ├── ring       what was said of each ring
//!     │                    └── byte_order of legacy drivers
//!     └── sysfs            which device is meant
//! ```
//!
//! Nothing of the datapath is here. The eventfds of the monitor are given to the kernel as they
//! are, and the kernel's device uses the guest's memory where it lies.
//!
//! What a monitor says is kept, and the device is set up from that when it is to run
//! ([`session`]): vhost-vdpa wants everything said before it starts, in one order, and a monitor
//! has another.

pub mod byte_order;
pub mod device;
pub mod failure;
pub mod front;
pub mod mapping;
pub mod memory;
pub mod offer;
pub mod ring;
pub mod serve;
pub mod session;
pub mod sysfs;
pub mod vhost_vdpa;
pub mod wire;

#[cfg(test)]
mod tests;
