// SPDX-License-Identifier: GPL-2.0
//! The control queue, and faults: what a device's control worker looks after.

use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    }, //
};
use vdpa::{
    memory::View,
    worker::Run, //
};
use virtio::{
    net::{
        config,
        control::{
            self,
            Command,
            CommandError,
            Context, //
        },
        filter::MAC_TABLE_LEN,
        rss::Limits, //
    },
    ring::{
        Chain,
        Segment, //
    }, //
};

use crate::{
    machine::Machine,
    peer::Peer,
    port::{
        Port,
        Reason, //
    },
    queue::{
        Interrupt,
        Queue,
        MAX_SIZE, //
    },
    stats::Tally, //
};

/// Bytes of a command that are read. Longer ones are address tables, of which it is enough to know
/// that they are long.
const COMMAND_LEN: usize = 2 + 2 * (4 + 6 * MAC_TABLE_LEN);

/// Commands that are served in one turn.
const COMMANDS: usize = 64;

/// After how long the worker looks again if there was no memory for a look at the driver's.
const RETRY_MS: u32 = 20;

/// What a turn needs, allocated once.
struct Tools {
    segments: KVec<Segment>,
    command: [u8; COMMAND_LEN],
    /// The ring's start that was looked at last.
    epoch: u32,
}

/// A command taken from the ring.
struct Taken {
    chain: Chain,
    peer: Peer,
}

/// The work of a device's control worker.
#[pin_data]
pub(crate) struct Controller {
    port: Arc<Port>,
    machine: Arc<Machine>,
    /// Taken out for the length of a turn; the lock only makes that safe.
    #[pin]
    tools: SpinLock<Option<KBox<Tools>>>,
}

