// SPDX-License-Identifier: GPL-2.0
//! The forwarding database: which port a station is on.
//!
//! The stations that are ports themselves are known from their devices ([`crate::owners`]). Those
//! behind ports, as behind a guest that is a bridge, are learned from the frames they send. No frame
//! changes where a port's own address is, so a guest that makes up source addresses gets none of the
//! frames for the others' devices, and costs them no more than some flooding of frames for stations
//! behind them. But a driver that may set its device's address, by a control command or as a legacy
//! driver, can set that of another one. Stations behind ports can be taken over, as with any switch
//! that learns.
//!
//! What is learned is in a set-associative table in storage that the caller provides: a station's
//! bucket follows from its VLAN and MAC address, a bucket holds [`WAYS`] stations, and when a bucket
//! is full the one heard longest ago gives way. Every operation therefore takes the same short time
//! whatever a guest sends.
//!
//! Learning is per VLAN (IEEE 802.1Q, independent VLAN learning), so the same address may live
//! behind different ports in different VLANs. A port's own address is its own in all of them.

use core::ops::DerefMut;

use virtio::net::{
    is_station_address,
    MacAddress as Mac, //
};

use crate::owners::{
    Own,
    Owner,
    Owners, //
};

/// Number of stations in a bucket.
pub(crate) const WAYS: usize = 4;

/// Seconds after which a station that was not heard again is forgotten (IEEE 802.1Q, 8.8.3).
pub(crate) const AGEING: u32 = 300;

/// One place in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    mac: Mac,
    vlan: u16,
    /// Port number plus one; zero marks a free place.
    port: u32,
    /// When the station was last heard, in seconds.
    heard: u32,
}

impl Entry {
    fn is(&self, mac: &Mac, vlan: u16) -> bool {
        self.port != 0 && self.mac == *mac && self.vlan == vlan
    }

    fn fresh(&self, now: u32) -> bool {
        self.port != 0 && now.wrapping_sub(self.heard) < AGEING
    }
}

/// What [`Fdb::learn`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Learned {
    /// The station was known at that port; its age was renewed.
    Renewed,
    /// The station is new, or it moved here from another port.
    Changed,
    /// The address cannot be that of a station behind the port.
    Ignored,
}

/// The forwarding database over the storage `S`, and `O` for what ports own.
pub(crate) struct Fdb<S, O> {
    entries: S,
    pub(crate) owners: Owners<O>,
}

