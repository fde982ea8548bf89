// SPDX-License-Identifier: GPL-2.0
//! Virtqueues, from the device's side (virtio 1.3, 2.7 and 2.8).
//!
//! A [`Queue`] takes descriptor chains that the driver made available, and gives them back used.
//! It moves descriptors, indices and used entries only. The payload is the caller's: a chain is a
//! list of [`Segment`]s, addresses in the driver's [`Memory`], and may be copied from and to with
//! no lock held on the queue.
//!
//! ```text
//!   pop ──> Chain + segments ──> (copy, elsewhere) ──> complete ──> publish ──> should_notify
//!    └──────── unpop, rewind <──────────┘
//! ```
//!
//! [`Queue::pop`] may be called again before earlier chains are complete, and chains may be
//! completed in any order. [`Queue::publish`] makes all that was completed visible to the driver
//! by one store, and [`Queue::should_notify`] then says once for all of them whether the driver
//! wants a notification. With IN_ORDER, chains completed early wait inside the queue until those
//! taken before them are complete.
//!
//! Nothing in the rings is trusted: each descriptor and index is read once, checked, and used from
//! the copy. What is broken is reported as a [`RingError`], after which the queue is as it was
//! before the call; the device is expected to stop using it.
//!
//! The queue allocates nothing. It remembers the chains in flight in [`Slot`]s that the caller
//! provides, one for each entry of the ring.

pub(crate) mod chain;
mod error;
mod flight;
mod packed;
pub(crate) mod split;
pub(crate) mod window;

pub use self::{
    chain::{
        Chain,
        Segment, //
    },
    error::{
        ConfigError,
        RingError, //
    },
    flight::Slot,
    packed::Position, //
};

use core::ops::DerefMut;

use crate::{
    byte_order::ByteOrder,
    features::Features,
    memory::Memory, //
};

use self::{
    chain::{
        Gather,
        Rules, //
    },
    flight::Flight,
    packed::Packed,
    split::Split, //
};

/// The largest number of entries a virtqueue may have.
pub const MAX_SIZE: u16 = 32768;

/// The features of a virtqueue that were negotiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// RING_PACKED: the packed layout instead of the split one.
    pub packed: bool,
    /// INDIRECT_DESC: descriptors may refer to tables of descriptors.
    pub indirect: bool,
    /// EVENT_IDX: both sides name the entry they want to be notified of.
    pub event_index: bool,
    /// IN_ORDER: buffers are used in the order they were made available.
    pub in_order: bool,
    /// NOTIFY_ON_EMPTY, legacy only: a notification when nothing available is left, suppressed or
    /// not (virtio 1.3, 6.3).
    pub notify_on_empty: bool,
}

impl From<Features> for Options {
    /// Takes the ring features out of all that the driver acknowledged.
    fn from(features: Features) -> Self {
        let features = features.effective();
        Self {
            packed: features.contains(Features::RING_PACKED),
            indirect: features.contains(Features::INDIRECT_DESC),
            event_index: features.contains(Features::EVENT_IDX),
            in_order: features.contains(Features::IN_ORDER),
            notify_on_empty: features.legacy() && features.contains(Features::NOTIFY_ON_EMPTY),
        }
    }
}

/// Where a virtqueue lies and how it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The number of entries: 1 to [`MAX_SIZE`], a power of two in a split ring.
    pub size: u16,
    /// The address of the descriptor area: the descriptor table or the descriptor ring.
    pub desc: u64,
    /// The address of the driver area: the available ring or the driver event suppression.
    pub driver: u64,
    /// The address of the device area: the used ring or the device event suppression.
    pub device: u64,
    /// The byte order of everything in the ring.
    pub byte_order: ByteOrder,
    /// What was negotiated.
    pub options: Options,
}

impl Config {
    /// Checks the size, and the alignment (virtio 1.3, 2.7 and 2.8.10.1) and extent of the areas.
    ///
    /// Whether there is memory at the addresses shows when it is accessed.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that names what is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        let packed = self.options.packed;
        if self.size == 0 || self.size > MAX_SIZE || !(packed || self.size.is_power_of_two()) {
            return Err(ConfigError::Size(self.size));
        }
        let size = u64::from(self.size);
        let (driver, device) = if packed {
            ((4, 4), (4, 4))
        } else {
            ((2, 6 + 2 * size), (4, 6 + 8 * size))
        };
        for (addr, (align, len)) in [
            (self.desc, (16, 16 * size)),
            (self.driver, driver),
            (self.device, device),
        ] {
            if addr % align != 0 {
                return Err(ConfigError::Alignment(addr));
            }
            if addr.checked_add(len).is_none() {
                return Err(ConfigError::Extent(addr));
            }
        }
        Ok(())
    }
}

