// SPDX-License-Identifier: GPL-2.0

//! The objects of a device, in one life of the firmware.
//!
//! What needs no guest is made when the device is added, in six batches: what depends on nothing,
//! what depends on that, and so on. What a guest needs changes them, and a reset takes nothing
//! away.

use kernel::{
    prelude::*,
    sync::Arc, //
};
use prm::{
    pd::{
        AllocPd,
        AllocTransportDomain, //
    },
    tis::CreateTis,
    virtq::CreateVirtioNetQ, //
};
use virtio::{
    features::Features,
    lifecycle::{
        Legacy,
        QueueSet, //
    },
    net::features, //
};

use super::{
    map::Installed,
    offer::{
        self,
        Offer, //
    },
    port::{
        self,
        Mtu,
        Port,
        Station, //
    },
    queue::{
        self,
        fields::Fields,
        Queue, //
    },
    relay::Relays,
    steering::{
        Made,
        Steering, //
    },
    watch::{
        Alarm,
        PortAlarm, //
    },
    wire::queue::{
        Events,
        QueueSpec, //
    }, //
};
use crate::{
    hca::{
        Channel,
        Era,
        Failure,
        Listening,
        Object,
        Subject,
        Taken,
        Told, //
    },
    show::Show, //
};

/// The size of virtqueues as they are made, which VMMs use, and legacy drivers cannot change.
pub(crate) const SIZE: u16 = 256;

/// The virtqueue that is made for a legacy driver first, to see whether the firmware serves those:
/// no capability says it.
const PROBE: u16 = 1;

/// The objects of a device. Field order is the order of teardown.
pub(crate) struct Objects {
    /// What leads frames to the queues.
    pub(crate) steering: KBox<Steering>,
    /// What the switch knows.
    pub(crate) station: Station,
    /// The virtqueues, by their index.
    pub(crate) queues: KVec<Queue>,
    /// The MTU of the port, if it had to be changed.
    mtu: Option<Mtu>,
    _port: Listening,
    alarm: Arc<Alarm>,
    /// The memory keys of the queues.
    pub(crate) keys: KBox<Installed>,
    umem: Object,
    tis: Object,
    domain: Object,
    pd: Object,
    /// The firmware's life.
    pub(crate) era: Arc<Era>,
}

impl Objects {
    /// Makes everything, for queues that interrupt by `vectors` and tell `relays`; who rings
    /// `alarm` when something happens by itself is the firmware. Returns what the port is like as
    /// well, and whether legacy drivers can be served. `mtu` is the MTU in bytes that the port had
    /// before the device was added, if that was in a life of the firmware before.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of a command. Nothing is left then.
    #[inline(never)]
    pub(crate) fn new(
        era: &Arc<Era>,
        offer: &Offer,
        vectors: &[Taken],
        relays: &Arc<Relays>,
        alarm: &Arc<Alarm>,
        mtu: Option<u16>,
    ) -> Result<(KBox<Self>, Port, bool), Failure> {
        let queues = 2 * offer.pairs;
        let no_memory = |error| Failure::not_sent::<CreateVirtioNetQ>(error);

        // First: what changes behind the question is told.
        let port_alarm = Arc::new(PortAlarm(alarm.clone()), GFP_KERNEL)
            .map_err(|error| no_memory(error.into()))?;
        let listening = era.listen(Subject::Port, port_alarm).map_err(no_memory)?;
        let is_scaled = offer.features.contains(features::RSS);
        let mut steering = Steering::new(offer.pairs, is_scaled).map_err(no_memory)?;
        let layout = queue::layout(era, SIZE)?;
        let mut batch = era.batch();
        let pd = batch.create::<AllocPd>(|_| {})?;
        let domain = batch.create::<AllocTransportDomain>(|_| {})?;
        let umem = queue::create_umem(era, &layout, queues, &mut batch)?;
        let mut tickets = KVec::new();
        for _ in 0..queues {
            let ticket = queue::create_counters(era, &mut batch)?;
            tickets
                .push(ticket, GFP_KERNEL)
                .map_err(|error| no_memory(error.into()))?;
        }
        let asked = port::ask(&mut batch)?;
        let nothing = Made {
            domain: 0,
            receivers: &[],
        };
        steering.stage(0, &nothing, &mut batch)?;
        let mut replies = batch.run()?;
        let pd = replies.object(pd)?;
        let domain = replies.object(domain)?;
        let umem = replies.object(umem)?;
        let port = asked.answer(&mut replies)?;
        steering.staged(&mut replies)?;

        let made = Made {
            domain: domain.id(),
            receivers: &[],
        };
        // A smaller one is a matter of the driver's. What it was is put back in the end.
        let before = mtu.unwrap_or(port.mtu);
        let larger = offer.mtu.filter(|mtu| *mtu > before);
        let mtu = larger.map(|mtu| Mtu::raise(era, mtu, before)).transpose()?;
        let mut batch = era.batch();
        let tis = batch.create::<CreateTis>(|input| {
            input.ctx_mut().set_transport_domain(domain.id());
        })?;
        steering.stage(1, &made, &mut batch)?;
        let mut second = batch.run()?;
        let tis = second.object(tis)?;
        steering.staged(&mut second)?;

        let list = KVec::with_capacity(queues.into(), GFP_KERNEL)
            .map_err(|error| no_memory(error.into()))?;
        let keys =
            KBox::new(Installed::none(), GFP_KERNEL).map_err(|error| no_memory(error.into()))?;
        // In its place: it is large.
        let this = init!(Self {
            steering,
            station: Station::new(),
            queues: list,
            mtu,
            _port: listening,
            alarm: alarm.clone(),
            keys,
            umem,
            tis,
            domain,
            pd,
            era: era.clone(),
        });
        let mut this = KBox::init(this, GFP_KERNEL).map_err(no_memory)?;
        let mut channels = channels(era, vectors, relays, alarm)?.into_iter();
        for (index, ticket) in (0..queues).zip(tickets) {
            let counters = ticket.map(|ticket| replies.object(ticket)).transpose()?;
            let vector = vectors.get(usize::from(index)).map_or(0, Taken::number);
            let spec = QueueSpec {
                index,
                tis: this.tis.id(),
                events: Events::Vector(vector),
                areas: layout.areas(this.umem.id(), index),
                counters: 0,
                pd: this.pd.id(),
            };
            this.queues
                .push(Queue::new(spec, counters, channels.next()), GFP_KERNEL)
                .map_err(|error| no_memory(error.into()))?;
        }
        let legacy = this.fill(offer)?;
        Ok((this, port, legacy))
    }

