// SPDX-License-Identifier: GPL-2.0
//! Executes what the lifecycle decides: starts and stops virtqueues, routes kicks.

use kernel::{
    cpumask::{
        Cpumask,
        CpumaskVar, //
    },
    prelude::*,
    str::CString,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        SetOnce, //
    }, //
};
use vdpa::{
    executor::{
        Execute,
        Executor, //
    },
    worker::Handle,
    RateLimit,
    Worker, //
};
use virtio::{
    features::Features,
    lifecycle::{
        Actions,
        Event,
        Kick,
        Lifecycle,
        QueueSet,
        Refusal, //
    },
    net::{
        config,
        control,
        features, //
    },
    ring::{
        self,
        Options,
        State, //
    }, //
};

use crate::{
    peer::Peer,
    port::{
        Port,
        Reason, //
    },
    queue::{
        Deadline,
        MAX_SIZE, //
    },
    show::Show,
    switch::Switch,
    transmit::Transmitter, //
};

/// No virtqueue has this index.
const NONE: u32 = u32::MAX;

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
    /// Where to go on; `None` at the beginning.
    state: Option<State>,
    /// Whether the VMM set the state: the driver was served elsewhere before.
    moved: bool,
}

impl Setup {
    /// After a reset. The size is the device's own, as legacy drivers have it.
    const RESET: Self = Self {
        size: MAX_SIZE,
        desc: 0,
        driver: 0,
        device: 0,
        state: None,
        moved: false,
    };

    /// Has the queue go on where another device, or this one before a reset, left it.
    pub(crate) fn restore(&mut self, state: State) {
        self.state = Some(state);
        self.moved = true;
    }
}

/// What is done by one operation at a time.
pub(crate) struct Inner {
    setups: KVec<Setup>,
    /// The transmit workers, made when their queue first starts.
    workers: KVec<Option<Worker>>,
}

/// A device's lifecycle, and what it takes to execute its decisions.
#[pin_data]
pub(crate) struct Machine {
    port: Arc<Port>,
    switch: Arc<Switch>,
    /// Its turns are never taken by a transmit worker, so that workers can be waited for.
    #[pin]
    executor: Executor<Inner>,
    /// The handles of the transmit workers, for kicks.
    transmit: KVec<SetOnce<Handle>>,
    control: SetOnce<Handle>,
    /// Index of the control queue, or [`NONE`].
    control_index: Atomic<u32>,
    warnings: RateLimit,
}

