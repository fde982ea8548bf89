// SPDX-License-Identifier: GPL-2.0

//! Virtqueues of legacy drivers of big-endian guests, which the hardware does not know.
//!
//! The hardware is given a shadow ring in the place of such a driver's ring, and a [`Relay`] stands
//! between the two: it moves descriptors and indices, and swaps them and packet headers. What is in
//! the packets the hardware reads and writes where the driver has it.
//!
//! ```text
//!   kick ──> worker of the pair ──> doorbell ──> hardware
//!   callback <── worker of the pair <── vector, or channel <── hardware
//! ```
//!
//! Relays are made when their virtqueue starts and taken away when it has stopped, by who has a turn
//! ([`vdpa::executor`]). What runs them is a thread for each pair of queues, made when it is needed
//! first. A device without relays has none of this but the question whether a queue has one.

use core::fmt;

use hardware::Memory;
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex,
        SetOnce, //
    }, //
};
use vdpa::{
    memory::Spaces,
    worker::{
        Handle,
        Run, //
    },
    Callbacks, //
};
use virtio::{
    byte_order::ByteOrder,
    features::Features,
    lifecycle::QueueSet,
    memory::Fault,
    net::{
        header,
        relay::{
            Config,
            Direction,
            Entry,
            Relay,
            RelayError,
            Storage, //
        }, //
    },
    ring::{
        self,
        ConfigError,
        Options,
        Segment,
        Slot, //
    }, //
};

use super::{
    machine::{
        Setup,
        GROUP_DATA,
        RETRY_MS, //
    },
    map::Shadow,
    marks::Marks,
    watch::Alarm, //
};
use crate::hca::{
    Doorbell,
    Used, //
};

/// Chains that are moved each way before somebody else has a turn.
const BUDGET: u16 = 64;

/// Why a virtqueue cannot be relayed, or not any more.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Snag {
    /// One of the rings is broken.
    Relay(RelayError),
    /// The driver's ring cannot be like that.
    Config(ConfigError),
    /// There is no shadow ring.
    NoShadow,
    /// The kernel's own driver, which is no legacy driver of a big-endian guest.
    Kernel,
    /// There is no memory.
    NoMemory,
}

impl From<kernel::alloc::AllocError> for Snag {
    fn from(_error: kernel::alloc::AllocError) -> Self {
        Self::NoMemory
    }
}

impl fmt::Display for Snag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relay(error) => error.fmt(f),
            Self::Config(error) => error.fmt(f),
            Self::NoShadow => f.write_str("no memory is mapped"),
            Self::Kernel => f.write_str(
                "the host's own driver is not big-endian: set legacy_byte_order to little",
            ),
            Self::NoMemory => f.write_str("out of memory"),
        }
    }
}

/// The shadow ring of a relay, as it sees it: memory of our own, at the hardware's addresses.
struct Own<'a> {
    memory: &'a Memory,
    base: u64,
}

impl Own<'_> {
    /// Where `addr` is in the memory.
    fn at(&self, addr: u64) -> Option<usize> {
        addr.checked_sub(self.base)?.try_into().ok()
    }
}

impl virtio::memory::Memory for Own<'_> {
    fn read(&self, addr: u64, to: &mut [u8]) -> Result<(), Fault> {
        let at = self.at(addr).ok_or(Fault::read(addr))?;
        let read = self.memory.read(at, to);
        read.map_err(|_| Fault::read(addr))
    }

    fn write(&self, addr: u64, from: &[u8]) -> Result<(), Fault> {
        let at = self.at(addr).ok_or(Fault::write(addr))?;
        let written = self.memory.write(at, from);
        written.map_err(|_| Fault::write(addr))
    }

    fn load_u16(&self, addr: u64) -> Result<u16, Fault> {
        let at = self.at(addr).ok_or(Fault::read(addr))?;
        let loaded = self.memory.load_u16(at);
        loaded.map_err(|_| Fault::read(addr))
    }

    fn store_u16(&self, addr: u64, value: u16) -> Result<(), Fault> {
        let at = self.at(addr).ok_or(Fault::write(addr))?;
        let stored = self.memory.store_u16(at, value);
        stored.map_err(|_| Fault::write(addr))
    }

    fn fence(&self) {
        self.memory.fence();
    }
}

/// A relay with its storage.
type Between = Relay<KVec<Slot>, KVec<Entry>, KVec<Segment>>;

/// A relay, and what its shadow ring is in.
pub(super) struct Active {
    relay: Between,
    memory: Arc<Memory>,
}

