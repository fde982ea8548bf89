// SPDX-License-Identifier: GPL-2.0

//! The network device (virtio 1.3, 5.1).

pub mod features;
