// SPDX-License-Identifier: GPL-2.0
//! The relay of virtqueues between a driver and hardware, which are both written apart from it.

#[path = "../common/bell.rs"]
mod bell;
mod bench;
mod between;
mod exact;
mod hostile;
mod random;
mod threads;