impl Active {
    /// A relay for virtqueue `index` as it was set up by a legacy driver that acknowledged `features`
    /// and has a byte order of `order`, and an empty shadow ring, which the hardware does not have
    /// yet.
    ///
    /// # Errors
    ///
    /// Why it cannot be.
    pub(super) fn new(
        index: u16,
        setup: &Setup,
        features: Features,
        order: ByteOrder,
        shadow: Shadow,
    ) -> Result<Self, Snag> {
        let config = Config {
            guest: ring::Config {
                size: setup.size,
                desc: setup.desc,
                driver: setup.driver,
                device: setup.device,
                byte_order: order,
                options: Options::from(features),
            },
            direction: match index % 2 {
                0 => Direction::Receive,
                _ => Direction::Transmit,
            },
            header: header::length(features),
            shadow: shadow.layout,
            order: ByteOrder::Little,
            // Not a feature of the hardware's.
            event_index: false,
            window: shadow.window,
        };
        let entries = usize::from(shadow.layout.size());
        let storage = Storage {
            slots: KVec::from_elem(Slot::default(), setup.size.into(), GFP_KERNEL)?,
            entries: KVec::from_elem(Entry::default(), entries, GFP_KERNEL)?,
            pieces: KVec::from_elem(Segment::default(), entries, GFP_KERNEL)?,
        };
        let at = setup.index.ok_or(Snag::Config(ConfigError::State))?;
        let mut this = Self {
            relay: Relay::new(config, at, storage).map_err(Snag::Config)?,
            memory: shadow.memory,
        };
        let (relay, own) = this.parts();
        relay.start(&own).map_err(Snag::Relay)?;
        Ok(this)
    }

    fn parts(&mut self) -> (&mut Between, Own<'_>) {
        let own = Own {
            memory: &self.memory,
            base: self.relay.config().shadow.desc(),
        };
        (&mut self.relay, own)
    }
}

/// What there is of the relay of a virtqueue.
enum State {
    /// Nothing.
    Empty,
    /// A relay that works.
    Active(Active),
    /// One that went wrong, and was not taken away yet.
    Broken(Snag),
}

/// Where the relay of a virtqueue is kept. Locked by who has a turn, and by who moves chains, who takes
/// no lock that a turn is waited for with.
#[pin_data]
struct Place {
    #[pin]
    state: Mutex<State>,
}

/// What a turn of a relay came to.
enum Next {
    /// Somebody will call.
    Nothing,
    /// There may be more.
    Again,
    /// There was no memory; time may mend that.
    Later,
}

/// The relays of a device, and who is told of used buffers otherwise.
pub(crate) struct Relays {
    callbacks: Arc<Callbacks>,
    spaces: Arc<Spaces>,
    doorbell: Doorbell,
    alarm: Arc<Alarm>,
    /// Queues that have a relay.
    marks: Marks,
    /// Of each queue that moves frames.
    places: KVec<Pin<KBox<Place>>>,
    /// The worker of each pair, when there is one.
    handles: KVec<SetOnce<Handle>>,
}

