// SPDX-License-Identifier: GPL-2.0

//! What a session makes of what it is asked, in the order of monitors and in any.

use std::{
    cell::RefCell,
    fs::File,
    os::{
        fd::OwnedFd,
        unix::fs::FileExt, //
    },
    rc::Rc, //
};

use proptest::prelude::*;
use rustix::event::{
    eventfd,
    EventfdFlags, //
};
use virtio::{
    byte_order::ByteOrder,
    features::Features, //
};
use vmm_sys_util::tempfile::TempFile;

use super::fake::{
    traits,
    Fake,
    State, //
};
use crate::{
    device::{
        status,
        Traits, //
    },
    failure::Failure,
    mapping::identify,
    memory::{
        Region,
        PAGE, //
    },
    ring::Addresses,
    session::Session,
    wire::{
        protocol,
        PROTOCOL_FEATURES, //
    },
};

const MODERN: u64 = (1 << 32) | PROTOCOL_FEATURES;
const LEGACY: u64 = PROTOCOL_FEATURES;
const DRIVER_OK: u8 =
    status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;

/// Where the monitor has the guest's memory.
const USER: u64 = 0x7f00_0000_0000;
/// How many pages there are.
const PAGES: u64 = 8;

fn event() -> Option<OwnedFd> {
    Some(eventfd(0, EventfdFlags::empty()).unwrap())
}

fn memory() -> File {
    let file = TempFile::new().unwrap().into_file();
    file.set_len(2 * PAGES * PAGE).unwrap();
    file
}

/// A region of the guest's, `pages` long and from page `start` on, which are pages of `file`.
fn region(file: &File, start: u64, pages: u64) -> (Region, File) {
    let region = Region {
        guest: start * PAGE,
        size: pages * PAGE,
        user: USER + start * PAGE,
        file: identify(file).unwrap(),
        offset: start * PAGE,
    };
    (region, file.try_clone().unwrap())
}

fn addresses(ring: u32) -> Addresses {
    let page = USER + u64::from(ring) * 2 * PAGE;
    Addresses {
        descriptor: page,
        available: page + 0x800,
        used: page + PAGE,
    }
}

struct Rig {
    session: Session<Fake>,
    state: Rc<RefCell<State>>,
    file: File,
}

impl Rig {
    fn new(traits: Traits) -> Self {
        let (device, state) = Fake::new(traits);
        Self {
            session: Session::new(device),
            state,
            file: memory(),
        }
    }

    fn set_up_ring(&mut self, ring: u32, base: u32) {
        self.session.set_size(ring, 256).unwrap();
        self.session.set_base(ring, base).unwrap();
        self.session.set_addresses(ring, addresses(ring)).unwrap();
        self.session.set_call(ring, event()).unwrap();
        self.session.set_kick(ring, event()).unwrap();
    }

    /// Everything that QEMU says until the guest's driver is ready, in its order.
    fn start(&mut self, features: u64, bases: [u32; 2]) -> Result<(), Failure> {
        let all = self.session.offered_protocol();
        self.session.set_protocol(all).unwrap();
        self.session.set_enabled(0, true).unwrap();
        self.session.set_enabled(1, true).unwrap();
        self.session.set_features(features).unwrap();
        self.session
            .set_memory(vec![region(&self.file, 0, PAGES)])?;
        for (ring, base) in (0..2).zip(bases) {
            self.set_up_ring(ring, base);
        }
        assert!(!self.state.borrow().runs());
        self.session.set_status(DRIVER_OK)
    }
}

