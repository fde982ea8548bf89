// SPDX-License-Identifier: GPL-2.0

//! Virtqueues as firmware objects, and their traffic.
//!
//! ```text
//!   doorbells ── kick ──> workers ── turn ──> object ── batch ──> transmit ── frames ──> eswitch
//!                                               │                    │
//!   commands ── create, modify, query ──────────┤                  ring
//!                                               │                    │
//!   steering ── receive ────────────────────────┴──── batch ──> receive
//! ```
//!
//! An [`object`] is a virtqueue as commands see it: a state, a lock, and in state RDY what moves its
//! frames. [`ring`], [`transmit`] and [`receive`] know no firmware: they are given memory and
//! frames, and say what came of it.

mod commands;
pub mod counters;
mod doorbells;
pub mod object;
pub mod receive;
pub mod ring;
pub mod settings;
pub mod transmit;
pub mod workers;

#[cfg(test)]
mod tests;

pub use self::{
    commands::COMMANDS,
    doorbells::Doorbells,
    object::Virtq,
    workers::Workers, //
};

use crate::{
    object::{
        Census,
        Table, //
    },
    refusal::Refusal,
    steering::rqt, //
};

use self::counters::Counters;

/// The virtqueues of a function, and their counters.
pub struct Virtqs {
    queues: Table<Virtq>,
    counters: Table<Counters>,
}

impl Default for Virtqs {
    fn default() -> Self {
        Self {
            queues: Table::new("virtqueue", 1, 1 << 16),
            counters: Table::new("virtqueue counters", 1, 1 << 16),
        }
    }
}

impl Virtqs {
    /// The virtqueue with this id.
    ///
    /// # Errors
    ///
    /// As [`Table::get`].
    pub fn get(&self, id: u32) -> Result<&Virtq, Refusal> {
        Ok(self.queues.get(id)?)
    }

    /// Uses a virtqueue as an entry of a table of receive queues.
    ///
    /// # Errors
    ///
    /// It is not there, or does not receive.
    pub fn receive_queue(&self, id: u32) -> Result<rqt::Queue, Refusal> {
        let queue = self.queues.hold(id)?;
        if queue.transmits() {
            return Err(Refusal::NotReceiving);
        }
        Ok(rqt::Queue::new(queue))
    }
}

impl Census for Virtqs {
    fn count(&self, add: &mut dyn FnMut(&'static str, usize)) {
        self.queues.count(add);
        self.counters.count(add);
    }
}

impl Drop for Virtqs {
    fn drop(&mut self) {
        // Others may still hold a virtqueue, for a moment.
        for (_, queue) in self.queues.iter() {
            queue.close();
        }
    }
}