impl Relays {
    /// None yet, for a device with so many pairs of queues.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(
        pairs: u16,
        callbacks: Arc<Callbacks>,
        spaces: Arc<Spaces>,
        doorbell: Doorbell,
        alarm: Arc<Alarm>,
    ) -> Result<Arc<Self>> {
        let mut places = KVec::with_capacity((2 * pairs).into(), GFP_KERNEL)?;
        let mut handles = KVec::with_capacity(pairs.into(), GFP_KERNEL)?;
        for _ in 0..pairs {
            for _ in 0..2 {
                let place = pin_init!(Place {
                    state <- new_mutex!(State::Empty),
                });
                places.push(KBox::pin_init(place, GFP_KERNEL)?, GFP_KERNEL)?;
            }
            handles.push(SetOnce::new(), GFP_KERNEL)?;
        }
        let this = Self {
            callbacks,
            spaces,
            doorbell,
            alarm,
            marks: Marks::new(),
            places,
            handles,
        };
        Ok(Arc::new(this, GFP_KERNEL)?)
    }

    /// Where the driver is told of used buffers.
    pub(super) fn callbacks(&self) -> &Arc<Callbacks> {
        &self.callbacks
    }

    /// The driver's memory, for what is done in software.
    pub(super) fn spaces(&self) -> &Spaces {
        &self.spaces
    }

    /// Whether the pair of queue `index` has no worker yet.
    pub(super) fn lacks_worker(&self, index: u16) -> bool {
        let handle = self.handles.get(usize::from(index / 2));
        handle.is_some_and(|handle| handle.as_ref().is_none())
    }

    /// Names the worker of the pair of queue `index`, once.
    pub(super) fn set_worker(&self, index: u16, handle: Handle) {
        if let Some(place) = self.handles.get(usize::from(index / 2)) {
            place.populate(handle);
        }
    }

    /// Who moves the chains of queue `index`, if it has a relay. Any context.
    fn handle(&self, index: u16) -> Option<&Handle> {
        if !self.marks.contains(index) {
            return None;
        }
        self.handles.get(usize::from(index / 2))?.as_ref()
    }

    /// Has a queue looked at: by the worker if it has a relay, and by the hardware otherwise. Any
    /// context.
    pub(super) fn look_at(&self, index: u16) {
        match self.handle(index) {
            Some(handle) => handle.queue(),
            None => self.doorbell.ring(index),
        }
    }

    /// The doorbells of the queues.
    pub(super) fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }

    fn place(&self, index: u16) -> Option<&Mutex<State>> {
        let place = self.places.get(usize::from(index))?;
        Some(&place.state)
    }

    /// Has queue `index` relayed from now on: the hardware runs it. It has what is available at once,
    /// as far as there is room: what is received before there are buffers for it is lost.
    pub(super) fn begin(&self, index: u16, active: Active) {
        let Some(place) = self.place(index) else {
            return;
        };
        let turns = active.relay.config().guest.size.div_ceil(BUDGET);
        *place.lock() = State::Active(active);
        self.marks.change(QueueSet::one(index), true);
        for _ in 0..turns {
            if !matches!(self.turn(index), Next::Again) {
                break;
            }
        }
    }

    /// Takes the relay of queue `index` away, if there is one: what is in flight is forgotten.
    pub(super) fn forget(&self, index: u16) {
        let _ = self.take(index);
    }

    fn take(&self, index: u16) -> State {
        // Who has none is not waited for.
        let Some(place) = self.place(index).filter(|_| self.marks.contains(index)) else {
            return State::Empty;
        };
        self.marks.change(QueueSet::one(index), false);
        core::mem::replace(&mut *place.lock(), State::Empty)
    }

    /// Takes the relay of queue `index` away, if there is one: the hardware has stopped, and what it
    /// did is shown to the driver. Returns where the driver's ring stands.
    ///
    /// # Errors
    ///
    /// Why nobody knows.
    pub(super) fn stop(&self, index: u16) -> Result<Option<u16>, Snag> {
        let mut active = match self.take(index) {
            State::Empty => return Ok(None),
            State::Broken(snag) => return Err(snag),
            State::Active(active) => active,
        };
        let view = self.spaces.view_of_group(GROUP_DATA);
        let view = view.map_err(|_| Snag::NoMemory)?;
        let (relay, own) = active.parts();
        let stopped = relay.stop(&view, &own).map_err(Snag::Relay)?;
        if stopped.notify {
            self.callbacks.queue(index);
        }
        Ok(Some(stopped.index))
    }

    /// Where the driver's ring of queue `index` stands, if that has a relay that works.
    pub(super) fn index(&self, index: u16) -> Option<u16> {
        match &*self.place(index)?.lock() {
            State::Active(active) => Some(active.relay.index()),
            State::Empty | State::Broken(_) => None,
        }
    }

    /// The first queue whose relay went wrong, and why.
    pub(super) fn broken(&self) -> Option<(u16, Snag)> {
        (0..).zip(self.places.iter()).find_map(|(index, place)| {
            // Who has none is not waited for.
            if !self.marks.contains(index) {
                return None;
            }
            match *place.state.lock() {
                State::Broken(snag) => Some((index, snag)),
                State::Empty | State::Active(_) => None,
            }
        })
    }

    /// Moves chains of queue `index`, if it has a relay.
    fn turn(&self, index: u16) -> Next {
        let Some(place) = self.place(index) else {
            return Next::Nothing;
        };
        let mut state = place.lock();
        let State::Active(active) = &mut *state else {
            return Next::Nothing;
        };
        // With the lock held: who changes the driver's memory under a queue that runs has its relay
        // taken away, so that this is never older than what the ring speaks of.
        let Ok(view) = self.spaces.view_of_group(GROUP_DATA) else {
            return Next::Later;
        };
        let (relay, own) = active.parts();
        match relay.turn(&view, &own, BUDGET) {
            Ok(turn) => {
                if turn.kick {
                    self.doorbell.ring(index);
                }
                drop(state);
                if turn.notify {
                    self.callbacks.queue(index);
                }
                match turn.again {
                    true => Next::Again,
                    false => Next::Nothing,
                }
            }
            Err(error) => {
                *state = State::Broken(Snag::Relay(error));
                drop(state);
                self.alarm.ring();
                Next::Nothing
            }
        }
    }
}

impl Used for Relays {
    fn used(&self, queue: u16) {
        match self.handle(queue) {
            Some(handle) => handle.queue(),
            None => self.callbacks.queue(queue),
        }
    }
}

/// The work of the worker of a pair.
pub(super) struct Turns {
    /// The relays of the device.
    pub(super) relays: Arc<Relays>,
    /// Which pair it is.
    pub(super) pair: u16,
}

impl Run for Turns {
    fn run(&self) {
        for index in [2 * self.pair, 2 * self.pair + 1] {
            let next = self.relays.turn(index);
            let Some(handle) = self.relays.handle(index) else {
                continue;
            };
            match next {
                Next::Nothing => {}
                Next::Again => handle.queue(),
                Next::Later => handle.queue_after(RETRY_MS),
            }
        }
    }
}