#[test]
fn a_device_starts_stops_and_goes_on() {
    for keeps_maps in [true, false] {
        let mut rig = Rig::new(Traits {
            keeps_maps,
            ..traits()
        });
        rig.start(MODERN, [0, 0]).unwrap();
        {
            let mut state = rig.state.borrow_mut();
            assert_eq!(state.status, DRIVER_OK);
            assert_eq!(
                state.features,
                Features::VERSION_1.union(Features::ACCESS_PLATFORM).bits()
            );
            assert_eq!(state.memory.keys().collect::<Vec<_>>(), [&0]);
            assert!(state.rings[..2].iter().all(|r| r.ready && r.kick && r.call));
            assert_eq!(state.rings[1].addresses.unwrap().used, 3 * PAGE);
            assert!(!state.rings[2].ready);
            state.rings[0].base = 41;
            state.rings[1].base = 7;
        }
        assert_eq!(rig.session.status().unwrap(), DRIVER_OK);
        // Both are asked for, and the device does not run in between.
        assert_eq!(rig.session.stop_ring(0).unwrap(), 41);
        assert_eq!(rig.state.borrow().memory.is_empty(), !keeps_maps);
        assert_eq!(rig.session.stop_ring(1).unwrap(), 7);
        assert_eq!(rig.state.borrow().starts, 1);
        rig.session.set_status(0).unwrap();

        rig.start(MODERN, [41, 7]).unwrap();
        let state = rig.state.borrow();
        assert_eq!(
            (state.starts, state.rings[0].base, state.rings[1].base),
            (2, 41, 7)
        );
    }
}

#[test]
fn a_monitor_without_the_status_starts_with_the_rings() {
    let mut rig = Rig::new(traits());
    // Without protocol features rings are never enabled.
    rig.session.set_features(0).unwrap();
    rig.session
        .set_memory(vec![region(&rig.file, 0, PAGES)])
        .unwrap();
    rig.set_up_ring(0, 5);
    assert!(rig.state.borrow().runs());
    rig.state.borrow_mut().rings[0].base = 6;
    // The next one cannot be given to a device that runs.
    rig.set_up_ring(1, 9);
    let state = rig.state.borrow();
    assert_eq!(
        (state.starts, state.rings[0].base, state.rings[1].base),
        (2, 6, 9)
    );
}

#[test]
fn rings_that_are_disabled_stop_the_device() {
    let mut rig = Rig::new(traits());
    rig.start(MODERN, [0, 0]).unwrap();
    rig.session.set_enabled(0, false).unwrap();
    assert!(rig.state.borrow().runs());
    rig.state.borrow_mut().rings[1].base = 3;
    rig.session.set_enabled(1, false).unwrap();
    assert!(!rig.state.borrow().runs());
    rig.session.set_enabled(1, true).unwrap();
    assert_eq!(rig.state.borrow().rings[1].base, 3);
}

#[test]
fn descriptors_change_while_the_device_runs() {
    let mut rig = Rig::new(traits());
    rig.start(MODERN, [0, 0]).unwrap();
    rig.session.set_call(0, None).unwrap();
    rig.session.set_kick(1, None).unwrap();
    let state = rig.state.borrow();
    assert!(!state.rings[0].call && !state.rings[1].kick && state.rings[0].kick);
    assert_eq!(state.starts, 1);
}

#[test]
fn memory_changes_while_the_device_runs() {
    let mut rig = Rig::new(traits());
    rig.start(MODERN, [0, 0]).unwrap();
    let before = rig.state.borrow().memory[&0];
    let (more, file) = region(&rig.file, PAGES, 2);
    rig.session.add_memory(more, file).unwrap();
    assert_eq!(rig.state.borrow().memory.len(), 2);
    let (first, file) = region(&rig.file, 0, PAGES);
    rig.session.set_memory(vec![(first, file)]).unwrap();
    let state = rig.state.borrow();
    assert_eq!(state.memory.len(), 1);
    assert_eq!(state.memory[&0], before);
    assert!(state.runs());
}

#[test]
fn legacy_drivers_and_their_byte_orders() {
    let mut rig = Rig::new(traits());
    rig.state.borrow_mut().order = ByteOrder::Big;
    rig.start(LEGACY, [0, 0]).unwrap();
    // One that says nothing has the order of this machine, whatever the one before it had.
    assert_eq!(rig.state.borrow().order, ByteOrder::NATIVE);
    rig.session.reset().unwrap();

    rig.session.set_order(0, ByteOrder::Big).unwrap();
    assert!(matches!(
        rig.start(LEGACY, [0, 0]).unwrap_err(),
        Failure::MixedByteOrder
    ));
    assert!(!rig.state.borrow().runs());
    assert_eq!(rig.session.status().unwrap() & status::DRIVER_OK, 0);

    rig.session.set_order(1, ByteOrder::Big).unwrap();
    rig.session.set_status(DRIVER_OK).unwrap();
    assert_eq!(rig.state.borrow().order, ByteOrder::Big);

    let mut rig = Rig::new(Traits {
        any_byte_order: false,
        ..traits()
    });
    assert_eq!(rig.session.offered_protocol() & protocol::CROSS_ENDIAN, 0);
    rig.session.set_order(0, ByteOrder::NATIVE).unwrap();
    assert!(matches!(
        rig.session.set_order(0, ByteOrder::Big).unwrap_err(),
        Failure::ByteOrder(ByteOrder::Big)
    ));
}

