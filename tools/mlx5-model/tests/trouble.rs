// SPDX-License-Identifier: GPL-2.0

//! Mistakes of a driver, commands that come all at once, and faults.

use mlx5_host::{
    command::{
        decode,
        encode, //
    },
    net::Options,
    pair::Side,
    Board,
    Failure,
    Host, //
};
use mlx5_model::{
    control::{
        Control,
        Request, //
    },
    fault::Fault,
    refusal::Refusal, //
};
use prm::{
    cap::{
        CapType,
        CmdHcaCap, //
    },
    command::InputHeader,
    eq::EventType,
    hca::Nop,
    page::{
        ManagePages,
        ManagePagesIn,
        PagesMove, //
    },
    pd::{
        AllocPd,
        AllocPdOut,
        DeallocPd, //
    },
    umem::CreateUmem,
    virtq::CreateVirtioNetQ,
    Command,
    Layout,
    Status, //
};
use serde_json::{
    json,
    Value, //
};

/// A function that runs.
fn host() -> Host {
    let mut host = Board::new(1).unwrap().host("cx7", 0).unwrap();
    host.start().unwrap();
    host
}

fn fault(host: &Host, fault: Value) -> u32 {
    let fault: Fault = serde_json::from_value(fault).unwrap();
    host.function.inject(fault).unwrap()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Failure>) -> (Status, u32) {
    match result.unwrap_err() {
        Failure::Refused { status, syndrome } => (status.unwrap(), syndrome),
        other => panic!("{other}"),
    }
}

#[test]
fn every_mistake_has_a_status_and_a_syndrome_of_its_own() {
    let mut host = host();
    let mut seen = Vec::new();
    let mut expect = |(status, syndrome): (Status, u32), expected: Status| {
        assert_eq!(status, expected);
        assert_ne!(syndrome, 0);
        assert!(!seen.contains(&syndrome), "syndrome {syndrome:#x} twice");
        seen.push(syndrome);
    };
    // There is no such command, and no such type of object.
    let mut input = encode::<Nop>(&<Nop as Command>::Input::new(), &[]);
    input[..2].copy_from_slice(&[0x7f, 0xff]);
    expect(refusal(host.raw(&input, 16)), Status::BAD_OP_ERR);
    let mut input = encode::<CreateVirtioNetQ>(&<CreateVirtioNetQ as Command>::Input::new(), &[]);
    input[6..8].copy_from_slice(&[0x7f, 0xff]);
    expect(refusal(host.raw(&input, 16)), Status::BAD_OP_ERR);
    // Too short, in and out.
    let input = encode::<CreateUmem>(&<CreateUmem as Command>::Input::new(), &[]);
    let short = &input[..input.len() - 8];
    expect(refusal(host.raw(short, 16)), Status::BAD_INP_LEN_ERR);
    let input = encode::<prm::hca::QueryIssi>(&<prm::hca::QueryIssi as Command>::Input::new(), &[]);
    expect(refusal(host.raw(&input, 0x60)), Status::BAD_OUTP_LEN_ERR);
    // What never was, what is no more, what is in use.
    let dealloc = |host: &mut Host, pd| {
        host.call::<DeallocPd>(|input| {
            input.set_pd(pd);
        })
    };
    expect(refusal(dealloc(&mut host, 0xfff)), Status::BAD_RES_ERR);
    let pd = host.call::<AllocPd>(|_| {}).unwrap().pd();
    dealloc(&mut host, pd).unwrap();
    expect(refusal(dealloc(&mut host, pd)), Status::BAD_RES_STATE_ERR);
    let pd = host.call::<AllocPd>(|_| {}).unwrap().pd();
    let key = host.create_pa_mkey(pd).unwrap();
    expect(refusal(dealloc(&mut host, pd)), Status::BAD_RES_STATE_ERR);
    host.destroy_mkey(key).unwrap();
    dealloc(&mut host, pd).unwrap();
    // In the wrong state of the function.
    let again = host.call::<prm::hca::InitHca>(|_| {});
    assert_ne!(refusal(again).1, 0);
    host.stop().unwrap();
    let early = host.call::<AllocPd>(|_| {});
    assert_ne!(refusal(early).1, 0);
}

#[test]
fn all_slots_at_once() {
    let mut host = host();
    let input = encode::<AllocPd>(&InputHeader::new(), &[]);
    let room = AllocPdOut::INFO.bytes;
    let last = host.queue().slots() - 1;
    for round in 0..4 {
        for slot in 0..last {
            host.queue().prepare(slot, &input, room);
        }
        host.queue().ring((1 << last) - 1);
        let mut pds: Vec<u32> = (0..last)
            .map(|slot| {
                let output = host.queue().finish(slot).unwrap();
                decode::<AllocPdOut>(&output).unwrap().0.pd()
            })
            .collect();
        // They are executed in an order of their own, each exactly once.
        assert!(!pds.is_sorted(), "round {round}: in the order of the slots");
        pds.sort_unstable();
        pds.dedup();
        assert_eq!(pds.len(), last);
        for pd in pds {
            host.call::<DeallocPd>(|input| {
                input.set_pd(pd);
            })
            .unwrap();
        }
    }
    host.stop().unwrap();
}

