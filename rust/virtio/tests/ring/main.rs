// SPDX-License-Identifier: GPL-2.0
//! The device side of the rings against an independent driver side, and against hostile ones.

#[path = "../common/bell.rs"]
mod bell;
mod exact;
mod guest;
mod hostile;
mod random;
mod threads;
