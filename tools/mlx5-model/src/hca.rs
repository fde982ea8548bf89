// SPDX-License-Identifier: GPL-2.0

//! What commands act on: the state of one function.

use std::sync::Arc;

use crate::{
    cq::Cqs,
    object::Table,
    platform::Platform,
    qp::Qps,
    steering::Steering,
    virtq::Virtqs,
    vport::Vport, //
};

/// A protection domain: what memory keys and queues must share to be used together.
#[derive(Debug)]
pub struct Pd;

/// A transport domain: what receive and transmit interfaces belong to.
#[derive(Debug)]
pub struct TransportDomain;

/// A page of doorbells.
#[derive(Debug)]
pub struct Uar;

/// The state of one function, changed by commands under one lock.
///
/// An area of the firmware keeps its objects in a structure of its own. Order matters: what uses
/// is dropped before what is used.
pub struct Hca {
    /// Transmit and receive interfaces and flow tables.
    pub steering: Steering,
    /// Virtqueues and their counters.
    pub virtqs: Virtqs,
    /// Queue pairs.
    pub qps: Qps,
    /// Completion queues.
    pub cqs: Cqs,
    /// Transport domains.
    pub transport_domains: Table<TransportDomain>,
    /// Protection domains.
    pub pds: Table<Pd>,
    /// Pages of doorbells.
    pub uars: Table<Uar>,
    /// The port on the switch.
    pub vport: Arc<Vport>,
    /// What is shared with traffic: event queues and memory keys among it.
    pub platform: Arc<Platform>,
}
