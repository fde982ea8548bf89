// SPDX-License-Identifier: GPL-2.0

//! Virtqueues as firmware objects, and their traffic.

use crate::{
    command::Handler,
    refusal::Refusal, //
};

/// The virtqueues of a function, and their counters.
pub struct Virtqs {}

impl Virtqs {
    /// Uses a virtqueue as an entry of a table of receive queues.
    ///
    /// # Errors
    ///
    /// It is not there, or does not receive.
    pub fn receive_queue(&self, _id: u32) -> Result<crate::steering::rqt::Queue, Refusal> {
        Err(Refusal::NeverMade("virtqueue"))
    }
}

/// Who hears the doorbell of which virtqueue.
#[derive(Default)]
pub struct Doorbells {}

impl Doorbells {
    /// The doorbell of queue `index` was rung. Lost if the queue is not ready.
    pub fn kick(&self, index: u16) {
        let _ = index;
        todo!()
    }
}

/// The threads that move traffic.
pub struct Workers {}

/// The commands of this area.
pub const COMMANDS: &[Handler] = &[];
