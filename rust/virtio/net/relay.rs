// SPDX-License-Identifier: GPL-2.0

//! A virtqueue of one byte order served by a device that knows another one only.
//!
//! A legacy driver of a big-endian guest has big-endian rings and packet headers (virtio 1.3, 2.4.3
//! and 5.1.6.1), and hardware may know little-endian ones only. A [`Relay`] stands between them: it
//! is the device of the guest's ring, and the driver of a second ring, the *shadow*, which the
//! hardware is given in its place.
//!
//! ```text
//!    guest's ring            relay               shadow              hardware
//!    available  -- pop --> descriptors --- add --> available  ------>
//!        |                 header, to transmit --> header
//!        |                                           |  (the rest of the descriptors)
//!        +--> data <---------------------------------+-- read, written ----
//!               ^          header, received
//!    used  <-- complete <-------------------------- used  <---------
//! ```
//!
//! Packets are not copied: the descriptors of the shadow have the guest's own addresses. Only the
//! header that is to be transmitted is, for it is not the device's to write: the copy, in the other
//! order, lies beside the shadow, in a descriptor before all others. The header of a received packet
//! is put right where the hardware wrote it, before the guest is shown the buffer.
//!
//! One chain of the guest's is one chain of the shadow, and both rings have the same indices, always.
//! Where the hardware says that it stands is therefore where the guest's ring stands. The sizes of
//! the rings may differ: a chain for which the shadow has no room waits in the guest's ring.
//!
//! Neither side is trusted. All of a chain is checked before any of it reaches the shadow, each of
//! its bytes is read once, and what the hardware gives back is looked up in a table that it cannot
//! write to.

mod shadow;

pub use self::shadow::{
    Entry,
    Layout, //
};

use core::{
    fmt,
    ops::{
        DerefMut,
        Range, //
    }, //
};

use super::header::{
    Header,
    LEGACY_LEN,
    MAX_LEN, //
};
use crate::{
    byte_order::ByteOrder,
    memory::{
        Fault,
        Memory, //
    },
    ring::{
        self,
        Chain,
        ConfigError,
        Queue,
        RingError,
        Segment,
        Slot,
        State, //
    },
};

use self::shadow::Shadow;

/// Which way the packets of a queue go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To the guest: the hardware writes all of a chain.
    Receive,
    /// From the guest: the hardware reads all of a chain.
    Transmit,
}

/// What a relay stands between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The guest's ring, a split one.
    pub guest: ring::Config,
    /// Which way its packets go.
    pub direction: Direction,
    /// The bytes of a packet header: 10 or 12; see [`length`](super::header::length).
    pub header: usize,
    /// Where the shadow lies, in addresses of the hardware.
    pub shadow: Layout,
    /// The byte order that the hardware knows.
    pub order: ByteOrder,
    /// Whether the hardware names the entry it wants to be kicked for, and is told which one is to
    /// be interrupted for (EVENT_IDX).
    pub event_index: bool,
    /// Addresses that the hardware can reach and the guest must not: the shadows of all queues.
    pub window: Range<u64>,
}

/// The memory that a relay needs for itself.
pub struct Storage<S, E, P> {
    /// As many as the guest's ring has entries.
    pub slots: S,
    /// As many as the shadow has entries.
    pub entries: E,
    /// The pieces of one chain: as many as the shadow has entries. Longer chains are refused.
    pub pieces: P,
}

/// Why a relay cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayError {
    /// The guest's ring is broken, or memory of the guest's is not there.
    Ring(RingError),
    /// The shadow is not there.
    Shadow(Fault),
    /// A chain of a receive queue has something to read, or one of a transmit queue something to
    /// write.
    Direction,
    /// A chain of this many bytes, in which there is no room for a header.
    NoHeader(u32),
    /// A chain that takes this many descriptors, more than the shadow has.
    TooLong(usize),
    /// A buffer at this address reaches into the shadow.
    Window(u64),
    /// The hardware used this many chains more than it has.
    UsedIndex(u16),
    /// The hardware used a chain that it does not have.
    UsedId(u32),
}

impl From<RingError> for RelayError {
    fn from(error: RingError) -> Self {
        Self::Ring(error)
    }
}

