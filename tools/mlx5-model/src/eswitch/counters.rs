// SPDX-License-Identifier: GPL-2.0

//! What passes a port.

use std::sync::atomic::{
    AtomicU64,
    Ordering, //
};

use serde::Serialize;

use crate::frame::Frame;

/// So many frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// How many.
    pub frames: u64,
    /// Their bytes, from the destination address on, without check sequence.
    pub octets: u64,
}

/// Frames by whom they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ByKind {
    /// For one.
    pub unicast: Amount,
    /// For many.
    pub multicast: Amount,
    /// For all.
    pub broadcast: Amount,
}

impl Amount {
    fn since(self, before: Self) -> Self {
        Self {
            frames: self.frames.wrapping_sub(before.frames),
            octets: self.octets.wrapping_sub(before.octets),
        }
    }
}

impl ByKind {
    /// What was counted since it was `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            unicast: self.unicast.since(before.unicast),
            multicast: self.multicast.since(before.multicast),
            broadcast: self.broadcast.since(before.broadcast),
        }
    }

    fn of(&mut self, frame: &Frame) -> &mut Amount {
        match frame.destination() {
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => &mut self.broadcast,
            [first, ..] if first & 1 != 0 => &mut self.multicast,
            _ => &mut self.unicast,
        }
    }
}

/// What passed a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// What the port sent into the switch.
    pub from_port: ByKind,
    /// What the switch sent to the port.
    pub to_port: ByKind,
    /// Frames in either direction that were too large or not whole.
    pub dropped: u64,
    /// Frames that the port sent while its link was down.
    pub from_port_down: u64,
    /// Frames for the port that came while its link was down.
    pub to_port_down: u64,
}

#[derive(Default)]
struct AtomicAmount {
    frames: AtomicU64,
    octets: AtomicU64,
}

impl AtomicAmount {
    fn add(&self, amount: Amount) {
        if amount.frames != 0 {
            self.frames.fetch_add(amount.frames, Ordering::Relaxed);
            self.octets.fetch_add(amount.octets, Ordering::Relaxed);
        }
    }

    fn read(&self) -> Amount {
        Amount {
            frames: self.frames.load(Ordering::Relaxed),
            octets: self.octets.load(Ordering::Relaxed),
        }
    }
}

/// Counters of one direction.
#[derive(Default)]
pub(super) struct Direction {
    unicast: AtomicAmount,
    multicast: AtomicAmount,
    broadcast: AtomicAmount,
}

impl Direction {
    /// Counts frames, all at once.
    pub(super) fn count(&self, frames: &[&Frame]) {
        let mut sum = ByKind::default();
        for frame in frames {
            let amount = sum.of(frame);
            amount.frames += 1;
            amount.octets += frame.bytes.len() as u64;
        }
        self.unicast.add(sum.unicast);
        self.multicast.add(sum.multicast);
        self.broadcast.add(sum.broadcast);
    }

    fn read(&self) -> ByKind {
        ByKind {
            unicast: self.unicast.read(),
            multicast: self.multicast.read(),
            broadcast: self.broadcast.read(),
        }
    }
}

/// Counters of a port.
#[derive(Default)]
pub(super) struct PortCounters {
    pub(super) from_port: Direction,
    pub(super) to_port: Direction,
    dropped: AtomicU64,
    from_port_down: AtomicU64,
    to_port_down: AtomicU64,
}

fn add(counter: &AtomicU64, frames: usize) {
    if frames != 0 {
        counter.fetch_add(frames as u64, Ordering::Relaxed);
    }
}

impl PortCounters {
    /// Counts frames that were too large or not whole.
    pub(super) fn drop(&self, frames: usize) {
        add(&self.dropped, frames);
    }

    /// Counts frames that the port sent while its link was down.
    pub(super) fn drop_from_down(&self, frames: usize) {
        add(&self.from_port_down, frames);
    }

    /// Counts frames that came for the port while its link was down.
    pub(super) fn drop_to_down(&self, frames: usize) {
        add(&self.to_port_down, frames);
    }

    pub(super) fn read(&self) -> Counters {
        Counters {
            from_port: self.from_port.read(),
            to_port: self.to_port.read(),
            dropped: self.dropped.load(Ordering::Relaxed),
            from_port_down: self.from_port_down.load(Ordering::Relaxed),
            to_port_down: self.to_port_down.load(Ordering::Relaxed),
        }
    }
}
