// SPDX-License-Identifier: GPL-2.0

//! Firmware that runs: from one that nobody has to one that takes objects, and back.

use core::fmt;

use hardware::Device;
use kernel::{
    alloc::AllocError,
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
        CreateUctx,
        DestroyUctx,
        DisableHca,
        EnableHca,
        InitHca,
        QueryAdapter,
        QueryIssi,
        SetIssi,
        TeardownHca,
        TeardownProfile, //
    },
    mkey::QuerySpecialContexts,
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
        tally::Tally,
        Failure,
        Reason,
        Request, //
    },
    eq::{
        Eq,
        Sink,
        Uar, //
    },
    era::Era,
    events::Listeners,
    firmware::Firmware,
    init_segment::InitSegment,
    interrupts::Line,
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

/// Firmware that runs. Field order is the order of teardown.
pub(crate) struct Running {
    era: EraEnd,
    board: Board,
    _in_use: InUse,
    _page_work: Worker,
    _async_events: Eq,
    _command_events: CommandEvents,
    _user: Option<UserContext>,
    _uar: Uar,
    _started: Started,
    _enabled: Enabled,
    _stop: Stop,
    // What the firmware was given, last of all.
    _pages: Arc<Pages>,
    firmware: Arc<Firmware>,
}

/// A user context, on whose behalf objects are made where the driver itself may not.
struct UserContext {
    firmware: Arc<Firmware>,
    uid: u16,
}

/// In the capabilities of a user context: it may send frames.
const RAW_TX: u32 = 1 << 0;

impl UserContext {
    fn new(firmware: &Arc<Firmware>) -> Result<Self, Failure> {
        let reply = firmware.execute::<CreateUctx>(|input| {
            input.uctx_mut().set_cap(RAW_TX);
        })?;
        Ok(Self {
            firmware: firmware.clone(),
            uid: reply.read::<CreateUctx>()?.0.uid(),
        })
    }
}

impl Drop for UserContext {
    fn drop(&mut self) {
        self.firmware.end::<DestroyUctx>(|input| {
            input.set_uid(self.uid);
        });
    }
}

/// What is kept for users of the firmware ends with it.
struct EraEnd(Arc<Era>);

impl Drop for EraEnd {
    fn drop(&mut self) {
        self.0.end();
    }
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
        queue.wait_by(Some(eq.events().clone()));
        Self {
            queue: queue.clone(),
            _eq: eq,
        }
    }
}

impl Drop for CommandEvents {
    fn drop(&mut self) {
        // The queue itself is dropped behind this.
        self.queue.wait_by(None);
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
    listeners: Arc<Listeners>,
}

/// The events that are asked for beside those of commands and completions.
const ASYNC: [EventType; 7] = [
    EventType::PAGE_REQUEST,
    EventType::PORT_CHANGE,
    EventType::OBJECT_CHANGE,
    EventType::CQ_ERROR,
    EventType::WQ_CATAS_ERROR,
    EventType::WQ_INVAL_REQ_ERROR,
    EventType::WQ_ACCESS_ERROR,
];

impl Sink for Events {
    fn event(&self, entry: &Eqe) {
        if entry.event_type() != Ok(EventType::PAGE_REQUEST) {
            // What is about nothing that is of interest, or is gone meanwhile, is for nobody.
            let _ = self.listeners.tell(entry);
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

/// Why firmware could not be brought up.
pub(crate) enum Trouble {
    /// The command interface is of a revision that nobody here knows.
    Revision(u16),
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
            Trouble::Revision(_) => ENODEV,
            Trouble::Command(failure) => failure.into(),
            Trouble::System(_, error) => error,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Revision(revision) => {
                write!(f, "the command interface is of revision {revision}")
            }
            Self::Command(failure) => failure.fmt(f),
            Self::System(what, error) => {
                write!(f, "no {what}: error {}", -error.to_errno())
            }
        }
    }
}

impl Running {
    /// Brings the firmware up, with `line` for what it has to say, and no command taking longer than
    /// `timeout_ms` milliseconds; what becomes of them is counted in `tally`. It has started by
    /// itself already. `begin` is given the command queue before the first command.
    ///
    /// # Errors
    ///
    /// The [`Trouble`]; what was done is undone then.
    pub(crate) fn new(
        device: &Arc<Device>,
        registers: &Arc<Registers>,
        line: &Arc<Line>,
        timeout_ms: u32,
        tally: &Arc<Tally>,
        begin: impl FnOnce(&Arc<Queue>),
    ) -> Result<Self, Trouble> {
        let segment = InitSegment::new(registers);
        let geometry = segment.geometry().map_err(Trouble::Revision)?;
        let queue = Queue::new(segment.clone(), device, geometry, timeout_ms, tally)
            .map_err(Trouble::no("command queue"))?;
        begin(&queue);
        // The firmware may begin with its command interface only now that it knows where that is.
        segment.wait().map_err(Trouble::no("command interface"))?;
        let no_memory = Trouble::no("memory");
        let firmware = Firmware::new(device, registers, &segment, queue).map_err(&no_memory)?;
        let pages = Pages::new(&firmware).map_err(&no_memory)?;
        Self::start(firmware, pages, line)
    }