#[test]
fn a_lost_interrupt_leaves_the_command_done() {
    let mut host = host();
    host.wait_by_event(true);
    host.call::<Nop>(|_| {}).unwrap();
    host.wait_by_event(false);
    let before = host.vectors.count(0);
    let id = fault(&host, json!({"kind": "lose_interrupts", "vector": 0}));
    host.call::<Nop>(|_| {}).unwrap();
    assert_eq!(host.vectors.count(0), before);
    host.function.clear_fault(id).unwrap();
    fault(
        &host,
        json!({"kind": "spurious_interrupt", "vector": 9, "count": 3}),
    );
    assert_eq!(host.vectors.wait(9, 2), Some(3));
}

#[test]
fn the_link_flaps_and_pages_are_asked_for() {
    let mut host = host();
    let id = fault(&host, json!({"kind": "link", "state": "down"}));
    let event = host.wait_event().unwrap();
    assert_eq!(event.event_type(), Ok(EventType::PORT_CHANGE));
    host.function.clear_fault(id).unwrap();
    let event = host.wait_event().unwrap();
    assert_eq!(event.event_type(), Ok(EventType::PORT_CHANGE));
    fault(&host, json!({"kind": "page_request", "pages": 3}));
    let start = std::time::Instant::now();
    let asked = loop {
        if let Some(asked) = host.next_page_request() {
            break asked;
        }
        assert!(start.elapsed() < mlx5_host::vectors::PATIENCE);
        std::thread::yield_now();
    };
    assert_eq!(asked, 3);
}

#[test]
fn a_queue_goes_to_error_and_says_so() {
    let board = Board::new(1).unwrap();
    let mut side = Side::new(&board, "cx7", 0, Options::default());
    let id = side.net.queues[1].id;
    fault(&side.host, json!({"kind": "queue_error", "queue": id}));
    let event = side.host.wait_event().unwrap();
    assert_eq!(event.event_type(), Ok(EventType::OBJECT_CHANGE));
    let (change, _) = prm::eq::EqeObjChange::split(event.data()).unwrap();
    assert_eq!(change.obj_id(), id);
    let object = side.net.query(&mut side.host, 1).unwrap();
    assert_eq!(object.state(), Ok(prm::virtq::State::ERR));
    let again: Fault = serde_json::from_value(json!({"kind": "queue_error", "queue": id})).unwrap();
    let refused = side.host.function.inject(again).unwrap_err().to_string();
    assert!(refused.contains("in error already"), "{refused}");
    assert_eq!(side.host.function.faults().len(), 1);
    side.end();
}

#[test]
fn what_a_queue_tells_by_goes_to_error_and_says_so() {
    let board = Board::new(1).unwrap();
    let options = Options {
        channels: true,
        ..Options::default()
    };
    let mut side = Side::new(&board, "cx6dx-old", 0, options);
    for (at, part, expected) in [
        (0, "pair", EventType::WQ_ACCESS_ERROR),
        (1, "completions", EventType::CQ_ERROR),
    ] {
        let id = side.net.queues[at].id;
        let asked = json!({"kind": "event_error", "queue": id, "part": part});
        fault(&side.host, asked.clone());
        let event = side.host.wait_event().unwrap();
        assert_eq!(event.event_type(), Ok(expected));
        // The virtqueue goes on.
        let object = side.net.query(&mut side.host, at).unwrap();
        assert_ne!(object.state(), Ok(prm::virtq::State::ERR));
        let again: Fault = serde_json::from_value(asked).unwrap();
        let refused = side.host.function.inject(again).unwrap_err().to_string();
        assert!(refused.contains("there is no virtqueue"), "{refused}");
    }
    side.end();
}

/// Reads 32 bits of BAR 0.
fn register(host: &Host, offset: u64) -> u32 {
    let mut bytes = [0; 4];
    host.function.bar_read(offset, &mut bytes);
    u32::from_be_bytes(bytes)
}

#[test]
fn a_fault_stays_when_another_of_its_kind_goes() {
    let mut host = host();
    let gone = json!({"kind": "gone"});
    let ids = [fault(&host, gone.clone()), fault(&host, gone)];
    host.function.clear_fault(ids[1]).unwrap();
    assert_eq!(register(&host, 0), u32::MAX);
    let page = host.memory.alloc(1);
    let memory = &host.function.platform.memory;
    assert!(memory.snapshot().load::<u8>(page.addr()).is_err());
    host.function.clear_fault(ids[0]).unwrap();
    host.reset();
    host.start().unwrap();

    let syndrome = |host: &Host| (register(host, 0x23c) >> 16) & 0xff;
    let counts = |host: &Host| register(host, 0x1010) != register(host, 0x1010);
    let fatal = json!({"kind": "health", "syndrome": "HW_FATAL_ERR"});
    let hot = json!({"kind": "health", "syndrome": "HIGH_TEMP_ERR", "fatal": false});
    let ids = [fault(&host, fatal.clone()), fault(&host, hot)];
    // It does not come back to life by being hot too.
    assert_eq!((syndrome(&host), counts(&host)), (8, false));
    let other = fault(&host, fatal);
    host.function.clear_fault(ids[0]).unwrap();
    assert_eq!((syndrome(&host), counts(&host)), (8, false));
    host.function.clear_fault(other).unwrap();
    assert_eq!((syndrome(&host), counts(&host)), (0x10, true));
    host.function.clear_fault(ids[1]).unwrap();
    assert_eq!((syndrome(&host), counts(&host)), (0, true));
    host.reset();
    host.start().unwrap();
    host.stop().unwrap();
}

