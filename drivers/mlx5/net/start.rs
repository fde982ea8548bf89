// SPDX-License-Identifier: GPL-2.0

//! Starts virtqueues.
//!
//! When a driver begins, its memory is made known to the firmware, and then all queues it may use
//! are given what belongs to it, by one batch of commands; by another those that are enabled are
//! started. One that is enabled later, as VMMs do it, takes a single command then.
//!
//! A doorbell that is rung before a queue is ready is lost in hardware, so each one that was
//! started is rung for once.

use kernel::prelude::*;
use prm::virtq::{
    ModifyVirtioNetQ,
    State, //
};
use vdpa::device::User;
use virtio::{
    features::Features,
    lifecycle::QueueSet, //
};

use super::{
    control::Ring,
    machine::{
        Inner,
        Machine,
        Setup, //
    },
    map::{
        Keys,
        Replaced, //
    },
    objects::Objects,
    offer,
    queue::{
        fields::{
            way,
            Fields,
            Stage,
            Way, //
        },
        Change, //
    },
    steering::Wanted,
    stop::tell,
    trouble::Trouble, //
};
use crate::hca::{
    Batch,
    Failure,
    Replies, //
};

/// Changes of queues that go together in a batch.
struct Changes {
    batch: Batch,
    changes: KVec<(u16, Change)>,
}

impl Changes {
    fn new(objects: &Objects) -> Self {
        Self {
            batch: objects.era.batch(),
            changes: KVec::new(),
        }
    }

    fn put(
        &mut self,
        objects: &Objects,
        index: u16,
        select: u64,
        fields: &Fields,
        state: Option<State>,
    ) -> Result<(), Failure> {
        let Some(queue) = objects.queues.get(usize::from(index)) else {
            return Ok(());
        };
        self.changes
            .reserve(1, GFP_KERNEL)
            .map_err(|error| Failure::not_sent::<ModifyVirtioNetQ>(error.into()))?;
        let change = queue.change(select, fields, state, &mut self.batch)?;
        // There is room now.
        let _ = self.changes.push_within_capacity((index, change));
        Ok(())
    }

    /// Has them executed, with what else is in the batch.
    fn run(self, objects: &mut Objects) -> Result<(Replies, Result<(), Failure>), Failure> {
        let mut replies = self.batch.run()?;
        let mut result = Ok(());
        for (index, change) in self.changes {
            if let Some(queue) = objects.queues.get_mut(usize::from(index)) {
                result = result.and(queue.changed(change, &mut replies));
            }
        }
        Ok((replies, result))
    }
}

impl Machine {
    /// Starts `queues`; with `begin`, for a driver that begins. Those of `later` are to be started by
    /// and by, and are prepared at once as far as the driver said where they are.
    ///
    /// # Errors
    ///
    /// Not all of them run.
    pub(super) fn start(
        &self,
        inner: &mut Inner,
        queues: QueueSet,
        later: QueueSet,
        begin: bool,
    ) -> Result<(), Trouble> {
        if let Some(index) = self.control_index().filter(|index| queues.contains(*index)) {
            self.start_control(inner, index)?;
        }
        let starting = queues.intersection(self.active());
        if starting.is_empty() && later.is_empty() && !begin {
            return Ok(());
        }
        let features = self.ask(|life| life.features());
        let Inner {
            setups,
            objects,
            map,
            user,
            ..
        } = inner;
        let objects = objects.as_deref_mut().ok_or(Trouble::NoFirmware)?;
        let is_known = |index: u16| {
            let setup = setups.get(usize::from(index));
            setup.is_some_and(|setup| setup.index.is_some())
        };
        // One that could not be stopped runs on, and needs not be told.
        let runs = |index: u16| {
            let queue = objects.queues.get(usize::from(index));
            queue.is_some_and(|queue| queue.stage() == Stage::Ready)
        };
        let mut unknown = starting.iter();
        if let Some(index) = unknown.find(|index| !is_known(*index) && !runs(*index)) {
            return Err(Trouble::Doubt(index));
        }

        // The old keys end when the queues have the new ones.
        let needed = !starting.is_empty() || *user == User::Kernel || map.has_user_map();
        let pd = objects.pd();
        let replaced = match needed && (begin || map.is_dirty(&objects.keys)) {
            true => Some(objects.keys.install(&objects.era, pd, map, *user)?),
            false => None,
        };
        let keys = objects.keys.keys(*user);
        let fields = |index: u16| {
            let setup = setups.get(usize::from(index));
            setup.map_or(Fields::default(), |setup| Fields {
                size: setup.size,
                desc: setup.desc,
                driver: setup.driver,
                device: setup.device,
                index: setup.index,
                version_1: features.contains(Features::VERSION_1),
                features: offer::hardware_bits(features),
                mkey: keys.data,
                desc_mkey: keys.rings,
            })
        };
        let mut prepared = starting;
        for index in later.without(starting).iter() {
            let setup = setups.get(usize::from(index));
            let has_addresses = setup.is_some_and(|setup| setup.has_addresses());
            prepared.set(index, has_addresses && is_known(index));
        }
        self.prepare(objects, prepared, begin, fields)?;
        self.make_ready(objects, starting, fields)?;
        tell(Some(objects), starting);
        drop(replaced);
        forget_indices(setups, starting);
        self.set_running(starting, true);
        Ok(())
    }

