// SPDX-License-Identifier: GPL-2.0

//! Event queues.

use crate::command::Handler;

/// Something the driver is told of through an event queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Commands are complete: a bit for each slot.
    Command(u32),
    /// A completion queue has entries and was armed.
    Completion {
        /// The event queue it is bound to.
        eqn: u32,
        /// Its number.
        cqn: u32,
    },
    /// The link went up or down.
    PortChange {
        /// Whether it is up.
        up: bool,
    },
    /// The firmware wants pages (positive) or gives them back (negative).
    PageRequest(i32),
    /// A general object changed by itself: a virtqueue in error.
    ObjectChange {
        /// The type of the object.
        obj_type: u16,
        /// Its id.
        obj_id: u32,
    },
    /// A completion queue is in error.
    CqError {
        /// Its number.
        cqn: u32,
    },
}

/// The event queues of a function.
#[derive(Default)]
pub struct Events {}

impl Events {
    /// Writes an event into every queue that wants its type (a completion: into the one it names),
    /// and raises the queue's interrupt if it is armed.
    ///
    /// May be called from any thread, with any lock held but that of the event queues.
    pub fn post(&self, event: Event) {
        let _ = event;
        todo!()
    }

    /// Returns whether an event queue wants to be told of commands that are complete.
    pub fn wants_commands(&self) -> bool {
        false
    }

    /// The driver wrote `from` at `offset` of doorbell page `uar`: it arms an event queue or a
    /// completion queue, or tells how far it has come. Never waits.
    pub fn ring(&self, uar: u32, offset: u64, from: &[u8]) {
        let _ = (uar, offset, from);
    }
}

/// The commands of this area.
pub const COMMANDS: &[Handler] = &[];
