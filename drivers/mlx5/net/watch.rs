// SPDX-License-Identifier: GPL-2.0

//! What happens to a device by itself: a virtqueue fails, the link goes, the firmware dies and lives
//! again, and what a driver left behind is not fetched.
//!
//! Who learns of something, in whatever context, has the thread look; what happened the thread finds
//! out by itself. So nothing is lost if two things happen at once, and nothing happens twice.

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed,
            Release, //
        },
        Arc,
        SetOnce, //
    }, //
};
use vdpa::{
    executor::{
        Execute,
        Turn, //
    },
    worker::{
        Handle,
        Run, //
    }, //
};
use virtio::{
    lifecycle::{
        status,
        Event,
        Lifecycle,
        QueueSet, //
    },
    net::config::LINK_UP, //
};

use super::{
    machine::{
        Inner,
        Machine, //
    },
    objects::Objects,
    port,
    queue::Found,
    stop::ask,
    trouble::Trouble, //
};
use crate::hca::{
    Client,
    Defect,
    Era,
    Failure,
    Listener, //
};

/// How long keys are kept for memory that nobody has mapped any more, in milliseconds. A VMM that
/// resets a device unmaps everything, and maps the same again at once.
pub(crate) const KEEP_MS: u32 = 1000;

/// Wakes the watch of a device. Any context. As a listener, it is told of virtqueues.
pub(crate) struct Alarm {
    handle: SetOnce<Handle>,
    /// The link may have changed.
    port: Atomic<bool>,
    /// A virtqueue may have failed.
    queues: Atomic<bool>,
    /// The driver is asked to announce itself, and was not told of that.
    announce: Atomic<bool>,
}

impl Alarm {
    /// Nobody is woken yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let this = Self {
            handle: SetOnce::new(),
            port: Atomic::new(false),
            queues: Atomic::new(false),
            announce: Atomic::new(false),
        };
        Ok(Arc::new(this, GFP_KERNEL)?)
    }

    /// Names the thread, once.
    pub(crate) fn set_handle(&self, handle: Handle) {
        self.handle.populate(handle);
    }

    /// Has the thread look.
    pub(crate) fn ring(&self) {
        if let Some(handle) = self.handle.as_ref() {
            handle.queue();
        }
    }

    /// Has the thread look if something happened when it could not be told.
    pub(crate) fn ring_for_untold(&self) {
        if self.port.load(Relaxed) || self.announce.load(Relaxed) {
            self.ring();
        }
    }

    /// Has the thread tell nobody that he is asked to announce himself: he is gone.
    pub(crate) fn forget_announcement(&self) {
        self.announce.store(false, Release);
    }

    /// Has the thread tell the driver that it is asked to announce itself.
    pub(crate) fn ring_to_announce(&self) {
        self.announce.store(true, Release);
        self.ring();
    }

    /// Has the thread look in a second: when what is not mapped any more has been kept for long
    /// enough, or what failed is worth another try.
    pub(crate) fn ring_later(&self) {
        if let Some(handle) = self.handle.as_ref() {
            handle.queue_after(KEEP_MS);
        }
    }
}

impl Client for Alarm {
    fn died(&self) {
        self.ring();
    }

    fn lives(&self, _era: &Arc<Era>) {
        self.ring();
    }
}

impl Listener for Alarm {
    fn event(&self) {
        self.queues.store(true, Release);
        self.ring();
    }
}

/// Wakes the watch of a device when the link may have changed.
pub(crate) struct PortAlarm(pub(crate) Arc<Alarm>);

impl Listener for PortAlarm {
    fn event(&self) {
        self.0.port.store(true, Release);
        self.0.ring();
    }
}

impl Machine {
    /// Has what the firmware has of the device be that of its life of the moment.
    pub(crate) fn catch_up(&self, turn: &mut Turn<'_, Self>) {
        self.see_death(turn);
        self.see_life(turn);
    }

    /// Firmware that died takes everything with it.
    fn see_death(&self, turn: &mut Turn<'_, Self>) {
        let is_over = |objects: &mut KBox<Objects>| objects.era.is_over();
        let Some(objects) = turn.objects.take_if(is_over) else {
            return;
        };
        // This says nothing to the firmware any more.
        drop(objects);
        // Who has not begun loses nothing.
        if self.ask(|life| life.status() & status::DRIVER_OK != 0) {
            // A fault is never refused.
            let _ = turn.event(Event::Fault);
        }
    }

    /// Firmware that lives again has nothing of the device.
    fn see_life(&self, turn: &mut Turn<'_, Self>) {
        if turn.objects.is_some() {
            return;
        }
        let Some(era) = self.function().era() else {
            return;
        };
        match self.make_objects(&era) {
            Ok(objects) => {
                turn.objects = Some(objects);
                self.function().has_served();
                // What it was while nobody listened is not known.
                self.alarm().port.store(true, Release);
            }
            Err(trouble) => {
                self.warn(&trouble);
                self.alarm().ring_later();
            }
        }
    }
}

/// The work of a device's watch.
pub(crate) struct Watch(pub(crate) Arc<Machine>);

