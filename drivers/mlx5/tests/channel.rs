// SPDX-License-Identifier: GPL-2.0

//! What virtqueues of older firmware tell of used buffers by, on the model: from the message of one
//! queue pair to the interrupt.

use std::thread;

use mlx5_host::{
    eq::EventQueue,
    memory::addresses,
    vectors::PATIENCE,
    Board,
    Buffer,
    Host, //
};
use mlx5_model::fault::Fault;
use prm::{
    cq::{
        CqStatus,
        CreateCq,
        CreateCqIn,
        QueryCq, //
    },
    hca::CreateUctx,
    pd::AllocPd,
    qp::{
        CreateQp,
        CreateQpIn,
        Init2rtrQp,
        QpState,
        QueryQp,
        Rst2initQp,
        Rtr2rtsQp, //
    },
    uar::CqDoorbell,
    Layout, //
};

use crate::hca::channel::{
    ring::{
        Next,
        Ring,
        ENTRY,
        OWNER,
        SIZE, //
    },
    wire, //
};

/// Those whose virtqueues do not interrupt by themselves, and one of the others.
const PROFILES: [&str; 3] = ["cx6dx-old", "minimal", "cx7"];

const VECTOR: u16 = 2;

/// Where the doorbell records are.
const CQ_RECORD: u64 = 0;
const QP_RECORD: u64 = 64;

struct Channel {
    eq: EventQueue,
    completions: Buffer,
    records: Buffer,
    _entries: Buffer,
    ring: Ring,
    cqn: u32,
    sender: u32,
    receiver: u32,
}

impl Channel {
    fn new(host: &mut Host) -> Self {
        // As the driver: on behalf of a user context where there are any.
        let uid = host.call::<CreateUctx>(|_| {}).map_or(0, |out| out.uid());
        let uar = host.uar_page();
        let eq = host.create_eq(7, VECTOR, 0, uar).unwrap();
        let pd = host
            .call::<AllocPd>(|input| _ = input.set_uid(uid))
            .unwrap();
        let completions = host.memory.alloc((SIZE * ENTRY) as u64);
        for at in (0..SIZE * ENTRY).step_by(ENTRY) {
            completions.set((at + OWNER) as u64, &[Ring::NOT_WRITTEN]);
        }
        let entries = host.memory.alloc(16 * SIZE as u64);
        let records = host.memory.alloc(128);
        let ring = Ring::default();
        records.set(QP_RECORD, &ring.posted().to_be_bytes());
        let mut input = CreateCqIn::new();
        input.set_uid(uid);
        wire::completions(&mut input, eq.eqn, uar, records.addr() + CQ_RECORD);
        let tail = addresses(completions.pages());
        let cqn = host.execute::<CreateCq>(&input, &tail, 0).unwrap().0.cqn();
        let sender = host.call::<CreateQp>(|input| {
            input.set_uid(uid);
            wire::sender(input, pd.pd());
        });
        let sender = sender.unwrap().qpn();
        let mut input = CreateQpIn::new();
        input.set_uid(uid);
        wire::receiver(&mut input, pd.pd(), uar, cqn, records.addr() + QP_RECORD);
        let tail = entries.addr().to_be_bytes();
        let receiver = host.execute::<CreateQp>(&input, &tail, 0).unwrap().0.qpn();
        for (qpn, other) in [(sender, receiver), (receiver, sender)] {
            host.call::<Rst2initQp>(|input| wire::initialize(input, qpn, other))
                .unwrap();
        }
        for (qpn, other) in [(sender, receiver), (receiver, sender)] {
            host.call::<Init2rtrQp>(|input| wire::receive(input, qpn, other))
                .unwrap();
        }
        host.call::<Rtr2rtsQp>(|input| wire::send(input, sender))
            .unwrap();
        let channel = Self {
            eq,
            completions,
            records,
            _entries: entries,
            ring,
            cqn,
            sender,
            receiver,
        };
        channel.ask(host);
        channel
    }

    /// Asks for an event.
    fn ask(&self, host: &Host) {
        self.records
            .set(CQ_RECORD + 4, &self.ring.armed().to_be_bytes());
        host.memory.region().fence();
        let doorbell = self.ring.doorbell(self.cqn);
        let platform = &host.function.platform;
        let (doorbell, _) = CqDoorbell::split(&doorbell).unwrap();
        platform.cqs.doorbell(platform, host.uar_page(), doorbell);
        host.arm(&self.eq);
    }

    /// Reads the completions there are.
    fn read(&mut self) -> usize {
        let mut count = 0;
        loop {
            let at = self.ring.place() + OWNER;
            let last = self.completions.get(at as u64, 1)[0];
            match self.ring.next(last) {
                Next::Nothing => return count,
                next => assert_eq!(next, Next::Message),
            }
            self.ring.advance();
            self.records
                .set(CQ_RECORD, &self.ring.consumed().to_be_bytes());
            self.records
                .set(QP_RECORD, &self.ring.posted().to_be_bytes());
            count += 1;
        }
    }

    /// Takes events as an interrupt does, and returns how many completions there were.
    fn interrupt(&mut self, host: &Host) -> usize {
        let mut count = 0;
        while self.eq.take().is_some() {
            self.ring.count_event();
            count += self.read();
        }
        self.ask(host);
        count
    }

