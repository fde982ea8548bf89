// SPDX-License-Identifier: GPL-2.0
//! The parts of `rust_vdpa_net` that know no kernel, built on the host for their unit tests.
#![cfg(test)]
// What only the kernel calls is no dead code.
#![allow(dead_code)]

mod fdb;
mod frame;
mod owners;
mod peer;
