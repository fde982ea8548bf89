// SPDX-License-Identifier: GPL-2.0

//! The function as a whole: from a PCI device to a firmware that takes objects, and back.

use core::fmt;

use hardware::{
    Device,
    Vector,
    Vectors, //
};
use kernel::{
    alloc::AllocError,
    cpu::nr_cpu_ids,
    device::Core,
    pci,
    prelude::*,
    sync::Arc, //
};
use prm::{
    cap::{
        CapMode,
        CapType, //
    },
    eq::{
        Eqe,
        EqePageReq,
        EventType, //
    },
    hca::{
        DisableHca,
        EnableHca,
        InitHca,
        QueryAdapter,
        QueryIssi,
        SetIssi,
        TeardownHca,
        TeardownProfile, //
    },
    page::PagesWanted,
    uar::AllocUar,
    Command,
    Layout, //
};
use vdpa::worker::{
    self,
    Worker, //
};

use super::{
    capability::{
        self,
        Capabilities,
        Groups, //
    },
    command::{
        queue::{
            Outcome,
            Queue, //
        },
        Failure,
        Reason,
        Request, //
    },
    eq::{
        Eq,
        Line,
        Sink,
        Uar, //
    },
    firmware::Firmware,
    health::Watch,
    init_segment::InitSegment,
    pages::Pages,
    registers::Registers, //
};
use crate::show::Show;

/// The version of the interface that this driver speaks; 0 is that of older firmware.
const ISSI: u16 = 1;

/// The logarithm of the entries of the event queue for commands: each slot has one at most.
const LOG_COMMANDS: u8 = 6;

/// The logarithm of the entries of the event queue for all but commands and completions.
const LOG_ASYNC: u8 = 8;

/// The vector of both.
const ASYNC_VECTOR: u16 = 0;

/// The most vectors of a function: each virtqueue may have one.
const MAX_VECTORS: u16 = 64;

/// A function that is up. Field order is the order of teardown.
pub(crate) struct Function {
    _in_use: InUse,
    _health: Worker,
    _page_work: Worker,
    _async_events: Eq,
    _command_events: CommandEvents,
    _vector: Vector<Line>,
    _vectors: Arc<Vectors>,
    _uar: Uar,
    _capabilities: KBox<Capabilities>,
    _started: Started,
    _enabled: Enabled,
    _stop: Stop,
    // What the firmware was given, last of all.
    _pages: Arc<Pages>,
    _firmware: Arc<Firmware>,
}

/// The firmware is used.
struct InUse(Arc<Firmware>);

impl InUse {
    fn new(firmware: &Arc<Firmware>) -> Self {
        firmware.set_in_use(true);
        Self(firmware.clone())
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.set_in_use(false);
    }
}