impl<S, O> Fdb<S, O>
where
    S: DerefMut<Target = [Entry]>,
    O: DerefMut<Target = [Own]>,
{
    /// Creates a database in `entries`, whose length should be a multiple of [`WAYS`].
    pub(crate) fn new(mut entries: S, owners: O) -> Self {
        entries.fill(Entry::default());
        Self {
            entries,
            owners: Owners::new(owners),
        }
    }

    fn bucket_index(&self, mac: &Mac, vlan: u16) -> usize {
        let [a, b, c, d, e, f] = *mac;
        let [g, h] = vlan.to_ne_bytes();
        let key = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
        // Multiplicative hashing; the upper half of the product is the well-mixed one.
        let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let buckets = (self.entries.len() / WAYS).max(1);
        // `hash` is below 2^32.
        hash as usize % buckets
    }

    fn bucket(&self, mac: &Mac, vlan: u16) -> &[Entry] {
        let at = self.bucket_index(mac, vlan);
        self.entries.chunks(WAYS).nth(at).unwrap_or(&[])
    }

    fn bucket_mut(&mut self, mac: &Mac, vlan: u16) -> &mut [Entry] {
        let at = self.bucket_index(mac, vlan);
        self.entries.chunks_mut(WAYS).nth(at).unwrap_or(&mut [])
    }

    /// Notes that the station `mac` of `vlan` was heard on `port` at `now` (seconds).
    ///
    /// Group addresses and the zero address are no stations and are ignored, and so is what another
    /// port owns.
    pub(crate) fn learn(&mut self, mac: &Mac, vlan: u16, port: u32, now: u32) -> Learned {
        if !is_station_address(mac) {
            return Learned::Ignored;
        }
        match self.owners.hear(mac, port) {
            Owner::Nobody => (),
            Owner::Itself => return Learned::Renewed,
            Owner::Others => return Learned::Ignored,
        }
        let place = port.wrapping_add(1);
        let bucket = self.bucket_mut(mac, vlan);

        if let Some(entry) = bucket.iter_mut().find(|e| e.is(mac, vlan)) {
            let same = entry.port == place && entry.fresh(now);
            entry.port = place;
            entry.heard = now;
            return if same {
                Learned::Renewed
            } else {
                Learned::Changed
            };
        }

        // Free places are older than any other.
        let oldest = bucket.iter_mut().max_by_key(|e| {
            if e.port == 0 {
                u64::MAX
            } else {
                u64::from(now.wrapping_sub(e.heard))
            }
        });
        match oldest {
            Some(entry) => {
                *entry = Entry {
                    mac: *mac,
                    vlan,
                    port: place,
                    heard: now,
                };
                Learned::Changed
            }
            None => Learned::Ignored,
        }
    }

    /// Returns the port that owns `mac`, or else that on which the station `mac` of `vlan` was last
    /// heard, unless that is longer ago than [`AGEING`].
    pub(crate) fn lookup(&self, mac: &Mac, vlan: u16, now: u32) -> Option<u32> {
        self.owners.lookup(mac).or_else(|| {
            self.bucket(mac, vlan)
                .iter()
                .find(|e| e.is(mac, vlan) && e.fresh(now))
                .map(|e| e.port.wrapping_sub(1))
        })
    }

    /// Forgets all stations behind `port`.
    pub(crate) fn forget_port(&mut self, port: u32) {
        let place = port.wrapping_add(1);
        for entry in self.entries.iter_mut() {
            if entry.port == place {
                *entry = Entry::default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = [2, 0, 0, 0, 0, 0xa];
    const B: Mac = [2, 0, 0, 0, 0, 0xb];

    fn fdb(len: usize) -> Fdb<Vec<Entry>, Vec<Own>> {
        Fdb::new(vec![Entry::default(); len], vec![Own::default(); 4])
    }

    #[test]
    fn learns_moves_and_ages() {
        let mut fdb = fdb(64);
        assert_eq!(fdb.lookup(&A, 0, 0), None);
        assert_eq!(fdb.learn(&A, 0, 3, 10), Learned::Changed);
        assert_eq!(fdb.learn(&A, 0, 3, 11), Learned::Renewed);
        assert_eq!(fdb.lookup(&A, 0, 11 + AGEING - 1), Some(3));
        assert_eq!(fdb.lookup(&A, 0, 11 + AGEING), None);
        assert_eq!(fdb.learn(&A, 0, 4, 12), Learned::Changed);
        assert_eq!(fdb.lookup(&A, 0, 12), Some(4));
        assert_eq!(fdb.learn(&A, 0, 4, 12 + AGEING), Learned::Changed);
    }

    #[test]
    fn vlans_are_independent() {
        let mut fdb = fdb(64);
        fdb.learn(&A, 1, 3, 0);
        fdb.learn(&A, 2, 4, 0);
        assert_eq!(fdb.lookup(&A, 1, 0), Some(3));
        assert_eq!(fdb.lookup(&A, 2, 0), Some(4));
        assert_eq!(fdb.lookup(&A, 0, 0), None);
    }

    #[test]
    fn group_and_zero_addresses_are_no_stations() {
        let mut fdb = fdb(64);
        assert_eq!(fdb.learn(&[0xff; 6], 0, 1, 0), Learned::Ignored);
        assert_eq!(fdb.learn(&[1, 0, 0x5e, 0, 0, 1], 0, 1, 0), Learned::Ignored);
        assert_eq!(fdb.learn(&[0; 6], 0, 1, 0), Learned::Ignored);
        assert_eq!(fdb.lookup(&[0xff; 6], 0, 0), None);
    }

    #[test]
    fn the_oldest_gives_way() {
        // One bucket, so that all stations meet in it.
        let mut fdb = fdb(WAYS);
        for i in 0..=u8::try_from(WAYS).unwrap() {
            fdb.learn(&[2, 0, 0, 0, 1, i], 0, u32::from(i), 10 + u32::from(i));
        }
        assert_eq!(fdb.lookup(&[2, 0, 0, 0, 1, 0], 0, 20), None);
        for i in 1..=u8::try_from(WAYS).unwrap() {
            let mac = [2, 0, 0, 0, 1, i];
            assert_eq!(fdb.lookup(&mac, 0, 20), Some(u32::from(i)));
        }
    }

    #[test]
    fn a_port_is_forgotten_whole() {
        let mut fdb = fdb(64);
        fdb.learn(&A, 0, 0, 0);
        fdb.learn(&B, 0, 1, 0);
        fdb.forget_port(0);
        assert_eq!(fdb.lookup(&A, 0, 0), None);
        assert_eq!(fdb.lookup(&B, 0, 0), Some(1));
    }

    #[test]
    fn what_a_port_owns_is_not_learned() {
        let mut fdb = fdb(64);
        // Before the driver of port 1 starts, anybody may use its address.
        assert_eq!(fdb.learn(&A, 0, 2, 0), Learned::Changed);
        fdb.owners.set(1, Some(A));
        for vlan in [0, 7] {
            assert_eq!(fdb.lookup(&A, vlan, 0), Some(1));
            assert_eq!(fdb.learn(&A, vlan, 2, 0), Learned::Ignored);
            assert_eq!(fdb.learn(&A, vlan, 1, 0), Learned::Renewed);
            assert_eq!(fdb.lookup(&A, vlan, AGEING), Some(1));
        }
        assert_eq!(fdb.learn(&B, 0, 1, 0), Learned::Changed);
        assert_eq!(fdb.lookup(&B, 0, 0), Some(1));
    }

    #[test]
    fn the_clock_may_wrap() {
        let mut fdb = fdb(64);
        fdb.learn(&A, 0, 1, u32::MAX - 5);
        assert_eq!(fdb.lookup(&A, 0, 5), Some(1));
        assert_eq!(fdb.lookup(&A, 0, AGEING), None);
    }

    #[test]
    fn no_storage_is_no_crash() {
        let mut fdb = fdb(0);
        assert_eq!(fdb.learn(&A, 0, 1, 0), Learned::Ignored);
        assert_eq!(fdb.lookup(&A, 0, 0), None);
    }
}
