// SPDX-License-Identifier: GPL-2.0

//! One virtual function, from its BAR inwards.

mod faults;

use std::sync::{
    Arc,
    Mutex,
    MutexGuard,
    PoisonError, //
};

use prm::init_segment::NicInterface;

use crate::{
    command::queue::Queue,
    cq,
    eq::Events,
    eswitch::Eswitch,
    fault::{
        Faults,
        Guarded, //
    },
    hca::Hca,
    init_segment::{
        Registers,
        Request, //
    },
    memory::DmaSpace,
    mkey::Mkeys,
    platform::{
        Interrupts,
        Platform, //
    },
    profile::Profile,
    qp,
    stats::Report,
    steering::receiver::Receiver,
    trace::{
        Journal,
        Trace, //
    },
    uar,
    virtq::{
        Doorbells,
        Workers, //
    },
    vport::Vport, //
};

/// The size of BAR 0 in bytes.
pub const BAR_SIZE: u64 = 2 << 20;

/// The doorbell page of virtqueues: a 16-bit little-endian queue index is a kick.
pub const DOORBELL_PAGE: u64 = 0x18_0000;

/// Where it ends.
const DOORBELL_END: u64 = DOORBELL_PAGE + 0x1000;

/// What tells one function from another.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name in messages, traces and on the control socket.
    pub name: String,
    /// What the firmware can do.
    pub profile: Arc<Profile>,
    /// The permanent address of the port.
    pub mac: [u8; 6],
    /// The largest frame of the port without its Ethernet header, in bytes.
    pub mtu: u16,
}

/// What functions of one process share, or are given from outside.
pub struct Surroundings {
    /// The switch they hang on.
    pub eswitch: Arc<Eswitch>,
    /// The threads that move their traffic.
    pub workers: Arc<Workers>,
    /// Where commands and events are written down.
    pub trace: Arc<Trace>,
    /// The driver's memory.
    pub memory: Arc<DmaSpace>,
    /// The interrupt vectors of this function.
    pub interrupts: Arc<dyn Interrupts>,
}

/// Where the first page of doorbells is in BAR 0.
const UAR_START: u64 = uar::FIRST as u64 * uar::PAGE_SIZE;

/// Where the pages of doorbells end.
const UAR_END: u64 = UAR_START + uar::COUNT as u64 * uar::PAGE_SIZE;

/// One virtual function.
pub struct Function {
    /// What everything inside stands on.
    pub platform: Arc<Platform>,
    /// What commands act on.
    pub hca: Arc<Mutex<Hca>>,
    registers: Arc<Registers>,
    // Ends its thread when it is dropped.
    commands: Queue,
}

impl Function {
    /// Makes a function that no driver has touched yet, and hangs it on the switch.
    ///
    /// # Errors
    ///
    /// If there can be no thread for its commands.
    pub fn new(settings: Settings, surroundings: Surroundings) -> std::io::Result<Arc<Self>> {
        let journal = Arc::new(Journal::new(&settings.name, surroundings.trace));
        let faults = Arc::new(Faults::default());
        let interrupts: Arc<dyn Interrupts> = Arc::new(Guarded::new(
            surroundings.interrupts,
            faults.clone(),
            journal.clone(),
        ));
        let receiver = Arc::<Receiver>::default();
        let port = Arc::new(surroundings.eswitch.attach(receiver.clone(), settings.mtu));
        let general = &settings.profile.general;
        let platform = Arc::new(Platform {
            name: settings.name,
            events: Events::new(
                general,
                surroundings.memory.clone(),
                interrupts.clone(),
                journal.clone(),
            ),
            cqs: cq::cqs(general),
            qps: qp::qps(general),
            mkeys: Arc::new(Mkeys::new(
                surroundings.memory.clone(),
                general.log_max_mkey(),
            )),
            memory: surroundings.memory,
            interrupts,
            profile: settings.profile,
            faults,
            journal,
            doorbells: Doorbells::default(),
            workers: surroundings.workers,
            port: port.clone(),
            receiver,
        });
        let vport = Arc::new(Vport::new(settings.mac, settings.mtu, port));
        let registers = Arc::new(Registers::new(platform.profile.firmware));
        let hca = Arc::new(Mutex::new(Hca::new(platform.clone(), vport)));
        let commands = Queue::start(platform.clone(), registers.clone(), hca.clone())?;
        Ok(Arc::new(Self {
            platform,
            hca,
            registers,
            commands,
        }))
    }

    /// The driver reads `to.len()` bytes of BAR 0 at `offset`. What is not there reads as 0; a
    /// function that is gone reads as all ones.
    pub fn bar_read(&self, offset: u64, to: &mut [u8]) {
        if self.is_gone() {
            to.fill(0xff);
        } else {
            self.registers.read(offset, to);
        }
    }

    /// The driver writes to BAR 0 at `offset`. Never waits: what takes time goes to a thread.
    pub fn bar_write(&self, offset: u64, from: &[u8]) {
        if self.is_gone() {
            return;
        }
        match offset {
            ..UAR_START => {
                for request in self.registers.write(offset, from) {
                    match request {
                        Request::Commands(slots) => self.commands.ring(slots),
                        Request::Queue => self.commands.attach(),
                        Request::Interface(NicInterface::FULL_DRIVER) => {}
                        Request::Interface(_) => {
                            // A reset is over as soon as it is asked for.
                            self.registers.set_interface(NicInterface::DISABLED);
                            self.commands.renew("NIC interface disabled");
                        }
                    }
                }
            }
            UAR_START..UAR_END => {
                let page = (offset / uar::PAGE_SIZE) as u32;
                uar::doorbell(&self.platform, page, offset % uar::PAGE_SIZE, from);
            }
            DOORBELL_PAGE.. => {
                if let (..DOORBELL_END, Some(index)) = (offset, from.first_chunk()) {
                    self.platform.journal.stats.kicks.add(1);
                    self.platform.doorbells.kick(u16::from_le_bytes(*index));
                }
            }
            _ => {}
        }
    }

    /// The function is reset: every object goes, nothing touches the driver's memory afterwards.
    pub fn reset(&self) {
        self.registers.reset();
        self.renew("reset");
    }

    fn renew(&self, why: &'static str) {
        self.commands.reset();
        self.hca().renew(why);
    }

    fn hca(&self) -> MutexGuard<'_, Hca> {
        self.hca.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the device does not answer any more.
    pub fn is_gone(&self) -> bool {
        self.platform.faults.is_gone()
    }

    /// Has commands that are rung together executed in the order of their slots, or, as it is at
    /// first, in another.
    pub fn set_in_order(&self, in_order: bool) {
        self.commands.set_in_order(in_order);
    }

    /// The counters of this moment.
    pub fn report(&self) -> Report {
        let mut report = self.platform.journal.stats.report();
        let hca = self.hca();
        report.objects = hca
            .objects()
            .into_iter()
            .map(|(name, count)| (name.to_owned(), count as u64))
            .collect();
        report.pages = hca.pages.held() as u64;
        report
    }
}
