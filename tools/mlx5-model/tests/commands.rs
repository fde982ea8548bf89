// SPDX-License-Identifier: GPL-2.0

//! The command queue of a function, and what goes wrong with it on request.

use std::{
    hint,
    io::{
        self,
        Write, //
    },
    sync::{
        Arc,
        Mutex, //
    },
};

use mlx5_host::{
    command::{
        decode,
        encode, //
    },
    memory::BASE,
    Board,
    Failure,
    Host, //
};
use mlx5_model::{
    fault::{
        Fault,
        FaultError,
        Link,
        Name,
        Which, //
    },
    refusal::Refusal,
    trace::{
        self,
        Trace, //
    },
};
use prm::{
    cap::{
        CapType,
        CmdHcaCap, //
    },
    command::{
        Command,
        InputHeader,
        OutputHeader, //
    },
    eq::EventType,
    hca::{
        EnableHca,
        Nop,
        NopIn, //
    },
    init_segment::{
        InitSegment,
        NicInterface, //
    },
    pd::{
        AllocPd,
        AllocPdOut,
        DeallocPd, //
    },
    uar::AllocUar,
    vport::QueryVnicEnv,
    Layout,
    Opcode,
    Status, //
};

/// The slot for pages.
const PAGE_SLOT: usize = 31;

/// A function in which objects can be made.
fn running() -> Host {
    running_on(&Board::new(1).unwrap())
}

fn running_on(board: &Board) -> Host {
    let mut host = board.host("cx7", 0).unwrap();
    host.initialize().unwrap();
    host
}

fn alloc_pd() -> Vec<u8> {
    encode::<AllocPd>(&InputHeader::new(), &[])
}

fn prepare(host: &mut Host, slot: usize) {
    host.queue()
        .prepare(slot, &alloc_pd(), AllocPdOut::INFO.bytes);
}

/// Waits for the command of a slot, and returns the domain it made.
fn finish(host: &mut Host, slot: usize) -> Result<u32, Failure> {
    let output = host.queue().finish(slot)?;
    decode::<AllocPdOut>(&output).map(|(output, _)| output.pd())
}

/// Makes a domain.
fn make(host: &mut Host, slot: usize) -> Result<u32, Failure> {
    prepare(host, slot);
    host.queue().ring(1 << slot);
    finish(host, slot)
}

fn which(count: Option<u64>) -> Which {
    Which {
        opcode: Name::from("ALLOC_PD"),
        object: None,
        after: 0,
        count,
    }
}

/// Longer than any test takes.
fn delay() -> Fault {
    Fault::Delay {
        command: which(Some(1)),
        ms: 1 << 40,
    }
}

fn read(host: &Host, offset: u64) -> u32 {
    let mut bytes = [0; 4];
    host.function.bar_read(offset, &mut bytes);
    u32::from_be_bytes(bytes)
}

fn offset(name: &str) -> u64 {
    InitSegment::INFO.field(name).unwrap().offset as u64 / 8
}