impl fmt::Display for RelayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(error) => error.fmt(f),
            Self::Shadow(fault) => write!(f, "shadow ring: {}", fault),
            Self::Direction => f.write_str("a buffer of the other direction"),
            Self::NoHeader(len) => {
                write!(f, "a buffer of {} bytes, without room for a header", len)
            }
            Self::TooLong(n) => write!(f, "a buffer of {} descriptors, more than fit", n),
            Self::Window(addr) => write!(f, "a buffer at {:#x}, in a shadow ring", addr),
            Self::UsedIndex(n) => write!(f, "the hardware used {} buffers more than it has", n),
            Self::UsedId(id) => write!(f, "the hardware used buffer {}, which it has not", id),
        }
    }
}

/// What came of a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// The hardware is to be kicked.
    pub kick: bool,
    /// The guest is to be notified of used buffers.
    pub notify: bool,
    /// There is more to do, for which nobody calls: the next turn is due.
    pub again: bool,
}

/// Where a relay that was stopped stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The index of the next available and of the next used entry, of either ring.
    pub index: u16,
    /// The guest is to be notified of used buffers.
    pub notify: bool,
}

/// Why chains are left in the guest's ring.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// None are.
    Nothing,
    /// The turn is over.
    Budget,
    /// The shadow has no room before something of it is used.
    Room,
}

/// The relay of one virtqueue.
///
/// # Examples
///
/// What a driver does when the guest kicks, and when the hardware interrupts:
///
/// ```
/// # use core::ops::DerefMut;
/// use virtio::{memory::Memory, net::relay::{Entry, Relay, RelayError}, ring::{Segment, Slot}};
///
/// fn work<S, E, P>(
///     relay: &mut Relay<S, E, P>,
///     guest: &impl Memory,
///     shadow: &impl Memory,
/// ) -> Result<bool, RelayError>
/// # where
/// #     S: DerefMut<Target = [Slot]>,
/// #     E: DerefMut<Target = [Entry]>,
/// #     P: DerefMut<Target = [Segment]>,
/// {
///     let turn = relay.turn(guest, shadow, 64)?;
///     if turn.kick {
///         // Ring the hardware's doorbell.
///     }
///     if turn.notify {
///         // Interrupt the guest.
///     }
///     Ok(turn.again)
/// }
/// ```
pub struct Relay<S, E, P> {
    config: Config,
    queue: Queue<S>,
    shadow: Shadow<E>,
    pieces: P,
    /// How many buffers of the packet received last are to be given back before the guest may see
    /// the first of them.
    rest_of_packet: u16,
}

