// SPDX-License-Identifier: GPL-2.0

//! What commands act on: the state of one function.

use std::sync::Arc;

use crate::{
    object::Table,
    pd::{
        self,
        Pd,
        TransportDomain, //
    },
    platform::Platform,
    steering::Steering,
    uar::{
        self,
        Uar, //
    },
    umem::{
        self,
        Umems, //
    },
    virtq::Virtqs,
    vport::Vport, //
};

/// How far a driver has come with a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing was done: ENABLE_HCA comes first.
    Disabled,
    /// It is enabled: what it can do is asked and chosen, and pages are given.
    Enabled,
    /// It is started: objects can be made.
    Running,
}

/// The state of one function, changed by commands under one lock.
///
/// An area of the firmware keeps its objects in a structure of its own. Order matters: what uses
/// is dropped before what is used.
pub struct Hca {
    /// How far the driver has come.
    pub stage: Stage,
    /// Transmit and receive interfaces and flow tables.
    pub steering: Steering,
    /// Virtqueues and their counters.
    pub virtqs: Virtqs,
    /// Registered memory.
    pub umems: Umems,
    /// Transport domains.
    pub transport_domains: Table<TransportDomain>,
    /// Protection domains.
    pub pds: Table<Pd>,
    /// Pages of doorbells.
    pub uars: Table<Uar>,
    /// The port on the switch.
    pub vport: Arc<Vport>,
    /// What is shared with traffic: memory keys and queues among it.
    pub platform: Arc<Platform>,
}

impl Hca {
    /// The state of a function that no driver has touched yet.
    pub fn new(platform: Arc<Platform>, vport: Arc<Vport>) -> Self {
        Self {
            stage: Stage::Disabled,
            steering: Steering {},
            virtqs: Virtqs {},
            umems: umem::umems(),
            transport_domains: pd::transport_domains(),
            pds: pd::pds(),
            uars: uar::uars(),
            vport,
            platform,
        }
    }
}