    /// Gives queues the fields they shall have, as far as that is done before they start; with
    /// `begin`, what leads frames to them as well.
    #[inline(never)]
    fn prepare(
        &self,
        objects: &mut Objects,
        queues: QueueSet,
        begin: bool,
        fields: impl Fn(u16) -> Fields + Copy,
    ) -> Result<(), Trouble> {
        let resume = objects.era.capabilities().resume();
        let ways = |objects: &Objects, index: u16| {
            let queue = objects.queues.get(usize::from(index))?;
            let by_fields = || way(queue.stage(), queue.set(), &fields(index), resume);
            // An object keeps what it tells by for life.
            Some(queue.broken().map_or_else(by_fields, |_| Way::Anew))
        };
        let mut anew = QueueSet::EMPTY;
        for index in queues.iter() {
            let is_anew = ways(objects, index) == Some(Way::Anew);
            if is_anew && fields(index).index.is_none() {
                return Err(Trouble::Doubt(index));
            }
            anew.set(index, is_anew);
        }
        let pairs = self.settings().lock().pairs;
        objects.renew(anew, pairs, fields)?;

        let mut changes = Changes::new(objects);
        for index in queues.iter() {
            if let Some(Way::Two(select)) = ways(objects, index) {
                changes.put(objects, index, select, &fields(index), None)?;
            }
        }
        let filter = begin.then(|| self.filter()).transpose()?;
        let mac = self.settings().lock().config.mac();
        let features = self.ask(|life| life.features());
        if let Some(filter) = &filter {
            let receivers = objects.receivers(pairs)?;
            let wanted = Wanted {
                filter,
                mac,
                features,
                receivers: &receivers,
                // A driver that begins has not said yet.
                scaling: None,
            };
            objects.steering.change(&mut changes.batch, &wanted)?;
        }
        let (mut replies, result) = changes.run(objects)?;
        if let Some(filter) = &filter {
            objects.steering.changed(&mut replies)?;
            let (era, domain) = (objects.era.clone(), objects.domain());
            objects.steering.rehash(&era, domain, None)?;
            objects.station.tell(&objects.era, mac, features, filter);
        }
        Ok(result?)
    }

    /// Has queues that were prepared run.
    #[inline(never)]
    fn make_ready(
        &self,
        objects: &mut Objects,
        queues: QueueSet,
        fields: impl Fn(u16) -> Fields,
    ) -> Result<(), Trouble> {
        let resume = objects.era.capabilities().resume();
        let mut changes = Changes::new(objects);
        for index in queues.iter() {
            let Some(queue) = objects.queues.get(usize::from(index)) else {
                continue;
            };
            let wanted = fields(index);
            match way(queue.stage(), queue.set(), &wanted, resume) {
                Way::One(select) => {
                    changes.put(objects, index, select, &wanted, Some(State::RDY))?;
                }
                Way::Done => {}
                // It was prepared, and is not what it was then.
                Way::Two(_) | Way::Anew => return Err(Trouble::Doubt(index)),
            }
        }
        let (_, result) = changes.run(objects)?;
        Ok(result?)
    }

    fn start_control(&self, inner: &mut Inner, index: u16) -> Result<(), Trouble> {
        if inner.control.is_some() {
            return Ok(());
        }
        let setup = inner.setups.get(usize::from(index));
        let setup = *setup.ok_or(Trouble::Control(EINVAL))?;
        let (features, order) = self.ask(|life| (life.features(), life.queue_byte_order(index)));
        let ring = Ring::start(&setup, features, order).map_err(Trouble::Control)?;
        inner.control = Some(ring);
        Ok(())
    }

    /// Has queues that run use other memory: that which `inner` knows of now.
    ///
    /// # Errors
    ///
    /// They do not all. The keys of before, which are left in `replaced`, may be in use yet.
    #[inline(never)]
    pub(super) fn remap(
        &self,
        inner: &mut Inner,
        running: QueueSet,
        replaced: &mut Option<Replaced>,
    ) -> Result<(), Trouble> {
        let objects = inner.objects.as_deref_mut().ok_or(Trouble::NoFirmware)?;
        let pd = objects.pd();
        *replaced = Some(
            objects
                .keys
                .install(&objects.era, pd, &inner.map, inner.user)?,
        );
        let resume = objects.era.capabilities().resume();
        // Without a question, where they stand stays what it is in the objects.
        self.stop(inner, running, !resume)
            .map_err(|unstopped| unstopped.trouble)?;
        let objects = inner.objects.as_deref_mut().ok_or(Trouble::NoFirmware)?;
        let Keys { data, rings } = objects.keys.keys(inner.user);
        let mut wanted = KVec::new();
        for (queue, setup) in objects.queues.iter().zip(inner.setups.iter()) {
            let index = match resume {
                true => queue.set().index,
                false => setup.index,
            };
            let fields = Fields {
                index,
                mkey: data,
                desc_mkey: rings,
                ..*queue.set()
            };
            wanted
                .push(fields, GFP_KERNEL)
                .map_err(|error| Failure::not_sent::<ModifyVirtioNetQ>(error.into()))?;
        }
        let fields = |index: u16| {
            let fields = wanted.get(usize::from(index));
            fields.copied().unwrap_or_default()
        };
        self.prepare(objects, running, false, fields)?;
        self.make_ready(objects, running, fields)?;
        tell(Some(objects), running);
        forget_indices(&mut inner.setups, running);
        self.set_running(running, true);
        for index in running.iter() {
            self.look_at(index);
        }
        Ok(())
    }
}

/// Where queues stand is not known while they run.
fn forget_indices(setups: &mut [Setup], queues: QueueSet) {
    for index in queues.iter() {
        if let Some(setup) = setups.get_mut(usize::from(index)) {
            setup.index = None;
        }
    }
}