impl<S, E, P> Relay<S, E, P>
where
    S: DerefMut<Target = [Slot]>,
    E: DerefMut<Target = [Entry]>,
    P: DerefMut<Target = [Segment]>,
{
    /// Makes a relay of rings that both go on at `index`, with nothing in flight.
    ///
    /// Memory is not touched before [`Relay::start`].
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] if one of the rings cannot be like that, the guest's is not a split one,
    /// the header has another length, or there is too little storage.
    pub fn new(config: Config, index: u16, storage: Storage<S, E, P>) -> Result<Self, ConfigError> {
        let size = usize::from(config.shadow.size());
        if config.header != LEGACY_LEN && config.header != MAX_LEN {
            return Err(ConfigError::State);
        }
        if storage.pieces.len() < size {
            return Err(ConfigError::Slots);
        }
        let queue = Queue::new(config.guest, State::split(index), storage.slots)?;
        let shadow = Shadow::new(
            config.shadow,
            config.order,
            config.event_index,
            index,
            storage.entries,
        )?;
        Ok(Self {
            config,
            queue,
            shadow,
            pieces: storage.pieces,
            rest_of_packet: 0,
        })
    }

    /// Gives the storage back, forgetting all that is in flight.
    pub fn into_storage(self) -> Storage<S, E, P> {
        Storage {
            slots: self.queue.into_slots(),
            entries: self.shadow.into_entries(),
            pieces: self.pieces,
        }
    }

    /// What the relay stands between.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The index of the next used entry, of either ring.
    pub fn index(&self) -> u16 {
        self.shadow.index()
    }

    /// How many chains the hardware has.
    pub fn in_flight(&self) -> u16 {
        self.queue.in_flight()
    }

    /// Writes an empty shadow, before the hardware is given it. It has to be called once, and then
    /// a [turn](Self::turn) is due.
    ///
    /// # Errors
    ///
    /// [`RelayError::Shadow`].
    pub fn start<N: Memory + ?Sized>(&mut self, shadow: &N) -> Result<(), RelayError> {
        self.shadow.start(shadow)
    }

    /// Hands on what the guest made available and gives back what the hardware used, up to `budget`
    /// chains each way. A packet in several buffers is shown to the guest when all were given back.
    ///
    /// During a turn neither side need call. If nothing is left to do, both were asked to when it
    /// ends: the guest to kick for the next chain, unless the shadow has no room for it, and the
    /// hardware to interrupt for the next one it uses.
    ///
    /// # Errors
    ///
    /// A [`RelayError`], after which the relay must not be used any more.
    pub fn turn<G: Memory + ?Sized, N: Memory + ?Sized>(
        &mut self,
        guest: &G,
        shadow: &N,
        budget: u16,
    ) -> Result<Turn, RelayError> {
        self.queue.disable_kicks(guest)?;
        self.shadow.disable_interrupts(shadow)?;
        let given = self.give_back(guest, shadow, budget)?;
        let left = self.hand_on(guest, shadow, budget)?;
        let kick = self.shadow.publish(shadow)?;
        let notify = self.queue.should_notify(guest)?;
        let mut again = given >= budget || left == Left::Budget;
        if !again {
            again = self.shadow.enable_interrupts(shadow)?;
            if left == Left::Nothing {
                again |= self.queue.enable_kicks(guest)?;
            }
        }
        Ok(Turn {
            kick,
            notify,
            again,
        })
    }

    /// Takes what the hardware used, now that it stands still, and puts back into the guest's ring
    /// what it did not: whoever goes on with that takes the same chains again, in the same order.
    ///
    /// The relay itself goes on with the next [turn](Self::turn), and the hardware with the shadow
    /// as it is then, which has nothing available.
    ///
    /// # Errors
    ///
    /// A [`RelayError`]; [`RingError::NotNewest`] in it if the hardware used a chain before an
    /// earlier one that it did not use, which the ring cannot express. The relay must not be used
    /// any more.
    pub fn stop<G: Memory + ?Sized, N: Memory + ?Sized>(
        &mut self,
        guest: &G,
        shadow: &N,
    ) -> Result<Stopped, RelayError> {
        self.give_back(guest, shadow, u16::MAX)?;
        // Half a packet is not one, but its buffers are used.
        self.queue.publish(guest)?;
        let notify = self.queue.should_notify(guest)?;
        self.queue.rewind()?;
        self.shadow.rewind(shadow)?;
        Ok(Stopped {
            index: self.shadow.index(),
            notify,
        })
    }

    /// Gives chains back that the hardware used, and returns how many.
    fn give_back<G: Memory + ?Sized, N: Memory + ?Sized>(
        &mut self,
        guest: &G,
        shadow: &N,
        budget: u16,
    ) -> Result<u16, RelayError> {
        let mut given = 0;
        while given < budget {
            let Some(used) = self.shadow.used(shadow)? else {
                break;
            };
            if self.config.direction == Direction::Receive {
                let written = used.written.min(used.chain.writable());
                self.received(guest, used.head, written)?;
            }
            self.queue.complete(guest, used.chain, used.written)?;
            self.shadow.release(used.head);
            given = given.saturating_add(1);
        }
        // Who sees the first buffer of a packet looks for the others at once (5.1.6.4).
        if self.rest_of_packet == 0 {
            self.queue.publish(guest)?;
        }
        Ok(given)
    }

    /// Puts the header right that the hardware wrote to the chain `head`, if there is one in it.
    fn received<G: Memory + ?Sized>(
        &mut self,
        guest: &G,
        head: u16,
        written: u32,
    ) -> Result<(), RelayError> {
        if self.rest_of_packet != 0 {
            self.rest_of_packet -= 1;
            return Ok(());
        }
        let mut bytes = [0; MAX_LEN];
        let Some(bytes) = bytes.get_mut(..self.config.header) else {
            return Ok(());
        };
        // A buffer that was given back unused has none.
        if (written as usize) < bytes.len() {
            return Ok(());
        }
        let pieces = || self.shadow.pieces(head);
        across(pieces(), bytes.len(), |addr, part| {
            guest.read(addr, bytes.get_mut(part).unwrap_or(&mut []))
        })?;
        let Some(header) = Header::parse(bytes, self.config.order) else {
            return Ok(());
        };
        let swapped = header.to_bytes(self.config.guest.byte_order);
        across(pieces(), bytes.len(), |addr, part| {
            guest.write(addr, swapped.get(part).unwrap_or(&[]))
        })?;
        // The guest may have written to it meanwhile. Whatever it says, the hardware does not use
        // more buffers than it has.
        let others = self.queue.in_flight().saturating_sub(1);
        self.rest_of_packet = header.num_buffers.saturating_sub(1).min(others);
        Ok(())
    }

    /// Hands chains on that the guest made available.
    fn hand_on<G: Memory + ?Sized, N: Memory + ?Sized>(
        &mut self,
        guest: &G,
        shadow: &N,
        budget: u16,
    ) -> Result<Left, RelayError> {
        for _ in 0..budget {
            let Some(chain) = self.queue.pop(guest, &mut self.pieces)? else {
                return Ok(Left::Nothing);
            };
            if !self.hand_on_one(guest, shadow, chain)? {
                self.queue.unpop(chain)?;
                return Ok(Left::Room);
            }
        }
        match self.queue.has_available(guest)? {
            true => Ok(Left::Budget),
            false => Ok(Left::Nothing),
        }
    }

    /// Puts a chain into the shadow, the pieces of which were taken, and returns whether there was
    /// room.
    fn hand_on_one<G: Memory + ?Sized, N: Memory + ?Sized>(
        &mut self,
        guest: &G,
        shadow: &N,
        chain: Chain,
    ) -> Result<bool, RelayError> {
        let pieces = self.pieces.get_mut(..chain.segments()).unwrap_or(&mut []);
        let (with, without) = match self.config.direction {
            Direction::Receive => (chain.writable(), chain.readable()),
            Direction::Transmit => (chain.readable(), chain.writable()),
        };
        if without != 0 {
            return Err(RelayError::Direction);
        }
        if (with as usize) < self.config.header {
            return Err(RelayError::NoHeader(with));
        }
        let window = &self.config.window;
        let overlaps = |piece: &&mut Segment| {
            // No piece is empty, or reaches beyond the last address.
            let last = piece.addr.saturating_add(u64::from(piece.len) - 1);
            piece.addr < window.end && last >= window.start
        };
        if let Some(piece) = pieces.iter_mut().find(overlaps) {
            return Err(RelayError::Window(piece.addr));
        }
        match self.config.direction {
            Direction::Receive => self.shadow.add(shadow, None, pieces, chain),
            Direction::Transmit => {
                let mut bytes = [0; MAX_LEN];
                let Some(bytes) = bytes.get_mut(..self.config.header) else {
                    return Err(RelayError::NoHeader(with));
                };
                let (skipped, within) = header_pieces(pieces, bytes.len());
                // Before it is read: what is not taken now is read anew.
                let count = 1 + pieces.len() - skipped;
                if !self.shadow.has_room(count)? {
                    return Ok(false);
                }
                let places = pieces.iter().map(|piece| (piece.addr, piece.len));
                across(places, bytes.len(), |addr, part| {
                    guest.read(addr, bytes.get_mut(part).unwrap_or(&mut []))
                })?;
                let pieces = pieces.get_mut(skipped..).unwrap_or(&mut []);
                if let Some(first) = pieces.first_mut() {
                    first.addr = first.addr.wrapping_add(u64::from(within));
                    first.len -= within;
                }
                let Some(header) = Header::parse(bytes, self.config.guest.byte_order) else {
                    return Err(RelayError::NoHeader(with));
                };
                let swapped = header.to_bytes(self.config.order);
                let header = swapped.get(..bytes.len());
                self.shadow.add(shadow, header, pieces, chain)
            }
        }
    }
}

/// Calls `each` for each of `pieces`, addresses and lengths, with its address and which of the first
/// `len` bytes of them all are there, until that is all of these.
///
/// # Errors
///
/// The first one of `each`.
fn across(
    pieces: impl Iterator<Item = (u64, u32)>,
    len: usize,
    mut each: impl FnMut(u64, Range<usize>) -> Result<(), Fault>,
) -> Result<(), RelayError> {
    let mut at = 0;
    for (addr, here) in pieces {
        let end = len.min(at + here as usize);
        each(addr, at..end).map_err(RingError::from)?;
        at = end;
        if at == len {
            break;
        }
    }
    Ok(())
}

/// How many of `pieces` hold nothing but the first `header` bytes, and how many bytes of the next
/// one belong to these.
fn header_pieces(pieces: &[Segment], header: usize) -> (usize, u32) {
    // CAST: A header has at most `MAX_LEN` bytes.
    let mut rest = header as u32;
    for (index, piece) in pieces.iter().enumerate() {
        if piece.len > rest {
            return (index, rest);
        }
        rest -= piece.len;
    }
    (pieces.len(), 0)
}