/// Where in its rings a virtqueue stands: what a VMM saves and restores.
///
/// A queue that is stopped with nothing in flight has `used` equal to `avail`. If they differ, the
/// buffers between them were taken but not given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Of a split virtqueue: free-running indices.
    Split {
        /// The index in the available ring of the next chain to take.
        avail: u16,
        /// The index in the used ring of the next entry to write.
        used: u16,
    },
    /// Of a packed virtqueue: two positions in the descriptor ring.
    Packed {
        /// Where the next available descriptor is looked for.
        avail: Position,
        /// Where the next used descriptor is written.
        used: Position,
    },
}

impl State {
    /// The state of a virtqueue after reset.
    pub const fn initial(packed: bool) -> Self {
        if packed {
            Self::Packed {
                avail: Position::START,
                used: Position::START,
            }
        } else {
            Self::split(0)
        }
    }

    /// The state of a split virtqueue that is known by its available index alone, as in vDPA.
    ///
    /// All that was taken is assumed to have been used. The used index in memory is not asked: it
    /// belongs to the driver's memory and could be anything.
    pub const fn split(avail: u16) -> Self {
        Self::Split { avail, used: avail }
    }

    /// The state of a packed virtqueue from two words, each an index with the wrap counter in bit
    /// 15.
    pub const fn packed(avail: u16, used: u16) -> Self {
        Self::Packed {
            avail: Position::from_bits(avail),
            used: Position::from_bits(used),
        }
    }
}

/// What the device told the driver about available buffer notifications ("kicks").
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kicks {
    /// Nothing yet: the memory holds what an earlier use of the ring left there.
    Unknown,
    /// They are wanted.
    Enabled,
    /// They are not wanted.
    Disabled,
}

/// The two layouts.
enum Layout {
    Split(Split),
    Packed(Packed),
}

/// Calls a method of whichever layout the queue has.
macro_rules! layout {
    ($queue:ident, $ring:ident => $body:expr) => {
        match &mut $queue.layout {
            Layout::Split($ring) => $body,
            Layout::Packed($ring) => $body,
        }
    };
}

/// A virtqueue, from the device's side.
///
/// `S` holds the memory of the chains in flight: a vector, a boxed or a borrowed slice of at least
/// as many [`Slot`]s as the ring has entries.
///
/// # Examples
///
/// An echo device that answers each buffer with as much of its content as fits:
///
/// ```
/// use virtio::{memory::Memory, ring::{Queue, RingError, Segment, Slot}};
///
/// fn echo<M: Memory>(queue: &mut Queue<Vec<Slot>>, mem: &M) -> Result<bool, RingError> {
///     let mut segments = [Segment::default(); 64];
///     while let Some(chain) = queue.pop(mem, &mut segments)? {
///         let segments = &segments[..chain.segments()];
///         let (from, to) = segments.split_at(chain.readable_segments());
///         let mut written = 0;
///         if let ([from, ..], [to, ..]) = (from, to) {
///             let mut data = vec![0; from.len.min(to.len) as usize];
///             mem.read(from.addr, &mut data)?;
///             mem.write(to.addr, &data)?;
///             written = data.len() as u32;
///         }
///         queue.complete(mem, chain, written)?;
///     }
///     queue.publish(mem)?;
///     queue.should_notify(mem)
/// }
/// ```
pub struct Queue<S> {
    config: Config,
    layout: Layout,
    flight: Flight<S>,
    kicks: Kicks,
    /// Entries of the ring that became used since the driver was last considered for a
    /// notification.
    unsignalled: u32,
    /// What the first [`Queue::publish`] adds to that: if the queue continues where it, or another
    /// one, was before, it is not known what the driver was notified of, so all that lies behind is
    /// in question.
    inherited: u32,
}

