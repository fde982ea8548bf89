// SPDX-License-Identifier: GPL-2.0

//! The embedded switch that functions and the uplink hang on.
//!
//! A frame is sent on as it comes, in the thread of who sends it: to the port its destination was
//! last heard at, or is configured for; to all others if that is not known, or many are meant. It
//! never goes back where it came from, and a port does not send on what it receives: no frame goes
//! round.

use std::{
    sync::{
        atomic::{
            AtomicBool,
            AtomicU16,
            Ordering, //
        },
        Arc,
        PoisonError,
        RwLock,
        RwLockReadGuard,
        RwLockWriteGuard, //
    },
    time::Instant, //
};

use crate::frame::Frame;

mod counters;
mod fdb;
mod pcap;
mod tap;
#[cfg(test)]
mod tests;
mod uplink;

pub use self::{
    counters::{
        Amount,
        ByKind,
        Counters, //
    },
    uplink::{
        Uplink,
        UplinkError,
        UplinkKind, //
    }, //
};

use self::{
    counters::PortCounters,
    fdb::{
        Address,
        Fdb,
        Way, //
    }, //
};

/// Who hangs on the switch.
pub trait Port: Send + Sync {
    /// Takes frames that the switch sends to this port. It must not block, nor call the switch
    /// back.
    fn receive(&self, frames: &[&Frame]);
}

/// One port.
struct Slot {
    port: Arc<dyn Port>,
    up: AtomicBool,
    /// The largest frame without its Ethernet header and VLAN tags, in bytes.
    mtu: AtomicU16,
    counters: PortCounters,
}

impl Slot {
    /// Returns whether a frame fits the port.
    fn fits(&self, frame: &Frame) -> bool {
        frame.payload_len() <= usize::from(self.mtu.load(Ordering::Relaxed))
    }

    /// Sends frames out of this port.
    fn send(&self, frames: &[&Frame]) {
        if !self.up.load(Ordering::Relaxed) {
            self.counters.drop_to_down(frames.len());
        } else if frames.iter().all(|frame| self.fits(frame)) {
            self.counters.to_port.count(frames);
            self.port.receive(frames);
        } else {
            let fitting: Vec<_> = frames
                .iter()
                .copied()
                .filter(|frame| self.fits(frame))
                .collect();
            self.counters.drop(frames.len() - fitting.len());
            self.counters.to_port.count(&fitting);
            self.port.receive(&fitting);
        }
    }
}

#[derive(Default)]
struct State {
    /// By number; a number is given out again when its port is gone.
    slots: Vec<Option<Slot>>,
    /// Who sees everything that passes.
    watchers: Vec<Arc<dyn Port>>,
    fdb: Fdb,
}

impl State {
    fn slot(&self, index: u16) -> Option<&Slot> {
        self.slots.get(usize::from(index))?.as_ref()
    }

    /// Sends frames that came from `from` on their way.
    fn forward(&self, from: u16, way: Way<'_>, frames: &[&Frame]) {
        let send = |to: u16| {
            if to != from {
                if let Some(slot) = self.slot(to) {
                    slot.send(frames);
                }
            }
        };
        match way {
            Way::To(port) => send(port),
            Way::ToEach(ports) => ports.iter().copied().for_each(send),
            Way::ToAll => (0..).take(self.slots.len()).for_each(send),
        }
    }
}

/// The embedded switch: learns which addresses are behind which port.
pub struct Eswitch {
    /// Held to read while frames are sent on, and to write when something changes.
    state: RwLock<State>,
    start: Instant,
}

impl Default for Eswitch {
    fn default() -> Self {
        Self {
            state: RwLock::default(),
            start: Instant::now(),
        }
    }
}

impl Eswitch {
    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hangs `port` on the switch, its link up; frames may have `mtu` bytes without Ethernet
    /// header and VLAN tags. It hangs there until the connection is dropped.
    ///
    /// # Panics
    ///
    /// If there are 65536 ports already.
    pub fn attach(self: &Arc<Self>, port: Arc<dyn Port>, mtu: u16) -> Connection {
        let slot = Slot {
            port,
            up: AtomicBool::new(true),
            mtu: AtomicU16::new(mtu),
            counters: PortCounters::default(),
        };
        let mut state = self.change();
        let free = state.slots.iter().position(Option::is_none);
        let index = free.unwrap_or(state.slots.len());
        let number = u16::try_from(index).expect("at most 65536 ports");
        if free.is_none() {
            state.slots.push(None);
        }
        state.slots[index] = Some(slot);
        Connection {
            eswitch: self.clone(),
            index: number,
        }
    }

