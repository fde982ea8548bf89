// SPDX-License-Identifier: GPL-2.0

//! Executes what the lifecycle decides.
//!
//! The lifecycle decides when queues run; [`start`](super::start) and [`stop`](super::stop) say to
//! the firmware what that takes. Firmware commands are executed by whoever has a turn
//! ([`vdpa::executor`]), and by who adds the device: nobody waits for the firmware with a lock held
//! that a kick, an interrupt or a reading of the configuration takes.

use kernel::{
    new_spinlock,
    prelude::*,
    str::CString,
    sync::{
        Arc,
        SetOnce,
        SpinLock, //
    }, //
};
use prm::{
    flow::SetFlowTableEntry,
    virtq::VirtioQCounters, //
};
use vdpa::{
    device::User,
    executor::{
        Execute,
        Executor, //
    },
    memory::Spaces,
    worker::{
        Handle,
        Worker, //
    },
    Callbacks,
    NotificationArea,
    RateLimit, //
};
use virtio::{
    lifecycle::{
        Actions,
        Event,
        Kick,
        Lifecycle,
        QueueSet,
        Refusal, //
    },
    net::{
        config::{
            ConfigSpace,
            ANNOUNCE, //
        },
        control::queue_index,
        features,
        filter::Filter, //
    }, //
};

use super::{
    control::Ring,
    map::{
        Installed,
        Map, //
    },
    marks::Marks,
    objects::{
        Objects,
        SIZE, //
    },
    offer::Offer,
    relay::{
        Relays,
        Turns, //
    },
    steering::spread::Scaling,
    trouble::Trouble,
    watch::Alarm, //
};
use crate::{
    hca::{
        Era,
        Failure,
        Function,
        Taken, //
    },
    show::Show,
};

/// After how many milliseconds a worker looks again if there was no memory for a look at the
/// driver's.
pub(super) const RETRY_MS: u32 = 20;

/// The group of virtqueues that move frames.
pub(crate) const GROUP_DATA: u32 = 0;
/// The group of the control queue, which the driver serves itself.
pub(crate) const GROUP_CONTROL: u32 = 1;
/// How many groups of virtqueues there are.
pub(crate) const GROUPS: u32 = 2;
/// What would be the group of rings: they are where the buffers are, for hardware that can have them
/// apart is not at hand to be tried.
pub(crate) const GROUP_RINGS: u32 = 2;
/// How many address spaces there are: QEMU wants one of its own for the control queue.
pub(crate) const ADDRESS_SPACES: u32 = 2;

/// What the driver, or the VMM for it, said of a virtqueue.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    /// Number of entries.
    pub(crate) size: u16,
    /// Address of the descriptor area.
    pub(crate) desc: u64,
    /// Address of the driver area.
    pub(crate) driver: u64,
    /// Address of the device area.
    pub(crate) device: u64,
    /// Where the ring goes on. `None` of a queue that runs, or that was not heard of since it did.
    pub(crate) index: Option<u16>,
}

impl Setup {
    /// After a reset. The size is the device's own, as legacy drivers have it.
    const RESET: Self = Self {
        size: SIZE,
        desc: 0,
        driver: 0,
        device: 0,
        index: Some(0),
    };

    /// Whether the driver said where the ring is.
    pub(crate) fn has_addresses(&self) -> bool {
        self.desc | self.driver | self.device != 0
    }
}

/// What the driver and the administrator can set, and what nobody waits for.
pub(crate) struct Settings {
    /// The configuration space.
    pub(crate) config: ConfigSpace,
    /// What is received.
    pub(crate) filter: KBox<Filter>,
    /// Pairs of queues in use.
    pub(crate) pairs: u16,
    /// How the driver spreads what it receives, if it says so.
    pub(crate) scaling: Option<Arc<Scaling>>,
}

