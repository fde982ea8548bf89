// SPDX-License-Identifier: GPL-2.0

//! Memory that the driver registers for the firmware to keep an object's state in.

use crate::object::Table;

/// Registered memory.
#[derive(Debug)]
pub struct Umem {}

/// The registered memory of a function.
pub type Umems = Table<Umem>;

/// A function's table of umems, empty.
pub fn umems() -> Umems {
    Table::new("umem", 1, (1 << 24) - 1)
}
