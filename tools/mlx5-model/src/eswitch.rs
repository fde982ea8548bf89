// SPDX-License-Identifier: GPL-2.0

//! The embedded switch that functions and the uplink hang on.

use std::sync::Arc;

use crate::frame::Frame;

/// Who hangs on the switch.
pub trait Port: Send + Sync {
    /// Takes frames that the switch sends to this port. It must not block, nor call the switch
    /// back.
    fn receive(&self, frames: &[&Frame]);
}

/// The number of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortId(pub u16);

/// The embedded switch: learns which addresses are behind which port.
#[derive(Default)]
pub struct Eswitch {}

impl Eswitch {
    /// Hangs `port` on the switch.
    pub fn attach(&self, port: Arc<dyn Port>) -> PortId {
        let _ = port;
        todo!()
    }

    /// Takes a port off and forgets what was behind it.
    pub fn detach(&self, port: PortId) {
        let _ = port;
        todo!()
    }

    /// Sends frames that came from `from` on to whom they are for.
    pub fn send(&self, from: PortId, frames: &[Frame]) {
        let _ = (from, frames);
        todo!()
    }
}