    /// Makes the queues, and what leads to them. Returns whether legacy drivers can be served.
    #[inline(never)]
    fn fill(&mut self, offer: &Offer) -> Result<bool, Failure> {
        let fields = Fields {
            features: offer::hardware_bits(offer.features),
            ..self.idle()
        };
        let probe = Fields {
            version_1: false,
            ..fields
        };
        let mut legacy = offer.legacy != Legacy::Off;
        let is_modern = offer.features.contains(Features::VERSION_1);

        let mut batch = self.era.batch();
        let mut tickets = KVec::with_capacity(self.queues.len(), GFP_KERNEL)
            .map_err(|error| Failure::not_sent::<CreateVirtioNetQ>(error.into()))?;
        for (index, queue) in self.queues.iter_mut().enumerate() {
            let fields = match legacy && index == usize::from(PROBE) {
                true => probe,
                false => fields,
            };
            let ticket = queue.create(&self.era, &fields, SIZE, &mut batch)?;
            // There is room for all.
            let _ = tickets.push_within_capacity((ticket, fields));
        }
        let made = Made {
            domain: self.domain.id(),
            receivers: &[],
        };
        self.steering.stage(2, &made, &mut batch)?;
        let mut replies = batch.run()?;
        for (queue, (ticket, with)) in self.queues.iter_mut().zip(tickets) {
            let object = replies.object(ticket);
            match object {
                // What it wants may be what it never has. But if there is nobody else to serve, it
                // is worth another try.
                Err(failure)
                    if with != fields
                        && !failure.is_in_doubt()
                        && (is_modern || !failure.is_for_want()) =>
                {
                    let device: &hardware::Device = self.era.device();
                    dev_info!(device, "no legacy virtqueue: {}\n", Show(failure));
                    legacy = false;
                    let mut batch = self.era.batch();
                    let ticket = queue.create(&self.era, &fields, SIZE, &mut batch)?;
                    let object = batch.run()?.object(ticket)?;
                    queue.created(object, &fields, &self.era, &self.alarm)?;
                }
                object => queue.created(object?, &with, &self.era, &self.alarm)?,
            }
        }
        self.steering.staged(&mut replies)?;

        let receivers = self.receivers(offer.pairs)?;
        for round in 3..Steering::ROUNDS {
            let made = Made {
                domain: self.domain.id(),
                receivers: &receivers,
            };
            let mut batch = self.era.batch();
            self.steering.stage(round, &made, &mut batch)?;
            self.steering.staged(&mut batch.run()?)?;
        }
        Ok(legacy)
    }

    /// What a queue has that no driver has.
    pub(crate) fn idle(&self) -> Fields {
        Fields {
            size: SIZE,
            index: Some(0),
            version_1: self.era.capabilities().version_1(),
            ..Fields::default()
        }
    }

    /// The number of the transport domain.
    pub(crate) fn domain(&self) -> u32 {
        self.domain.id()
    }

    /// The number of the protection domain.
    pub(crate) fn pd(&self) -> u32 {
        self.pd.id()
    }

