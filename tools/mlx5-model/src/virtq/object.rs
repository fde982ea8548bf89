// SPDX-License-Identifier: GPL-2.0

//! A virtqueue: its state, and who may do what with it.
//!
//! One lock guards a virtqueue. Commands take it to change the state, a worker to send a batch, and
//! a sender's worker to deliver one. Who sends holds the lock of its own virtqueue and takes those
//! of receiving ones, one at a time; nobody takes them in another order, so nobody waits for
//! himself. The lock is given up after each batch to who has waited for it longest, so a command
//! waits for one batch at most.

use std::sync::{
    atomic::{
        AtomicBool,
        Ordering, //
    },
    Arc,
    OnceLock, //
};

use parking_lot::{
    Mutex,
    MutexGuard, //
};
use prm::{
    virtq::{
        State,
        VirtioNetQObject, //
    },
    ObjectType, //
};

use crate::{
    eq::Event,
    fault::EventPart,
    frame::Frame,
    mkey::Space,
    object::Handle,
    pd::Pd,
    platform::Platform,
    qp::Qp,
    refusal::Refusal,
    stats::QueueCounters,
    steering::{
        tis::Tis,
        ReceiveQueue, //
    },
    umem::Umem, //
};

use super::{
    counters::{
        Counters,
        Tally, //
    },
    receive::Receiver,
    ring::{
        Failure,
        Ring, //
    },
    settings::{
        self,
        Limits, //
    },
    transmit::Transmitter,
    workers::{
        Place,
        Task, //
    },
};

/// Batches of one turn. Then it is the turn of another virtqueue.
const BATCHES: usize = 4;

/// How the driver is told of used buffers.
pub enum Notifier {
    /// Not at all.
    None,
    /// By a completion of the queue pair that this one is connected to.
    Qp(Handle<Qp>),
    /// By an interrupt vector.
    Msix(u16),
}

/// What a virtqueue uses, from when it is made until it is destroyed.
pub struct Parts {
    /// Where its memory keys belong to.
    pub pd: Handle<Pd>,
    /// The firmware's own memory. The model has better places for its state.
    pub umems: [Handle<Umem>; 3],
    /// Where it counts, if it does.
    pub counters: Option<Handle<Counters>>,
    /// What it sends by; a virtqueue without receives.
    pub tis: Option<Handle<Tis>>,
    /// How the driver is told.
    pub notifier: Notifier,
}

impl Parts {
    /// Tells the driver of used buffers.
    fn notify(&self, platform: &Platform) {
        match &self.notifier {
            Notifier::None => {}
            Notifier::Qp(qp) => qp.send_event(platform),
            Notifier::Msix(vector) => platform.interrupts.raise(*vector),
        }
    }
}

/// What moves the frames of a virtqueue that is ready.
enum Mover {
    Transmit(Transmitter<Space>),
    Receive(Receiver<Space>),
}

impl Mover {
    fn ring(&self) -> &Ring<Space> {
        match self {
            Self::Transmit(transmitter) => &transmitter.ring,
            Self::Receive(receiver) => &receiver.ring,
        }
    }

    fn into_ring(self) -> Ring<Space> {
        match self {
            Self::Transmit(transmitter) => transmitter.ring,
            Self::Receive(receiver) => receiver.ring,
        }
    }
}

/// What the lock guards.
struct Core {
    /// What it is, as commands have set it; the indices are older in state RDY.
    object: VirtioNetQObject,
    /// There is one in state RDY.
    mover: Option<Mover>,
    /// None when it is destroyed. Who has it in hand then, or in line, must not keep the driver
    /// from destroying what it used.
    parts: Option<Parts>,
}

/// A virtqueue.
pub struct Virtq {
    platform: Arc<Platform>,
    index: u16,
    /// Known as soon as it is made.
    id: OnceLock<u32>,
    transmits: bool,
    limits: Limits,
    traffic: Arc<QueueCounters>,
    /// Whether there is a mover, for who must not wait for the lock.
    ready: AtomicBool,
    place: Place,
    core: Mutex<Core>,
}