impl Controller {
    /// Creates the work.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(port: Arc<Port>, machine: Arc<Machine>) -> Result<Arc<Self>> {
        let tools = KBox::new(
            Tools {
                segments: KVec::from_elem(Segment::default(), usize::from(MAX_SIZE), GFP_KERNEL)?,
                command: [0; COMMAND_LEN],
                epoch: 0,
            },
            GFP_KERNEL,
        )?;
        Arc::pin_init(
            pin_init!(Self {
                port,
                machine,
                tools <- new_spinlock!(Some(tools)),
            }),
            GFP_KERNEL,
        )
    }

    /// Serves the commands that are there, and returns whether there may be more: a driver that
    /// goes on adding must not keep the worker from its other work, nor its memory mapped.
    ///
    /// # Errors
    ///
    /// What is wrong with the queue, or [`Reason::NoMemory`], which time may mend.
    fn serve(&self, index: u16, tools: &mut Tools) -> Result<bool, Reason> {
        // Most turns of a device without a control queue are for faults.
        let Some(queue) = self.port.queue(index).filter(|queue| queue.is_running()) else {
            return Ok(false);
        };
        let mut tally = Tally::default();
        let mut view = self.view()?;
        let mut result = Ok(true);
        for _ in 0..COMMANDS {
            let mut served = self.serve_one(index, queue, &view, tools, &mut tally);
            if served.is_err() {
                // The view may be older than what the driver mapped just now.
                served = self.view().and_then(|fresh| {
                    view = fresh;
                    self.serve_one(index, queue, &view, tools, &mut tally)
                });
            }
            if !matches!(served, Ok(true)) {
                result = served;
                break;
            }
        }
        queue.stats.add(&tally);
        result
    }

    fn view(&self) -> Result<View, Reason> {
        self.port.control_view().map_err(|_| Reason::NoMemory)
    }

    /// Serves the next command, and returns whether there was one; if not, the driver will kick for
    /// it.
    ///
    /// # Errors
    ///
    /// What is wrong with it, as far as `mem` shows. The command is in the ring as before then, even
    /// if it was carried out: to do that twice makes no difference.
    fn serve_one(
        &self,
        index: u16,
        queue: &Queue,
        mem: &View,
        tools: &mut Tools,
        tally: &mut Tally,
    ) -> Result<bool, Reason> {
        let Some(taken) = take(queue, mem, tools)? else {
            return Ok(false);
        };
        let answered = self.command(mem, tools, &taken).and_then(|accepted| {
            self.give(index, queue, mem, tools.epoch, taken.chain)?;
            Ok(accepted)
        });
        match answered {
            Ok(true) => tally.packets += 1,
            Ok(false) => tally.errors += 1,
            Err(reason) => {
                put_back(queue, tools.epoch, taken.chain);
                return Err(reason);
            }
        }
        Ok(true)
    }

    /// Carries a command out and writes the answer. Returns whether it was accepted.
    fn command(&self, mem: &View, tools: &mut Tools, taken: &Taken) -> Result<bool, Reason> {
        let chain = &taken.chain;
        let (readable, rest) = tools
            .segments
            .split_at_checked(chain.readable_segments())
            .unwrap_or((&[], &[]));
        let writable = rest.get(..chain.writable_segments()).unwrap_or(&[]);
        if chain.writable() == 0 {
            return Err(Reason::NoAnswer);
        }
        let len = COMMAND_LEN.min(chain.readable() as usize);
        let bytes = tools.command.get_mut(..len).unwrap_or(&mut []);
        mem.read_at(readable, 0, bytes).map_err(Reason::Memory)?;

        let context = Context {
            order: taken.peer.order(),
            features: taken.peer.features(),
            max_virtqueue_pairs: self.port.settings.lock().config.max_virtqueue_pairs(),
            rss: Limits::default(),
        };
        let (accepted, answer) = match context.decode(bytes, u64::from(chain.readable())) {
            Ok(command) => {
                self.carry_out(command);
                (true, control::OK)
            }
            Err(error) => {
                self.complain(error);
                (false, control::ERR)
            }
        };
        mem.write_at(writable, 0, &[answer])
            .map_err(Reason::Memory)?;
        Ok(accepted)
    }

    /// Gives an answered command back to the driver.
    fn give(
        &self,
        index: u16,
        queue: &Queue,
        mem: &View,
        epoch: u32,
        chain: Chain,
    ) -> Result<(), Reason> {
        let mut guard = queue.lock();
        let Some(ring) = (*guard).as_mut().filter(|ring| ring.epoch() == epoch) else {
            return Ok(());
        };
        ring.complete(mem, chain, 1)?;
        let mut published = queue.publish(ring, mem).map_err(Reason::from);
        drop(guard);
        if published.is_err() {
            // The view may be older than what the driver mapped just now: not every ring was
            // written to before, nor was the driver's event area read.
            published = self.publish(queue, epoch);
        }
        match published {
            Ok(Some(interrupt)) => self.port.interrupt(index, interrupt),
            Ok(None) => (),
            // The command cannot go back into the ring any more.
            Err(reason) => self.port.fault(index, epoch, reason),
        }
        Ok(())
    }

    /// Shows the driver what was completed, through a new view.
    ///
    /// # Errors
    ///
    /// The ring is broken, or there is no memory for the view.
    fn publish<'a>(&self, queue: &'a Queue, epoch: u32) -> Result<Option<Interrupt<'a>>, Reason> {
        let mem = self.view()?;
        let mut guard = queue.lock();
        let ring = (*guard).as_mut().filter(|ring| ring.epoch() == epoch);
        Ok(match ring {
            Some(ring) => queue.publish(ring, &mem)?,
            None => None,
        })
    }

    fn carry_out(&self, command: Command<'_>) {
        let mut settings = self.port.settings.lock();
        match command {
            Command::Receive(mode, on) => settings.filter.set_mode(mode, on),
            Command::MacTables { unicast, multicast } => settings
                .filter
                .set_tables(unicast.addresses(), multicast.addresses()),
            Command::MacAddress(mac) => {
                settings.config.set_driver_mac(mac);
                drop(settings);
                self.machine.note_address();
            }
            Command::AddVlan(id) => settings.filter.set_vlan(id, true),
            Command::DeleteVlan(id) => settings.filter.set_vlan(id, false),
            Command::AnnounceAck => settings.config.set_status(0, config::ANNOUNCE),
            Command::VirtqueuePairs(pairs) => {
                drop(settings);
                self.port.set_pairs(pairs);
            }
            // Not offered, so never negotiated, so never decoded.
            Command::GuestOffloads(_) | Command::Scale(_) => (),
        }
    }

    fn complain(&self, error: CommandError) {
        pr_debug!(
            "{}: control command refused: {:?}\n",
            self.port.name(),
            error
        );
    }
}

/// Takes the next command; if there is none, the driver will kick for it.
fn take(queue: &Queue, mem: &View, tools: &mut Tools) -> Result<Option<Taken>, Reason> {
    let mut guard = queue.lock();
    let Some(ring) = (*guard).as_mut().filter(|ring| ring.is_open()) else {
        return Ok(None);
    };
    tools.epoch = ring.epoch();
    loop {
        if let Some(chain) = ring.pop(mem, &mut tools.segments)? {
            return Ok(Some(Taken {
                chain,
                peer: ring.peer,
            }));
        }
        if !ring.want_kicks(mem, true)? {
            return Ok(None);
        }
    }
}

/// Puts a command back that could not be answered.
fn put_back(queue: &Queue, epoch: u32, chain: Chain) {
    let mut guard = queue.lock();
    if let Some(ring) = (*guard).as_mut().filter(|ring| ring.epoch() == epoch) {
        // It is the one taken last, for there is never another one under way.
        let _ = ring.unpop(core::iter::once(chain));
    }
}

impl Run for Controller {
    fn run(&self) {
        let Some(mut tools) = self.tools.lock().take() else {
            return;
        };
        let index = self.machine.control_index();
        let served = self.serve(index, &mut tools);
        let epoch = tools.epoch;
        *self.tools.lock() = Some(tools);
        match served {
            Ok(true) => self.machine.look_at(index),
            Ok(false) => (),
            Err(Reason::NoMemory) => self.machine.look_at_control_later(RETRY_MS),
            Err(reason) => self.port.fault(index, epoch, reason),
        }
        self.machine.look_for_fault();
    }
}