    fn check(&self, host: &mut Host) {
        let queue = host.call::<QueryCq>(|input| _ = input.set_cqn(self.cqn));
        assert_eq!(queue.unwrap().cq_context().status(), Ok(CqStatus::OK));
        let pair = host.call::<QueryQp>(|input| _ = input.set_qpn(self.receiver));
        assert_eq!(pair.unwrap().qpc().state(), Ok(QpState::RTR));
    }
}

fn send(host: &Host, channel: &Channel) {
    let platform = &host.function.platform;
    let pair = platform.qps.hold(channel.sender).unwrap();
    pair.send_event(platform);
}

fn host(profile: &str) -> Host {
    let mut host = Board::new(1).unwrap().host(profile, 0).unwrap();
    host.start().unwrap();
    host
}

#[test]
fn each_message_that_was_asked_for_interrupts() {
    for profile in PROFILES {
        let mut host = host(profile);
        let mut channel = Channel::new(&mut host);
        for _ in 0..3 * SIZE {
            let before = host.vectors.count(VECTOR);
            send(&host, &channel);
            assert_eq!(host.vectors.count(VECTOR), before + 1, "{profile}");
            assert_eq!(channel.interrupt(&host), 1);
        }
        // What was read behind the firmware's back is not told of again.
        send(&host, &channel);
        assert_eq!(channel.read(), 1);
        assert_eq!(channel.interrupt(&host), 0);
        send(&host, &channel);
        assert_eq!(channel.interrupt(&host), 1);
        channel.check(&mut host);
    }
}

#[test]
fn nothing_overruns_that_nobody_reads() {
    let mut host = host("cx6dx-old");
    let mut channel = Channel::new(&mut host);
    for _ in 0..5 * SIZE {
        send(&host, &channel);
    }
    channel.check(&mut host);
    // The pair has sent what there were entries for, and sends the rest as they come: it asks for
    // them as often as it can.
    assert_eq!(host.vectors.count(VECTOR), 1);
    assert!(host.function.report().waits > 0);
    let pair = host.call::<QueryQp>(|input| _ = input.set_qpn(channel.receiver));
    assert_eq!(pair.unwrap().qpc().min_rnr_nak(), 1);
    let mut count = 0;
    while count < 5 * SIZE {
        count += channel.interrupt(&host);
    }
    assert_eq!(count, 5 * SIZE);
    channel.check(&mut host);
}

/// Something is wrong with completions of the channel.
fn fault(host: &Host, text: &str) -> u32 {
    let fault = serde_json::from_str::<Fault>(text).unwrap();
    host.function.inject(fault).unwrap()
}

#[test]
fn events_that_were_lost_are_made_up_for() {
    let mut host = host("cx6dx-old");
    let mut channel = Channel::new(&mut host);
    for count in 1..=4 {
        let text = format!(r#"{{"kind":"lose_events","vector":{VECTOR},"count":{count}}}"#);
        let lost = fault(&host, &text);
        // Each look finds what came, and the firmware listens in the end.
        let mut looks = 0;
        loop {
            let before = host.vectors.count(VECTOR);
            send(&host, &channel);
            if host.vectors.count(VECTOR) > before {
                assert_eq!(channel.interrupt(&host), 1);
                // The last of them may have been taken for one that was lost.
                if looks > 2 * count {
                    break;
                }
            }
            let any = channel.read() > 0;
            channel.ring.look(any);
            channel.ask(&host);
            looks += 1;
            assert!(looks < 20, "{count}");
        }
        host.function.clear_fault(lost).unwrap();
    }
    channel.check(&mut host);
}

#[test]
fn any_message_will_do_and_errors_are_seen() {
    for (opcode, expected) in [
        ("RESP_WR_IMM", Next::Message),
        ("3", Next::Message),
        ("4", Next::Message),
        ("RESP_ERR", Next::Error),
        ("REQ_ERR", Next::Error),
    ] {
        let mut host = host("cx6dx-old");
        let channel = Channel::new(&mut host);
        let text = format!(r#"{{"kind":"completion_opcode","opcode":"{opcode}","count":1}}"#);
        fault(&host, &text);
        send(&host, &channel);
        let last = channel.completions.get(OWNER as u64, 1)[0];
        assert_eq!(channel.ring.next(last), expected, "{opcode}");
    }
}

#[test]
fn nothing_is_lost_between_two_threads() {
    const COUNT: usize = 5000;
    let mut host = host("cx6dx-old");
    let mut channel = Channel::new(&mut host);
    let platform = host.function.platform.clone();
    let pair = platform.qps.hold(channel.sender).unwrap();
    let sender = thread::spawn(move || (0..COUNT).for_each(|_| pair.send_event(&platform)));
    let (mut count, mut seen) = (0, 0);
    while count < COUNT {
        seen = host
            .vectors
            .wait_for(VECTOR, seen, PATIENCE)
            .expect("an interrupt");
        count += channel.interrupt(&host);
    }
    sender.join().unwrap();
    assert_eq!((count, channel.interrupt(&host)), (COUNT, 0));
    channel.check(&mut host);
}
