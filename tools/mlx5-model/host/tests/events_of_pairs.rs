// SPDX-License-Identifier: GPL-2.0

//! How a virtqueue in QP event mode tells its driver: from a message between two queue pairs to
//! the interrupt, with the driver's end as the C driver has it.

use std::{
    thread,
    time::{
        Duration,
        Instant, //
    },
};

use mlx5_host::{
    command::Failure,
    eq::EventQueue,
    memory::addresses,
    vectors::PATIENCE,
    Board,
    Buffer,
    Host, //
};
use prm::{
    cq::{
        CqStatus,
        CqeOpcode,
        CreateCq,
        CreateCqIn,
        DestroyCq,
        QueryCq, //
    },
    eq::{
        EqeComp,
        EqeCqErr,
        EqeQpSrq,
        EventType, //
    },
    pd::{
        AllocPd,
        DeallocPd, //
    },
    qp::{
        CreateQp,
        CreateQpIn,
        DestroyQp,
        Init2rtrQp,
        Qp2rst,
        QpState,
        QueryQp,
        RqType,
        Rst2initQp,
        Rtr2rtsQp, //
    },
    Layout,
    Status, //
};

/// The vector of completions.
const VECTOR: u16 = 5;

/// The bytes of a completion.
const ENTRY: u64 = 64;

/// A virtqueue's pair of queue pairs, and the driver's ends of the queues behind it.
struct Path {
    eq: EventQueue,
    cqn: u32,
    pd: u32,
    /// The one that sends.
    firmware: u32,
    /// The one that receives.
    driver: u32,
    completions: Buffer,
    log_size: u8,
    /// The doorbell records of the completion queue and of the driver's queue pair.
    records: Buffer,
    _receive: Buffer,
    consumed: u32,
    posted: u16,
    /// How many events the driver has seen.
    arms: u8,
    /// The code of how long who finds no receive entry is to wait.
    patience: u8,
}

impl Path {
    fn new(host: &mut Host, log_cq_size: u8, log_rq_size: u8) -> Self {
        Self::with_record(host, log_cq_size, log_rq_size, None)
    }

    /// Makes one whose receive queue has its doorbell record at an address of its own.
    fn with_record(host: &mut Host, log_cq_size: u8, log_rq_size: u8, record: Option<u64>) -> Self {
        let uar = host.uar_page();
        let mask = (1 << EventType::CQ_ERROR as u64) | (1 << EventType::WQ_ACCESS_ERROR as u64);
        let eq = host.create_eq(6, VECTOR, mask, uar).unwrap();
        host.arm(&eq);
        let pd = host.call::<AllocPd>(|_| {}).unwrap().pd();
        let records = host.memory.alloc(16);
        let completions = host.memory.alloc(ENTRY << log_cq_size);
        for at in 0..1u64 << log_cq_size {
            completions.set(ENTRY * at + ENTRY - 1, &[(CqeOpcode::INVALID as u8) << 4]);
        }
        let mut input = CreateCqIn::new();
        input
            .cq_context_mut()
            .set_log_cq_size(log_cq_size)
            .set_uar_page(uar)
            .set_c_eqn_or_apu_element(eq.eqn.into())
            .set_dbr_addr(records.addr());
        let tail = addresses(completions.pages());
        let (output, _) = host.execute::<CreateCq>(&input, &tail, 0).unwrap();
        let cqn = output.cqn();
        let receive = host.memory.alloc(16 << log_rq_size);
        let firmware = host.call::<CreateQp>(|input| {
            input
                .qpc_mut()
                .set_rq_type(RqType::ZERO_LEN_RQ)
                .set_no_sq(true)
                .set_pd(pd);
        });
        let mut input = CreateQpIn::new();
        input
            .qpc_mut()
            .set_no_sq(true)
            .set_pd(pd)
            .set_uar_page(uar)
            .set_cqn_rcv(cqn)
            .set_log_rq_size(log_rq_size)
            .set_dbr_addr(record.unwrap_or(records.addr() + 8));
        let tail = addresses(receive.pages());
        let (output, _) = host.execute::<CreateQp>(&input, &tail, 0).unwrap();
        let path = Self {
            eq,
            cqn,
            pd,
            firmware: firmware.unwrap().qpn(),
            driver: output.qpn(),
            completions,
            log_size: log_cq_size,
            records,
            _receive: receive,
            consumed: 0,
            posted: 0,
            arms: 0,
            patience: 1,
        };
        path.connect(host);
        path
    }

