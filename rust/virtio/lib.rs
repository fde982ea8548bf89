// SPDX-License-Identifier: GPL-2.0

//! What the virtio standard says, as pure types.
//!
//! Nothing here knows a kernel, a device or an operating system: the same code is compiled into
//! kernel modules by Kbuild and into tests and tools by cargo. It allocates nothing, has no unsafe
//! code, and does not panic whatever a driver gives it.

#![cfg_attr(not(test), no_std)]
// Kbuild gives every crate `no_std`, cargo none.
#![allow(unused_attributes, clippy::duplicated_attributes)]
#![forbid(unsafe_code)]

pub mod byte_order;
pub mod features;
pub mod lifecycle;
pub mod memory;
pub mod net;
pub mod ring;