impl Watch {
    /// Queues that failed by themselves, whose driver broke its ring, or of which nobody knows whether
    /// they run.
    fn see_errors(&self, turn: &mut Turn<'_, Machine>) {
        let running = self.0.ask(|life| life.running());
        if let Some((index, defect)) = broken(turn, running) {
            self.0.warn(&Trouble::Channel(index, defect));
            // A fault is never refused.
            let _ = turn.event(Event::Fault);
            return;
        }
        if let Some((index, snag)) = self.0.relays().broken() {
            self.0.warn(&Trouble::Relay(index, snag));
            // A fault is never refused.
            let _ = turn.event(Event::Fault);
            return;
        }
        if let Some(index) = self.0.in_doubt(turn, running).iter().next() {
            self.0.warn(&Trouble::Doubt(index));
            // A fault is never refused.
            let _ = turn.event(Event::Fault);
            return;
        }
        let is_detached = |objects: &Objects| objects.steering.is_detached();
        if !running.is_empty() && turn.objects.as_deref().is_some_and(is_detached) {
            self.0.warn(&Trouble::Detached);
            // A fault is never refused.
            let _ = turn.event(Event::Fault);
            return;
        }
        if !self.0.alarm().queues.xchg(false, Full) {
            return;
        }
        let all = self.0.data_queues();
        let Some(objects) = turn.objects.as_deref_mut() else {
            return;
        };
        let mut has_failed = false;
        let asked = errors(objects, all, |index, error| {
            has_failed = true;
            // Each has its line.
            self.0.warn(&Trouble::Queue(index, error));
        });
        if let Err(failure) = asked {
            self.0.warn(&failure.into());
            // Some may have failed all the same.
            self.0.alarm().queues.store(true, Release);
            self.0.alarm().ring_later();
        }
        // One that no driver has begun with is made anew for the next.
        if has_failed && self.0.ask(|life| life.status() & status::DRIVER_OK != 0) {
            // A fault is never refused.
            let _ = turn.event(Event::Fault);
        }
    }

    /// The link went up or down. A device that is stopped tells when it goes on.
    fn see_port(&self, turn: &mut Turn<'_, Machine>) {
        let Some(objects) = &turn.objects else {
            return;
        };
        let port = &self.0.alarm().port;
        if !port.xchg(false, Full) {
            return;
        }
        let is_up = match link(&objects.era) {
            Ok(is_up) => is_up,
            Err(failure) => {
                port.store(true, Release);
                self.0.alarm().ring_later();
                return self.0.warn(&failure.into());
            }
        };
        if (self.0.settings().lock().config.status() & LINK_UP != 0) == is_up {
            return;
        }
        if turn.event(Event::ConfigChange).is_err() {
            port.store(true, Release);
            return;
        }
        let (set, clear) = if is_up { (LINK_UP, 0) } else { (0, LINK_UP) };
        let mut settings = self.0.settings().lock();
        settings.config.set_status(set, clear);
    }

    /// The driver is asked to announce itself: the status says so already. A device that is stopped
    /// tells when it goes on.
    fn see_announcement(&self, turn: &mut Turn<'_, Machine>) {
        let announce = &self.0.alarm().announce;
        if announce.xchg(false, Full) && turn.event(Event::ConfigChange).is_err() {
            announce.store(true, Release);
        }
    }

    /// What nobody has mapped any more is not kept for long, nor what could not be taken away.
    fn see_memory(&self, turn: &mut Turn<'_, Machine>) {
        let status = self.0.ask(|life| life.status());
        let inner = &mut **turn;
        if let (0, Some(objects)) = (status & status::DRIVER_OK, inner.objects.as_deref_mut()) {
            objects.keys.trim(&inner.map);
        }
        // Nobody drives it, or nobody can.
        if status == 0 || self.0.ask(Lifecycle::broken) {
            self.0.function().tidy();
        }
    }
}

/// The first queue of `queues` whose channel is broken, and how.
fn broken(inner: &Inner, queues: QueueSet) -> Option<(u16, Defect)> {
    let objects = inner.objects.as_deref()?;
    queues.iter().find_map(|index| {
        let queue = objects.queues.get(usize::from(index))?;
        Some((index, queue.broken()?))
    })
}

/// Calls `each` with those of `queues` that failed since they were asked last, and how.
///
/// # Errors
///
/// The first [`Failure`]: one of them does not say.
fn errors(
    objects: &mut Objects,
    queues: QueueSet,
    mut each: impl FnMut(u16, u8),
) -> Result<(), Failure> {
    let mut batch = objects.era.batch();
    let tickets = ask(objects, queues, &mut batch)?;
    let mut replies = batch.run()?;
    let mut result = Ok(());
    for (index, ticket) in tickets {
        let Some(queue) = objects.queues.get_mut(usize::from(index)) else {
            continue;
        };
        let before = queue.errors();
        match queue.answer(ticket, &mut replies) {
            Ok(Found::Error(error)) if queue.errors() != before => each(index, error),
            Ok(_) => {}
            Err(failure) => result = result.and(Err(failure)),
        }
    }
    result
}

/// Whether the link is up.
fn link(era: &Era) -> Result<bool, Failure> {
    let mut batch = era.batch();
    let ticket = port::ask_link(&mut batch)?;
    port::is_up(ticket, &mut batch.run()?)
}

impl Run for Watch {
    fn run(&self) {
        let mut turn = self.0.turn();
        self.0.catch_up(&mut turn);
        self.see_errors(&mut turn);
        self.see_port(&mut turn);
        self.see_announcement(&mut turn);
        self.see_memory(&mut turn);
    }
}
