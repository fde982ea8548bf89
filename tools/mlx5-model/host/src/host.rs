// SPDX-License-Identifier: GPL-2.0

//! A function and the host it is plugged into.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        PoisonError, //
    },
};

use mlx5_model::{
    command::perform,
    eswitch::Eswitch,
    function::{
        Function,
        Settings,
        Surroundings,
        DOORBELL_PAGE, //
    },
    memory::DmaSpace,
    profile::Profile,
    trace::Trace,
    virtq::Workers, //
};
use prm::{
    cap::{
        CapType,
        QueryHcaCap,
        SetHcaCap, //
    },
    command::OutputHeader,
    eq::{
        CreateEq,
        CreateEqIn,
        DestroyEq,
        Eqe,
        EqeCmd,
        EqePageReq,
        EventType, //
    },
    flow::{
        CreateFlowTable,
        DestroyFlowTable,
        FlowTableType,
        SetFlowTableRoot, //
    },
    hca::{
        DestroyUctx,
        DisableHca,
        EnableHca,
        InitHca,
        QueryAdapter,
        QueryIssi,
        SetIssi,
        TeardownHca, //
    },
    page::{
        ManagePages,
        ManagePagesIn,
        PagesMove,
        PagesWanted,
        QueryPages, //
    },
    uar::{
        AllocUar,
        CqDoorbell,
        DeallocUar,
        CQ_ARM, //
    },
    Command,
    Layout, //
};

use vm_memory::Permissions;
use zerocopy::IntoBytes;

use crate::{
    command::{
        decode,
        encode,
        Failure,
        Queue, //
    },
    eq::EventQueue,
    memory::{
        addresses,
        Buffer,
        Memory,
        BASE, //
    },
    vectors::Vectors, //
};

/// The bytes of a page of doorbells in the BAR.
const UAR: u64 = 0x1000;

/// The memory of a host, in bytes.
const MEMORY: u64 = 64 << 20;

/// The vector of the event queues of the driver itself; others are for completions and virtqueues.
pub const ASYNC_VECTOR: u16 = 0;

/// What the functions of one process share.
#[derive(Clone)]
pub struct Board {
    /// The switch.
    pub eswitch: Arc<Eswitch>,
    /// The threads that move traffic.
    pub workers: Arc<Workers>,
    /// Where what happens is written down.
    pub trace: Arc<Trace>,
}

impl Board {
    /// A switch with nothing on it, and `threads` threads.
    ///
    /// # Errors
    ///
    /// If there can be no threads.
    pub fn new(threads: usize) -> io::Result<Self> {
        Ok(Self {
            eswitch: Arc::default(),
            workers: Arc::new(Workers::new(threads)?),
            trace: Arc::default(),
        })
    }

    /// Plugs a function of a certain profile in, which is the `number`th of the board: its name
    /// and its address are made of that.
    ///
    /// # Errors
    ///
    /// If there is no memory or thread for it.
    ///
    /// # Panics
    ///
    /// If there is no such profile.
    pub fn host(&self, profile: &str, number: u16) -> io::Result<Host> {
        let profile = Profile::load(profile).expect("the profile is one of the model's");
        let settings = Settings {
            name: format!("vf{number}"),
            profile: Arc::new(profile),
            mac: mac(number),
            mtu: 9000,
        };
        Host::new(self, settings)
    }
}

/// The address of the `number`th function.
pub fn mac(number: u16) -> [u8; 6] {
    let [high, low] = number.to_be_bytes();
    [0x02, 0xca, 0xfe, 0, high, low]
}

/// What a driver has of a function that runs.
struct Running {
    uar: u32,
    commands: EventQueue,
    asynchronous: EventQueue,
    pages: EventQueue,
    root: u32,
    /// Whether commands are waited for by their events.
    by_event: bool,
}

