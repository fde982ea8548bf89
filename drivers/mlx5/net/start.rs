// SPDX-License-Identifier: GPL-2.0

//! Starts virtqueues.
//!
//! When a driver begins, its memory is made known to the firmware, and then all queues it may use
//! are given what belongs to it, by one batch of commands; by another those that are enabled are
//! started. One that is enabled later, as VMMs do it, takes a single command then.
//!
//! A doorbell that is rung before a queue is ready is lost in hardware, so each one that was
//! started is rung for once.

use kernel::{
    alloc::AllocError,
    prelude::*, //
};
use prm::virtq::{
    ModifyVirtioNetQ,
    State, //
};
use vdpa::device::User;
use virtio::{
    features::Features,
    lifecycle::QueueSet,
    net::relay::Layout, //
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
    relay::{
        Active,
        Snag, //
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
        let relayed = self.to_relay();
        self.prepare_relays(inner, relayed.intersection(starting))?;
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
        let shadows = self.shadows(relayed);
        let replaced = match needed && (begin || map.is_dirty(&objects.keys)) {
            true => Some(
                objects
                    .keys
                    .install(&objects.era, pd, map, *user, shadows)?,
            ),
            false => None,
        };
        let keys = objects.keys.keys(*user);
        let layouts = layouts(objects, shadows)
            .map_err(|error| Failure::not_sent::<ModifyVirtioNetQ>(error.into()))?;
        let fields = |index: u16| {
            let at = usize::from(index);
            let layout = layouts.get(at).filter(|_| relayed.contains(index));
            let fields = setups.get(at).map_or(Fields::default(), |setup| Fields {
                size: setup.size,
                desc: setup.desc,
                driver: setup.driver,
                device: setup.device,
                index: setup.index,
                version_1: features.contains(Features::VERSION_1),
                features: offer::hardware_bits(features),
                mkey: keys.data,
                desc_mkey: keys.rings,
            });
            in_shadow(fields, layout)
        };
        let mut prepared = starting;
        for index in later.without(starting).iter() {
            let setup = setups.get(usize::from(index));
            let has_addresses = setup.is_some_and(|setup| setup.has_addresses());
            prepared.set(index, has_addresses && is_known(index));
        }
        self.prepare(objects, prepared, begin, fields)?;
        let relays = self.make_relays(objects, setups, relayed.intersection(starting))?;
        self.make_ready(objects, starting, fields)?;
        self.begin_relays(relays);
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

    /// How many shadow rings it takes to relay `queues`: any of the device may start later.
    fn shadows(&self, queues: QueueSet) -> u16 {
        match queues.is_empty() {
            true => 0,
            // No more than 64.
            false => self.data_queues().iter().count() as u16,
        }
    }

    /// Makes sure that `queues`, which are about to start, can be relayed.
    fn prepare_relays(&self, inner: &mut Inner, queues: QueueSet) -> Result<(), Trouble> {
        let Some(first) = queues.iter().next() else {
            return Ok(());
        };
        if inner.user == User::Kernel {
            return Err(Trouble::Relay(first, Snag::Kernel));
        }
        self.have_workers(inner, queues)
            .map_err(|_| Trouble::Relay(first, Snag::NoMemory))
    }

    /// Makes relays for those of `queues` that do not run yet, with empty shadow rings for the
    /// hardware to begin with.
    #[inline(never)]
    fn make_relays(
        &self,
        objects: &Objects,
        setups: &[Setup],
        queues: QueueSet,
    ) -> Result<KVec<(u16, Active)>, Trouble> {
        let mut made = KVec::new();
        for index in queues.iter() {
            let at = usize::from(index);
            let (Some(queue), Some(setup)) = (objects.queues.get(at), setups.get(at)) else {
                continue;
            };
            // One that could not be stopped has its relay yet.
            if queue.stage() == Stage::Ready {
                continue;
            }
            let snag = |snag| Trouble::Relay(index, snag);
            let shadow = objects.keys.shadow(index).ok_or(snag(Snag::NoShadow))?;
            let (features, order) =
                self.ask(|life| (life.features(), life.queue_byte_order(index)));
            let active = Active::new(index, setup, features, order, shadow).map_err(snag)?;
            made.push((index, active), GFP_KERNEL)
                .map_err(|error| snag(error.into()))?;
        }
        Ok(made)
    }

    /// Has relays begin, whose queues the hardware runs. Somebody is to look at those.
    fn begin_relays(&self, relays: KVec<(u16, Active)>) {
        for (index, active) in relays {
            self.relays().begin(index, active);
        }
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
        let relayed = self.to_relay().intersection(running);
        let shadows = self.shadows(relayed);
        let objects = inner.objects.as_deref_mut().ok_or(Trouble::NoFirmware)?;
        let pd = objects.pd();
        *replaced =
            Some(
                objects
                    .keys
                    .install(&objects.era, pd, &inner.map, inner.user, shadows)?,
            );
        let resume = objects.era.capabilities().resume();
        // Without a question, where they stand stays what it is in the objects. That of relays is
        // what the driver sees.
        self.stop(inner, running, !resume || !relayed.is_empty())
            .map_err(|unstopped| unstopped.trouble)?;
        let objects = inner.objects.as_deref_mut().ok_or(Trouble::NoFirmware)?;
        let Keys { data, rings } = objects.keys.keys(inner.user);
        let mut wanted = KVec::new();
        let all = objects.queues.iter().zip(inner.setups.iter());
        for (at, (queue, setup)) in (0u16..).zip(all) {
            let is_relayed = relayed.contains(at);
            let index = match resume && !is_relayed {
                true => queue.set().index,
                false => setup.index,
            };
            let fields = Fields {
                index,
                mkey: data,
                desc_mkey: rings,
                ..*queue.set()
            };
            // It may have been moved.
            let shadow = objects.keys.shadow(at).filter(|_| is_relayed);
            let fields = in_shadow(fields, shadow.as_ref().map(|shadow| &shadow.layout));
            wanted
                .push(fields, GFP_KERNEL)
                .map_err(|error| Failure::not_sent::<ModifyVirtioNetQ>(error.into()))?;
        }
        let fields = |index: u16| {
            let fields = wanted.get(usize::from(index));
            fields.copied().unwrap_or_default()
        };
        self.prepare(objects, running, false, fields)?;
        let relays = self.make_relays(objects, &inner.setups, relayed)?;
        self.make_ready(objects, running, fields)?;
        self.begin_relays(relays);
        tell(Some(objects), running);
        forget_indices(&mut inner.setups, running);
        self.set_running(running, true);
        for index in running.iter() {
            self.look_at(index);
        }
        Ok(())
    }
}

/// Where the first `count` queues have their shadow rings.
///
/// # Errors
///
/// There is no memory.
fn layouts(objects: &Objects, count: u16) -> Result<KVec<Layout>, AllocError> {
    let mut layouts = KVec::with_capacity(count.into(), GFP_KERNEL)?;
    for shadow in (0..count).map_while(|index| objects.keys.shadow(index)) {
        layouts.push(shadow.layout, GFP_KERNEL)?;
    }
    Ok(layouts)
}

/// `fields` of a queue whose ring the hardware has at `layout`, if there is one, in place of the
/// driver's.
fn in_shadow(fields: Fields, layout: Option<&Layout>) -> Fields {
    layout.map_or(fields, |layout| Fields {
        size: layout.size(),
        desc: layout.desc(),
        driver: layout.driver(),
        device: layout.device(),
        ..fields
    })
}

/// Where queues stand is not known while they run.
fn forget_indices(setups: &mut [Setup], queues: QueueSet) {
    for index in queues.iter() {
        if let Some(setup) = setups.get_mut(usize::from(index)) {
            setup.index = None;
        }
    }
}