    fn connect(&self, host: &mut Host) {
        for (one, other) in [
            (self.firmware, self.driver),
            (self.driver, self.firmware), //
        ] {
            host.call::<Qp2rst>(|input| {
                input.set_qpn(one);
            })
            .unwrap();
            host.call::<Rst2initQp>(|input| {
                input.set_qpn(one).qpc_mut().set_remote_qpn(other);
            })
            .unwrap();
            host.call::<Init2rtrQp>(|input| {
                let context = input.set_qpn(one).qpc_mut();
                context.set_remote_qpn(other).set_min_rnr_nak(self.patience);
                context.primary_address_path_mut().set_fl(true);
            })
            .unwrap();
        }
        host.call::<Rtr2rtsQp>(|input| {
            input.set_qpn(self.firmware);
        })
        .unwrap();
    }

    /// Posts receive entries.
    fn post(&mut self, count: u16) {
        self.posted = self.posted.wrapping_add(count);
        let counter = u32::from(self.posted).to_be_bytes();
        self.records.set(8, &counter);
    }

    /// Tells how many completions were consumed.
    fn tell(&self) {
        let counter = (self.consumed & 0xff_ffff).to_be_bytes();
        self.records.set(0, &counter);
    }

    fn arm(&self, host: &Host) {
        host.arm_cq(self.cqn, self.arms, self.consumed);
    }

    /// Takes the next completion, if there is one.
    fn next(&mut self) -> Option<u16> {
        let at = ENTRY * u64::from(self.consumed & ((1 << self.log_size) - 1));
        let last = self.completions.get(at + ENTRY - 1, 1)[0];
        let parity = ((self.consumed >> self.log_size) & 1) as u8;
        if last >> 4 == CqeOpcode::INVALID as u8 || last & 1 != parity {
            return None;
        }
        assert_eq!(last >> 4, CqeOpcode::RESP_SEND as u8);
        let entry = self.completions.get(at, ENTRY as usize);
        let (entry, _) = prm::cq::Cqe::split(&entry).unwrap();
        assert_eq!(entry.sop_drop_qpn(), self.driver);
        self.consumed += 1;
        Some(entry.wqe_counter())
    }

    /// Waits for the next completion.
    fn wait_next(&mut self) -> u16 {
        let begin = Instant::now();
        loop {
            if let Some(number) = self.next() {
                return number;
            }
            assert!(begin.elapsed() < PATIENCE, "no completion");
            thread::yield_now();
        }
    }

    /// How many completion events there are.
    fn events(&mut self, host: &Host) -> usize {
        let mut count = 0;
        while let Some(entry) = self.eq.take() {
            assert_eq!(entry.event_type(), Ok(EventType::COMP));
            assert_eq!(EqeComp::split(entry.data()).unwrap().0.cqn(), self.cqn);
            self.arms = self.arms.wrapping_add(1);
            count += 1;
        }
        host.arm(&self.eq);
        count
    }

    fn status(&self, host: &mut Host) -> CqStatus {
        let output = host.call::<QueryCq>(|input| {
            input.set_cqn(self.cqn);
        });
        output.unwrap().cq_context().status().unwrap()
    }

    fn state(&self, host: &mut Host) -> QpState {
        let output = host.call::<QueryQp>(|input| {
            input.set_qpn(self.driver);
        });
        output.unwrap().qpc().state().unwrap()
    }

