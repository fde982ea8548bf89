// SPDX-License-Identifier: GPL-2.0

//! The control queue, which the driver serves in software: nothing of it is in the hardware.
//!
//! A worker looks at the ring in the device's turn ([`vdpa::executor`]): a command is carried out and
//! answered before anything else happens to the device, and the queue has stopped as soon as its
//! [`Ring`] is taken away.

use core::fmt;

use kernel::{
    prelude::*,
    sync::Arc, //
};
use vdpa::{
    executor::{
        Execute,
        Turn, //
    },
    memory::View,
    worker, //
};
use virtio::{
    byte_order::ByteOrder,
    features::Features,
    lifecycle::Event,
    memory::Fault,
    net::{
        config::ANNOUNCE,
        control::{
            self,
            Command,
            Context, //
        },
        filter::{
            Filter,
            MAC_TABLE_LEN, //
        },
        rss::Limits, //
    },
    ring::{
        self,
        Chain,
        Options,
        Queue,
        RingError,
        Segment,
        Slot,
        State, //
    }, //
};

use super::{
    machine::{
        Inner,
        Machine,
        Setup,
        GROUP_CONTROL,
        RETRY_MS, //
    },
    trouble::Trouble, //
};
use crate::show::Show;

/// Bytes of a command that are read. Longer ones are address tables, of which it is enough to know
/// that they are long.
const COMMAND_LEN: usize = 2 + 2 * (4 + 6 * MAC_TABLE_LEN);

/// Commands that are served in one turn: a driver that goes on adding some must not keep others
/// from the device.
const COMMANDS: usize = 64;

/// What is wrong with a command, or with the ring it is in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Broken {
    /// The ring is broken.
    Ring(RingError),
    /// A buffer is not in memory that the device was given for that.
    Memory(Fault),
    /// There is no room for the answer.
    NoAnswer,
    /// There was no memory for a look at the driver's.
    NoMemory,
}

impl From<RingError> for Broken {
    fn from(error: RingError) -> Self {
        Self::Ring(error)
    }
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        Self::Memory(fault)
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(error) => error.fmt(f),
            Self::Memory(fault) => write!(f, "buffer: {fault}"),
            Self::NoAnswer => f.write_str("a command without room for the answer"),
            Self::NoMemory => f.write_str("out of memory"),
        }
    }
}

/// The ring of the control queue, while it runs.
pub(crate) struct Ring {
    queue: Queue<KVec<Slot>>,
    order: ByteOrder,
    features: Features,
    /// The pieces of the command that is looked at, and its bytes.
    segments: KVec<Segment>,
    bytes: KVec<u8>,
}

impl Ring {
    /// Starts the queue as it was set up, for a driver that acknowledged `features` and has a byte
    /// order of `order`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if a queue cannot be like that, `ENOMEM`.
    pub(crate) fn start(setup: &Setup, features: Features, order: ByteOrder) -> Result<Self> {
        let config = ring::Config {
            size: setup.size,
            desc: setup.desc,
            driver: setup.driver,
            device: setup.device,
            byte_order: order,
            options: Options::from(features),
        };
        let entries = usize::from(setup.size);
        let slots = KVec::from_elem(Slot::default(), entries, GFP_KERNEL)?;
        let index = setup.index.ok_or(EINVAL)?;
        let queue = Queue::new(config, State::split(index), slots).map_err(|error| {
            pr_debug!("control queue: {}\n", Show(error));
            EINVAL
        })?;
        Ok(Self {
            queue,
            order,
            features,
            segments: KVec::from_elem(Segment::default(), entries, GFP_KERNEL)?,
            bytes: KVec::from_elem(0, COMMAND_LEN, GFP_KERNEL)?,
        })
    }

    /// Where the ring goes on.
    pub(crate) fn index(&self) -> u16 {
        match self.queue.state() {
            State::Split { used, .. } => used,
            // Packed rings are not offered.
            State::Packed { .. } => 0,
        }
    }

    /// Takes the next command; if there is none, the driver will kick for it.
    fn take(&mut self, mem: &View) -> Result<Option<Chain>, Broken> {
        loop {
            if let Some(chain) = self.queue.pop(mem, &mut self.segments)? {
                return Ok(Some(chain));
            }
            if !self.queue.enable_kicks(mem)? {
                return Ok(None);
            }
        }
    }