/// The firmware is not to use any memory from the end of this value on.
struct Stop(Arc<Firmware>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// The function is enabled.
struct Enabled {
    firmware: Arc<Firmware>,
    pages: Arc<Pages>,
}

impl Drop for Enabled {
    fn drop(&mut self) {
        self.pages.reclaim();
        self.firmware.end::<DisableHca>(|_| {});
    }
}

/// The function is started.
struct Started(Arc<Firmware>);

impl Drop for Started {
    fn drop(&mut self) {
        self.0.end::<TeardownHca>(|input| {
            input.set_profile(TeardownProfile::GRACEFUL_CLOSE);
        });
    }
}

/// The event queue for commands, which are polled for before and after it.
struct CommandEvents {
    queue: Arc<Queue>,
    _eq: Eq,
}

impl CommandEvents {
    fn new(queue: &Arc<Queue>, eq: Eq) -> Self {
        queue.wait_by_event(true);
        Self {
            queue: queue.clone(),
            _eq: eq,
        }
    }
}

impl Drop for CommandEvents {
    fn drop(&mut self) {
        // The queue itself is dropped behind this.
        self.queue.wait_by_event(false);
    }
}

/// Gives the pages that events ask for.
struct PageWork(Arc<Pages>);

impl worker::Run for PageWork {
    fn run(&self) {
        self.0.serve();
    }
}

/// Who is told of events that are neither of commands nor completions.
struct Events {
    pages: Arc<Pages>,
    page_work: worker::Handle,
}

impl Sink for Events {
    fn event(&self, entry: &Eqe) {
        if entry.event_type() != Ok(EventType::PAGE_REQUEST) {
            return;
        }
        if let Some((request, _)) = EqePageReq::split(entry.data()) {
            // In two's complement.
            self.pages.ask(request.num_pages() as i32);
            self.page_work.queue();
        }
    }
}

/// The bits of event types in the mask of an event queue.
fn mask(types: &[EventType]) -> u64 {
    types.iter().fold(0, |mask, event| mask | 1 << *event as u8)
}

/// Brings a function up, with no command taking longer than `timeout_ms` milliseconds. What failed
/// is in the log.
///
/// # Errors
///
/// What the failure of a command is as a number; what C reports otherwise.
pub(crate) fn bring_up(pdev: &pci::Device<Core<'_>>, timeout_ms: u32) -> Result<Function> {
    let device = Device::enable::<64>(pdev)?;
    let registers = Registers::map(pdev)?;
    let segment = InitSegment::new(&registers);
    segment.wait().inspect_err(|_| {
        dev_err!(pdev, "the firmware does not start\n");
    })?;
    let geometry = segment.geometry().map_err(|revision| {
        dev_err!(pdev, "the command interface is of revision {}\n", revision);
        ENODEV
    })?;
    let queue = Queue::new(segment.clone(), &device, geometry, timeout_ms)?;
    let firmware = Firmware::new(&device, &registers, &segment, queue)?;
    let pages = Pages::new(&firmware)?;
    let version = segment.version();
    Function::new(firmware, pages).map_err(|trouble| {
        dev_err!(
            pdev,
            "firmware {}: bring-up failed: {}\n",
            Show(version),
            Show(&trouble)
        );
        trouble.into()
    })
}

/// Why a function could not be brought up.
enum Trouble {
    /// A command failed.
    Command(Failure),
    /// The system has no more of something.
    System(&'static str, Error),
}

impl Trouble {
    /// To be made of an error where `what` could not be had.
    fn no(what: &'static str) -> impl Fn(Error) -> Self {
        move |error| Self::System(what, error)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Command(failure)
    }
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Command(failure) => failure.into(),
            Trouble::System(_, error) => error,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(failure) => failure.fmt(f),
            Self::System(what, error) => {
                write!(f, "no {what}: error {}", -error.to_errno())
            }
        }
    }
}

impl Function {
    /// Brings the firmware up. Local variables are in the reverse order of the fields, so that a
    /// failure undoes what was done.
    fn new(firmware: Arc<Firmware>, pages: Arc<Pages>) -> Result<Self, Trouble> {
        let stop = Stop(firmware.clone());
        firmware.execute::<EnableHca>(|_| {})?;
        let enabled = Enabled {
            firmware: firmware.clone(),
            pages: pages.clone(),
        };
        choose_interface(&firmware)?;
        pages.supply(PagesWanted::BOOT_PAGES)?;
        let chosen = capability::choose(&firmware)?;
        pages.supply(PagesWanted::INIT_PAGES)?;
        firmware.execute::<InitHca>(|_| {})?;
        let started = Started(firmware.clone());

        let inquiry = inquire(&firmware, chosen.groups)?;
        let uar = inquiry.uar;
        let capabilities = inquiry.capabilities;

        // One for each processor, and one for what is not of virtqueues.
        let most = (nr_cpu_ids() + 1).min(MAX_VECTORS.into()) as u16;
        let no_vector = Trouble::no("interrupt vector");
        let vectors = Vectors::new(firmware.device(), 1, most).map_err(&no_vector)?;
        let (line, vector) = Line::new(&vectors, ASYNC_VECTOR).map_err(&no_vector)?;
        let line = (&line, vector.index());

        let queue = firmware.queue();
        let commands = mask(&[EventType::CMD]);
        let eq = Eq::new(&firmware, &uar, line, LOG_COMMANDS, commands, queue.clone())?;
        let command_events = CommandEvents::new(queue, eq);

        let no_memory = |error: AllocError| Trouble::System("memory", error.into());
        let health = Watch::start(&firmware).map_err(Trouble::no("thread"))?;
        let work = Arc::new(PageWork(pages.clone()), GFP_KERNEL).map_err(no_memory)?;
        let page_work = Worker::new(c"mlx5-vdpa-pages", work).map_err(Trouble::no("thread"))?;
        let events = Events {
            pages: pages.clone(),
            page_work: page_work.handle(),
        };
        let events = Arc::new(events, GFP_KERNEL).map_err(no_memory)?;
        let types = mask(&[EventType::PAGE_REQUEST]);
        let async_events = Eq::new(&firmware, &uar, line, LOG_ASYNC, types, events)?;

        let obstacle = capabilities.obstacle();
        dev_info!(
            firmware.log(),
            "firmware {}, board {}, {} vectors, {} pages: {}\n",
            Show(firmware.segment().version()),
            Show(inquiry.board),
            vectors.len(),
            pages.count(),
            obstacle.unwrap_or("ready")
        );
        Ok(Self {
            _in_use: InUse::new(&firmware),
            _health: health,
            _page_work: page_work,
            _async_events: async_events,
            _command_events: command_events,
            _vector: vector,
            _vectors: vectors,
            _uar: uar,
            _capabilities: capabilities,
            _started: started,
            _enabled: enabled,
            _stop: stop,
            _pages: pages,
            _firmware: firmware,
        })
    }
}