/// What is done by one at a time.
pub(crate) struct Inner {
    /// Of each virtqueue, that of control behind the others.
    pub(crate) setups: KVec<Setup>,
    /// The control queue's ring, while it runs.
    pub(crate) control: Option<Ring>,
    /// What there is in the firmware; `None` while that is dead.
    pub(crate) objects: Option<KBox<Objects>>,
    /// The memory of who drives the device.
    pub(crate) map: Map,
    /// What the firmware counted last, of each virtqueue.
    pub(crate) counters: KVec<Option<VirtioQCounters>>,
    /// Who drives it, as of the last status.
    pub(crate) user: User,
    /// What runs relays, of the pairs that ever had one.
    pub(crate) workers: KVec<Worker>,
}

/// A device's lifecycle, and what it takes to execute its decisions.
#[pin_data]
pub(crate) struct Machine {
    name: CString,
    relays: Arc<Relays>,
    offer: Offer,
    #[pin]
    executor: Executor<Inner>,
    #[pin]
    settings: SpinLock<Settings>,
    /// Queues that hear their doorbells, or their relay's worker.
    kicks: Marks,
    /// The vector of each queue that moves frames.
    vectors: KVec<Taken>,
    /// The MTU in bytes that the port had when the device was added.
    mtu: u16,
    control: SetOnce<Handle>,
    alarm: Arc<Alarm>,
    warnings: RateLimit,
    /// Of messages about each virtqueue.
    broken: KVec<RateLimit>,
    function: Arc<Function>,
}

/// What a machine is made of.
pub(crate) struct Parts {
    /// The name of the device.
    pub(crate) name: CString,
    /// Where the driver is told of used buffers, its memory, and its doorbells.
    pub(crate) relays: Arc<Relays>,
    /// The lifecycle.
    pub(crate) life: Lifecycle,
    /// What the device offers.
    pub(crate) offer: Offer,
    /// The configuration space at first.
    pub(crate) config: ConfigSpace,
    /// What was made in the firmware.
    pub(crate) objects: KBox<Objects>,
    /// The MTU in bytes that the port had before that.
    pub(crate) mtu: u16,
    /// The vector of each queue that moves frames.
    pub(crate) vectors: KVec<Taken>,
    /// Wakes the device's watch.
    pub(crate) alarm: Arc<Alarm>,
    /// The function.
    pub(crate) function: Arc<Function>,
}