#[test]
fn without_suspend_the_used_index_tells() {
    for (features, bytes) in [(MODERN, [0x34, 0x12]), (LEGACY, [0x12, 0x34])] {
        let mut rig = Rig::new(Traits {
            suspends: false,
            ..traits()
        });
        if features == LEGACY {
            rig.session.set_order(0, ByteOrder::Big).unwrap();
            rig.session.set_order(1, ByteOrder::Big).unwrap();
        }
        rig.start(features, [0, 0]).unwrap();
        rig.file.write_all_at(&bytes, PAGE + 2).unwrap();
        assert_eq!(rig.session.stop_ring(0).unwrap(), 0x1234);
        assert_eq!(rig.session.stop_ring(1).unwrap(), 0);
    }
    let mut rig = Rig::new(Traits {
        suspends: false,
        ..traits()
    });
    let packed = MODERN | Features::RING_PACKED.bits();
    rig.start(packed, [0, 0]).unwrap();
    assert!(matches!(
        rig.session.stop_ring(0).unwrap_err(),
        Failure::Position(0)
    ));
}

#[test]
fn refusals_of_the_device_leave_it_reset() {
    for call in ["features", "memory"] {
        let mut rig = Rig::new(Traits {
            keeps_maps: false,
            ..traits()
        });
        rig.state.borrow_mut().refuse = Some(call);
        let error = rig.start(MODERN, [0, 0]).unwrap_err();
        assert!(
            matches!(error, Failure::Refused(ref e) if e.call == call),
            "{error}"
        );
        assert_eq!(rig.state.borrow().status, 0);
        assert_eq!(rig.session.status().unwrap() & status::DRIVER_OK, 0);
        // The next try may do better.
        rig.session.set_status(DRIVER_OK).unwrap();
    }
}

#[test]
fn what_is_not_there_is_refused() {
    let mut rig = Rig::new(traits());
    assert!(matches!(
        rig.session.set_features(1 << 33).unwrap_err(),
        Failure::Features {
            unknown: 0x2_0000_0000
        }
    ));
    assert!(rig.session.set_protocol(1 << 63).is_err());
    // The control queue of the device is none of the monitor's.
    assert!(matches!(
        rig.session.set_size(2, 256).unwrap_err(),
        Failure::NoRing { ring: 2, rings: 2 }
    ));
    assert!(rig.session.remove_memory(0, PAGE, 0).is_err());
    assert_eq!(
        rig.session.config(4, 8).unwrap(),
        [4, 5, 6, 7, 8, 9, 10, 11]
    );
    assert!(rig.session.config(5, 8).is_err());
    assert!(rig.session.set_config(12, &[1]).is_err());
    rig.session.set_config(11, &[1]).unwrap();
    assert_eq!(rig.state.borrow().config[11], 1);

    let outside = Addresses {
        used: USER + PAGES * PAGE,
        ..addresses(0)
    };
    rig.start(MODERN, [0, 0]).unwrap();
    assert!(matches!(
        rig.session.set_features(LEGACY).unwrap_err(),
        Failure::Running
    ));
    rig.session.reset().unwrap();
    rig.set_up_ring(0, 0);
    rig.session.set_addresses(0, outside).unwrap();
    rig.session.set_enabled(0, true).unwrap();
    assert!(matches!(
        rig.session.set_status(DRIVER_OK).unwrap_err(),
        Failure::RingAddress { ring: 0, .. }
    ));
}