impl Virtq {
    /// Makes a virtqueue of what was [checked](Limits::check).
    pub(super) fn new(
        platform: Arc<Platform>,
        limits: Limits,
        object: VirtioNetQObject,
        parts: Parts,
    ) -> Self {
        let index = object.virtio_q_context().queue_index();
        Self {
            traffic: platform.journal.stats.queue(index),
            platform,
            index,
            id: OnceLock::new(),
            transmits: parts.tis.is_some(),
            limits,
            ready: AtomicBool::new(false),
            place: Place::default(),
            core: Mutex::new(Core {
                object,
                mover: None,
                parts: Some(parts),
            }),
        }
    }

    /// Begins the life of a virtqueue: says by which id it is known, and has its doorbell heard.
    ///
    /// # Errors
    ///
    /// [`Refusal::QueueIndexTaken`] if another virtqueue has its index.
    pub(super) fn open(self: &Arc<Self>, id: u32) -> Result<(), Refusal> {
        self.platform.doorbells.add(self.index, self)?;
        // Nobody else has said it.
        let _ = self.id.set(id);
        Ok(())
    }

    /// Ends its life. When this returns the driver's memory is not touched any more, and nothing is
    /// in use for it.
    pub(super) fn close(&self) {
        self.platform.doorbells.remove(self.index);
        self.ready.store(false, Ordering::Release);
        let mut core = self.core.lock();
        core.mover = None;
        core.parts = None;
    }

    /// Returns whether it sends frames, and does not receive them.
    pub fn transmits(&self) -> bool {
        self.transmits
    }

    /// The driver rang its doorbell. Lost if it is not ready, as on hardware: the driver must ring
    /// again when it is. Never waits.
    pub(super) fn kick(self: &Arc<Self>) {
        self.traffic.kicks.add(1);
        if !self.ready.load(Ordering::Acquire) {
            self.traffic.lost_kicks.add(1);
        } else if self.transmits() {
            self.platform.workers.schedule(self);
        }
        // Receive buffers are looked for when frames arrive.
    }

    /// What it is like at this moment.
    pub(super) fn query(&self) -> VirtioNetQObject {
        let core = self.core.lock();
        let mut object = core.object.clone();
        if let Some(mover) = &core.mover {
            set_indices(&mut object, mover.ring().indices());
        }
        object
    }

    /// Changes it as `change` selects. A virtqueue that is suspended has moved all it took, told
    /// its driver of it, and stands still when this returns.
    ///
    /// # Errors
    ///
    /// The [`Refusal`] that the driver is told. Nothing has changed then.
    pub(super) fn modify(&self, change: &VirtioNetQObject) -> Result<(), Refusal> {
        let mut core = self.core.lock();
        let mut next = settings::modified(&core.object, change, &self.limits)?;
        match (core.mover.is_some(), next.state()) {
            (false, Ok(State::RDY)) => {
                core.mover = Some(self.start(&next)?);
                self.ready.store(true, Ordering::Release);
            }
            (true, Ok(State::SUSPEND)) => {
                self.ready.store(false, Ordering::Release);
                if let Some(mover) = core.mover.take() {
                    set_indices(&mut next, mover.into_ring().stop());
                }
            }
            _ => {}
        }
        core.object = next;
        Ok(())
    }

    fn start(&self, object: &VirtioNetQObject) -> Result<Mover, Refusal> {
        let queue = object.virtio_q_context();
        let buffers = queue.virtio_q_mkey();
        let rings = match queue.desc_group_mkey() {
            0 => buffers,
            key => key,
        };
        let open = |key| self.platform.mkeys.open(key, queue.pd());
        let (config, state, features) = settings::ring(object);
        let mut ring = Ring::new(config, state, features, open(rings), open(buffers))
            .map_err(|_| Refusal::RingSetup)?;
        ring.ask_for_kicks();
        Ok(if self.transmits() {
            Mover::Transmit(Transmitter::new(ring))
        } else {
            Mover::Receive(Receiver::new(ring))
        })
    }