/// A function, and the driver that has it.
pub struct Host {
    /// The function.
    pub function: Arc<Function>,
    /// The memory it reaches.
    pub memory: Memory,
    /// How it reaches it.
    pub dma: Arc<DmaSpace>,
    /// Its interrupts.
    pub vectors: Arc<Vectors>,
    queue: Queue,
    /// The pages the firmware has, by their addresses.
    given: HashMap<u64, Buffer>,
    running: Option<Running>,
    /// The user context it made for itself, or 0 if it needs none, once it knows.
    pub(crate) uid: Option<u16>,
    /// Whether commands go past the command queue.
    direct: bool,
}

impl Host {
    /// Plugs a function in.
    ///
    /// # Errors
    ///
    /// If there is no memory or thread for it.
    pub fn new(board: &Board, settings: Settings) -> io::Result<Self> {
        let (memory, file) = Memory::new(MEMORY)?;
        let dma = Arc::new(DmaSpace::default());
        dma.map(BASE, MEMORY, file, 0, Permissions::ReadWrite)?;
        let vectors = Arc::new(Vectors::default());
        let function = Function::new(
            settings,
            Surroundings {
                eswitch: board.eswitch.clone(),
                workers: board.workers.clone(),
                trace: board.trace.clone(),
                memory: dma.clone(),
                interrupts: vectors.clone(),
            },
        )?;
        let queue = Queue::new(&function, &memory);
        Ok(Self {
            function,
            memory,
            dma,
            vectors,
            queue,
            given: HashMap::new(),
            running: None,
            uid: None,
            direct: false,
        })
    }

    /// Has commands executed at once by this thread, past the command queue, or through it again:
    /// for who has so many that two threads would wait for each other most of the time.
    pub fn set_direct(&mut self, direct: bool) {
        self.direct = direct;
    }

    /// Has a command executed at once by this thread. The input has at least 16 bytes.
    pub fn perform(&self, input: &[u8], room: usize) -> Vec<u8> {
        let mut hca = self
            .function
            .hca
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut output = perform(&mut hca, input, room).output;
        output.resize(room, 0);
        output
    }

    /// The command queue, for what no driver does.
    pub fn queue(&mut self) -> &mut Queue {
        &mut self.queue
    }

    /// Makes another command queue and tells the function of it, as a driver that begins. Nothing
    /// is left of what the last one had.
    pub fn attach(&mut self) {
        self.queue = Queue::new(&self.function, &self.memory);
        self.given.clear();
        self.running = None;
        self.uid = None;
    }

    /// Tells the function where its command queue is, as if for the first time.
    pub fn renew_queue(&mut self) {
        self.queue = Queue::new(&self.function, &self.memory);
    }

    /// Resets the function. The driver has nothing of it any more.
    pub fn reset(&mut self) {
        self.function.reset();
        self.attach();
    }

    /// How many pages the firmware has.
    pub fn pages(&self) -> usize {
        self.given.len()
    }

    /// The page of doorbells, as an offset in the BAR.
    fn uar(&self) -> u64 {
        UAR * u64::from(self.running().uar)
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("the function runs")
    }

    /// The number of the page of doorbells.
    pub fn uar_page(&self) -> u32 {
        self.running().uar
    }

    /// The flow table in which matching begins.
    pub fn root_table(&self) -> u32 {
        self.running().root
    }

    /// Has a command executed.
    ///
    /// `tail` follows the fixed part of the input, and `room` bytes are for what follows the fixed
    /// part of the output.
    ///
    /// # Errors
    ///
    /// The [`Failure`], the firmware's refusal among them.
    pub fn execute<C: Command>(
        &mut self,
        input: &C::Input,
        tail: &[u8],
        room: usize,
    ) -> Result<(C::Output, Vec<u8>), Failure> {
        let slot = match C::OPCODE {
            prm::Opcode::MANAGE_PAGES => self.queue.slots() - 1,
            _ => 0,
        };
        let room = C::Output::INFO.bytes + room;
        if self.direct {
            return decode(&self.perform(&encode::<C>(input, tail), room));
        }
        self.queue.prepare(slot, &encode::<C>(input, tail), room);
        let seen = self.vectors.count(ASYNC_VECTOR);
        self.queue.ring(1 << slot);
        if self
            .running
            .as_ref()
            .is_some_and(|running| running.by_event)
        {
            self.wait_for_command(slot, seen)?;
        }
        let output = self.queue.finish(slot)?;
        // Their events are not waited for, but must not fill the queue.
        if let Some(running) = self.running.as_mut().filter(|running| !running.by_event) {
            while running.commands.take().is_some() {}
            let doorbell = running.commands.doorbell(false);
            self.ring_uar(doorbell);
        }
        decode(&output)
    }

