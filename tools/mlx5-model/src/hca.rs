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

/// The number of the first page of doorbells; those before it are other registers.
pub const FIRST_UAR: u32 = 0x10;

/// How many pages of doorbells there are, up to the table of interrupt vectors in BAR 0.
pub const UARS: u32 = 0x102 - FIRST_UAR;

/// A protection domain: what memory keys and queues must share to be used together.
#[derive(Debug)]
pub struct Pd;

/// A transport domain: what receive and transmit interfaces belong to.
#[derive(Debug)]
pub struct TransportDomain;

/// A page of doorbells.
#[derive(Debug)]
pub struct Uar;

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

impl Hca {
    /// The state of a function that no driver has touched yet.
    pub fn new(platform: Arc<Platform>, vport: Arc<Vport>) -> Self {
        Self {
            stage: Stage::Disabled,
            steering: Steering {},
            virtqs: Virtqs {},
            qps: Table::new("queue pair", 0x40, 1 << 20),
            cqs: Table::new("completion queue", 0x40, 1 << 20),
            transport_domains: Table::new("transport domain", 1, 1 << 20),
            pds: Table::new("protection domain", 1, 1 << 20),
            uars: Table::new("doorbell page", FIRST_UAR, UARS),
            vport,
            platform,
        }
    }
}