fn syndrome<T: std::fmt::Debug>(result: Result<T, Failure>) -> (Status, u32) {
    match result {
        Err(Failure::Refused { status, syndrome }) => (status.unwrap(), syndrome),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_slot_works() {
    let mut host = running();
    let made: Vec<_> = (0..32).map(|slot| make(&mut host, slot).unwrap()).collect();
    assert!(made.windows(2).all(|pair| pair[0] < pair[1]), "{made:?}");
}

#[test]
fn together_means_in_any_order() {
    let order = |in_order| {
        let mut host = running();
        host.function.set_in_order(in_order);
        (0..16).for_each(|slot| prepare(&mut host, slot));
        host.queue().ring(0xffff);
        let made: Vec<_> = (0..16)
            .map(|slot| finish(&mut host, slot).unwrap())
            .collect();
        let mut sorted = made.clone();
        sorted.sort_unstable();
        assert!(sorted.windows(2).all(|pair| pair[0] < pair[1]), "{made:?}");
        (made, sorted)
    };
    let (made, sorted) = order(true);
    assert_eq!(made, sorted);
    let (made, sorted) = order(false);
    assert_ne!(made, sorted);
    // What was seen once can be seen again.
    assert_eq!(order(false).0, made);
}

#[test]
fn pages_do_not_wait_and_a_busy_slot_is_left_alone() {
    let mut host = running();
    let fault = host.function.inject(delay()).unwrap();
    prepare(&mut host, 0);
    host.queue().ring(1);
    let first = make(&mut host, PAGE_SLOT).unwrap();
    assert!(!host.queue().is_done(0));
    host.queue().ring(1);
    assert_eq!(make(&mut host, 1).unwrap(), first + 1);
    host.function.clear_fault(fault).unwrap();
    assert_eq!(finish(&mut host, 0).unwrap(), first + 2);
    // The second ring did nothing.
    assert_eq!(make(&mut host, 0).unwrap(), first + 3);
}

#[test]
fn a_lost_command_costs_its_slot() {
    // A reset gives it back, and so does another command queue.
    for reset in [true, false] {
        let mut host = running();
        let fault = Fault::Lose {
            command: which(Some(1)),
        };
        host.function.inject(fault).unwrap();
        prepare(&mut host, 0);
        host.queue().ring(1);
        make(&mut host, 1).unwrap();
        assert!(!host.queue().is_done(0));
        assert_eq!(host.function.faults()[0].hits, 1);
        if reset {
            host.function.reset();
        }
        host.attach();
        host.initialize().unwrap();
        make(&mut host, 0).unwrap();
    }
}

#[test]
fn a_command_fails_as_it_is_told_to() {
    let mut host = running();
    let fault = Fault::Fail {
        command: Which {
            after: 1,
            ..which(Some(1))
        },
        status: Name::from("LIM_ERR"),
        syndrome: 0xabcd,
    };
    host.function.inject(fault).unwrap();
    let first = make(&mut host, 0).unwrap();
    assert_eq!(syndrome(make(&mut host, 0)), (Status::LIM_ERR, 0xabcd));
    // Nothing was made by the command that failed.
    assert_eq!(make(&mut host, 0).unwrap(), first + 1);
    let report = host.function.report();
    assert_eq!(report.refusals["Injected"], 1);
    assert_eq!(report.commands["ALLOC_PD"].count, 3);
    assert_eq!(report.objects["protection domain"], 2);
}

#[test]
fn garbage_in_a_field() {
    let mut host = running();
    let fault = Fault::Garbage {
        command: which(Some(1)),
        field: Some("pd".to_owned()),
        tail: None,
        value: Some(0x12_3456),
    };
    host.function.inject(fault).unwrap();
    assert_eq!(make(&mut host, 0).unwrap(), 0x12_3456);
    assert_ne!(make(&mut host, 0).unwrap(), 0x12_3456);
}

#[test]
fn garbage_in_a_capability() {
    let mut host = running();
    let fault = Fault::Garbage {
        command: Which {
            opcode: Name::from("QUERY_HCA_CAP"),
            ..which(Some(1))
        },
        field: Some("capability.log_max_mkey".to_owned()),
        tail: None,
        value: Some(1),
    };
    host.function.inject(fault).unwrap();
    let log_max_mkey = |host: &mut Host| {
        let bytes = host.capability(CapType::GENERAL, true).unwrap();
        CmdHcaCap::split(&bytes).unwrap().0.log_max_mkey()
    };
    // Another group is not struck, nor is it counted.
    host.capability(CapType::VDPA_EMULATION, true).unwrap();
    assert_eq!(host.function.faults()[0].hits, 0);
    assert_eq!(log_max_mkey(&mut host), 1);
    assert_eq!(host.function.faults()[0].hits, 1);
    assert_eq!(log_max_mkey(&mut host), 20);
}

#[test]
fn what_a_function_can_do_depends_on_how_far_it_has_come() {
    let mut host = Board::new(1).unwrap().host("cx7", 0).unwrap();
    let refused = |refusal: Refusal| (refusal.status(), refusal.syndrome());
    assert_eq!(syndrome(make(&mut host, 0)), refused(Refusal::NotEnabled));
    host.call::<EnableHca>(|_| {}).unwrap();
    assert_eq!(syndrome(make(&mut host, 0)), refused(Refusal::NotStarted));
}

#[test]
fn what_is_no_command() {
    let mut host = running();
    let refused = |refusal: Refusal| (refusal.status(), refusal.syndrome());
    let mut raw = |opcode: u16, len: usize, room: usize| {
        let mut input = vec![0; len];
        input[..2].copy_from_slice(&opcode.to_be_bytes());
        let output = host.queue().raw(0, &input, room).unwrap();
        syndrome(decode::<OutputHeader>(&output))
    };
    assert_eq!(raw(0xfff, 16, 16), refused(Refusal::UnknownOpcode));
    let create = Opcode::CREATE_GENERAL_OBJECT as u16;
    assert_eq!(raw(create, 64, 64).0, Status::BAD_OP_ERR);
    let create = Opcode::CREATE_EQ as u16;
    assert_eq!(raw(create, 64, 16), refused(Refusal::InputTooShort));
    let query = prm::eq::QueryEq::OPCODE as u16;
    assert_eq!(raw(query, 16, 16), refused(Refusal::OutputTooShort));
}

#[test]
fn a_device_that_is_gone() {
    let mut host = running();
    let fault = host.function.inject(Fault::Gone {}).unwrap();
    let again = host.function.inject(Fault::Gone {}).unwrap();
    assert_eq!(read(&host, 0), u32::MAX);
    host.function.clear_fault(again).unwrap();
    assert!(host.dma.snapshot().load::<u8>(BASE).is_err());
    assert!(host.function.is_gone());
    prepare(&mut host, 0);
    host.queue().ring(1);
    host.function.platform.interrupts.raise(0);
    assert_eq!(host.vectors.count(0), 0);
    host.function.clear_fault(fault).unwrap();
    assert_ne!(read(&host, 0), u32::MAX);
    // It is as after a reset.
    assert!(!host.queue().is_done(0));
    host.attach();
    assert_eq!(syndrome(make(&mut host, 0)).0, Status::BAD_SYS_STATE_ERR);
}

#[test]
fn a_firmware_that_is_not_well() {
    let mut host = running();
    let (counter, health) = (offset("health_counter"), offset("health"));
    let fault = Fault::Health {
        syndrome: Name::from("HW_FATAL_ERR"),
        fatal: true,
    };
    let fault = host.function.inject(fault).unwrap();
    assert_eq!(read(&host, counter), read(&host, counter));
    assert_eq!((read(&host, health + 0x3c) >> 16) & 0xff, 8);
    assert_eq!(read(&host, health + 0x38) >> 31, 1);
    prepare(&mut host, 0);
    host.queue().ring(1);
    host.function.clear_fault(fault).unwrap();
    assert!(!host.queue().is_done(0));
    assert_ne!(read(&host, counter), read(&host, counter));
    assert_eq!(read(&host, health + 0x3c), 0);
    let interface = (read(&host, offset("cmdq_addr_l_sz")) >> 8) & 7;
    assert_eq!(interface, NicInterface::DISABLED as u32);
    // A driver begins from the beginning.
    host.attach();
    assert_eq!(syndrome(make(&mut host, 0)).0, Status::BAD_SYS_STATE_ERR);
}

#[test]
fn interrupts_for_nothing() {
    let host = running();
    let fault = Fault::SpuriousInterrupt {
        vector: 3,
        count: 2,
    };
    host.function.inject(fault).unwrap();
    assert_eq!(host.vectors.count(3), 2);
    assert_eq!(host.function.report().interrupts, 2);
}

#[test]
fn events_for_the_asking() {
    let mut host = running();
    let uar = host.call::<AllocUar>(|_| {}).unwrap().uar();
    let bits = (1 << EventType::PORT_CHANGE as u64) | (1 << EventType::PAGE_REQUEST as u64);
    let mut queue = host.create_eq(5, 1, bits, uar).unwrap();
    let mut next = || queue.take().map(|entry| entry.event_type().unwrap());

    let flap = Fault::Link { state: Link::Flap };
    host.function.inject(flap).unwrap();
    assert_eq!(next(), Some(EventType::PORT_CHANGE));
    assert_eq!(next(), Some(EventType::PORT_CHANGE));
    assert_eq!(next(), None);

    let down = Fault::Link { state: Link::Down };
    let id = host.function.inject(down.clone()).unwrap();
    assert_eq!(next(), Some(EventType::PORT_CHANGE));
    // It is down already, and stays so until nothing holds it down.
    let other = host.function.inject(down).unwrap();
    host.function.clear_fault(id).unwrap();
    assert_eq!(next(), None);
    host.function.clear_fault(other).unwrap();
    assert_eq!(next(), Some(EventType::PORT_CHANGE));

    let pages = Fault::PageRequest { pages: 4 };
    host.function.inject(pages.clone()).unwrap();
    assert_eq!(next(), Some(EventType::PAGE_REQUEST));
    assert_eq!(host.function.report().events, 5);

    // Nobody would hear it.
    host.function.reset();
    let refused = host.function.inject(pages).unwrap_err();
    assert!(matches!(refused, FaultError::NotNow(_)));
    assert_eq!(host.function.faults().len(), 2);
}

/// A place to write to that can be read.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_trace_tells_what_happened() {
    let written = Shared::default();
    let mut board = Board::new(1).unwrap();
    board.trace = Arc::new(Trace::to_writer(written.clone()).unwrap());
    let mut host = running_on(&board);
    let fault = Fault::Fail {
        command: which(Some(1)),
        status: Name::Number(0x99),
        syndrome: 1,
    };
    let id = host.function.inject(fault).unwrap();
    assert!(make(&mut host, 4).is_err());
    let pd = make(&mut host, 5).unwrap();
    host.function.reset();
    drop(host);
    drop(board);

    let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let commands: Vec<_> = lines
        .iter()
        .filter(|line| line["type"] == "command" && line["opcode"] == "ALLOC_PD")
        .collect();
    assert_eq!(commands.len(), 2, "{text}");
    assert_eq!(commands[0]["opcode"], "ALLOC_PD");
    assert_eq!(commands[0]["status"], "0x99");
    assert_eq!(commands[0]["faults"][0], id);
    assert!(
        commands[0]["output"].is_object(),
        "it has fields all the same"
    );
    assert_eq!(commands[1]["slot"], 5);
    assert_eq!(commands[1]["output"]["pd"], pd);
    let reset = lines.iter().find(|line| line["text"] == "reset").unwrap();
    assert_eq!(reset["fields"]["left_behind"]["protection domain"], 1);

    let mut timeline = Vec::new();
    trace::chrome(text.as_bytes(), &mut timeline).unwrap();
    let timeline: serde_json::Value = serde_json::from_slice(&timeline).unwrap();
    let bars = timeline["traceEvents"].as_array().unwrap().iter();
    assert_eq!(bars.filter(|bar| bar["name"] == "ALLOC_PD").count(), 2);

    // Capabilities are a structure of their own.
    let is = |line: &&serde_json::Value| line["opcode"] == "SET_HCA_CAP";
    let set = lines.iter().find(is).unwrap();
    assert_eq!(set["input"]["capability"]["port_type"], "ETH");
}

#[test]
fn a_doorbell_without_a_command_hides_none_that_comes_later() {
    let mut host = running();
    for pause in (0..2000).cycle().take(20_000) {
        // The firmware may be looking at the slot when it is rung again.
        host.queue().ring(1 << 3);
        (0..pause).for_each(|_| hint::spin_loop());
        let output = host.queue().raw(3, &encode::<Nop>(&NopIn::new(), &[]), 16);
        output.expect("the command is not lost");
    }
}

#[test]
fn a_reset_is_the_end_of_the_driver_before_it_and_no_other() {
    let mut host = running();
    host.set_direct(true);
    let function = host.function.clone();
    for pause in (0..1000).cycle().take(2000) {
        // A thread is told of this, and has to wait. What it does then is none of the next
        // driver's business.
        let hca = function.hca.lock().unwrap();
        let disabled = (NicInterface::DISABLED as u32) << 8;
        function.bar_write(offset("cmdq_addr_l_sz"), &disabled.to_be_bytes());
        (0..10 * pause).for_each(|_| hint::spin_loop());
        drop(hca);
        host.reset();
        host.initialize().expect("the function comes up");
    }
}

#[test]
fn the_driver_can_ask_how_many_commands_were_refused() {
    let mut host = running();
    let refused = |host: &mut Host| {
        let counters = host.call::<QueryVnicEnv>(|_| {}).unwrap();
        counters.vport_env().invalid_command()
    };
    let before = refused(&mut host);
    host.call::<Nop>(|_| {}).unwrap();
    assert_eq!(refused(&mut host), before);
    host.call::<DeallocPd>(|_| {}).unwrap_err();
    assert_eq!(refused(&mut host), before + 1);
}
