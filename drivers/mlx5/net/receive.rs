// SPDX-License-Identifier: GPL-2.0

//! What a device receives, and by which queues: what a driver asks for by its control queue.
//!
//! Each of these changes the firmware first, and only then what the device says of itself.

use virtio::{
    lifecycle::{
        status,
        QueueSet, //
    },
    net::{
        filter::Filter,
        MacAddress, //
    }, //
};

use super::{
    machine::{
        Inner,
        Machine, //
    },
    steering::Wanted,
    trouble::Trouble, //
};

impl Machine {
    /// Receives what `filter` lets through.
    ///
    /// # Errors
    ///
    /// What is received is what it was before, or the device has no firmware.
    pub(crate) fn set_filter(&self, inner: &mut Inner, filter: &Filter) -> Result<(), Trouble> {
        let (mac, pairs) = {
            let settings = self.settings().lock();
            (settings.config.mac(), settings.pairs)
        };
        self.steer(inner, filter, mac, pairs)?;
        *self.settings().lock().filter = filter.clone();
        Ok(())
    }

    /// Has the address of the driver's choice.
    ///
    /// # Errors
    ///
    /// As [`Self::set_filter`].
    pub(crate) fn set_driver_mac(&self, inner: &mut Inner, mac: MacAddress) -> Result<(), Trouble> {
        let filter = self.filter()?;
        let pairs = self.settings().lock().pairs;
        self.steer(inner, &filter, mac, pairs)?;
        self.settings().lock().config.set_driver_mac(mac);
        Ok(())
    }

    /// Receives what is for the address `mac`, if a driver runs; if none does, that is done when one
    /// begins. It is to be the address in the configuration space behind that.
    ///
    /// # Errors
    ///
    /// As [`Self::set_filter`].
    pub(crate) fn move_address(&self, inner: &mut Inner, mac: MacAddress) -> Result<(), Trouble> {
        if self.ask(|life| life.status() & status::DRIVER_OK == 0) {
            return Ok(());
        }
        let filter = self.filter()?;
        let pairs = self.settings().lock().pairs;
        self.steer(inner, &filter, mac, pairs)
    }

    /// Uses the first `pairs` pairs of queues.
    ///
    /// # Errors
    ///
    /// As many are used as before, or the device has no firmware, or a queue could not be stopped.
    pub(crate) fn set_pairs(&self, inner: &mut Inner, pairs: u16) -> Result<(), Trouble> {
        let before = self.active();
        let filter = self.filter()?;
        let (mac, old) = {
            let mut settings = self.settings().lock();
            let old = core::mem::replace(&mut settings.pairs, pairs);
            (settings.config.mac(), old)
        };
        let after = self.active();
        let running = self.ask(|life| life.running());
        let more = after.without(before);
        let added = running.intersection(more);
        let result = self
            .start(inner, added, more, false)
            .and_then(|()| self.steer(inner, &filter, mac, pairs));
        if let Err(trouble) = result {
            self.settings().lock().pairs = old;
            let stopped = self.stop(inner, added, true);
            if stopped.is_err() || trouble.is_in_doubt() {
                // Frames may be led to queues that do not run: the watch has the device need a
                // reset.
                self.lose(inner, added);
                self.alarm().ring();
            }
            return Err(trouble);
        }
        for index in added.iter() {
            self.look_at(index);
        }
        let removed: QueueSet = running.intersection(before.without(after));
        let Err(unstopped) = self.stop(inner, removed, true) else {
            return Ok(());
        };
        // The driver is told that it has as many as before, so it has to have them.
        self.settings().lock().pairs = old;
        let back = self
            .start(inner, removed, QueueSet::EMPTY, false)
            .and_then(|()| self.steer(inner, &filter, mac, old));
        for index in removed.iter() {
            self.look_at(index);
        }
        if !unstopped.can_go_on || back.is_err() {
            // As above.
            self.lose(inner, removed);
            self.alarm().ring();
        }
        Err(unstopped.trouble)
    }

    fn steer(
        &self,
        inner: &mut Inner,
        filter: &Filter,
        mac: MacAddress,
        pairs: u16,
    ) -> Result<(), Trouble> {
        let objects = inner.objects.as_deref_mut().ok_or(Trouble::NoFirmware)?;
        let receivers = objects.receivers(pairs)?;
        let wanted = Wanted {
            filter,
            mac,
            features: self.ask(|life| life.features()),
            receivers: &receivers,
        };
        let mut batch = objects.era.batch();
        objects.steering.change(&mut batch, &wanted)?;
        objects.steering.changed(&mut batch.run()?)?;
        objects.station.tell(&objects.era, mac);
        Ok(())
    }
}