    /// Serves the next command, and returns whether there was one.
    ///
    /// # Errors
    ///
    /// What is wrong with it, as far as `mem` shows. The command is in the ring as before then, even
    /// if it was carried out: to do that twice makes no difference.
    fn serve(
        &mut self,
        mem: &View,
        carry_out: impl FnOnce(Command<'_>) -> bool,
        limits: (u16, Limits),
    ) -> Result<bool, Broken> {
        let Some(chain) = self.take(mem)? else {
            return Ok(false);
        };
        if let Err(broken) = self.answer(mem, &chain, carry_out, limits) {
            // It is the one taken last, for there is never another one under way.
            let _ = self.queue.unpop(chain);
            return Err(broken);
        }
        self.queue.complete(mem, chain, 1)?;
        Ok(true)
    }

    /// Has a command carried out, and writes the answer.
    fn answer(
        &mut self,
        mem: &View,
        chain: &Chain,
        carry_out: impl FnOnce(Command<'_>) -> bool,
        limits: (u16, Limits),
    ) -> Result<(), Broken> {
        let (readable, rest) = self
            .segments
            .split_at_checked(chain.readable_segments())
            .unwrap_or((&[], &[]));
        let writable = rest.get(..chain.writable_segments()).unwrap_or(&[]);
        if chain.writable() == 0 {
            return Err(Broken::NoAnswer);
        }
        let len = COMMAND_LEN.min(chain.readable() as usize);
        let bytes = self.bytes.get_mut(..len).unwrap_or(&mut []);
        mem.read_at(readable, 0, bytes)?;

        let context = Context {
            order: self.order,
            features: self.features,
            max_virtqueue_pairs: limits.0,
            rss: limits.1,
        };
        let done = match context.decode(bytes, u64::from(chain.readable())) {
            Ok(command) => carry_out(command),
            Err(error) => {
                pr_debug!("control command refused: {:?}\n", error);
                false
            }
        };
        let answer = if done { control::OK } else { control::ERR };
        Ok(mem.write_at(writable, 0, &[answer])?)
    }
}

/// What a turn came to.
enum Served {
    /// The driver will kick.
    All,
    /// There may be more.
    More,
    /// There was no memory; time may mend that.
    Later,
}

/// The work of a device's control worker.
pub(crate) struct Controller {
    machine: Arc<Machine>,
}

impl Controller {
    /// The work for a device.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(machine: Arc<Machine>) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { machine }, GFP_KERNEL)?)
    }

    /// Serves the commands that are there. Returns what it came to, and whether the driver is to be
    /// told.
    ///
    /// # Errors
    ///
    /// What is wrong with the queue.
    fn serve(&self, inner: &mut Inner, ring: &mut Ring) -> (Result<Served, Broken>, bool) {
        let mut served = Ok(Served::More);
        for _ in 0..COMMANDS {
            let mut one = self.serve_one(inner, ring);
            if one.is_err() {
                // The view may be older than what the driver mapped just now.
                one = self.serve_one(inner, ring);
            }
            match one {
                Ok(true) => {}
                Ok(false) => {
                    served = Ok(Served::All);
                    break;
                }
                Err(Broken::NoMemory) => {
                    served = Ok(Served::Later);
                    break;
                }
                Err(broken) => {
                    served = Err(broken);
                    break;
                }
            }
        }
        match self.publish(ring) {
            Ok(notify) => (served, notify),
            Err(broken) => (served.and(Err(broken)), false),
        }
    }

    fn view(&self) -> Result<View, Broken> {
        let spaces = self.machine.spaces();
        spaces
            .view_of_group(GROUP_CONTROL)
            .map_err(|_| Broken::NoMemory)
    }

    fn serve_one(&self, inner: &mut Inner, ring: &mut Ring) -> Result<bool, Broken> {
        let view = self.view()?;
        let limits = {
            let settings = self.machine.settings().lock();
            (settings.config.max_virtqueue_pairs(), settings.config.rss())
        };
        ring.serve(&view, |command| self.carry_out(inner, command), limits)
    }

    /// Shows the driver what was completed. Returns whether it is to be told.
    fn publish(&self, ring: &mut Ring) -> Result<bool, Broken> {
        let view = self.view()?;
        ring.queue.publish(&view)?;
        Ok(ring.queue.should_notify(&view)?)
    }

    /// Carries a command out. Returns whether that could be done.
    fn carry_out(&self, inner: &mut Inner, command: Command<'_>) -> bool {
        let machine = &*self.machine;
        let result = match command {
            Command::Receive(mode, on) => {
                self.change_filter(inner, |filter| filter.set_mode(mode, on))
            }
            Command::MacTables { unicast, multicast } => self.change_filter(inner, |filter| {
                filter.set_tables(unicast.addresses(), multicast.addresses());
            }),
            Command::AddVlan(id) => self.change_filter(inner, |filter| filter.set_vlan(id, true)),
            Command::DeleteVlan(id) => {
                self.change_filter(inner, |filter| filter.set_vlan(id, false))
            }
            Command::MacAddress(mac) => machine.set_driver_mac(inner, mac),
            Command::VirtqueuePairs(pairs) => machine.set_pairs(inner, pairs, None),
            Command::Scale(scaling) => machine.scale(inner, &scaling),
            Command::AnnounceAck => {
                let mut settings = machine.settings().lock();
                settings.config.set_status(0, ANNOUNCE);
                Ok(())
            }
            // Not offered, so never negotiated, so never decoded.
            Command::GuestOffloads(_) => return false,
        };
        result.inspect_err(|trouble| machine.warn(trouble)).is_ok()
    }

    /// Receives by another filter, if the firmware takes it.
    fn change_filter(
        &self,
        inner: &mut Inner,
        change: impl FnOnce(&mut Filter),
    ) -> Result<(), Trouble> {
        let mut filter = self.machine.filter()?;
        change(&mut filter);
        self.machine.set_filter(inner, filter)
    }

    /// Puts the ring back, and stops the device if that is broken.
    fn settle(&self, turn: &mut Turn<'_, Machine>, ring: Ring, served: Result<Served, Broken>) {
        turn.control = Some(ring);
        match served {
            Ok(Served::All) => {}
            Ok(Served::More) => self.machine.look_at_control_later(0),
            Ok(Served::Later) => self.machine.look_at_control_later(RETRY_MS),
            Err(broken) => {
                self.machine.warn(&Trouble::Ring(broken));
                // A fault is never refused.
                let _ = turn.event(Event::Fault);
            }
        }
    }
}

impl worker::Run for Controller {
    fn run(&self) {
        let mut turn = self.machine.turn();
        let Some(mut ring) = turn.control.take() else {
            return;
        };
        // The same as long as the ring runs.
        let index = self.machine.control_index();
        let (served, notify) = self.serve(&mut turn, &mut ring);
        self.settle(&mut turn, ring, served);
        drop(turn);
        if let (true, Some(index)) = (notify, index) {
            self.machine.callbacks().queue(index);
        }
    }
}
