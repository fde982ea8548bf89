// SPDX-License-Identifier: GPL-2.0

//! Steering: which of a function's receive queues gets a frame.
//!
//! ```text
//!   switch ── frames ──> receiver::Receiver ── root ──> flow_table::FlowTable ──> … (higher levels)
//!                                                            │ entry
//!                                                            ▼
//!                                              tir::Tir ── hash ──> rqt::Rqt ──> ReceiveQueue
//! ```
//!
//! Commands make and connect these objects under the lock of the [`Hca`](crate::hca::Hca). Traffic
//! walks along the same objects without it: what can change in one has a lock of its own, which is
//! only ever held for a look.

use std::sync::{
    Arc,
    PoisonError,
    RwLock,
    RwLockReadGuard,
    RwLockWriteGuard, //
};

use crate::{
    frame::Frame,
    object::{
        count,
        Census,
        Table, //
    },
    profile::Profile, //
};

pub mod counter;
pub mod entry;
pub mod flow_table;
mod headers;
pub mod receiver;
pub mod rqt;
pub mod tir;
pub mod tis;
mod toeplitz;

#[cfg(test)]
mod tests;

use self::{
    counter::FlowCounter,
    flow_table::FlowTable,
    receiver::Receiver,
    rqt::Rqt,
    tir::Tir,
    tis::Tis, //
};

/// A queue that frames can be delivered to.
pub trait ReceiveQueue: Send + Sync {
    /// Takes frames; what finds no room or no buffer is dropped and counted.
    ///
    /// Called by any thread, but never with the lock of the function's `Hca` held. It must not
    /// call the switch.
    fn receive(&self, frames: &[&Frame]);
}

/// Transmit and receive interfaces and flow tables of a function.
pub struct Steering {
    /// Transmit interfaces.
    pub tises: Table<Tis>,
    /// Receive interfaces.
    pub tirs: Table<Tir>,
    /// Tables of receive queues.
    pub rqts: Table<Rqt>,
    /// Flow tables.
    pub flow_tables: Table<FlowTable>,
    /// Flow counters.
    pub flow_counters: Table<FlowCounter>,
    /// The flow table that matching begins with. It is not in use for that: a table that is
    /// destroyed ceases to be the root.
    root: Option<u32>,
    receiver: Arc<Receiver>,
}

impl Steering {
    /// Makes the steering of a function that receives nothing yet. What `receiver` is given will
    /// be steered.
    pub fn new(profile: &Profile, receiver: Arc<Receiver>) -> Self {
        let general = &profile.general;
        let flow = profile.flow_table.flow_table_properties_nic_receive();
        let flow_counters = (u32::from(general.max_flow_counter_31_16()) << 16)
            | u32::from(general.max_flow_counter_15_0());
        receiver.set_root(None);
        Self {
            tises: Table::new("transmit interface", 1, count(general.log_max_tis())),
            tirs: Table::new("receive interface", 1, count(general.log_max_tir())),
            rqts: Table::new("receive queue table", 1, count(general.log_max_rqt())),
            flow_tables: Table::new("flow table", 1, count(flow.log_max_ft_num())),
            flow_counters: Table::new("flow counter", 1, flow_counters),
            root: None,
            receiver,
        }
    }
}

impl Census for Steering {
    fn count(&self, add: &mut dyn FnMut(&'static str, usize)) {
        self.tises.count(add);
        self.tirs.count(add);
        self.rqts.count(add);
        self.flow_tables.count(add);
        self.flow_counters.count(add);
    }
}

impl Drop for Steering {
    fn drop(&mut self) {
        // Waits for frames that are being delivered: afterwards nothing arrives.
        self.receiver.set_root(None);
    }
}

/// Looks at what a lock guards. A thread that panicked left nothing half changed: each change is
/// made in one step.
fn look<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Changes what a lock guards.
fn change<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
