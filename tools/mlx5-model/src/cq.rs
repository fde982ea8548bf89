// SPDX-License-Identifier: GPL-2.0

//! Completion queues.

use std::sync::RwLock;

use crate::object::Table;

/// A completion queue.
pub struct Cq {}

/// The completion queues of a function.
pub struct Cqs {
    queues: RwLock<Table<Cq>>,
}

impl Default for Cqs {
    fn default() -> Self {
        Self {
            queues: RwLock::new(Table::new("completion queue", 1, (1 << 24) - 1)),
        }
    }
}

impl Cqs {
    /// How many queues there are.
    pub fn len(&self) -> usize {
        self.queues.read().unwrap().len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes every queue away, used or not. Nothing is written when this returns.
    pub fn clear(&self) {
        self.queues.write().unwrap().clear();
    }
}