impl<S: DerefMut<Target = [Slot]>> Queue<S> {
    /// Makes a queue that continues at `state`.
    ///
    /// Memory is not touched. Whatever an earlier use of the ring left in the device area stays
    /// there until the first [`Queue::enable_kicks`] or [`Queue::disable_kicks`]; call one of them
    /// when the queue starts.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] if [`Config::check`] finds one, if `state` is not one of this layout and
    /// size, or if there are fewer slots than entries.
    pub fn new(config: Config, state: State, slots: S) -> Result<Self, ConfigError> {
        config.check()?;
        let layout = match (config.options.packed, state) {
            (false, State::Split { avail, used }) => {
                if avail.wrapping_sub(used) > config.size {
                    return Err(ConfigError::State);
                }
                Layout::Split(Split::new(avail, used))
            }
            (true, State::Packed { avail, used }) => {
                if avail.index >= config.size || used.index >= config.size {
                    return Err(ConfigError::State);
                }
                Layout::Packed(Packed::new(avail, used))
            }
            _ => return Err(ConfigError::State),
        };
        if slots.len() < usize::from(config.size) {
            return Err(ConfigError::Slots);
        }
        Ok(Self {
            config,
            layout,
            flight: Flight::new(slots, config.size),
            kicks: Kicks::Unknown,
            unsignalled: 0,
            inherited: if state == State::initial(config.options.packed) {
                0
            } else {
                u32::MAX
            },
        })
    }

    /// Gives the storage back, forgetting all that is in flight.
    pub fn into_slots(self) -> S {
        self.flight.into_slots()
    }

    /// Where the queue lies and how it is read.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where the queue stands.
    ///
    /// Chains that are in flight, and chains completed but not published, count as taken and not
    /// used.
    pub fn state(&self) -> State {
        match &self.layout {
            Layout::Split(ring) => ring.state(),
            Layout::Packed(ring) => ring.state(),
        }
    }

    /// The number of chains taken and not completed.
    pub fn in_flight(&self) -> u16 {
        self.flight.popped()
    }

