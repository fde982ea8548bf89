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
        }, //
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
    queue::MAX_SIZE,
    stats::Tally, //
};

/// Bytes of a command that are read. Longer ones are address tables, of which it is enough to know
/// that they are long.
const COMMAND_LEN: usize = 2 + 2 * (4 + 6 * crate::filter::MAC_TABLE_LEN);

/// Commands that are served in one turn.
const COMMANDS: usize = 64;

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
    fn serve(&self, tools: &mut Tools) -> Result<bool, Reason> {
        let index = self.machine.control_index();
        let mut tally = Tally::default();
        let mut view = self.port.control_view().map_err(|_| Reason::NoMemory)?;
        let mut served = 0;
        let result = loop {
            if served == COMMANDS {
                break Ok(true);
            }
            served += 1;
            let taken = match self.take(index, &view, tools) {
                // The view may be older than what the driver mapped just now.
                Err(_) => match self.port.control_view() {
                    Ok(fresh) => {
                        view = fresh;
                        self.take(index, &view, tools)
                    }
                    Err(_) => Err(Reason::NoMemory),
                },
                taken => taken,
            };
            match taken {
                Ok(Some(taken)) => {
                    if let Err(reason) = self.command(index, &view, tools, &taken, &mut tally) {
                        break Err(reason);
                    }
                }
                Ok(None) => break Ok(false),
                Err(reason) => break Err(reason),
            }
        };
        if let Some(queue) = self.port.queue(index) {
            queue.stats.add(&tally);
        }
        result
    }

    /// Takes the next command; if there is none, the driver will kick for it.
    fn take(&self, index: u16, mem: &View, tools: &mut Tools) -> Result<Option<Taken>, Reason> {
        let Some(queue) = self.port.queue(index) else {
            return Ok(None);
        };
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

    /// Carries a command out and answers it.
    fn command(
        &self,
        index: u16,
        mem: &View,
        tools: &mut Tools,
        taken: &Taken,
        tally: &mut Tally,
    ) -> Result<(), Reason> {
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
        };
        let answer = match context.decode(bytes, u64::from(chain.readable())) {
            Ok(command) => {
                self.carry_out(command);
                tally.packets += 1;
                control::OK
            }
            Err(error) => {
                self.complain(error);
                tally.errors += 1;
                control::ERR
            }
        };
        mem.write_at(writable, 0, &[answer])
            .map_err(Reason::Memory)?;

        let Some(queue) = self.port.queue(index) else {
            return Ok(());
        };
        let mut guard = queue.lock();
        let Some(ring) = (*guard).as_mut().filter(|ring| ring.epoch() == tools.epoch) else {
            return Ok(());
        };
        ring.complete(mem, taken.chain, 1)?;
        let interrupt = queue.publish(ring, mem)?;
        drop(guard);
        if let Some(interrupt) = interrupt {
            self.port.interrupt(index, interrupt);
        }
        Ok(())
    }

    fn carry_out(&self, command: Command<'_>) {
        let mut settings = self.port.settings.lock();
        match command {
            Command::Receive(mode, on) => settings.filter.set_mode(mode, on),
            Command::MacTables { unicast, multicast } => settings
                .filter
                .set_tables(unicast.addresses(), multicast.addresses()),
            Command::MacAddress(mac) => settings.config.set_driver_mac(mac),
            Command::AddVlan(id) => settings.filter.set_vlan(id, true),
            Command::DeleteVlan(id) => settings.filter.set_vlan(id, false),
            Command::AnnounceAck => settings.config.set_status(0, config::ANNOUNCE),
            Command::VirtqueuePairs(pairs) => {
                drop(settings);
                self.port.set_pairs(pairs);
            }
            // Not offered, so never negotiated, so never decoded.
            Command::GuestOffloads(_) => (),
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

impl Run for Controller {
    fn run(&self) {
        let Some(mut tools) = self.tools.lock().take() else {
            return;
        };
        let index = self.machine.control_index();
        let served = self.serve(&mut tools);
        let epoch = tools.epoch;
        *self.tools.lock() = Some(tools);
        match served {
            Ok(true) => self.machine.look_at(index),
            Ok(false) => (),
            Err(reason) => self.port.fault(index, epoch, reason),
        }
        self.machine.look_for_fault();
    }
}
