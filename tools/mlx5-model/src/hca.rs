// SPDX-License-Identifier: GPL-2.0

//! What commands act on: the state of one function.

use std::{
    collections::BTreeMap,
    sync::Arc, //
};

use serde_json::json;

use crate::{
    capability::Capabilities,
    life::{
        self,
        Life,
        Uctx, //
    },
    object::{
        Census,
        Table, //
    },
    pages::Pages,
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
    vport::{
        self,
        QCounter,
        Vport, //
    },
};

/// The state of one function, changed by commands under one lock.
///
/// An area of the firmware keeps its objects in a structure of its own. Order matters: what uses
/// is dropped before what is used.
pub struct Hca {
    /// How far the driver has come.
    pub life: Life,
    /// The capabilities it chose.
    pub capabilities: Capabilities,
    /// The pages it gave.
    pub pages: Pages,
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
    /// Sets of queue counters.
    pub q_counters: Table<QCounter>,
    /// User contexts.
    pub uctxs: Table<Uctx>,
    /// The port on the switch.
    pub vport: Arc<Vport>,
    /// What is shared with traffic: memory keys and queues among it.
    pub platform: Arc<Platform>,
}

impl Hca {
    /// The state of a function that no driver has touched yet.
    pub fn new(platform: Arc<Platform>, vport: Arc<Vport>) -> Self {
        let general = &platform.profile.general;
        Self {
            life: Life::default(),
            capabilities: Capabilities::new(&platform.profile),
            pages: Pages::default(),
            steering: Steering::new(&platform.profile, platform.receiver.clone()),
            virtqs: Virtqs::default(),
            umems: umem::umems(general),
            transport_domains: pd::transport_domains(general),
            pds: pd::pds(general),
            uars: uar::uars(),
            q_counters: vport::q_counters(),
            uctxs: life::uctxs(),
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
        self.steering.count(&mut add);
        self.virtqs.count(&mut add);
        self.umems.count(&mut add);
        self.transport_domains.count(&mut add);
        self.pds.count(&mut add);
        self.uars.count(&mut add);
        self.q_counters.count(&mut add);
        self.uctxs.count(&mut add);
        self.platform.count(&mut add);
        objects
    }

    /// Takes every object away, used or not. How far the driver has come, and what it gave, stays.
    ///
    /// Nothing is made, moved or written for an object when this returns.
    pub fn clear(&mut self) {
        // Every field is named, so that none is forgotten.
        let Self {
            life: _,
            capabilities: _,
            pages: _,
            steering,
            virtqs,
            umems,
            transport_domains,
            pds,
            uars,
            q_counters,
            uctxs,
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
        self.q_counters = q_counters;
        self.uctxs = uctxs;
    }

    /// Begins a new life, in which no driver has touched the function yet, and reports what is left
    /// of the old one.
    pub fn renew(&mut self, why: &'static str) {
        self.report(why, true);
        self.clear();
        self.life = Life::default();
        self.capabilities = Capabilities::new(&self.platform.profile);
        self.pages = Pages::default();
        self.vport.restore();
    }

    /// Says what a driver left behind, in the journal and in the log: objects and, if it was its
    /// `last` chance to take them back, pages.
    pub fn report(&self, when: &'static str, last: bool) {
        let mut left = self.objects();
        if last && self.pages.held() != 0 {
            left.insert("page", self.pages.held());
        }
        let Platform { name, journal, .. } = &*self.platform;
        if !left.is_empty() {
            tracing::warn!("{name}: left behind at {when}: {left:?}");
        }
        let stats = &journal.stats;
        journal.note(when, || {
            json!({
                "left_behind": left,
                "events": stats.events.get(),
                "interrupts": stats.interrupts.get(),
                "kicks": stats.kicks.get(),
            })
        });
    }
}