    /// The ids of the chains taken and not completed, oldest first: the index of the first
    /// descriptor in a split ring, the buffer id in a packed one.
    pub fn in_flight_ids(&self) -> impl Iterator<Item = u16> + '_ {
        self.flight.ids()
    }

    /// Returns whether the driver made something available that was not taken yet.
    ///
    /// # Errors
    ///
    /// A [`RingError`] if the available index is broken or out of reach.
    #[inline]
    pub fn has_available<M: Memory + ?Sized>(&mut self, mem: &M) -> Result<bool, RingError> {
        layout!(self, ring => ring.has_available(&self.config, mem))
    }

    /// Takes the next available chain, if there is one.
    ///
    /// Its segments are put into `segments`, readable ones first; segments of no bytes are left
    /// out. The length of `segments` bounds what the device accepts.
    ///
    /// # Errors
    ///
    /// A [`RingError`] that names what is broken. Nothing is taken then.
    #[inline]
    pub fn pop<M: Memory + ?Sized>(
        &mut self,
        mem: &M,
        segments: &mut [Segment],
    ) -> Result<Option<Chain>, RingError> {
        // Until the driver sees what is complete it cannot have put anything in its place.
        let unpublished = layout!(self, ring => ring.unpublished());
        let room = self.flight.room().saturating_sub(unpublished);
        let rules = Rules {
            byte_order: self.config.byte_order,
            indirect: self.config.options.indirect,
        };
        let mut gather = Gather::new(segments);
        let Some(taken) = layout!(self, ring =>
            ring.peek(&self.config, rules, mem, room, &mut gather)?)
        else {
            return Ok(None);
        };
        let chain = self
            .flight
            .insert(taken, &gather)
            .ok_or(RingError::TooManyInFlight)?;
        layout!(self, ring => ring.advance(&self.config, taken.entries));
        Ok(Some(chain))
    }

    /// Puts `chain` back, as if it had not been taken; the next [`Queue::pop`] reads it again.
    ///
    /// It must be the one taken last. Several are put back newest first.
    ///
    /// # Errors
    ///
    /// [`RingError::NotInFlight`] if it was completed or put back already, and
    /// [`RingError::NotNewest`] if another one was taken after it.
    pub fn unpop(&mut self, chain: Chain) -> Result<(), RingError> {
        let entries = self.flight.remove_newest(&chain)?;
        layout!(self, ring => ring.retreat(&self.config, entries));
        Ok(())
    }

    /// Puts all chains in flight back and returns how many they were.
    ///
    /// This is how a queue is stopped that cannot finish what it took: a later use of the ring,
    /// by this device or another, takes the same chains again. Call [`Queue::publish`] first.
    ///
    /// # Errors
    ///
    /// [`RingError::NotNewest`] if a chain was completed that was taken after one that was not:
    /// the ring cannot express that. Nothing is changed then; the chains have to be completed, or
    /// reported by [`Queue::in_flight_ids`].
    pub fn rewind(&mut self) -> Result<u16, RingError> {
        let count = self.flight.popped();
        let entries = self.flight.remove_all()?;
        layout!(self, ring => ring.retreat(&self.config, entries));
        Ok(count)
    }

    /// Marks `chain` as used, with `written` bytes put into its writable segments, counted from
    /// the first one. The driver sees it after [`Queue::publish`].
    ///
    /// `written` is bounded by [`Chain::writable`].
    ///
    /// # Errors
    ///
    /// [`RingError::NotInFlight`] if the chain was completed or put back already, and
    /// [`RingError::Fault`] if the device area is out of reach.
    #[inline]
    pub fn complete<M: Memory + ?Sized>(
        &mut self,
        mem: &M,
        chain: Chain,
        written: u32,
    ) -> Result<(), RingError> {
        let written = written.min(chain.writable());
        if self.config.options.in_order {
            return self.flight.hold(&chain, written);
        }
        let entries = self.flight.entries(&chain)?;
        layout!(self, ring =>
            ring.put_used(&self.config, mem, chain.id(), written, entries)?);
        self.flight.remove(&chain);
        Ok(())
    }

    /// Shows the driver what was completed since the last call and returns how many entries of the
    /// ring that made used.
    ///
    /// # Errors
    ///
    /// [`RingError::Fault`] if the device area is out of reach.
    #[inline]
    pub fn publish<M: Memory + ?Sized>(&mut self, mem: &M) -> Result<u16, RingError> {
        if self.config.options.in_order {
            while let Some(batch) = self.flight.held_batch() {
                layout!(self, ring =>
                    ring.put_used(&self.config, mem, batch.id, batch.written, batch.entries)?);
                self.flight.release(batch);
            }
        }
        let entries = layout!(self, ring => ring.publish(&self.config, mem)?);
        if entries != 0 {
            self.unsignalled = self
                .unsignalled
                .saturating_add(u32::from(entries))
                .saturating_add(core::mem::take(&mut self.inherited));
        }
        Ok(entries)
    }

    /// Returns whether the driver wants a notification of what was published since the last call.
    ///
    /// Each used buffer is considered once: a caller that got `true` has to notify. A queue that
    /// does not begin at the beginning takes an event that lies behind for one that the driver was
    /// not notified of.
    ///
    /// # Errors
    ///
    /// [`RingError::Fault`] if the driver area is out of reach.
    #[inline]
    pub fn should_notify<M: Memory + ?Sized>(&mut self, mem: &M) -> Result<bool, RingError> {
        if self.unsignalled == 0 {
            return Ok(false);
        }
        // The driver asks for a notification and then looks at the used ring again; the device
        // published and now looks whether it was asked. Both need their store done first.
        mem.fence();
        let wanted = layout!(self, ring =>
            ring.notification_wanted(&self.config, mem, self.unsignalled)?);
        self.unsignalled = 0;
        Ok(wanted)
    }

    /// Tells the driver that no kicks are needed.
    ///
    /// It is advice: the driver may kick all the same. With EVENT_IDX on a split ring there is
    /// nothing to be said; the driver kicks once and then not before the next
    /// [`Queue::enable_kicks`].
    ///
    /// # Errors
    ///
    /// [`RingError::Fault`] if the device area is out of reach.
    #[inline]
    pub fn disable_kicks<M: Memory + ?Sized>(&mut self, mem: &M) -> Result<(), RingError> {
        if self.kicks != Kicks::Disabled {
            layout!(self, ring => ring.disable_kicks(&self.config, mem)?);
            self.kicks = Kicks::Disabled;
        }
        Ok(())
    }

    /// Tells the driver that the next chain made available needs a kick, then looks once more
    /// whether there is one already.
    ///
    /// If it returns `true` there is something to take, for which no kick may come. If it returns
    /// `false` a kick will come.
    ///
    /// # Errors
    ///
    /// A [`RingError`] if the device area is out of reach or the available index is broken.
    #[inline]
    pub fn enable_kicks<M: Memory + ?Sized>(&mut self, mem: &M) -> Result<bool, RingError> {
        let fresh = self.kicks != Kicks::Enabled;
        layout!(self, ring => ring.enable_kicks(&self.config, mem, fresh)?);
        self.kicks = Kicks::Enabled;
        mem.fence();
        self.has_available(mem)
    }
}