    /// Waits for the event that says that the command of a slot is complete.
    fn wait_for_command(&mut self, slot: usize, mut seen: u64) -> Result<(), Failure> {
        loop {
            seen = self.vectors.wait(ASYNC_VECTOR, seen).ok_or(Failure::Lost)?;
            let running = self.running.as_mut().expect("events come while it runs");
            let mut complete = 0;
            while let Some(entry) = running.commands.take() {
                complete |= EqeCmd::split(entry.data()).map_or(0, |(event, _)| event.vector());
            }
            let doorbell = running.commands.doorbell(true);
            self.ring_uar(doorbell);
            if complete & (1 << slot) != 0 {
                return Ok(());
            }
        }
    }

    /// Has a command executed whose input has no tail, nor its output.
    ///
    /// # Errors
    ///
    /// As [`Host::execute`].
    pub fn call<C: Command>(
        &mut self,
        fill: impl FnOnce(&mut C::Input),
    ) -> Result<C::Output, Failure> {
        let mut input = C::Input::new();
        fill(&mut input);
        self.execute::<C>(&input, &[], 0).map(|(output, _)| output)
    }

    /// Has a command executed without caring what its input is.
    ///
    /// # Errors
    ///
    /// As [`Host::execute`].
    pub fn raw(&mut self, input: &[u8], room: usize) -> Result<Vec<u8>, Failure> {
        let output = self.queue.raw(0, input, room)?;
        decode::<OutputHeader>(&output)?;
        Ok(output)
    }

    /// Writes a doorbell of an event queue.
    fn ring_uar(&self, (offset, value): (u64, Vec<u8>)) {
        self.function.bar_write(self.uar() + offset, &value);
    }

    /// Arms a completion queue: the next completion behind the first `consumed` is told.
    pub fn arm_cq(&self, cqn: u32, arms: u8, consumed: u32) {
        let mut doorbell = CqDoorbell::new();
        doorbell
            .set_arm_sn(arms & 3)
            .set_consumer_counter(consumed & 0xff_ffff)
            .set_cqn(cqn);
        self.function
            .bar_write(self.uar() + CQ_ARM, doorbell.as_bytes());
    }

    /// Kicks a virtqueue.
    pub fn kick(&self, index: u16) {
        self.function.bar_write(DOORBELL_PAGE, &index.to_le_bytes());
    }

    /// Gives the firmware the pages it wants.
    fn give_pages(&mut self, wanted: PagesWanted) -> Result<(), Failure> {
        let answer = self.call::<QueryPages>(|input| {
            input.set_op_mod(wanted);
        })?;
        let count = answer.num_pages() as usize;
        if count == 0 {
            return Ok(());
        }
        let pages: Vec<_> = (0..count).map(|_| self.memory.alloc(1)).collect();
        let mut input = ManagePagesIn::new();
        input
            .set_op_mod(PagesMove::GIVE)
            .set_input_num_entries(count as u32);
        let tail = addresses(pages.iter().map(Buffer::addr));
        self.execute::<ManagePages>(&input, &tail, 0)?;
        self.given
            .extend(pages.into_iter().map(|page| (page.addr(), page)));
        Ok(())
    }