    /// Has the firmware do what it is there for. Local variables are in the reverse order of the
    /// fields, so that a failure undoes what was done.
    fn start(
        firmware: Arc<Firmware>,
        pages: Arc<Pages>,
        line: &Arc<Line>,
    ) -> Result<Self, Trouble> {
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
        let user = capabilities
            .needs_user_context()
            .then(|| UserContext::new(&firmware))
            .transpose()?;

        let queue = firmware.queue();
        let commands = mask(&[EventType::CMD]);
        let eq = Eq::new(
            &firmware,
            uar.number(),
            line,
            LOG_COMMANDS,
            commands,
            queue.clone(),
        )?;
        let command_events = CommandEvents::new(queue, eq);

        let no_memory = |error: AllocError| Trouble::System("memory", error.into());
        let listeners = Listeners::new().map_err(Trouble::no("memory"))?;
        let work = Arc::new(PageWork(pages.clone()), GFP_KERNEL).map_err(no_memory)?;
        let page_work = Worker::new(c"mlx5-vdpa-pages", work).map_err(Trouble::no("thread"))?;
        let events = Events {
            pages: pages.clone(),
            page_work: page_work.handle(),
            listeners: listeners.clone(),
        };
        let events = Arc::new(events, GFP_KERNEL).map_err(no_memory)?;
        let async_events = Eq::new(
            &firmware,
            uar.number(),
            line,
            LOG_ASYNC,
            mask(&ASYNC),
            events,
        )?;

        let obstacle = capabilities.obstacle();
        dev_info!(
            firmware.log(),
            "firmware {}, board {}, {} pages: {}\n",
            Show(firmware.segment().version()),
            Show(inquiry.board),
            pages.count(),
            obstacle.unwrap_or("ready")
        );
        let era = Era::new(
            &firmware,
            capabilities,
            inquiry.null_mkey,
            user.as_ref().map_or(0, |user| user.uid),
            uar.number(),
            listeners,
        )
        .map_err(Trouble::no("memory"))?;
        Ok(Self {
            era: EraEnd(era),
            board: inquiry.board,
            _in_use: InUse::new(&firmware),
            _page_work: page_work,
            _async_events: async_events,
            _command_events: command_events,
            _user: user,
            _uar: uar,
            _started: started,
            _enabled: enabled,
            _stop: stop,
            _pages: pages,
            firmware,
        })
    }
}

impl Running {
    /// The firmware.
    pub(crate) fn firmware(&self) -> &Arc<Firmware> {
        &self.firmware
    }

    /// What others see of it.
    pub(crate) fn era(&self) -> &Arc<Era> {
        &self.era.0
    }

    /// The board.
    pub(crate) fn board(&self) -> Board {
        self.board
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
#[derive(Clone, Copy)]
pub(crate) struct Board([u8; 16]);

impl Board {
    /// It is not known.
    pub(crate) const NONE: Self = Self([0; 16]);
}

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
    capabilities: Arc<Capabilities>,
    board: Board,
    uar: Uar,
    null_mkey: u32,
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
    ask(Request::new::<QuerySpecialContexts>(|_| {}))?;
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
    let special = next()?;
    let null_mkey = special.read::<QuerySpecialContexts>()?.0.null_mkey();
    let general = next();
    let vdpa = groups.vdpa.then(&mut next);
    let flow_table = groups.flow_table.then(&mut next);
    let capabilities = Capabilities::new(general, vdpa, flow_table)?;
    let capabilities = Arc::new(capabilities, GFP_KERNEL)
        .map_err(|error| Trouble::System("memory", error.into()))?;
    Ok(Inquiry {
        capabilities,
        board,
        uar,
        null_mkey,
    })
}