    /// Puts the virtqueue into state ERR, from whatever other state, and tells the driver. Only
    /// destroying it helps then. Returns whether it was not there yet.
    pub fn fail(&self, failure: Failure) -> bool {
        self.fail_locked(&mut self.core.lock(), failure)
    }

    /// Puts a part of what it tells its driver by into error, and tells the driver of that. Returns
    /// whether there is such a part, which was not in error yet.
    pub fn fail_events(&self, part: EventPart) -> bool {
        match &self.core.lock().parts {
            Some(Parts {
                notifier: Notifier::Qp(pair),
                ..
            }) => pair.fail_peer(&self.platform, part),
            _ => false,
        }
    }

    fn fail_locked(&self, core: &mut Core, failure: Failure) -> bool {
        let Some(parts) = &core.parts else {
            return false;
        };
        if core.object.state() == Ok(State::ERR) {
            return false;
        }
        self.ready.store(false, Ordering::Release);
        if let Some(mover) = core.mover.take() {
            set_indices(&mut core.object, mover.into_ring().abandon());
            // It may not know yet of the last buffers that were used.
            self.notify(parts);
        }
        core.object.set_state(State::ERR);
        core.object
            .virtio_q_context_mut()
            .set_error_type(failure.error_type());
        if let Some(counters) = &parts.counters {
            counters.add_failure(failure);
        }
        self.platform.events.post(Event::ObjectChange {
            obj_type: ObjectType::VIRTIO_NET_Q,
            obj_id: self.id.get().copied().unwrap_or(0),
        });
        true
    }

    fn notify(&self, parts: &Parts) {
        self.traffic.notifications.add(1);
        parts.notify(&self.platform);
    }

    fn count(&self, parts: &Parts, tally: &Tally) {
        self.traffic.frames.add(tally.frames);
        self.traffic.bytes.add(tally.bytes);
        self.traffic.dropped.add(tally.dropped + tally.errors);
        if let Some(counters) = &parts.counters {
            counters.add(tally);
        }
    }
}

fn set_indices(object: &mut VirtioNetQObject, (available, used): (u16, u16)) {
    object
        .set_hw_available_index(available)
        .set_hw_used_index(used);
}

impl Task for Virtq {
    fn turn(&self) -> bool {
        for _ in 0..BATCHES {
            let mut core = self.core.lock();
            let Core {
                mover: Some(Mover::Transmit(transmitter)),
                parts: Some(parts),
                ..
            } = &mut *core
            else {
                return false;
            };
            let mut tally = Tally::default();
            let sent = transmitter.batch(&mut tally, |frames| self.platform.port.send(frames));
            self.count(parts, &tally);
            match sent {
                Ok(sent) => {
                    if sent.notify {
                        self.notify(parts);
                    }
                    if !sent.more {
                        return false;
                    }
                }
                Err(failure) => {
                    self.fail_locked(&mut core, failure);
                    return false;
                }
            }
            MutexGuard::unlock_fair(core);
        }
        true
    }

    fn place(&self) -> &Place {
        &self.place
    }
}

impl ReceiveQueue for Virtq {
    fn receive(&self, frames: &[&Frame]) {
        let mut core = self.core.lock();
        let Core {
            mover: Some(Mover::Receive(receiver)),
            parts: Some(parts),
            ..
        } = &mut *core
        else {
            self.traffic.dropped.add(frames.len() as u64);
            return;
        };
        let mut tally = Tally::default();
        let received = receiver.batch(frames, &mut tally);
        self.count(parts, &tally);
        match received {
            Ok(true) => self.notify(parts),
            Ok(false) => {}
            Err(failure) => {
                self.fail_locked(&mut core, failure);
            }
        }
        MutexGuard::unlock_fair(core);
    }
}