    /// Takes back up to `count` pages, and returns how many came.
    ///
    /// # Errors
    ///
    /// As [`Host::execute`]; [`Failure::Garbage`] if a page comes back that the firmware has not.
    pub fn take_pages(&mut self, count: usize) -> Result<usize, Failure> {
        let mut input = ManagePagesIn::new();
        input
            .set_op_mod(PagesMove::TAKE)
            .set_input_num_entries(count as u32);
        let (output, tail) = self.execute::<ManagePages>(&input, &[], 8 * count)?;
        let came = output.output_num_entries() as usize;
        for addr in tail.chunks_exact(8).take(came) {
            let addr = u64::from_be_bytes(addr.try_into().map_err(|_| Failure::Garbage)?);
            self.given.remove(&addr).ok_or(Failure::Garbage)?;
        }
        Ok(came)
    }

    /// Reads a capability.
    ///
    /// # Errors
    ///
    /// As [`Host::execute`].
    pub fn capability(&mut self, kind: CapType, current: bool) -> Result<Vec<u8>, Failure> {
        let answer = self.call::<QueryHcaCap>(|input| {
            input.set_op_mod(((kind as u16) << 1) | u16::from(current));
        })?;
        Ok(answer.capability().to_vec())
    }

    /// Makes an event queue.
    ///
    /// # Errors
    ///
    /// As [`Host::execute`].
    pub fn create_eq(
        &mut self,
        log_size: u8,
        vector: u16,
        events: u64,
        uar: u32,
    ) -> Result<EventQueue, Failure> {
        let buffer = self.memory.alloc(64 << log_size);
        let mut queue = EventQueue::prepare(buffer, log_size, vector);
        let mut input = CreateEqIn::new();
        input.set_event_bitmask(events);
        input
            .eq_context_entry_mut()
            .set_log_eq_size(log_size)
            .set_uar_page(uar)
            .set_intr(vector);
        let tail = addresses(queue.buffer().pages());
        let (output, _) = self.execute::<CreateEq>(&input, &tail, 0)?;
        queue.eqn = output.eq_number();
        Ok(queue)
    }

    /// Takes an event queue away.
    ///
    /// # Errors
    ///
    /// As [`Host::execute`].
    pub fn destroy_eq(&mut self, queue: EventQueue) -> Result<(), Failure> {
        self.call::<DestroyEq>(|input| {
            input.set_eq_number(queue.eqn);
        })
        .map(drop)
    }

    /// Arms an event queue.
    pub fn arm(&self, queue: &EventQueue) {
        self.ring_uar(queue.doorbell(true));
    }

    /// The next event of the queue for all kinds but commands, pages and completions.
    pub fn next_event(&mut self) -> Option<Eqe> {
        let running = self.running.as_mut()?;
        let entry = running.asynchronous.take();
        let doorbell = running.asynchronous.doorbell(true);
        self.ring_uar(doorbell);
        entry
    }

    /// The next request of the firmware for pages: how many, negative if it gives them back.
    pub fn next_page_request(&mut self) -> Option<i32> {
        let running = self.running.as_mut()?;
        let entry = running.pages.take();
        let doorbell = running.pages.doorbell(true);
        self.ring_uar(doorbell);
        let entry = entry?;
        let (event, _) = EqePageReq::split(entry.data())?;
        Some(event.num_pages() as i32)
    }

    /// Waits for an event in the queue for all kinds but commands, pages and completions.
    ///
    /// # Errors
    ///
    /// [`Failure::Lost`] if none comes in time.
    pub fn wait_event(&mut self) -> Result<Eqe, Failure> {
        loop {
            let seen = self.vectors.count(ASYNC_VECTOR);
            if let Some(entry) = self.next_event() {
                return Ok(entry);
            }
            self.vectors.wait(ASYNC_VECTOR, seen).ok_or(Failure::Lost)?;
        }
    }