/// Chooses the version of the interface. Firmware that does not know the question has but one.
fn choose_interface(firmware: &Firmware) -> Result<(), Failure> {
    let reply = match firmware.execute::<QueryIssi>(|_| {}) {
        Ok(reply) => reply,
        Err(Failure {
            reason:
                Reason::Refused {
                    status: Ok(prm::Status::BAD_OP_ERR),
                    ..
                },
            ..
        }) => return Ok(()),
        Err(failure) => return Err(failure),
    };
    if reply.read::<QueryIssi>()?.0.supported_issi_dw0() & 1 << ISSI == 0 {
        return Ok(());
    }
    firmware
        .execute::<SetIssi>(|input| {
            input.set_current_issi(ISSI);
        })
        .map(drop)
}

/// The set of parameters of a board, by which its firmware is chosen.
struct Board([u8; 16]);

impl fmt::Display for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.split(|byte| *byte == 0).next().unwrap_or_default();
        match core::str::from_utf8(text) {
            Ok("") | Err(_) => f.write_str("unknown"),
            Ok(text) => f.write_str(text),
        }
    }
}

/// What a started function is asked, and given, all at once.
struct Inquiry {
    capabilities: KBox<Capabilities>,
    board: Board,
    uar: Uar,
}

/// Asks a started function all that does not depend on an answer, at once.
fn inquire(firmware: &Arc<Firmware>, groups: Groups) -> Result<Inquiry, Trouble> {
    let mut requests = KVec::new();
    let mut ask = |request: Result<Request, Failure>| {
        let request = request?;
        let opcode = request.opcode();
        requests.push(request, GFP_KERNEL).map_err(|_| {
            let reason = Reason::NotSent(-ENOMEM.to_errno());
            reason.of(opcode)
        })
    };
    ask(Request::new::<AllocUar>(|_| {}))?;
    ask(Request::new::<QueryAdapter>(|_| {}))?;
    ask(capability::query(CapType::GENERAL, CapMode::GET_CUR))?;
    if groups.vdpa {
        ask(capability::query(CapType::VDPA_EMULATION, CapMode::GET_CUR))?;
    }
    if groups.flow_table {
        ask(capability::query(CapType::FLOW_TABLE, CapMode::GET_CUR))?;
    }

    let mut outcomes = firmware.execute_all(&requests)?.into_iter();
    let mut next = || -> Outcome {
        let nothing = Reason::Garbled.of(QueryAdapter::OPCODE);
        outcomes.next().unwrap_or(Err(nothing))
    };
    // What was given is held from the first on, so that it goes back if another failed.
    let uar = Uar::new(firmware, next())?;
    let adapter = next()?;
    let board = adapter.read::<QueryAdapter>()?.0.query_adapter_struct();
    let board = Board(*board.vsd_contd_psid());
    let general = next();
    let vdpa = groups.vdpa.then(&mut next);
    let flow_table = groups.flow_table.then(&mut next);
    let capabilities = Capabilities::new(general, vdpa, flow_table)?;
    let capabilities = KBox::new(capabilities, GFP_KERNEL)
        .map_err(|error| Trouble::System("memory", error.into()))?;
    Ok(Inquiry {
        capabilities,
        board,
        uar,
    })
}
