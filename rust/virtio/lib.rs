// SPDX-License-Identifier: GPL-2.0
//! What the virtio standard says, as pure types.
#![cfg_attr(not(test), no_std)]
