// SPDX-License-Identifier: GPL-2.0

//! Not yet.

/// Nothing.
pub fn run(_data: &[u8]) {}
