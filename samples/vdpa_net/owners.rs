// SPDX-License-Identifier: GPL-2.0
//! Whose address is whose: the ports' own MAC addresses, as far as their drivers run.
//!
//! A port's own address is known before its driver sends anything, does not age, and no frame makes
//! it anybody else's: the forwarding database ([`crate::fdb`]) asks here first, for all VLANs alike.
//!
//! Two ports may have the same address. A guest that migrates has it on the device that it leaves
//! and on the one that it goes to, and a bond has it on both of its ports. Of those whose drivers
//! run, the address is where it was heard last, if only by the start of the driver; a port whose
//! driver does not run has no address here. So frames go to the old device of a guest while it runs
//! there, and to the new one from the start, whichever of "stopped" and "started" comes first.

use core::ops::DerefMut;

use virtio::net::MacAddress as Mac;

/// A port's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Own {
    mac: Mac,
    port: u32,
    /// Tells who was heard later.
    heard: u64,
}

/// Whose an address is, as seen from a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// No port's.
    Nobody,
    /// That port's own.
    Itself,
    /// That of other ports only.
    Others,
}

/// The addresses, sorted, over the storage `S`.
pub(crate) struct Owners<S> {
    places: S,
    len: usize,
    clock: u64,
}

impl<S: DerefMut<Target = [Own]>> Owners<S> {
    /// Nobody has an address yet, and no more than `places.len()` ports can.
    pub(crate) fn new(places: S) -> Self {
        Self {
            places,
            len: 0,
            clock: 0,
        }
    }

    /// How many ports can have an address.
    pub(crate) fn room(&self) -> usize {
        self.places.len()
    }

    /// Goes on in `places`, which are more. Returns the old ones.
    pub(crate) fn grow(&mut self, mut places: S) -> S {
        for (to, from) in places.iter_mut().zip(self.all()) {
            *to = *from;
        }
        core::mem::replace(&mut self.places, places)
    }

    fn all(&self) -> &[Own] {
        self.places.get(..self.len).unwrap_or(&[])
    }

    /// Those with the address `mac`.
    fn of(&self, mac: &Mac) -> &[Own] {
        let all = self.all();
        let from = all.partition_point(|own| own.mac < *mac);
        let until = all.partition_point(|own| own.mac <= *mac);
        all.get(from..until).unwrap_or(&[])
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Notes the address of `port`; `None` if its driver does not run.
    pub(crate) fn set(&mut self, port: u32, mac: Option<Mac>) {
        if let Some(at) = self.all().iter().position(|own| own.port == port) {
            if self.all().get(at).map(|own| own.mac) == mac {
                return;
            }
            self.places.copy_within(at + 1..self.len, at);
            self.len -= 1;
        }
        let Some(mac) = mac else {
            return;
        };
        if self.len == self.room() {
            return;
        }
        let heard = self.tick();
        let at = self.all().partition_point(|own| own.mac < mac);
        self.places.copy_within(at..self.len, at + 1);
        self.len += 1;
        if let Some(place) = self.places.get_mut(at) {
            *place = Own { mac, port, heard };
        }
    }

    /// Notes that a frame from `mac` came from `port`, and tells whose address that is.
    pub(crate) fn hear(&mut self, mac: &Mac, port: u32) -> Owner {
        match self.of(mac) {
            [] => return Owner::Nobody,
            [own] if own.port == port => return Owner::Itself,
            _ => (),
        }
        let heard = self.tick();
        let len = self.len;
        let mut places = self.places.iter_mut().take(len);
        match places.find(|own| own.mac == *mac && own.port == port) {
            Some(own) => {
                own.heard = heard;
                Owner::Itself
            }
            None => Owner::Others,
        }
    }

    /// The port whose own address `mac` is, and was last.
    pub(crate) fn lookup(&self, mac: &Mac) -> Option<u32> {
        let last = self.of(mac).iter().max_by_key(|own| own.heard)?;
        Some(last.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = [2, 0, 0, 0, 0, 0xa];
    const B: Mac = [2, 0, 0, 0, 0, 0xb];

    fn owners(room: usize) -> Owners<Vec<Own>> {
        Owners::new(vec![Own::default(); room])
    }

    #[test]
    fn an_address_is_there_while_its_driver_runs() {
        let mut owners = owners(4);
        assert_eq!(owners.lookup(&A), None);
        owners.set(1, Some(A));
        owners.set(2, Some(B));
        assert_eq!((owners.lookup(&A), owners.lookup(&B)), (Some(1), Some(2)));
        owners.set(1, None);
        assert_eq!((owners.lookup(&A), owners.lookup(&B)), (None, Some(2)));
        // A new address in place of the old one.
        owners.set(2, Some(A));
        assert_eq!((owners.lookup(&A), owners.lookup(&B)), (Some(2), None));
    }

    #[test]
    fn the_one_heard_last_has_it() {
        let mut owners = owners(4);
        owners.set(1, Some(A));
        owners.set(3, Some(B));
        owners.set(2, Some(A));
        assert_eq!(owners.lookup(&A), Some(2));
        assert_eq!(owners.hear(&A, 1), Owner::Itself);
        assert_eq!(owners.lookup(&A), Some(1));
        // Nothing changed, so nothing was heard.
        owners.set(2, Some(A));
        assert_eq!(owners.lookup(&A), Some(1));
        owners.set(1, None);
        assert_eq!(owners.lookup(&A), Some(2));
        assert_eq!(owners.lookup(&B), Some(3));
    }

    #[test]
    fn nobody_takes_it_over() {
        let mut owners = owners(4);
        owners.set(1, Some(A));
        assert_eq!(owners.hear(&A, 2), Owner::Others);
        assert_eq!(owners.lookup(&A), Some(1));
        assert_eq!(owners.hear(&B, 2), Owner::Nobody);
        assert_eq!(owners.hear(&A, 1), Owner::Itself);
    }

    #[test]
    fn room_is_made() {
        let mut owners = owners(0);
        owners.set(1, Some(A));
        assert_eq!(owners.lookup(&A), None);
        for port in 0..20 {
            let more = vec![Own::default(); owners.room() + 1];
            owners.grow(more);
            owners.set(port, Some([2, 0, 0, 0, 0, 20 - port as u8]));
        }
        for port in 0..20 {
            let mac = [2, 0, 0, 0, 0, 20 - port as u8];
            assert_eq!(owners.lookup(&mac), Some(port));
        }
    }
}
