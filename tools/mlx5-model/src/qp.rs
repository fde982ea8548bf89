// SPDX-License-Identifier: GPL-2.0

//! Queue pairs, as far as the events of virtqueues need them.

use crate::object::Table;

/// A queue pair.
pub struct Qp {}

impl Qp {
    /// Takes one receive entry of the queue pair this one is connected to, and completes it: how
    /// a virtqueue tells its driver in QP event mode.
    ///
    /// May be called from any thread.
    pub fn send_event(&self) {
        todo!()
    }
}

/// The queue pairs of a function.
pub type Qps = Table<Qp>;
