// SPDX-License-Identifier: GPL-2.0

//! What a device receives, and by which queues: what a driver asks for by its control queue.
//!
//! Each of these changes the firmware first, and only then what the device says of itself.

use kernel::{
    prelude::*,
    sync::Arc, //
};
use prm::rqt::ModifyRqt;
use virtio::{
    lifecycle::{
        status,
        QueueSet, //
    },
    net::{
        filter::Filter,
        rss,
        MacAddress, //
    }, //
};

use super::{
    machine::{
        Inner,
        Machine, //
    },
    steering::{
        spread::Scaling,
        Wanted, //
    },
    trouble::Trouble, //
};
use crate::hca::Failure;

impl Machine {
    /// Receives what `filter` lets through.
    ///
    /// # Errors
    ///
    /// What is received is what it was before, or the device has no firmware.
    pub(crate) fn set_filter(
        &self,
        inner: &mut Inner,
        filter: KBox<Filter>,
    ) -> Result<(), Trouble> {
        let (mac, pairs) = {
            let settings = self.settings().lock();
            (settings.config.mac(), settings.pairs)
        };
        self.steer(inner, &filter, mac, pairs)?;
        let before = core::mem::replace(&mut self.settings().lock().filter, filter);
        drop(before);
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

    /// Spreads what is received as the driver's command says, over as many pairs as that takes.
    ///
    /// # Errors
    ///
    /// As [`Self::set_pairs`].
    pub(crate) fn scale(
        &self,
        inner: &mut Inner,
        command: &rss::Scaling<'_>,
    ) -> Result<(), Trouble> {
        let scaling = Arc::new(Scaling::new(command), GFP_KERNEL)
            .map_err(|error| Failure::not_sent::<ModifyRqt>(error.into()))?;
        self.set_pairs(inner, command.pairs(), Some(scaling))
    }

    /// Uses the first `pairs` pairs of queues, and spreads what is received over them as `scaling`
    /// says, or evenly.
    ///
    /// # Errors
    ///
    /// As many are used as before, or the device has no firmware, or a queue could not be stopped.
    pub(crate) fn set_pairs(
        &self,
        inner: &mut Inner,
        pairs: u16,
        scaling: Option<Arc<Scaling>>,
    ) -> Result<(), Trouble> {
        let before = self.active();
        let filter = self.filter()?;
        let mac = self.settings().lock().config.mac();
        let (old, old_scaling) = self.choose(pairs, scaling);
        let after = self.active();
        let running = self.ask(|life| life.running());
        let more = after.without(before);
        let added = running.intersection(more);
        let result = self
            .start(inner, added, more, false)
            .and_then(|()| self.steer(inner, &filter, mac, pairs));
        if let Err(trouble) = result {
            self.choose(old, old_scaling);
            // Some of it may have been done, and what leads to the queues been taken away.
            let back = self
                .attach(inner, old)
                .and_then(|()| self.steer(inner, &filter, mac, old));
            let stopped = self.stop(inner, added, true);
            if stopped.is_err() || trouble.is_in_doubt() || back.is_err() {
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
        self.choose(old, old_scaling);
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

    /// Has frames led to the queues of `pairs` pairs again, if they are not.
    fn attach(&self, inner: &mut Inner, pairs: u16) -> Result<(), Trouble> {
        let objects = inner.objects.as_deref_mut().ok_or(Trouble::NoFirmware)?;
        Ok(objects.attach(pairs)?)
    }

    /// Notes how many pairs are used, and how what is received is spread over them. Returns what it
    /// was before.
    fn choose(&self, pairs: u16, scaling: Option<Arc<Scaling>>) -> (u16, Option<Arc<Scaling>>) {
        let mut settings = self.settings().lock();
        (
            core::mem::replace(&mut settings.pairs, pairs),
            core::mem::replace(&mut settings.scaling, scaling),
        )
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
        let scaling = self.settings().lock().scaling.clone();
        let wanted = Wanted {
            filter,
            mac,
            features: self.ask(|life| life.features()),
            receivers: &receivers,
            scaling: scaling.as_deref(),
        };
        let mut batch = objects.era.batch();
        objects.steering.change(&mut batch, &wanted)?;
        objects.steering.changed(&mut batch.run()?)?;
        let domain = objects.domain();
        objects
            .steering
            .rehash(&objects.era, domain, wanted.scaling)?;
        objects
            .station
            .tell(&objects.era, mac, wanted.features, filter);
        Ok(())
    }
}
