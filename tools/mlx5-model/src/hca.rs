// SPDX-License-Identifier: GPL-2.0

//! What commands act on: the state of one function.

use std::{
    collections::BTreeMap,
    sync::Arc, //
};

use serde_json::json;

use crate::{
    object::{
        Census,
        Table, //
    },
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

    /// How many objects there are, by what they are called. Types without objects are left out.
    pub fn objects(&self) -> BTreeMap<&'static str, usize> {
        let mut objects = BTreeMap::new();
        let mut add = |name, count| {
            if count != 0 {
                *objects.entry(name).or_default() += count;
            }
        };
        self.umems.count(&mut add);
        self.transport_domains.count(&mut add);
        self.pds.count(&mut add);
        self.uars.count(&mut add);
        self.platform.count(&mut add);
        objects
    }

    /// Takes every object away, used or not. How far the driver has come, and what it gave, stays.
    ///
    /// Nothing is made, moved or written for an object when this returns.
    pub fn clear(&mut self) {
        // Every field is named, so that none is forgotten.
        let Self {
            stage: _,
            steering,
            virtqs,
            umems,
            transport_domains,
            pds,
            uars,
            vport: _,
            platform,
        } = Self::new(self.platform.clone(), self.vport.clone());
        self.virtqs = virtqs;
        self.steering = steering;
        platform.clear();
        self.umems = umems;
        self.transport_domains = transport_domains;
        self.pds = pds;
        self.uars = uars;
    }

    /// Says what a driver left behind, in the journal and in the log.
    pub fn report(&self, when: &'static str) {
        let objects = self.objects();
        if !objects.is_empty() {
            let name = &self.platform.name;
            tracing::warn!("{name}: left behind at {when}: {objects:?}");
        }
        self.platform
            .journal
            .note(when, || json!({ "left_behind": objects }));
    }
}

/// Begins a new life: the old state goes before there is a new one, as both have the same queues
/// and numbers.
pub fn renew(hca: &mut Option<Hca>, why: &'static str) {
    if let Some(old) = hca.take() {
        old.report(why);
        let (platform, vport) = (old.platform.clone(), old.vport.clone());
        drop(old);
        platform.clear();
        *hca = Some(Hca::new(platform, vport));
    }
}
