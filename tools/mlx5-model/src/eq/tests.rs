// SPDX-License-Identifier: GPL-2.0

use std::{
    collections::VecDeque,
    sync::atomic::{
        AtomicUsize,
        Ordering, //
    },
};

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;
use crate::uar;

/// Where the queue of a test is.
const QUEUE: u64 = 0x3000;

/// Counts interrupts of vector 7.
#[derive(Default)]
struct Counter(AtomicUsize);

impl Interrupts for Counter {
    fn count(&self) -> u16 {
        8
    }

    fn raise(&self, vector: u16) {
        assert_eq!(vector, 7);
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A driver with one event queue.
struct Driver {
    events: Events,
    interrupts: Arc<Counter>,
    log_size: u8,
    consumed: u32,
    uar: u32,
    eqn: u32,
}

impl Driver {
    /// A queue for commands and completions; its counters begin at `count`.
    fn new(log_size: u8, count: u32) -> Self {
        let memory = Arc::new(DmaSpace::anonymous(0x4000).unwrap());
        // The driver marks every entry as the device's.
        let owner = !(count >> log_size) as u8 & 1;
        for index in 0..1 << log_size {
            let ahead = u64::from(count) & ((1 << log_size) - 1) > index;
            let addr = QUEUE + ENTRY * index + ENTRY - 1;
            let bit = if ahead { owner ^ 1 } else { owner };
            memory.snapshot().write(addr, &[bit]).unwrap();
        }
        let interrupts = Arc::new(Counter::default());
        let mut general = CmdHcaCap::new();
        general.set_max_num_eqs(4);
        let events = Events::new(&general, memory, interrupts.clone(), Arc::default());
        let mut uars = uar::uars();
        let uar = uars.add(Uar).unwrap();
        let eq = Eq {
            buffer: Buffer::new(&QUEUE.to_be_bytes(), 0, 0, ENTRY << log_size).unwrap(),
            log_size,
            log_page_size: 0,
            page_offset: 0,
            vector: 7,
            mask: 1 << EventType::CMD as u8,
            uar: uars.hold(uar).unwrap(),
            ring: Mutex::new(Ring {
                producer: count,
                consumer: count,
                ..Ring::default()
            }),
        };
        let eqn = events.queues.write().add(eq).unwrap();
        Self {
            events,
            interrupts,
            log_size,
            consumed: count,
            uar,
            eqn,
        }
    }

    /// Takes the next entry, as the driver of the kernel does: the parity of its own rounds says
    /// whether there is one.
    fn next(&mut self) -> Option<Eqe> {
        let index = u64::from(self.consumed) & ((1 << self.log_size) - 1);
        let mut entry = Eqe::new();
        let memory = self.events.memory.snapshot();
        let addr = QUEUE + ENTRY * index;
        memory.read(addr, entry.as_mut_bytes()).unwrap();
        if (u32::from(entry.owner()) ^ (self.consumed >> self.log_size)) & 1 != 0 {
            return None;
        }
        self.consumed = (self.consumed + 1) & COUNTER;
        Some(entry)
    }

    fn ring(&self, uar: u32, consumed: u32, arm: bool) {
        let mut doorbell = EqDoorbell::new();
        doorbell
            .set_eqn(self.eqn as u8)
            .set_consumer_counter(consumed & COUNTER);
        self.events.doorbell(uar, &doorbell, arm);
    }

    fn interrupts(&self) -> usize {
        self.interrupts.0.load(Ordering::Relaxed)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Post,
    Consume(u32),
    /// Tells how far it has come.
    Ring {
        arm: bool,
    },
    /// Tells a number of entries that it cannot have consumed.
    Lie(u32, bool),
    /// Writes to a page of doorbells that is not the queue's.
    Elsewhere,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Post),
        3 => (1..6u32).prop_map(Step::Consume),
        3 => any::<bool>().prop_map(|arm| Step::Ring { arm }),
        1 => (1..COUNTER - 16, any::<bool>()).prop_map(|(by, arm)| Step::Lie(by, arm)),
        1 => Just(Step::Elsewhere),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_in_order(
        log_size in 0..4u8,
        count in prop_oneof![Just(0), COUNTER - 40..=COUNTER],
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut driver = Driver::new(log_size, count);
        let size = 1usize << log_size;
        // What the device must have: entries not consumed, and of these what it knows of.
        let mut written = VecDeque::new();
        let mut told = count;
        let mut producer = count;
        let mut armed = false;
        let mut interrupts = 0;
        let mut posted = 0;
        let mut lost = 0;
        let pending = |producer: u32, told: u32| (producer.wrapping_sub(told) & COUNTER) as usize;
        for (number, step) in (0u32..).zip(steps) {
            match step {
                Step::Post => {
                    let fits = pending(producer, told) < size;
                    prop_assert_eq!(driver.events.post(Event::Command(number)), fits);
                    if fits {
                        written.push_back(number);
                        producer = (producer + 1) & COUNTER;
                        posted += 1;
                        interrupts += usize::from(std::mem::take(&mut armed));
                    } else {
                        lost += 1;
                    }
                }
                Step::Consume(most) => {
                    for _ in 0..most {
                        let entry = driver.next();
                        let number = written.pop_front();
                        prop_assert_eq!(entry.is_some(), number.is_some());
                        let (Some(entry), Some(number)) = (entry, number) else {
                            break;
                        };
                        prop_assert_eq!(entry.event_type(), Ok(EventType::CMD));
                        let (data, _) = EqeCmd::split(entry.data()).unwrap();
                        prop_assert_eq!(data.vector(), number);
                    }
                }
                Step::Ring { arm } => {
                    driver.ring(driver.uar, driver.consumed, arm);
                    told = driver.consumed;
                    if arm {
                        armed = told == producer;
                        interrupts += usize::from(!armed);
                    }
                }
                Step::Lie(by, arm) => {
                    driver.ring(driver.uar, producer.wrapping_add(by), arm);
                    if arm {
                        armed = told == producer;
                        interrupts += usize::from(!armed);
                    }
                }
                Step::Elsewhere => driver.ring(driver.uar + 1, driver.consumed, true),
            }
            prop_assert_eq!(driver.interrupts(), interrupts);
        }
        // What was lost is not counted as an event.
        prop_assert_eq!(driver.events.journal.stats.events.get(), posted);
        let queues = driver.events.queues.read();
        let context = queues.get(driver.eqn).unwrap().query();
        let context = context.eq_context_entry();
        prop_assert_eq!(context.producer_counter(), producer);
        prop_assert_eq!(context.consumer_counter(), told);
        prop_assert_eq!(context.st() == Ok(EqState::ARMED), armed);
        prop_assert_eq!(context.status() == Ok(EqStatus::OK), lost == 0);
    }
}

#[test]
fn a_queue_hears_of_what_it_wants() {
    let mut driver = Driver::new(3, 0);
    assert!(driver.events.wanted(EventType::CMD));
    assert!(!driver.events.wanted(EventType::PORT_CHANGE));
    assert!(!driver.events.post(Event::PortChange { up: true }));
    // A completion goes to the queue that it names, whatever that one wants.
    let eqn = driver.eqn;
    assert!(driver.events.post(Event::Completion { eqn, cqn: 0x123 }));
    assert!(!driver.events.post(Event::Completion {
        eqn: eqn + 1,
        cqn: 0x123
    }));
    let entry = driver.next().unwrap();
    assert_eq!(entry.event_type(), Ok(EventType::COMP));
    assert_eq!(EqeComp::split(entry.data()).unwrap().0.cqn(), 0x123);
    assert!(driver.next().is_none());
}

#[test]
fn nothing_is_written_to_a_queue_that_is_gone() {
    let mut driver = Driver::new(3, 0);
    driver.ring(driver.uar, 0, true);
    driver.events.clear();
    assert!(!driver.events.post(Event::Command(1)));
    assert_eq!(driver.interrupts(), 0);
    assert!(driver.next().is_none());
}

#[test]
fn entries_say_what_happened() {
    let entry = Event::PageRequest(-3).entry();
    assert_eq!(entry.data()[4..8], (-3i32).to_be_bytes());
    let entry = Event::PortChange { up: true }.entry();
    assert_eq!((entry.sub_type(), entry.data()[8]), (4, 0x10));
    let entry = Event::ObjectChange {
        obj_type: ObjectType::VIRTIO_NET_Q,
        obj_id: 0x55,
    }
    .entry();
    assert_eq!(entry.data()[..8], [0, 0, 0, 0x0d, 0, 0, 0, 0x55]);
}
