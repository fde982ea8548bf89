// SPDX-License-Identifier: GPL-2.0

//! Completion queues.

use crate::object::Table;

/// A completion queue.
pub struct Cq {}

/// The completion queues of a function.
pub type Cqs = Table<Cq>;
