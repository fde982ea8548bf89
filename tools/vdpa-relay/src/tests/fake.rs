// SPDX-License-Identifier: GPL-2.0

//! A device that keeps the rules of vhost-vdpa: what breaks one is a failed test.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    os::fd::BorrowedFd,
    rc::Rc, //
};

use virtio::{
    byte_order::ByteOrder,
    features::Features, //
};

use crate::{
    device::{
        status,
        Device,
        Mapping,
        Refused,
        Result,
        Traits, //
    },
    memory::PAGE,
    ring::Addresses, //
};

/// What the device has of a ring.
#[derive(Clone, Debug, Default)]
pub(super) struct Ring {
    pub(super) size: u32,
    pub(super) addresses: Option<Addresses>,
    pub(super) base: u32,
    pub(super) ready: bool,
    pub(super) kick: bool,
    pub(super) call: bool,
}

/// What the device has. Tests look at it, and change it.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) status: u8,
    pub(super) features: u64,
    pub(super) suspended: bool,
    pub(super) rings: Vec<Ring>,
    /// By where the guest has it: the length, and where it is in this process.
    pub(super) memory: BTreeMap<u64, (u64, u64)>,
    pub(super) order: ByteOrder,
    pub(super) config: Vec<u8>,
    /// How often it was started.
    pub(super) starts: u32,
    /// The call that is refused next.
    pub(super) refuse: Option<&'static str>,
}

impl State {
    pub(super) fn runs(&self) -> bool {
        self.status & status::DRIVER_OK != 0
    }

    fn holds(&self, address: u64) -> bool {
        let mut below = self.memory.range(..=address).rev();
        below
            .next()
            .is_some_and(|(start, (size, _))| address - start < *size)
    }
}

/// The device, and its state, which the test has as well.
#[derive(Debug)]
pub(super) struct Fake {
    traits: Traits,
    state: Rc<RefCell<State>>,
}

/// What the fake device offers, but for what a test wants otherwise.
pub(super) fn traits() -> Traits {
    let features = Features::VERSION_1
        .union(Features::ACCESS_PLATFORM)
        .union(Features::RING_PACKED)
        .union(Features::ANY_LAYOUT);
    Traits {
        id: crate::offer::KIND_NET,
        features: features.bits(),
        rings: 3,
        ring_size: 256,
        config_size: 12,
        suspends: true,
        keeps_maps: true,
        any_byte_order: true,
    }
}

impl Fake {
    pub(super) fn new(traits: Traits) -> (Self, Rc<RefCell<State>>) {
        let state = Rc::new(RefCell::new(State {
            rings: vec![Ring::default(); traits.rings as usize],
            config: (0..traits.config_size as u8).collect(),
            ..State::default()
        }));
        let shared = Rc::clone(&state);
        (Self { traits, state }, shared)
    }

    /// Returns the error of a call that a test wants refused.
    fn ask(&self, call: &'static str) -> Result<()> {
        let mut state = self.state.borrow_mut();
        if state.refuse != Some(call) {
            return Ok(());
        }
        state.refuse = None;
        let source = io::Error::from_raw_os_error(libc::EIO);
        Err(Refused { call, source })
    }

    /// Changes a ring, as may only be done before the device runs.
    fn set_up(&self, ring: u32, change: impl FnOnce(&mut Ring)) {
        let mut state = self.state.borrow_mut();
        assert!(!state.runs(), "ring {ring} is set up while the device runs");
        assert!(
            state.status & status::FEATURES_OK != 0,
            "ring {ring} before the features"
        );
        change(&mut state.rings[ring as usize]);
    }
}

impl Device for Fake {
    fn traits(&self) -> &Traits {
        &self.traits
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        self.ask("features")?;
        let mut state = self.state.borrow_mut();
        assert_eq!(
            state.status & status::FEATURES_OK,
            0,
            "features are agreed on"
        );
        assert_eq!(
            features & !self.traits.features,
            0,
            "features that are not offered"
        );
        let platform = Features::ACCESS_PLATFORM.bits();
        assert_ne!(features & platform, 0, "addresses are those of the map");
        state.features = features;
        Ok(())
    }

    fn status(&self) -> Result<u8> {
        Ok(self.state.borrow().status)
    }