    /// Takes everything away, each only when nothing uses it any more.
    fn destroy(self, host: &mut Host) {
        let in_use = |result: Result<(), Failure>| match result {
            Err(Failure::Refused { status, .. }) => {
                assert_eq!(status, Ok(Status::BAD_RES_STATE_ERR));
            }
            other => panic!("{other:?}"),
        };
        let Self { cqn, pd, .. } = self;
        let destroy_cq = |host: &mut Host| {
            host.call::<DestroyCq>(|input| {
                input.set_cqn(cqn);
            })
            .map(drop)
        };
        let dealloc_pd = |host: &mut Host| {
            host.call::<DeallocPd>(|input| {
                input.set_pd(pd);
            })
            .map(drop)
        };
        in_use(destroy_cq(host));
        for qpn in [self.firmware, self.driver] {
            in_use(dealloc_pd(host));
            host.call::<DestroyQp>(|input| {
                input.set_qpn(qpn);
            })
            .unwrap();
        }
        dealloc_pd(host).unwrap();
        destroy_cq(host).unwrap();
        host.destroy_eq(self.eq).unwrap();
    }
}

fn host() -> Host {
    let board = Board::new(1).unwrap();
    let mut host = board.host("cx7", 0).unwrap();
    host.start().unwrap();
    host
}

/// Sends an event as a virtqueue does.
fn send(host: &Host, path: &Path) {
    let platform = &host.function.platform;
    let pair = platform.qps.hold(path.firmware).unwrap();
    pair.send_event(platform);
}

#[test]
fn an_event_for_an_armed_queue_and_no_other() {
    let mut host = host();
    let mut path = Path::new(&mut host, 4, 3);
    path.post(8);
    send(&host, &path);
    assert_eq!((path.next(), path.events(&host)), (Some(0), 0));
    path.arm(&host);
    send(&host, &path);
    send(&host, &path);
    assert_eq!(host.vectors.count(VECTOR), 1);
    assert_eq!(path.events(&host), 1);
    assert_eq!((path.next(), path.next()), (Some(1), Some(2)));
    // An old number is of before the event.
    host.arm_cq(path.cqn, 0, path.consumed);
    send(&host, &path);
    assert_eq!((path.next(), path.events(&host)), (Some(3), 0));
    // Armed for something that is there already.
    send(&host, &path);
    path.arm(&host);
    assert_eq!((path.next(), path.events(&host)), (Some(4), 1));
    path.destroy(&mut host);
    host.stop().unwrap();
}

#[test]
fn events_wait_for_receive_entries() {
    let mut host = host();
    let mut path = Path::new(&mut host, 3, 1);
    path.post(2);
    (0..5).for_each(|_| send(&host, &path));
    assert_eq!([path.next(), path.next()], [Some(0), Some(1)]);
    assert_eq!(path.next(), None);
    path.tell();
    path.post(2);
    assert_eq!(path.next(), None);
    // Who arms the queue has posted before.
    path.arm(&host);
    assert_eq!([path.wait_next(), path.wait_next()], [2, 3]);
    assert_eq!((path.next(), path.events(&host)), (None, 1));
    path.tell();
    path.post(2);
    path.arm(&host);
    assert_eq!(path.wait_next(), 4);
    send(&host, &path);
    assert_eq!(path.wait_next(), 5);
    assert_eq!(path.next(), None);
    assert!(host.function.report().waits > 0);
    path.destroy(&mut host);
    host.stop().unwrap();
}

#[test]
fn who_finds_no_receive_entry_waits_as_long_as_the_driver_said() {
    let mut host = host();
    let mut path = Path::new(&mut host, 3, 1);
    // The longest time.
    path.patience = 0;
    path.connect(&mut host);
    path.post(2);
    let begin = Instant::now();
    (0..3).for_each(|_| send(&host, &path));
    assert_eq!([path.next(), path.next()], [Some(0), Some(1)]);
    path.tell();
    path.post(2);
    // Neither that the driver arms the queue nor another message makes it shorter.
    path.arm(&host);
    send(&host, &path);
    assert_eq!([path.wait_next(), path.wait_next()], [2, 3]);
    assert!(begin.elapsed() >= Duration::from_micros(655_360));
    path.destroy(&mut host);
    host.stop().unwrap();
}

