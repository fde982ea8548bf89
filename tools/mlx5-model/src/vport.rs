// SPDX-License-Identifier: GPL-2.0

//! The function's port on the switch: addresses, MTU, link and what went through.

mod context;
mod counters;

use std::sync::{
    Mutex,
    MutexGuard,
    PoisonError, //
};

use prm::vport::{
    AllowedListType,
    VportAdminState, //
};

pub use self::counters::{
    Discard,
    QCounter,
    Way, //
};
pub(crate) use self::{
    context::COMMANDS as CONTEXT_COMMANDS,
    counters::{
        q_counters,
        COMMANDS as COUNTER_COMMANDS, //
    },
};

/// The bytes of a frame that the MTU of a port counts besides those of its payload: Ethernet
/// header, VLAN tag and check sequence.
pub const FRAME_OVERHEAD: u16 = 22;

/// The largest frame of a port, with everything.
pub const MAX_MTU: u16 = 10_000;

/// What a driver says is to be received, or must not be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// Receive all unicast frames.
    pub promisc_uc: bool,
    /// Receive all multicast frames.
    pub promisc_mc: bool,
    /// Receive everything.
    pub promisc_all: bool,
    /// Keep unicast frames of the function itself from it.
    pub disable_uc_local_lb: bool,
    /// Keep multicast frames of the function itself from it.
    pub disable_mc_local_lb: bool,
    /// Unicast addresses besides the port's own.
    pub unicast: Vec<[u8; 6]>,
    /// Multicast addresses.
    pub multicast: Vec<[u8; 6]>,
    /// VLANs.
    pub vlans: Vec<u16>,
}

#[derive(Clone, Debug)]
struct State {
    mac: [u8; 6],
    /// With [`FRAME_OVERHEAD`].
    mtu: u16,
    filters: Filters,
    admin: VportAdminState,
    /// Whether what the port is connected to is up.
    uplink: bool,
}

/// A port on the switch, as its function sees it. Shared with traffic.
pub struct Vport {
    number: u16,
    permanent_mac: [u8; 6],
    permanent_mtu: u16,
    state: Mutex<State>,
    counters: counters::Counters,
}

impl Vport {
    /// The port of function `number`, with its permanent address and the MTU it has at first, in
    /// bytes of payload. Its link is up.
    pub fn new(number: u16, mac: [u8; 6], mtu: u16) -> Self {
        let mtu = mtu.saturating_add(FRAME_OVERHEAD).min(MAX_MTU);
        Self {
            number,
            permanent_mac: mac,
            permanent_mtu: mtu,
            state: Mutex::new(State {
                mac,
                mtu,
                filters: Filters::default(),
                admin: VportAdminState::AUTO,
                uplink: true,
            }),
            counters: counters::Counters::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what a driver changed. What the port is connected to stays as it is.
    pub fn restore(&self) {
        let mut state = self.state();
        *state = State {
            mac: self.permanent_mac,
            mtu: self.permanent_mtu,
            filters: Filters::default(),
            admin: VportAdminState::AUTO,
            uplink: state.uplink,
        };
    }

    /// The number of the function among the virtual functions of the board, from 0.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The address of the port.
    pub fn mac(&self) -> [u8; 6] {
        self.state().mac
    }

    /// The largest frame in bytes, with header, VLAN tag and check sequence.
    pub fn mtu(&self) -> u16 {
        self.state().mtu
    }

    /// What is to be received besides what is sent to the port's address.
    pub fn filters(&self) -> Filters {
        self.state().filters.clone()
    }

    /// Whether the link is up.
    pub fn is_up(&self) -> bool {
        self.state().is_up()
    }

    /// Says whether what the port is connected to is up. Returns whether the link changed by it,
    /// which the driver is to be told.
    pub fn set_uplink(&self, up: bool) -> bool {
        let mut state = self.state();
        let before = state.is_up();
        state.uplink = up;
        state.is_up() != before
    }

    /// Counts frames that went through the port: the bytes of each from its destination address
    /// on.
    pub fn count<'a>(&self, way: Way, frames: impl IntoIterator<Item = &'a [u8]>) {
        self.counters.count(way, frames);
    }

    /// Counts frames that were dropped.
    pub fn discard(&self, why: Discard, frames: u64) {
        self.counters.discard(why, frames);
    }
}

impl State {
    fn is_up(&self) -> bool {
        match self.admin {
            VportAdminState::UP => true,
            VportAdminState::DOWN => false,
            VportAdminState::AUTO => self.uplink,
        }
    }
}

impl Filters {
    /// How many entries a list has.
    fn len(&self, list: AllowedListType) -> usize {
        match list {
            AllowedListType::UC => self.unicast.len(),
            AllowedListType::MC => self.multicast.len(),
            AllowedListType::VLAN => self.vlans.len(),
        }
    }
}
