// SPDX-License-Identifier: GPL-2.0

//! The function's port on the switch: addresses, MTU and link.

/// A port on the switch, as its function sees it.
pub struct Vport {}