#[test]
fn a_dead_firmware_does_not_use_faults_up() {
    let mut host = host();
    let lose = json!({"kind": "lose", "command": {"opcode": "NOP", "count": 1}});
    let lose = fault(&host, lose);
    let fatal = fault(&host, json!({"kind": "health", "syndrome": "HW_FATAL_ERR"}));
    let hits = |host: &Host| {
        let faults = host.function.faults();
        faults.iter().find(|listed| listed.id == lose).unwrap().hits
    };
    let input = encode::<Nop>(&<Nop as Command>::Input::new(), &[]);
    host.queue().prepare(0, &input, 16);
    host.queue().ring(1);
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(hits(&host), 0);
    host.function.clear_fault(fatal).unwrap();
    host.reset();
    host.start().unwrap();
    host.queue().prepare(0, &input, 16);
    host.queue().ring(1);
    let start = std::time::Instant::now();
    while hits(&host) == 0 {
        assert!(start.elapsed() < mlx5_host::vectors::PATIENCE);
        std::thread::yield_now();
    }
}

#[test]
fn all_faults_are_cleared_by_two_at_once() {
    let host = host();
    for round in 0..20 {
        for vector in 0..50 {
            fault(&host, json!({"kind": "lose_interrupts", "vector": vector}));
        }
        std::thread::scope(|scope| {
            let clear = || host.function.control(&Request::Clear { fault: None });
            let other = scope.spawn(clear);
            assert_eq!(clear(), Ok(Value::Null), "round {round}");
            assert_eq!(other.join().unwrap(), Ok(Value::Null), "round {round}");
        });
        assert_eq!(host.function.faults(), []);
    }
}

#[test]
fn no_page_is_taken_back_without_its_address() {
    let mut host = Board::new(1).unwrap().host("cx7", 0).unwrap();
    host.initialize().unwrap();
    let held = host.pages();
    assert!(held >= 4);
    let mut input = ManagePagesIn::new();
    input.set_op_mod(PagesMove::TAKE).set_input_num_entries(4);
    let short = host.execute::<ManagePages>(&input, &[], 3 * 8).map(drop);
    let refused = Refusal::OutputTooShort;
    assert_eq!(refusal(short), (refused.status(), refused.syndrome()));
    assert_eq!(host.function.report().pages, held as u64);
    assert_eq!(host.take_pages(4).unwrap(), 4);
    // The room is for the pages that there are.
    input.set_input_num_entries(u32::MAX);
    let (output, _) = host
        .execute::<ManagePages>(&input, &[], 8 * (held - 4))
        .unwrap();
    assert_eq!(output.output_num_entries() as usize, held - 4);
}

#[test]
fn event_queues_are_as_many_and_have_such_vectors_as_there_are() {
    let mut host = host();
    let uar = host.uar_page();
    let vectors = mlx5_host::vectors::VECTORS as u16;
    let bad = host.create_eq(3, vectors, 0, uar).map(drop);
    assert_eq!(
        refusal(bad),
        (Status::BAD_PARAM_ERR, Refusal::NoVector.syndrome())
    );
    let spurious = json!({"kind": "spurious_interrupt", "vector": vectors});
    let spurious: Fault = serde_json::from_value(spurious).unwrap();
    assert!(host.function.inject(spurious).is_err());

    let count = host.capability(CapType::GENERAL, true).unwrap();
    let count = CmdHcaCap::split(&count).unwrap().0.max_num_eqs();
    let there = host.function.report().objects["event queue"];
    let queues: Vec<_> = (there..count.into())
        .map(|_| host.create_eq(3, vectors - 1, 0, uar).unwrap())
        .collect();
    let more = host.create_eq(3, 0, 0, uar).map(drop);
    assert_eq!(refusal(more).0, Status::NO_RES_ERR);
    for queue in queues {
        host.destroy_eq(queue).unwrap();
    }
    host.stop().unwrap();
}

#[test]
fn a_reset_leaves_nothing() {
    let board = Board::new(1).unwrap();
    let mut side = Side::new(&board, "cx7", 0, Options::default());
    drop(side.net);
    side.host.reset();
    for (name, count) in side.host.function.report().objects {
        assert_eq!(count, 0, "{name} left after a reset");
    }
    side.host.start().unwrap();
    side.host.stop().unwrap();
}