    /// The numbers of the receive queues of the first `pairs` pairs.
    ///
    /// # Errors
    ///
    /// A [`Failure`] without memory, or if one of the objects is not there.
    pub(crate) fn receivers(&self, pairs: u16) -> Result<KVec<u32>, Failure> {
        let failure = |error| Failure::not_sent::<CreateVirtioNetQ>(error);
        let mut receivers =
            KVec::with_capacity(pairs.into(), GFP_KERNEL).map_err(|error| failure(error.into()))?;
        for queue in self.queues.iter().step_by(2).take(pairs.into()) {
            let id = queue.id().ok_or(failure(ENXIO))?;
            // There is room for all.
            let _ = receivers.push_within_capacity(id);
        }
        Ok(receivers)
    }

    /// Makes the objects of some queues anew: as `fields` says of each.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of a command. A queue whose object is not there then is made with the next
    /// call.
    pub(crate) fn renew(
        &mut self,
        which: QueueSet,
        pairs: u16,
        fields: impl Fn(u16) -> Fields,
    ) -> Result<(), Failure> {
        if which.is_empty() && !self.steering.is_detached() {
            return Ok(());
        }
        // The table of receive queues names their objects.
        if which.iter().any(|index| index % 2 == 0) {
            self.steering.detach()?;
        }
        let mut batch = self.era.batch();
        for index in which.iter() {
            if let Some(queue) = self.queues.get_mut(usize::from(index)) {
                queue.end(&mut batch)?;
            }
        }
        batch.run()?.rest()?;

        let mut batch = self.era.batch();
        let mut tickets = KVec::new();
        for index in which.iter() {
            let Some(queue) = self.queues.get_mut(usize::from(index)) else {
                continue;
            };
            let fields = fields(index);
            let ticket = queue.create(&self.era, &fields, SIZE, &mut batch)?;
            tickets
                .push((index, ticket, fields), GFP_KERNEL)
                .map_err(|error| Failure::not_sent::<CreateVirtioNetQ>(error.into()))?;
        }
        let mut replies = batch.run()?;
        for (index, ticket, fields) in tickets {
            let object = replies.object(ticket)?;
            if let Some(queue) = self.queues.get_mut(usize::from(index)) {
                queue.created(object, &fields, &self.era, &self.alarm)?;
            }
        }
        self.attach(pairs)
    }

    /// Has frames led to the queues of `pairs` pairs again, if that was taken away and
    /// [`Self::renew`] failed behind it.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of a command, or of a queue that has no object.
    pub(crate) fn attach(&mut self, pairs: u16) -> Result<(), Failure> {
        if !self.steering.is_detached() {
            return Ok(());
        }
        let receivers = self.receivers(pairs)?;
        let made = Made {
            domain: self.domain.id(),
            receivers: &receivers,
        };
        self.steering.attach(&self.era, &made)
    }

    /// Takes everything away, in batches.
    ///
    /// # Errors
    ///
    /// The first [`Failure`]; what failed is in the log.
    #[inline(never)]
    pub(crate) fn end(self: KBox<Self>) -> Result<(), Failure> {
        let Self {
            mut steering,
            mut station,
            mut queues,
            mtu,
            _port,
            alarm: _,
            mut keys,
            umem,
            tis,
            domain,
            pd,
            era,
        } = KBox::into_inner(self);
        station.end(&era);
        let mut result = steering.end();
        let mut run = |fill: &mut dyn FnMut(&mut crate::hca::Batch) -> Result<(), Failure>| {
            let mut batch = era.batch();
            let filled = fill(&mut batch);
            let ended = batch.run().and_then(crate::hca::Replies::rest);
            result = result.and(filled).and(ended);
        };
        run(&mut |batch| {
            // Each, whatever becomes of the others.
            let ended = queues.iter_mut().map(|queue| queue.end(batch));
            ended.fold(Ok(()), Result::and)
        });
        drop(mtu);
        run(&mut |batch| {
            let ended = queues.iter_mut().map(|queue| queue.end_rest(&era, batch));
            ended.fold(Ok(()), Result::and)
        });
        result = result.and(keys.end());
        result = result.and(crate::hca::end_all([umem, tis]));
        result.and(crate::hca::end_all([domain, pd]))
    }
}

/// What each queue tells of used buffers by, where they do not interrupt by themselves.
fn channels(
    era: &Era,
    vectors: &[Taken],
    relays: &Arc<Relays>,
    alarm: &Arc<Alarm>,
) -> Result<KVec<Channel>, Failure> {
    if era.capabilities().msix_mode() {
        return Ok(KVec::new());
    }
    let failure = |error| Failure::not_sent::<CreateVirtioNetQ>(error);
    let mut lines =
        KVec::with_capacity(vectors.len(), GFP_KERNEL).map_err(|error| failure(error.into()))?;
    // Each vector has an event queue, of which there are only so many.
    let eqs = era.capabilities().completion_eqs();
    for vector in vectors.iter().take(eqs).cycle().take(vectors.len()) {
        // There is room for all.
        let _ = lines.push_within_capacity(vector.line().map_err(failure)?.clone());
    }
    let channels = era.channels(&lines)?;
    for (queue, channel) in (0..).zip(channels.iter()) {
        channel.serve(Told {
            used: relays.clone(),
            queue,
            trouble: alarm.clone(),
        });
    }
    Ok(channels)
}