    /// Shows everything that passes to `watcher`, until the watch is dropped.
    pub fn watch(self: &Arc<Self>, watcher: Arc<dyn Port>) -> Watch {
        self.change().watchers.push(watcher.clone());
        Watch {
            eswitch: self.clone(),
            watcher,
        }
    }

    /// Sends frames on that came from port `from` at second `now`.
    fn send(&self, from: u16, frames: &[Frame], now: u64) {
        let mut state = self.state();
        let Some(slot) = state.slot(from) else {
            return;
        };
        if !slot.up.load(Ordering::Relaxed) {
            slot.counters.drop_from_down(frames.len());
            return;
        }
        let offered = frames.len();
        let sound = |frame: &&Frame| frame.is_whole() && slot.fits(frame);
        let frames: Vec<_> = frames.iter().filter(sound).collect();
        slot.counters.drop(offered - frames.len());
        slot.counters.from_port.count(&frames);

        let new = |frame: &&Frame| !state.fdb.knows(Address::of_source(frame), from, now);
        if frames.iter().any(new) {
            drop(state);
            let mut change = self.change();
            // A link that went down meanwhile has been forgotten, and nothing is learned of it.
            let up = |slot: &Slot| slot.up.load(Ordering::Relaxed);
            if !change.slot(from).is_some_and(up) {
                return;
            }
            for frame in &frames {
                change.fdb.learn(Address::of_source(frame), from, now);
            }
            drop(change);
            state = self.state();
        }

        for watcher in &state.watchers {
            watcher.receive(&frames);
        }
        let way = |frame: &Frame| state.fdb.way(Address::of_destination(frame), now);
        let mut rest = frames.as_slice();
        while let Some(first) = rest.first() {
            let this = way(first);
            let len = rest.iter().take_while(|frame| way(frame) == this).count();
            let (run, after) = rest.split_at(len);
            state.forward(from, this, run);
            rest = after;
        }
    }
}

/// A port's end of the cable. Unplugged when it is dropped: what was behind the port is forgotten,
/// and nothing reaches it any more.
pub struct Connection {
    eswitch: Arc<Eswitch>,
    index: u16,
}

impl Connection {
    /// Sends frames from this port on to whom they are for. What is no whole frame, or larger than
    /// the port allows, is dropped and counted.
    pub fn send(&self, frames: &[Frame]) {
        let now = self.eswitch.start.elapsed().as_secs();
        self.eswitch.send(self.index, frames, now);
    }

    /// Says whether the link is up. No frame passes one that is down, and what was behind it is
    /// forgotten.
    pub fn set_link(&self, up: bool) {
        self.with(|slot| slot.up.store(up, Ordering::Relaxed));
        if !up {
            self.forget();
        }
    }

    /// Forgets what was behind this port: who is there now is somebody else.
    pub fn forget(&self) {
        self.eswitch.change().fdb.forget(self.index);
    }

    /// Says how large frames may be without Ethernet header and VLAN tags, in bytes.
    pub fn set_mtu(&self, mtu: u16) {
        self.with(|slot| slot.mtu.store(mtu, Ordering::Relaxed));
    }

    /// Says which addresses are behind this port, in every VLAN, as long as they are not heard of
    /// at another.
    pub fn set_addresses(&self, addresses: &[[u8; 6]]) {
        self.eswitch.change().fdb.configure(self.index, addresses);
    }

    /// What passed this port since it was attached.
    pub fn counters(&self) -> Counters {
        self.with(|slot| slot.counters.read()).unwrap_or_default()
    }

    fn with<R>(&self, then: impl FnOnce(&Slot) -> R) -> Option<R> {
        self.eswitch.state().slot(self.index).map(then)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut state = self.eswitch.change();
        state.fdb.forget(self.index);
        state.fdb.configure(self.index, &[]);
        let slot = state.slots.get_mut(usize::from(self.index));
        let port = slot.and_then(Option::take);
        // The port may hang on to much: it is not dropped under the lock.
        drop(state);
        drop(port);
    }
}

/// A watch over the switch; ended when it is dropped.
pub struct Watch {
    eswitch: Arc<Eswitch>,
    watcher: Arc<dyn Port>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = self.eswitch.change();
        state
            .watchers
            .retain(|other| !Arc::ptr_eq(other, &self.watcher));
    }
}