#[test]
fn an_overrun_is_an_error() {
    let mut host = host();
    let mut path = Path::new(&mut host, 1, 3);
    path.post(8);
    (0..2).for_each(|_| send(&host, &path));
    assert_eq!([path.next(), path.next()], [Some(0), Some(1)]);
    // What was consumed is known by the record alone.
    path.tell();
    (0..2).for_each(|_| send(&host, &path));
    assert_eq!(path.status(&mut host), CqStatus::OK);
    send(&host, &path);
    assert_eq!(path.status(&mut host), CqStatus::CQ_OVERFLOW);
    let entry = path.eq.take().unwrap();
    assert_eq!(entry.event_type(), Ok(EventType::CQ_ERROR));
    let (error, _) = EqeCqErr::split(entry.data()).unwrap();
    assert_eq!((error.cqn(), error.syndrome()), (path.cqn, 1));
    // What was not consumed is still there.
    assert_eq!([path.next(), path.next()], [Some(2), Some(3)]);
    path.destroy(&mut host);
    host.stop().unwrap();
}

#[test]
fn a_counter_goes_on_from_an_earlier_life() {
    let mut host = host();
    let mut path = Path::new(&mut host, 4, 2);
    path.post(4);
    send(&host, &path);
    assert_eq!(path.next(), Some(0));
    // The queue begins anew, and the driver counts on: there are four entries, not eight.
    path.connect(&mut host);
    path.post(4);
    (0..5).for_each(|_| send(&host, &path));
    for number in 4..8 {
        assert_eq!(path.next(), Some(number));
    }
    assert_eq!(path.next(), None);
    path.tell();
    path.post(1);
    path.arm(&host);
    assert_eq!(path.wait_next(), 8);
    path.destroy(&mut host);
    host.stop().unwrap();
}

#[test]
fn a_record_that_is_not_there_is_an_error() {
    let mut host = host();
    let mut path = Path::with_record(&mut host, 4, 2, Some(1 << 40));
    send(&host, &path);
    assert_eq!(path.state(&mut host), QpState::ERR);
    let entry = path.eq.take().unwrap();
    assert_eq!(entry.event_type(), Ok(EventType::WQ_ACCESS_ERROR));
    let (error, _) = EqeQpSrq::split(entry.data()).unwrap();
    assert_eq!(error.qp_srq_n(), path.driver);
    // It takes a reset to get out of it.
    let refused = host.call::<Rst2initQp>(|input| {
        input.set_qpn(path.driver);
    });
    assert!(refused.is_err());
    path.connect(&mut host);
    assert_eq!(path.state(&mut host), QpState::RTR);
    path.destroy(&mut host);
    host.stop().unwrap();
}

#[test]
fn states_follow_each_other() {
    let mut host = host();
    let path = Path::new(&mut host, 3, 3);
    assert_eq!(path.state(&mut host), QpState::RTR);
    let refused = host.call::<Rst2initQp>(|input| {
        input.set_qpn(path.driver);
    });
    match refused {
        Err(Failure::Refused { status, .. }) => assert_eq!(status, Ok(Status::BAD_QP_STATE_ERR)),
        other => panic!("{other:?}"),
    }
    path.destroy(&mut host);
    host.stop().unwrap();
}

#[test]
fn no_event_is_lost_between_two_threads() {
    const COUNT: u16 = 4_000;
    let mut host = host();
    let mut path = Path::new(&mut host, 4, 4);
    path.post(16);
    path.arm(&host);
    let platform = host.function.platform.clone();
    let pair = platform.qps.hold(path.firmware).unwrap();
    let sender = thread::spawn(move || {
        for _ in 0..COUNT {
            pair.send_event(&platform);
        }
    });
    let mut expected = 0;
    let mut seen = 0;
    while expected < COUNT {
        seen = host
            .vectors
            .wait_for(VECTOR, seen, PATIENCE)
            .expect("an interrupt");
        path.events(&host);
        let mut count = 0;
        while let Some(number) = path.next() {
            assert_eq!(number, expected);
            expected += 1;
            count += 1;
        }
        path.tell();
        path.post(count);
        path.arm(&host);
    }
    sender.join().unwrap();
    path.destroy(&mut host);
    host.stop().unwrap();
}
