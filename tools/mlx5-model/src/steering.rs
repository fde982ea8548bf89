// SPDX-License-Identifier: GPL-2.0

//! Steering: which of a function's receive queues gets a frame.

use crate::{
    command::Handler,
    frame::Frame, //
};

/// A queue that frames can be delivered to.
pub trait ReceiveQueue: Send + Sync {
    /// Takes frames; what finds no room or no buffer is dropped and counted.
    fn receive(&self, frames: &[&Frame]);
}

/// Transmit and receive interfaces and flow tables of a function.
pub struct Steering {}

/// The commands of this area.
pub const COMMANDS: &[Handler] = &[];
