// SPDX-License-Identifier: GPL-2.0

//! Queue pairs, as far as the events of virtqueues need them.

use std::sync::RwLock;

use crate::{
    object::{
        Handle,
        Table, //
    },
    platform::Platform,
    refusal::Refusal, //
};

/// A queue pair.
pub struct Qp {}

impl Qp {
    /// Takes one receive entry of the queue pair this one is connected to, and completes it: how
    /// a virtqueue tells its driver in QP event mode.
    ///
    /// May be called from any thread, with any lock held but those of the queues.
    pub fn send_event(&self, platform: &Platform) {
        let _ = platform;
        todo!()
    }
}

/// The queue pairs of a function.
pub struct Qps {
    pairs: RwLock<Table<Qp>>,
}

impl Default for Qps {
    fn default() -> Self {
        Self {
            pairs: RwLock::new(Table::new("queue pair", 0x40, (1 << 24) - 0x40)),
        }
    }
}

impl Qps {
    /// Uses a queue pair: it is not destroyed until the handle is dropped.
    ///
    /// # Errors
    ///
    /// As [`Table::hold`].
    pub fn hold(&self, qpn: u32) -> Result<Handle<Qp>, Refusal> {
        self.pairs.read().unwrap().hold(qpn)
    }

    /// How many queue pairs there are.
    pub fn len(&self) -> usize {
        self.pairs.read().unwrap().len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes every queue pair away, used or not.
    pub fn clear(&self) {
        self.pairs.write().unwrap().clear();
    }
}
