// SPDX-License-Identifier: GPL-2.0

//! What a driver of PCI hardware needs beside the kernel crate.
//!
//! The kernel crate ties what belongs to a bound device to a lifetime, which ends when `probe`
//! returns or with the driver's own data. Devices of the vDPA bus outlive both: they are in use
//! until the last of what was given to the device to keep is released. So here is
//!
//! * [`Device`]: a PCI device that is known to be bound whenever it is used as one,
//! * [`Memory`]: memory that the device and the driver share, and [`DeviceMemory`], which is the
//!   device's,
//! * [`Mapping`]: memory of somebody else that the device may reach,
//! * [`Vectors`] and [`Vector`]: its interrupts,
//! * [`WaitQueue`]: waiting for what an interrupt tells, with a bound on the time,
//! * [`Driver`]: being told of resets, of sleep and of the system's end,
//! * [`devlink`] and [`Views`]: what the administrator is shown.
//!
//! Interrupts end with the binding, if they did not before, whatever order things are dropped in.
//! Memory does not: a driver drops what it shares with the device while it is bound, in `unbind` at
//! the latest, and after the device was told to forget it.

mod device;
pub mod devlink;
mod driver;
mod mapping;
mod memory;
mod vector;
mod view;
mod wait;

pub use self::{
    device::Device,
    driver::{
        Adapter,
        Driver, //
    },
    mapping::Mapping,
    memory::{
        DeviceMemory,
        Memory, //
    },
    vector::{
        Handler,
        Vector,
        Vectors, //
    },
    view::Views,
    wait::WaitQueue, //
};
