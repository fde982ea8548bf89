// SPDX-License-Identifier: GPL-2.0

//! The forwarding database: which address is behind which port.

use std::{
    collections::HashMap,
    sync::atomic::{
        AtomicU64,
        Ordering, //
    }, //
};

use crate::frame::Frame;

/// How long an address is remembered that is not heard of, in seconds.
pub(super) const AGE: u64 = 300;

/// How many addresses are learned at most.
pub(super) const CAPACITY: usize = 8192;

/// An address in a VLAN: above bit 16 the address, below it the VLAN, 0 of an untagged frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Address(u64);

impl Address {
    fn new(mac: [u8; 6], vlan: u16) -> Self {
        let [a, b, c, d, e, f] = mac;
        Self((u64::from_be_bytes([0, 0, a, b, c, d, e, f]) << 16) | u64::from(vlan))
    }

    /// Who sent a frame.
    pub(super) fn of_source(frame: &Frame) -> Self {
        Self::new(frame.source(), frame.vlan())
    }

    /// Whom it is for.
    pub(super) fn of_destination(frame: &Frame) -> Self {
        Self::new(frame.destination(), frame.vlan())
    }

    fn mac(self) -> [u8; 6] {
        let [a, b, c, d, e, f, ..] = self.0.to_be_bytes();
        [a, b, c, d, e, f]
    }

    /// Returns whether it is an address of many.
    fn is_group(self) -> bool {
        (self.0 >> 56) & 1 != 0
    }
}

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way<'a> {
    /// To this port.
    To(u16),
    /// To each of these.
    ToEach(&'a [u16]),
    /// To all.
    ToAll,
}

struct Learned {
    port: u16,
    /// The second it was last heard of.
    heard: AtomicU64,
}

impl Learned {
    fn is_fresh(&self, now: u64) -> bool {
        now.saturating_sub(self.heard.load(Ordering::Relaxed)) <= AGE
    }
}

/// The forwarding database.
#[derive(Default)]
pub(super) struct Fdb {
    learned: HashMap<Address, Learned>,
    /// The second in which what was not heard of any more was last thrown out.
    swept: Option<u64>,
    configured: HashMap<[u8; 6], Vec<u16>>,
}

impl Fdb {
    /// Returns whether nothing needs to be learned of a frame from `address` at `port`, and
    /// remembers when it was heard.
    pub(super) fn knows(&self, address: Address, port: u16, now: u64) -> bool {
        // A frame cannot be from many, nor from nobody.
        if address.is_group() || address.mac() == [0; 6] {
            return true;
        }
        match self.learned.get(&address) {
            Some(learned) if learned.port == port => {
                if learned.heard.load(Ordering::Relaxed) != now {
                    learned.heard.store(now, Ordering::Relaxed);
                }
                true
            }
            Some(_) => false,
            // A table that is full is looked at again a second later.
            None => self.learned.len() >= CAPACITY && self.swept == Some(now),
        }
    }

    /// Remembers that `address` was heard at `port`, if there is room.
    pub(super) fn learn(&mut self, address: Address, port: u16, now: u64) {
        if self.knows(address, port, now) {
            return;
        }
        let known = self.learned.contains_key(&address);
        if !known && self.learned.len() >= CAPACITY {
            self.learned.retain(|_, learned| learned.is_fresh(now));
            self.swept = Some(now);
            if self.learned.len() >= CAPACITY {
                return;
            }
        }
        let heard = AtomicU64::new(now);
        self.learned.insert(address, Learned { port, heard });
    }

    /// Where a frame for `address` goes.
    pub(super) fn way(&self, address: Address, now: u64) -> Way<'_> {
        if address.is_group() {
            return Way::ToAll;
        }
        match self.learned.get(&address) {
            Some(learned) if learned.is_fresh(now) => Way::To(learned.port),
            _ => self
                .configured
                .get(&address.mac())
                .map_or(Way::ToAll, |ports| Way::ToEach(ports)),
        }
    }

    /// Forgets what was heard at `port`.
    pub(super) fn forget(&mut self, port: u16) {
        self.learned.retain(|_, learned| learned.port != port);
    }

    /// Says which addresses are behind `port` as long as they are not heard of at another.
    pub(super) fn configure(&mut self, port: u16, addresses: &[[u8; 6]]) {
        self.configured.retain(|_, ports| {
            ports.retain(|other| *other != port);
            !ports.is_empty()
        });
        for address in addresses {
            let ports = self.configured.entry(*address).or_default();
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
    }
}