    /// From a function nobody has touched to one that objects can be made in, but that has none.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of a command.
    pub fn initialize(&mut self) -> Result<(), Failure> {
        self.call::<EnableHca>(|_| {})?;
        let issi = self.call::<QueryIssi>(|_| {})?;
        if issi.supported_issi_dw0() & (1 << 1) != 0 {
            self.call::<SetIssi>(|input| {
                input.set_current_issi(1);
            })?;
        }
        self.give_pages(PagesWanted::BOOT_PAGES)?;
        self.capability(CapType::GENERAL, false)?;
        let chosen = self.capability(CapType::GENERAL, true)?;
        self.call::<SetHcaCap>(|input| {
            input.set_op_mod((CapType::GENERAL as u16) << 1);
            input.capability_mut().copy_from_slice(&chosen);
        })?;
        self.give_pages(PagesWanted::INIT_PAGES)?;
        self.call::<InitHca>(|_| {}).map(drop)
    }

    /// From a function nobody has touched to one with event queues and a flow table, as a driver
    /// in a kernel does it.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of a command.
    pub fn start(&mut self) -> Result<(), Failure> {
        self.initialize()?;
        self.capability(CapType::FLOW_TABLE, true)?;
        self.call::<QueryAdapter>(|_| {})?;
        let uar = self.call::<AllocUar>(|_| {})?.uar();
        let commands = self.create_eq(5, ASYNC_VECTOR, 1 << EventType::CMD as u64, uar)?;
        let asynchronous = self.create_eq(
            7,
            ASYNC_VECTOR,
            [
                EventType::PORT_CHANGE,
                EventType::OBJECT_CHANGE,
                EventType::CQ_ERROR,
                EventType::WQ_ACCESS_ERROR,
            ]
            .iter()
            .fold(0, |mask, kind| mask | (1 << *kind as u64)),
            uar,
        )?;
        let pages = self.create_eq(5, ASYNC_VECTOR, 1 << EventType::PAGE_REQUEST as u64, uar)?;
        let root = self
            .call::<CreateFlowTable>(|input| {
                input.set_table_type(FlowTableType::NIC_RX);
                input.flow_table_context_mut().set_level(0).set_log_size(8);
            })?
            .table_id();
        self.call::<SetFlowTableRoot>(|input| {
            input
                .set_table_type(FlowTableType::NIC_RX)
                .set_table_id(root);
        })?;
        let running = Running {
            uar,
            commands,
            asynchronous,
            pages,
            root,
            by_event: false,
        };
        self.running = Some(running);
        // What was completed so far is taken in passing; the queue is read from here on.
        let running = self.running();
        for queue in [&running.commands, &running.asynchronous, &running.pages] {
            self.arm(queue);
        }
        Ok(())
    }

    /// Waits for commands by their events from now on, or by looking again and again.
    pub fn wait_by_event(&mut self, by_event: bool) {
        let running = self.running.as_mut().expect("the function runs");
        running.by_event = by_event;
        while running.commands.take().is_some() {}
        let doorbell = running.commands.doorbell(true);
        self.ring_uar(doorbell);
    }

    /// Back to a function nobody has touched. Every object is to be gone already but those that
    /// [`Host::start`] made.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of a command; [`Failure::Garbage`] if a page did not come back.
    pub fn stop(&mut self) -> Result<(), Failure> {
        if let Some(mut running) = self.running.take() {
            running.by_event = false;
            self.call::<DestroyFlowTable>(|input| {
                input
                    .set_table_type(FlowTableType::NIC_RX)
                    .set_table_id(running.root);
            })?;
            self.destroy_eq(running.pages)?;
            self.destroy_eq(running.asynchronous)?;
            self.destroy_eq(running.commands)?;
            self.call::<DeallocUar>(|input| {
                input.set_uar(running.uar);
            })?;
        }
        if let Some(uid) = self.uid.take().filter(|uid| *uid != 0) {
            self.call::<DestroyUctx>(|input| {
                input.set_uid(uid);
            })?;
        }
        self.call::<TeardownHca>(|_| {})?;
        while !self.given.is_empty() {
            if self.take_pages(self.given.len().min(512))? == 0 {
                return Err(Failure::Garbage);
            }
        }
        self.call::<DisableHca>(|_| {}).map(drop)
    }
}
