// SPDX-License-Identifier: GPL-2.0

//! The function's port on the switch: addresses, MTU, link and what went through.

mod context;
mod counters;

use std::sync::{
    Arc,
    Mutex,
    MutexGuard,
    PoisonError, //
};

use prm::vport::{
    AllowedListType,
    VportAdminState, //
};

pub use self::counters::QCounter;
pub(crate) use self::{
    context::COMMANDS as CONTEXT_COMMANDS,
    counters::{
        q_counters,
        COMMANDS as COUNTER_COMMANDS, //
    },
};
use crate::{
    eswitch::{
        ByKind,
        Connection,
        Counters, //
    },
    refusal::Refusal, //
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
    /// What the port had counted when its counters were cleared.
    cleared: Counters,
}

/// A port on the switch, as its function sees it. What a driver changes here, the switch does.
pub struct Vport {
    permanent_mac: [u8; 6],
    permanent_mtu: u16,
    state: Mutex<State>,
    port: Arc<Connection>,
}

impl Vport {
    /// The port that `port` is the cable of, with its permanent address and the MTU it has at
    /// first, in bytes of payload. Its link is up.
    pub fn new(mac: [u8; 6], mtu: u16, port: Arc<Connection>) -> Self {
        let mtu = mtu.saturating_add(FRAME_OVERHEAD).min(MAX_MTU);
        let vport = Self {
            permanent_mac: mac,
            permanent_mtu: mtu,
            state: Mutex::new(State {
                mac,
                mtu,
                filters: Filters::default(),
                admin: VportAdminState::AUTO,
                uplink: true,
                cleared: Counters::default(),
            }),
            port,
        };
        vport.state().apply(&vport.port);
        vport
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state as `how` says, or not at all if that fails, and has the switch do what it
    /// says then. Waits for frames that are on their way.
    ///
    /// Returns whether the link is up now, if it changed.
    ///
    /// # Errors
    ///
    /// What `how` returns.
    fn change(
        &self,
        how: impl FnOnce(&mut State) -> Result<(), Refusal>,
    ) -> Result<Option<bool>, Refusal> {
        let mut now = self.state();
        let mut state = now.clone();
        how(&mut state)?;
        let before = now.is_up();
        *now = state;
        // Under the lock, so that the switch is told of changes in their order.
        now.apply(&self.port);
        let up = now.is_up();
        Ok((up != before).then_some(up))
    }

    /// Forgets what a driver changed, and who was heard behind it. What the port is connected to
    /// stays as it is, and so does what it counted.
    pub fn restore(&self) {
        let mut state = self.state();
        *state = State {
            mac: self.permanent_mac,
            mtu: self.permanent_mtu,
            filters: Filters::default(),
            admin: VportAdminState::AUTO,
            uplink: state.uplink,
            cleared: state.cleared,
        };
        state.apply(&self.port);
        self.port.forget();
    }

    /// The largest frame in bytes, with header, VLAN tag and check sequence.
    pub fn mtu(&self) -> u16 {
        self.state().mtu
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
        state.apply(&self.port);
        state.is_up() != before
    }

    /// What was received and sent through the port since its counters were last cleared, which
    /// they are then if `clear`.
    fn counters(&self, clear: bool) -> (ByKind, ByKind) {
        let mut state = self.state();
        let now = self.port.counters();
        let received = now.to_port.since(state.cleared.to_port);
        let sent = now.from_port.since(state.cleared.from_port);
        if clear {
            state.cleared = now;
        }
        (received, sent)
    }
}

impl State {
    /// A driver can keep the link down, but not up when there is nothing to be connected to.
    fn is_up(&self) -> bool {
        self.uplink && self.admin != VportAdminState::DOWN
    }

    /// Has the switch do what this says.
    fn apply(&self, port: &Connection) {
        port.set_mtu(self.mtu.saturating_sub(FRAME_OVERHEAD));
        let mut addresses = vec![self.mac];
        addresses.extend(&self.filters.unicast);
        port.set_addresses(&addresses);
        port.set_link(self.is_up());
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
