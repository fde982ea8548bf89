// SPDX-License-Identifier: GPL-2.0

//! The command line of the model.

fn main() {}
