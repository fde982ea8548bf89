// SPDX-License-Identifier: GPL-2.0
//! The learning switch that joins all ports.

use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    },
    time::{
        Instant,
        Monotonic, //
    }, //
};

use crate::{
    fdb::{
        Entry,
        Fdb,
        Learned, //
    },
    frame::Addresses,
    owners::Own,
    port::Port, //
};

/// Stations that the switch remembers.
const STATIONS: usize = 4096;

/// Where a frame goes.
pub(crate) enum Way {
    /// To the port that the destination is, or is behind.
    To(Arc<Port>),
    /// To nobody: the destination is on the port that the frame came from.
    Back,
    /// To every other port that wants it.
    Flood,
}

struct Inner {
    fdb: Fdb<KVec<Entry>, KVec<Own>>,
    ports: KVec<Arc<Port>>,
    /// Number for the next port; numbers are not used twice.
    next: u32,
}

impl Inner {
    fn port(&self, number: u32) -> Option<&Arc<Port>> {
        // Ports are numbered in the order in which they connect.
        let at = self.ports.partition_point(|p| p.number() < number);
        self.ports.get(at).filter(|p| p.number() == number)
    }
}

/// The switch.
///
/// Its lock is held for a lookup only; workers keep what they looked up for a turn.
#[pin_data]
pub(crate) struct Switch {
    started: Instant<Monotonic>,
    #[pin]
    inner: SpinLock<Inner>,
}

impl Switch {
    /// Creates a switch without ports.
    ///
    /// # Errors
    ///
    /// `ENOMEM` without memory for the forwarding database.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let entries = KVec::from_elem(Entry::default(), STATIONS, GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                started: Instant::now(),
                inner <- new_spinlock!(Inner {
                    fdb: Fdb::new(entries, KVec::new()),
                    ports: KVec::new(),
                    next: 0,
                }),
            }),
            GFP_KERNEL,
        )
    }

    /// Nanoseconds since the switch exists.
    pub(crate) fn nanos(&self) -> u64 {
        self.started.elapsed().as_nanos().unsigned_abs()
    }

    /// Seconds since the switch exists, the clock of the forwarding database.
    pub(crate) fn now(&self) -> u32 {
        // Wraps after 136 years; the database copes.
        (self.started.elapsed().as_millis() / 1000) as u32
    }

    /// Returns a number for a new port.
    pub(crate) fn number(&self) -> u32 {
        let mut inner = self.inner.lock();
        let number = inner.next;
        inner.next = number.wrapping_add(1);
        number
    }

    /// Connects `port`.
    ///
    /// # Errors
    ///
    /// `ENOMEM` when the list of ports cannot grow.
    pub(crate) fn connect(&self, port: Arc<Port>) -> Result {
        // Allocations may sleep, and so must not happen under the lock: grow a copy of the list,
        // and try again if others connected meanwhile.
        loop {
            let len = self.inner.lock().ports.len();
            let mut grown = KVec::with_capacity(len + 1, GFP_KERNEL)?;
            let mut places = KVec::from_elem(Own::default(), len + 1, GFP_KERNEL)?;
            let mut inner = self.inner.lock();
            if inner.ports.len() > len {
                continue;
            }
            if inner.fdb.owners.room() <= len {
                places = inner.fdb.owners.grow(places);
            }
            // The capacity was reserved above.
            for known in inner.ports.iter() {
                let _ = grown.push_within_capacity(known.clone());
            }
            let _ = grown.push_within_capacity(port);
            core::mem::swap(&mut inner.ports, &mut grown);
            // The old lists are freed without the lock.
            drop(inner);
            drop(places);
            return Ok(());
        }
    }

    /// Disconnects the port `number` and forgets its address and its stations. Frames that workers
    /// are just handing to it may still arrive.
    pub(crate) fn disconnect(&self, number: u32) {
        let mut gone = None;
        let mut inner = self.inner.lock();
        inner.fdb.forget_port(number);
        // Its driver may run still, and another port may have the same address.
        inner.fdb.owners.set(number, None);
        if let Some(at) = inner.ports.iter().position(|p| p.number() == number) {
            gone = inner.ports.remove(at).ok();
        }
        drop(inner);
        // What may be the last reference is dropped without the lock.
        drop(gone);
    }

    /// Forgets the stations behind port `number`, whose driver went away.
    pub(crate) fn forget(&self, number: u32) {
        self.inner.lock().fdb.forget_port(number);
    }

    /// Takes note of the address of `port`, and whether its driver runs. To be called whenever one
    /// of them may have changed.
    pub(crate) fn note(&self, port: &Port) {
        let mut inner = self.inner.lock();
        // With the lock held, so that of two callers the second one knows all that the first does.
        let own = port.own_address();
        inner.fdb.owners.set(port.number(), own);
    }

    /// Notes that the sender of a frame from port `number` is there.
    pub(crate) fn learn(&self, frame: &Addresses, number: u32, now: u32) -> Learned {
        self.inner
            .lock()
            .fdb
            .learn(&frame.from, frame.domain(), number, now)
    }

    /// Returns the way of a frame that came from port `number`.
    pub(crate) fn way(&self, frame: &Addresses, number: u32, now: u32) -> Way {
        let inner = self.inner.lock();
        match inner.fdb.lookup(&frame.to, frame.domain(), now) {
            Some(at) if at == number => Way::Back,
            Some(at) => inner
                .port(at)
                .map_or(Way::Flood, |port| Way::To(port.clone())),
            None => Way::Flood,
        }
    }

    /// Returns all ports.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn ports(&self) -> Result<KVec<Arc<Port>>> {
        loop {
            let len = self.inner.lock().ports.len();
            let mut ports = KVec::with_capacity(len, GFP_KERNEL)?;
            let inner = self.inner.lock();
            if inner.ports.len() > len {
                continue;
            }
            for port in inner.ports.iter() {
                // The capacity was reserved above.
                let _ = ports.push_within_capacity(port.clone());
            }
            return Ok(ports);
        }
    }
}