impl Machine {
    /// Creates the machine of a device with `pairs` queue pairs.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(
        port: Arc<Port>,
        switch: Arc<Switch>,
        life: Lifecycle,
        pairs: u16,
    ) -> Result<Arc<Self>> {
        let pairs = usize::from(pairs);
        let setups = KVec::from_elem(Setup::RESET, usize::from(life.queues()), GFP_KERNEL)?;
        let mut workers = KVec::with_capacity(pairs, GFP_KERNEL)?;
        let mut transmit = KVec::with_capacity(pairs, GFP_KERNEL)?;
        for _ in 0..pairs {
            workers.push(None, GFP_KERNEL)?;
            transmit.push(SetOnce::new(), GFP_KERNEL)?;
        }
        let machine = Arc::pin_init(
            pin_init!(Self {
                port,
                switch,
                executor <- Executor::new(life, Inner { setups, workers }),
                transmit,
                control: SetOnce::new(),
                control_index: Atomic::new(NONE),
                warnings: RateLimit::new(),
            }),
            GFP_KERNEL,
        )?;
        machine.find_control();
        Ok(machine)
    }

    /// Names the control worker, once.
    pub(crate) fn set_control(&self, handle: Handle) {
        self.control.populate(handle);
    }

    /// The port of the device.
    pub(crate) fn port(&self) -> &Port {
        &self.port
    }

    /// Asks the lifecycle something.
    pub(crate) fn ask<R>(&self, question: impl FnOnce(&Lifecycle) -> R) -> R {
        self.executor.ask(question)
    }

    /// Index of the control queue; no queue has it if there is no control queue.
    pub(crate) fn control_index(&self) -> u16 {
        u16::try_from(self.control_index.load(Relaxed)).unwrap_or(u16::MAX)
    }

    /// Whether `index` is the control queue.
    pub(crate) fn is_control(&self, index: u16) -> bool {
        u32::from(index) == self.control_index.load(Relaxed)
    }

    /// Finds out which queue is the control queue (virtio 1.3, 5.1.2): that after the most queue
    /// pairs if the driver knows of several, the third one otherwise.
    fn find_control(&self) {
        let features = self.ask(|life| {
            let acknowledged = life.acknowledged();
            // Who asks before the features are known sees the device whole.
            if acknowledged.is_empty() {
                life.offered()
            } else {
                acknowledged
            }
        });
        // As many as were provisioned, which fits.
        let pairs = self.transmit.len() as u16;
        let index = control::queue_index(features, pairs);
        self.control_index
            .store(index.map_or(NONE, u32::from), Relaxed);
    }

    /// Acknowledges features for the driver.
    ///
    /// # Errors
    ///
    /// The lifecycle's refusal.
    pub(crate) fn set_features(&self, features: Features) -> Result {
        let mut turn = self.turn();
        turn.event(Event::SetFeatures(features))?;
        self.find_control();
        Ok(())
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

    /// Changes the configuration by the administrator's hand.
    ///
    /// # Errors
    ///
    /// `EBUSY` while the device is stopped.
    pub(crate) fn change_config(&self, change: impl FnOnce(&mut config::ConfigSpace)) -> Result {
        let mut turn = self.turn();
        turn.event(Event::ConfigChange)?;
        change(&mut self.port.settings.lock().config);
        self.note_address();
        Ok(())
    }

    /// Where queue `index` is.
    pub(crate) fn state(&self, index: u16) -> State {
        let inner = self.turn();
        let running = self.port.queue(index).and_then(|queue| queue.state());
        let setup = inner.setups.get(usize::from(index));
        running
            .or_else(|| setup?.state)
            .unwrap_or_else(|| State::initial(self.is_packed()))
    }

    /// Whether the driver uses packed rings.
    pub(crate) fn is_packed(&self) -> bool {
        self.ask(|life| life.features().contains(Features::RING_PACKED))
    }

    /// Takes a kick of queue `index`, in any context.
    pub(crate) fn kick(&self, index: u16) {
        let Some(queue) = self.port.queue(index) else {
            return;
        };
        if queue.is_running() || self.executor.kick(index) == Kick::Deliver {
            self.look_at(index);
        }
    }

    /// Has somebody look at queue `index`.
    pub(crate) fn look_at(&self, index: u16) {
        if self.is_control(index) {
            if let Some(handle) = self.control.as_ref() {
                handle.queue();
            }
        } else if index % 2 == 0 {
            if let Some(queue) = self.port.queue(index) {
                queue.wake();
            }
        } else if let Some(handle) = self.transmit_handle(index / 2) {
            handle.queue();
        }
    }

    /// Has the control worker look at its queue in `ms` milliseconds.
    pub(crate) fn look_at_control_later(&self, ms: u32) {
        if let Some(handle) = self.control.as_ref() {
            handle.queue_after(ms);
        }
    }

    fn transmit_handle(&self, pair: u16) -> Option<&Handle> {
        self.transmit.get(usize::from(pair))?.as_ref()
    }

    /// Binds the worker that serves queue `index` to processors, or to none in particular.
    ///
    /// # Errors
    ///
    /// The worker cannot be made, or not be bound.
    pub(crate) fn set_affinity(&self, index: u16, mask: Option<&Cpumask>) -> Result {
        // Receive queues are filled by the senders' workers, wherever they are.
        if index % 2 == 0 {
            return Ok(());
        }
        let mut inner = self.turn();
        self.make_worker(&mut inner, index / 2)?;
        let Some(Some(worker)) = inner.workers.get(usize::from(index / 2)) else {
            return Ok(());
        };
        match mask {
            Some(mask) => worker.set_affinity(mask),
            None => {
                let mut all = CpumaskVar::new_zero(GFP_KERNEL)?;
                all.setall();
                worker.set_affinity(&all)
            }
        }
    }

    /// Stops the device if one of its queues was found broken.
    pub(crate) fn look_for_fault(&self) {
        // A reset forgets faults under the same lock, so that none reaches the next driver.
        let mut turn = self.turn();
        let Some((index, reason)) = self.port.take_fault() else {
            return;
        };
        if !self.ask(Lifecycle::broken) && self.warnings.allow() {
            let name = self.port.name();
            pr_warn!(
                "{}: virtqueue {} is broken: {}\n",
                name,
                index,
                Show(reason)
            );
        }
        // A fault is never refused.
        let _ = turn.event(Event::Fault);
    }

    /// Ends everything, when the device is no longer on the bus.
    pub(crate) fn end(&self) {
        // A reset is never refused.
        let _ = self.event(Event::Reset);
        let workers = core::mem::replace(&mut self.turn().workers, KVec::new());
        // Waits for their turns.
        drop(workers);
    }

    /// Tells the switch of the port's address, after it may have changed, and of the start and the
    /// stop of its driver.
    pub(crate) fn note_address(&self) {
        self.switch.note(&self.port);
    }

    /// Does what the lifecycle decided, in its order. Returns what came of it, if that is for the
    /// lifecycle to know.
    fn obey(&self, inner: &mut Inner, actions: &Actions) -> Option<Event> {
        let stopped = self.stop(inner, actions.stop, actions.halt);
        if actions.reset {
            for setup in inner.setups.iter_mut() {
                *setup = Setup::RESET;
            }
            self.port.reset();
            self.switch.forget(self.port.number());
            self.find_control();
            // What was wrong is in the past.
            let _ = self.port.take_fault();
        }
        if actions.halt {
            return Some(if stopped {
                Event::StopDone
            } else {
                Event::StopFailed
            });
        }
        let mut outcome = None;
        let mut moved = false;
        for index in actions.start.iter() {
            match self.start(inner, index) {
                Ok(goes_on) => moved |= goes_on,
                Err(error) => {
                    self.warn(index, Reason::Start(error));
                    outcome = Some(if actions.begin {
                        Event::StartFailed
                    } else {
                        Event::Fault
                    });
                }
            }
        }
        if outcome.is_none() {
            // Among those started may be rings that something was announced for long ago.
            for index in actions.start.union(actions.kick).iter() {
                self.look_at(index);
            }
        }
        if moved {
            self.announce();
        }
        outcome
    }

    fn warn(&self, index: u16, reason: Reason) {
        if self.warnings.allow() {
            let name = self.port.name();
            pr_warn!("{}: virtqueue {}: {}\n", name, index, Show(reason));
        }
    }

    /// Stops `queues` and notes where they were. Returns whether all of them stopped in time; if
    /// not, and unless they may run on (`keep`), what is in flight in them is given up.
    fn stop(&self, inner: &mut Inner, queues: QueueSet, keep: bool) -> bool {
        for index in queues.iter() {
            if let Some(queue) = self.port.queue(index) {
                queue.close();
            }
        }
        let deadline = Deadline::new();
        let mut all = true;
        for index in queues.iter() {
            let Some(queue) = self.port.queue(index) else {
                continue;
            };
            let state = match queue.stop(&deadline) {
                Ok(state) => state,
                Err(_) => {
                    all = false;
                    if keep {
                        continue;
                    }
                    queue.abandon()
                }
            };
            if let (Some(state), Some(setup)) = (state, inner.setups.get_mut(usize::from(index))) {
                setup.state = Some(state);
                setup.moved = false;
            }
        }
        all
    }

    /// Starts queue `index` as it was set up. Returns whether its driver was served elsewhere
    /// before.
    fn start(&self, inner: &mut Inner, index: u16) -> Result<bool> {
        let queue = self.port.queue(index).ok_or(EINVAL)?;
        if queue.reopen() {
            return Ok(false);
        }
        let setup = *inner.setups.get(usize::from(index)).ok_or(EINVAL)?;
        let (features, byte_order) =
            self.ask(|life| (life.features(), life.queue_byte_order(index)));
        let options = Options::from(features);
        let initial = State::initial(options.packed);
        let state = setup.state.unwrap_or(initial);
        if index % 2 == 1 && !self.is_control(index) {
            self.make_worker(inner, index / 2)?;
        }
        let config = ring::Config {
            size: setup.size,
            desc: setup.desc,
            driver: setup.driver,
            device: setup.device,
            byte_order,
            options,
        };
        let mtu = self.port.settings.lock().config.mtu();
        queue.start(config, state, Peer::new(features, byte_order, mtu))?;
        if features.contains(features::CTRL_VLAN) {
            self.port.settings.lock().filter.set_vlan_filter(true);
        }
        Ok(setup.moved && state != initial)
    }

    fn make_worker(&self, inner: &mut Inner, pair: u16) -> Result {
        let at = usize::from(pair);
        let slot = inner.workers.get_mut(at).ok_or(EINVAL)?;
        if slot.is_some() {
            return Ok(());
        }
        let work = Transmitter::new(self.shared_port(), self.switch.clone(), pair)?;
        let name = CString::try_from_fmt(fmt!("{}-tx{}", self.port.name(), pair))?;
        let worker = Worker::new(&name, work.clone())?;
        work.set_handle(worker.handle());
        if let Some(handle) = self.transmit.get(at) {
            handle.populate(worker.handle());
        }
        *slot = Some(worker);
        Ok(())
    }

    fn shared_port(&self) -> Arc<Port> {
        self.port.clone()
    }

    /// Asks a driver that goes on from elsewhere to tell its neighbours where it is now.
    fn announce(&self) {
        let asks = self.ask(|life| {
            life.features()
                .contains(features::GUEST_ANNOUNCE | features::CTRL_VQ | features::STATUS)
        });
        if asks {
            let mut settings = self.port.settings.lock();
            settings.config.set_status(config::ANNOUNCE, 0);
            drop(settings);
            self.port.interrupt_config();
        }
    }
}

impl Execute for Machine {
    type State = Inner;

    fn executor(&self) -> &Executor<Inner> {
        &self.executor
    }

    fn perform(&self, inner: &mut Inner, actions: &Actions) -> Option<Event> {
        let outcome = self.obey(inner, actions);
        self.note_address();
        outcome
    }

    fn notify_config(&self) {
        self.port.interrupt_config();
    }

    fn refused(&self, refusal: Refusal, shown: bool) {
        let name = self.port.name();
        if !shown && !refusal.lasts() {
            pr_debug!("{}: {}\n", name, Show(refusal));
        } else if self.warnings.allow() {
            let whom = if shown { "driver " } else { "" };
            pr_warn!("{}: {}refused: {}\n", name, whom, Show(refusal));
        }
    }
}