/// What a monitor may ask in any order.
#[derive(Clone, Copy, Debug)]
enum Step {
    Kick(u32),
    Call(u32),
    Enable(u32, bool),
    Stop(u32),
    Status(u8),
    Reset,
    Memory(u64),
    /// The device gets on in a ring.
    Use(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ring = 0u32..2;
    proptest::collection::vec(
        prop_oneof![
            3 => ring.clone().prop_map(Step::Kick),
            1 => ring.clone().prop_map(Step::Call),
            3 => (ring.clone(), any::<bool>()).prop_map(|(ring, on)| Step::Enable(ring, on)),
            2 => ring.clone().prop_map(Step::Stop),
            3 => prop_oneof![Just(DRIVER_OK), Just(0u8), Just(3)].prop_map(Step::Status),
            1 => Just(Step::Reset),
            2 => (0u64..4).prop_map(Step::Memory),
            4 => ring.prop_map(Step::Use),
        ],
        0..60,
    )
}

proptest! {
    /// Whatever the order, no rule of vhost-vdpa is broken (the fake device looks at that), the
    /// device runs only with what it should have, and no ring loses its place.
    #[test]
    fn any_order(steps in steps(), keeps_maps: bool, with_status: bool) {
        let mut rig = Rig::new(Traits { keeps_maps, ..traits() });
        let all = rig.session.offered_protocol();
        let without = if with_status { 0 } else { protocol::STATUS };
        rig.session.set_protocol(all & !without).unwrap();
        rig.session.set_features(MODERN).unwrap();
        rig.session.set_memory(vec![region(&rig.file, 0, PAGES)]).unwrap();
        let mut at = [0u32; 2];
        let mut extra = 0;
        for step in steps {
            match step {
                Step::Kick(ring) => {
                    // A monitor says all of a ring again before it starts it.
                    rig.session.set_size(ring, 256).unwrap();
                    rig.session.set_addresses(ring, addresses(ring)).unwrap();
                    if !rig.state.borrow().rings[ring as usize].ready {
                        rig.session.set_base(ring, at[ring as usize]).unwrap();
                    }
                    rig.session.set_kick(ring, event()).unwrap();
                }
                Step::Call(ring) => rig.session.set_call(ring, event()).unwrap(),
                Step::Enable(ring, on) => rig.session.set_enabled(ring, on).unwrap(),
                Step::Stop(ring) => {
                    let base = rig.session.stop_ring(ring).unwrap();
                    prop_assert!(!rig.state.borrow().runs());
                    // One that was reset and not set up again is at 0.
                    prop_assert!(base == at[ring as usize] || base == 0);
                }
                Step::Status(value) => {
                    rig.session.set_status(value).unwrap();
                    if value == 0 {
                        at = [0; 2];
                    }
                }
                Step::Reset => {
                    rig.session.reset().unwrap();
                    at = [0; 2];
                }
                Step::Memory(pages) => {
                    let mut regions = vec![region(&rig.file, 0, PAGES)];
                    if pages > 0 {
                        regions.push(region(&rig.file, PAGES + 1, pages));
                    }
                    rig.session.set_memory(regions).unwrap();
                    extra = pages;
                }
                Step::Use(ring) => {
                    let mut state = rig.state.borrow_mut();
                    if state.runs() && state.rings[ring as usize].ready {
                        state.rings[ring as usize].base += 1;
                        at[ring as usize] += 1;
                    }
                }
            }
            let state = rig.state.borrow();
            if state.runs() {
                for (ring, at) in state.rings.iter().zip(at) {
                    prop_assert!(!ring.ready || ring.base == at, "at {} and not {at}", ring.base);
                }
                prop_assert!(state.rings.iter().any(|ring| ring.ready));
            }
            if state.runs() || keeps_maps {
                let mut wanted = vec![(0, PAGES * PAGE)];
                if extra > 0 {
                    wanted.push(((PAGES + 1) * PAGE, extra * PAGE));
                }
                let has: Vec<_> = state.memory.iter().map(|(at, (size, _))| (*at, *size)).collect();
                prop_assert_eq!(has, wanted);
            } else {
                prop_assert!(state.memory.is_empty());
            }
        }
    }
}
