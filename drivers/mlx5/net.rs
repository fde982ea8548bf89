// SPDX-License-Identifier: GPL-2.0

//! The network device: what stands on the [function](crate::hca).
//!
//! ```text
//!   mgmt        what the administrator asks for        offer    what it may be
//!      |
//!   device      what the bus asks for
//!      |
//!   machine     what the lifecycle decides             control  what the driver asks for
//!      |
//!   start, stop, receive                               relay    what the hardware cannot serve
//!      |
//!   objects     what there is in the firmware: queue, map, steering, port
//!      |
//!   wire        what is said to it
//! ```
//!
//! A device outlives the lives of its firmware, and so do its driver's settings. What there is in
//! the firmware is one value, [`objects::Objects`], which is made when the device is added and is
//! changed by the difference between what there is and what a driver wants.

mod control;
mod device;
mod machine;
mod map;
mod marks;
mod mgmt;
mod objects;
mod offer;
mod port;
pub(crate) mod queue;
mod receive;
mod relay;
mod start;
mod stats;
mod steering;
mod stop;
mod trouble;
mod view;
mod watch;
mod wire;

pub(crate) use self::mgmt::Manager;