    fn set_status(&mut self, value: u8) -> Result<()> {
        self.ask("status")?;
        let mut state = self.state.borrow_mut();
        if value == 0 {
            state.status = 0;
            state.features = 0;
            state.suspended = false;
            for ring in &mut state.rings {
                *ring = Ring::default();
            }
            return Ok(());
        }
        assert_eq!(
            state.status & !value,
            0,
            "bits of the status are taken away"
        );
        if value & !state.status & status::DRIVER_OK != 0 {
            state.starts += 1;
            for ring in state.rings.iter().filter(|ring| ring.ready) {
                let at = ring.addresses.expect("a ring that is nowhere");
                assert!(ring.size.is_power_of_two());
                for address in [at.descriptor, at.available, at.used] {
                    assert!(state.holds(address), "no memory at {address:#x}");
                }
            }
        }
        state.status = value;
        Ok(())
    }

    fn config(&self, offset: u32, bytes: &mut [u8]) -> Result<()> {
        self.ask("config")?;
        let start = offset as usize;
        bytes.copy_from_slice(&self.state.borrow().config[start..start + bytes.len()]);
        Ok(())
    }

    fn set_config(&mut self, offset: u32, bytes: &[u8]) -> Result<()> {
        let start = offset as usize;
        self.state.borrow_mut().config[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn set_byte_order(&mut self, order: ByteOrder) -> Result<()> {
        let mut state = self.state.borrow_mut();
        assert_eq!(state.status, 0, "the byte order of a driver that is there");
        assert!(self.traits.any_byte_order || order == ByteOrder::NATIVE);
        state.order = order;
        Ok(())
    }

    fn set_ring_size(&mut self, ring: u32, size: u32) -> Result<()> {
        self.set_up(ring, |ring| ring.size = size);
        Ok(())
    }

    fn set_ring_addresses(&mut self, ring: u32, at: &Addresses) -> Result<()> {
        self.set_up(ring, |ring| ring.addresses = Some(*at));
        Ok(())
    }

    fn set_ring_base(&mut self, ring: u32, base: u32) -> Result<()> {
        self.set_up(ring, |ring| ring.base = base);
        Ok(())
    }

    fn ring_base(&self, ring: u32) -> Result<u32> {
        let state = self.state.borrow();
        assert!(state.suspended, "it moves on");
        assert!(
            state.rings[ring as usize].ready,
            "a ring that it does not have"
        );
        Ok(state.rings[ring as usize].base)
    }

    fn set_ring_ready(&mut self, ring: u32, ready: bool) -> Result<()> {
        self.set_up(ring, |ring| ring.ready = ready);
        Ok(())
    }

    fn set_kick(&mut self, ring: u32, by: Option<BorrowedFd<'_>>) -> Result<()> {
        self.state.borrow_mut().rings[ring as usize].kick = by.is_some();
        Ok(())
    }

    fn set_call(&mut self, ring: u32, by: Option<BorrowedFd<'_>>) -> Result<()> {
        self.state.borrow_mut().rings[ring as usize].call = by.is_some();
        Ok(())
    }

    fn set_error(&mut self, _ring: u32, _by: Option<BorrowedFd<'_>>) -> Result<()> {
        Ok(())
    }

    fn suspend(&mut self) -> Result<()> {
        self.ask("suspend")?;
        let mut state = self.state.borrow_mut();
        assert!(self.traits.suspends && state.runs(), "nothing to suspend");
        state.suspended = true;
        Ok(())
    }

    fn change_memory(&mut self, unmap: &[(u64, u64)], map: &[Mapping]) -> Result<()> {
        self.ask("memory")?;
        let mut state = self.state.borrow_mut();
        for (guest, size) in unmap {
            let (had, _) = state
                .memory
                .remove(guest)
                .expect("memory that it does not have");
            assert_eq!(had, *size);
        }
        for mapping in map {
            let last = mapping.guest + mapping.size - PAGE;
            for page in (mapping.guest..=last).step_by(PAGE as usize) {
                assert!(!state.holds(page), "memory over memory at {page:#x}");
            }
            state
                .memory
                .insert(mapping.guest, (mapping.size, mapping.address));
        }
        Ok(())
    }
}