impl Machine {
    /// Puts a machine together.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    #[inline(never)]
    pub(crate) fn new(parts: Parts) -> Result<Arc<Self>> {
        let Parts {
            name,
            relays,
            life,
            offer,
            config,
            objects,
            mtu,
            vectors,
            alarm,
            function,
        } = parts;
        let queues = usize::from(life.queues());
        let inner = Inner {
            setups: KVec::from_elem(Setup::RESET, queues, GFP_KERNEL)?,
            counters: KVec::from_elem(None, queues, GFP_KERNEL)?,
            control: None,
            objects: Some(objects),
            map: Map::new(),
            user: User::Nobody,
            workers: KVec::new(),
        };
        let mut broken = KVec::with_capacity(queues, GFP_KERNEL)?;
        for _ in 0..queues {
            broken.push(RateLimit::new(), GFP_KERNEL)?;
        }
        let filter = KBox::new(Filter::RESET, GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                name,
                relays,
                offer,
                executor <- Executor::new(life, inner),
                settings <- new_spinlock!(Settings {
                    config,
                    filter,
                    pairs: 1,
                    scaling: None,
                }),
                kicks: Marks::new(),
                vectors,
                mtu,
                control: SetOnce::new(),
                alarm,
                warnings: RateLimit::new(),
                broken,
                function,
            }),
            GFP_KERNEL,
        )
    }

    /// Names the control worker, once.
    pub(crate) fn set_control(&self, handle: Handle) {
        self.control.populate(handle);
    }

    /// The device's name.
    pub(crate) fn name(&self) -> &CStr {
        &self.name
    }

    /// Where the driver is told of used buffers.
    pub(crate) fn callbacks(&self) -> &Arc<Callbacks> {
        self.relays.callbacks()
    }

    /// The driver's memory, for what is done in software.
    pub(crate) fn spaces(&self) -> &Spaces {
        self.relays.spaces()
    }

    /// What serves drivers that the hardware cannot serve.
    pub(super) fn relays(&self) -> &Relays {
        &self.relays
    }

    /// The queues that move frames and are relayed when they run: those whose byte order the hardware
    /// does not know.
    pub(super) fn to_relay(&self) -> QueueSet {
        self.ask(|life| {
            let mut queues = QueueSet::EMPTY;
            for index in 0..2 * self.offer.pairs {
                queues.set(index, life.queue_byte_order(index).is_big());
            }
            queues
        })
    }

    /// Whether queue `index` is relayed when it runs.
    pub(crate) fn is_to_relay(&self, index: u16) -> bool {
        self.ask(|life| life.queue_byte_order(index).is_big())
    }

    /// Makes sure that there are workers for `queues`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and what C reports if no thread can be made.
    pub(super) fn have_workers(&self, inner: &mut Inner, queues: QueueSet) -> Result {
        for index in queues
            .iter()
            .filter(|index| self.relays.lacks_worker(*index))
        {
            let pair = index / 2;
            let turns = Turns {
                relays: self.relays.clone(),
                pair,
            };
            inner.workers.reserve(1, GFP_KERNEL)?;
            let thread = CString::try_from_fmt(fmt!("{}-relay{}", &*self.name, pair))?;
            let worker = Worker::new(&thread, Arc::new(turns, GFP_KERNEL)?)?;
            self.relays.set_worker(index, worker.handle());
            // There is room now.
            let _ = inner.workers.push_within_capacity(worker);
        }
        Ok(())
    }

    /// The function the device is made of.
    pub(crate) fn function(&self) -> &Function {
        &self.function
    }

    /// The vector of queue `index`, if it moves frames.
    pub(crate) fn vector(&self, index: u16) -> Option<&Taken> {
        self.vectors.get(usize::from(index))
    }

    /// Wakes the device's watch.
    pub(crate) fn alarm(&self) -> &Alarm {
        &self.alarm
    }

    /// Makes everything the device has in the firmware, as when it was added.
    ///
    /// # Errors
    ///
    /// That of a command, or the firmware is of another kind than before.
    pub(crate) fn make_objects(&self, era: &Arc<Era>) -> Result<KBox<Objects>, Trouble> {
        // What the vectors are for was told to who may have them delivered to a guest.
        if self.vectors.iter().any(Taken::is_serving) != era.capabilities().msix_mode() {
            return Err(Trouble::Mode);
        }
        let (objects, _, _) = Objects::new(
            era,
            &self.offer,
            &self.vectors,
            &self.relays,
            &self.alarm,
            Some(self.mtu),
        )?;
        Ok(objects)
    }

    /// What can be set, and what nobody waits for: no callback is fired with it.
    pub(crate) fn settings(&self) -> &SpinLock<Settings> {
        &self.settings
    }

    /// A copy of the filter, which is too large for the stack.
    ///
    /// # Errors
    ///
    /// A [`Failure`] without memory.
    #[inline(never)]
    pub(crate) fn filter(&self) -> Result<KBox<Filter>, Failure> {
        let filter = Filter::clone(&self.settings.lock().filter);
        KBox::new(filter, GFP_KERNEL)
            .map_err(|error| Failure::not_sent::<SetFlowTableEntry>(error.into()))
    }

    /// Asks the lifecycle something.
    pub(crate) fn ask<R>(&self, question: impl FnOnce(&Lifecycle) -> R) -> R {
        self.executor.ask(question)
    }

    /// Queues that move frames, whether or not they are in use.
    pub(crate) fn data_queues(&self) -> QueueSet {
        pairs(self.offer.pairs)
    }

    /// The index of the control queue, if there is one (virtio 1.3, 5.1.2).
    pub(crate) fn control_index(&self) -> Option<u16> {
        let features = self.ask(|life| match life.acknowledged() {
            // Who asks before the features are known sees the device whole.
            none if none.is_empty() => life.offered(),
            acknowledged => acknowledged,
        });
        queue_index(features, self.offer.pairs)
    }

    /// The queues that move frames and are in use: those of the pairs that the driver chose.
    pub(crate) fn active(&self) -> QueueSet {
        pairs(self.settings.lock().pairs.min(self.offer.pairs))
    }

    /// Changes the setup of queue `index`.
    ///
    /// # Errors
    ///
    /// The queue runs, or there is none.
    pub(crate) fn configure(&self, index: u16, change: impl FnOnce(&mut Setup)) -> Result {
        let mut turn = self.turn();
        turn.event(Event::Configure(index))?;
        if let Some(setup) = turn.setups.get_mut(usize::from(index)) {
            change(setup);
        }
        Ok(())
    }

    /// Where queue `index` is.
    ///
    /// # Errors
    ///
    /// It runs, and the firmware does not say.
    pub(crate) fn index(&self, index: u16) -> Result<u16> {
        let mut turn = self.turn();
        let inner = &mut *turn;
        if Some(index) == self.control_index() {
            if let Some(ring) = &inner.control {
                return Ok(ring.index());
            }
        } else if let Some(index) = self.relays.index(index) {
            return Ok(index);
        } else if self.kicks.contains(index) {
            return self.ask_index(inner, index).map_err(|trouble| {
                self.warn(&trouble);
                if let Trouble::Queue(..) = trouble {
                    // A fault is never refused.
                    let _ = turn.event(Event::Fault);
                }
                EIO
            });
        }
        let setup = inner.setups.get(usize::from(index)).ok_or(EINVAL)?;
        setup.index.ok_or(EIO)
    }

    /// Takes a kick of queue `index`, in any context.
    pub(crate) fn kick(&self, index: u16) {
        if self.kicks.contains(index) {
            self.relays.look_at(index);
        } else if self.executor.kick(index) == Kick::Deliver {
            self.look_at(index);
        }
    }

    /// Has somebody look at queue `index`: the hardware, or the control worker.
    pub(crate) fn look_at(&self, index: u16) {
        if self.is_control(index) {
            if let Some(handle) = self.control.as_ref() {
                handle.queue();
            }
        } else {
            self.relays.look_at(index);
        }
    }

    /// The page with the doorbell of queue `index`, if it may be somebody else's.
    pub(crate) fn doorbell_page(&self, index: u16) -> Option<NotificationArea<'_>> {
        let doorbell = self.relays.doorbell();
        doorbell.page(self.function.device(), index)
    }

    /// Whether `index` is the control queue.
    pub(crate) fn is_control(&self, index: u16) -> bool {
        self.control_index() == Some(index)
    }

    /// Has the control worker look at its queue in `ms` milliseconds.
    pub(crate) fn look_at_control_later(&self, ms: u32) {
        if let Some(handle) = self.control.as_ref() {
            handle.queue_after(ms);
        }
    }

    /// Has doorbells of `queues` rung without asking the lifecycle, or not any more.
    pub(super) fn set_running(&self, queues: QueueSet, running: bool) {
        self.kicks.change(queues, running);
    }

    /// Ends everything, when the device is no longer on the bus. May be called again.
    pub(crate) fn end(&self) {
        // A reset is never refused.
        let _ = self.event(Event::Reset);
        // They end without a turn held.
        let workers = core::mem::take(&mut self.turn().workers);
        drop(workers);
        let objects = self.turn().objects.take();
        if let Some(Err(failure)) = objects.map(Objects::end) {
            self.function.recover(&failure);
        }
        // What could not be ended while the device was there.
        self.function.tidy();
    }

    /// Says what went wrong.
    pub(crate) fn warn(&self, trouble: &Trouble) {
        // A virtqueue that breaks has its line, whatever broke just before.
        let queue = trouble.queue().and_then(|index| self.broken.get(index));
        if queue.unwrap_or(&self.warnings).allow() {
            pr_warn!("{}: {}\n", &*self.name, Show(trouble));
        }
    }

    /// Does what the lifecycle decided, in its order, up to where something went wrong.
    fn obey(&self, inner: &mut Inner, actions: &Actions) -> Result<(), Event> {
        // Where queues stood means nothing behind a reset.
        let stopped = self.stop(inner, actions.stop, !actions.reset);
        if let Err(unstopped) = &stopped {
            self.warn(&unstopped.trouble);
        }
        if let (true, Err(unstopped)) = (actions.halt, &stopped) {
            if unstopped.can_go_on {
                return Err(Event::StopFailed);
            }
            self.discard(inner, actions.stop);
            return Err(Event::Fault);
        }
        if actions.halt {
            return Err(Event::StopDone);
        }
        if actions.reset {
            // Whatever the driver had, and in whatever state: nothing uses its memory any more.
            self.discard(inner, self.data_queues());
            self.forget(inner);
        } else if stopped.is_err() {
            self.discard(inner, actions.stop);
        }
        let comes_from_elsewhere = self.comes_from_elsewhere(inner);
        let later = if actions.begin {
            self.active()
        } else {
            QueueSet::EMPTY
        };
        let started = self.start(inner, actions.start, later, actions.begin);
        started.map_err(|trouble| {
            self.warn(&trouble);
            // What is in the way may be what is left of another driver.
            self.alarm.ring();
            if actions.begin {
                Event::StartFailed
            } else {
                Event::Fault
            }
        })?;
        for index in actions.start.union(actions.kick).iter() {
            self.look_at(index);
        }
        if actions.begin && comes_from_elsewhere {
            self.announce();
        }
        if stopped.is_err() && !actions.reset {
            return Err(Event::Fault);
        }
        if actions.reset || !actions.start.is_empty() {
            self.alarm.ring_for_untold();
        }
        Ok(())
    }

    /// Whether a driver that begins goes on from somewhere: its rings are in use. That may be this
    /// device, before a reset; to announce itself once too often does a driver no harm.
    fn comes_from_elsewhere(&self, inner: &Inner) -> bool {
        self.data_queues().iter().any(|index| {
            let setup = inner.setups.get(usize::from(index));
            setup.and_then(|setup| setup.index).unwrap_or(0) != 0
        })
    }

    /// Asks a driver to tell its neighbours where it is now, if it can be asked.
    fn announce(&self) {
        let needed = features::GUEST_ANNOUNCE | features::CTRL_VQ | features::STATUS;
        if !self.ask(|life| life.features().contains(needed)) {
            return;
        }
        self.settings.lock().config.set_status(ANNOUNCE, 0);
        self.alarm.ring_to_announce();
    }

    /// Forgets everything the driver set. What of it is in the firmware is changed when the next
    /// driver begins.
    fn forget(&self, inner: &mut Inner) {
        // By which index it was known is forgotten already.
        inner.control = None;
        for setup in inner.setups.iter_mut() {
            *setup = Setup::RESET;
        }
        if let Some(objects) = &mut inner.objects {
            let mut has_failed = false;
            for queue in objects.queues.iter_mut() {
                has_failed |= queue.forget_driver();
            }
            if has_failed {
                // It may have been for its keys: none uses them now, and the next driver gets others.
                *objects.keys = Installed::none();
            }
        }
        for group in [GROUP_DATA, GROUP_CONTROL, GROUP_RINGS] {
            inner.map.set_group(group, 0);
        }
        let _scaling = {
            let mut settings = self.settings.lock();
            settings.filter.reset();
            settings.config.reset();
            settings.pairs = 1;
            settings.scaling.take()
        };
        self.alarm.forget_announcement();
        self.alarm.ring_later();
    }
}

/// The queues of the first `count` pairs.
fn pairs(count: u16) -> QueueSet {
    let mut queues = QueueSet::EMPTY;
    for index in 0..2 * count {
        queues.set(index, true);
    }
    queues
}

impl Execute for Machine {
    type State = Inner;

    fn executor(&self) -> &Executor<Inner> {
        &self.executor
    }

    fn perform(&self, inner: &mut Inner, actions: &Actions) -> Option<Event> {
        self.obey(inner, actions).err()
    }

    fn notify_config(&self) {
        self.callbacks().config();
    }

    fn refused(&self, refusal: Refusal, shown: bool) {
        let name = &*self.name;
        if !shown && !refusal.lasts() {
            pr_debug!("{}: {}\n", name, Show(refusal));
        } else if self.warnings.allow() {
            let whom = if shown { "driver " } else { "" };
            pr_warn!("{}: {}refused: {}\n", name, whom, Show(refusal));
        }
    }
}
