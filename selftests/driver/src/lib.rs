// SPDX-License-Identifier: GPL-2.0
//! Virtqueues, from the driver's side.
//!
//! What a guest's virtio driver does with a ring, as a library: to test devices with. It is written
//! from the standard (virtio 1.3, 2.7 and 2.8) and shares no code with the device side in
//! `rust/virtio`, so that a mistake made there is not made here again.
//!
//! A [`Ring`] lies in a [`Region`]: memory at some IO virtual address that is ordinary memory of
//! this process. In a test of the device side alone, both sides hold the same region. Through
//! `/dev/vhost-vdpa-N`, the region is mapped for the device by its [`Region::as_ptr`].
//!
//! The ring watches what the device does. An entry it never asked for, a length beyond the buffer,
//! or an order not allowed is [`Broken`].
//!
//! # Examples
//!
//! ```
//! use driver::{Buffer, Options, Region, Ring, Shape};
//!
//! let region = Region::new(0x10000, 1 << 16);
//! let mut ring = Ring::new(&region, 0x10000, 256, Options::default());
//! let layout = ring.layout(); // what the device is told
//! assert_eq!(layout.desc, 0x10000);
//!
//! region.write(0x18000, b"hello");
//! let out = [Buffer { addr: 0x18000, len: 5 }];
//! ring.add(&out, &[], Shape::Direct, 42).unwrap();
//! let kick = ring.publish();
//! assert!(kick);
//! // The device has done nothing yet.
//! assert_eq!(ring.used(), Ok(None));
//! assert_eq!(ring.detach(), [42]);
//! ```

mod packed;
mod region;
mod split;

pub use region::Region;

use std::fmt;

use packed::PackedRing;
use split::SplitRing;

/// Descriptor flags, the same in both layouts.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// The bytes of a descriptor.
const DESC: u64 = 16;

/// The number of indirect tables a ring has, at most.
const TABLES: u16 = 64;

/// The byte order of a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Endian {
    /// Every modern driver, and legacy ones of little-endian guests.
    #[default]
    Little,
    /// Legacy drivers of big-endian guests.
    Big,
}

impl Endian {
    /// Converts between a value and what is stored of it; works both ways.
    fn fix(self, value: u16) -> u16 {
        match self {
            Self::Little => value.to_le(),
            Self::Big => value.to_be(),
        }
    }

    fn u16(self, value: u16) -> [u8; 2] {
        self.fix(value).to_ne_bytes()
    }

    fn u32(self, value: u32) -> [u8; 4] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }

    fn u64(self, value: u64) -> [u8; 8] {
        match self {
            Self::Little => value.to_le_bytes(),
            Self::Big => value.to_be_bytes(),
        }
    }

    fn read_u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }
}

/// What was negotiated, and how the ring is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The packed layout instead of the split one.
    pub packed: bool,
    /// EVENT_IDX.
    pub event_index: bool,
    /// IN_ORDER. The driver then uses descriptors in ring order.
    pub in_order: bool,
    /// The byte order of everything in the ring.
    pub endian: Endian,
    /// How many descriptors an indirect table has room for; 0 for no tables.
    pub table_entries: u16,
    /// Where the ring continues, if it was not reset: what `VHOST_GET_VRING_BASE` gave of a ring
    /// with everything used. Split: the available index. Packed: the available position, with the
    /// wrap counter in bit 15.
    pub start: Option<u16>,
}

/// The addresses of a ring's areas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The descriptor area.
    pub desc: u64,
    /// The driver area: available ring or driver event suppression.
    pub driver: u64,
    /// The device area: used ring or device event suppression.
    pub device: u64,
    /// The indirect tables, which are no area of their own.
    tables: u64,
    /// The first address that the ring does not occupy.
    pub end: u64,
}

impl Layout {
    /// Lays a ring out at `at`, a multiple of 4096.
    ///
    /// A split ring is laid out as a legacy driver does: contiguous, the used ring at the next
    /// multiple of 4096 after the available ring (virtio 1.3, 2.7.2).
    pub fn new(at: u64, size: u16, options: &Options) -> Self {
        assert_eq!(at % 4096, 0, "the ring is not page aligned");
        let n = u64::from(size);
        let driver = at + DESC * n;
        let (device, end) = if options.packed {
            (driver + 4, driver + 8)
        } else {
            let device = (driver + 6 + 2 * n).next_multiple_of(4096);
            (device, device + 6 + 8 * n)
        };
        let tables = end.next_multiple_of(DESC);
        let table = DESC * u64::from(options.table_entries);
        Self {
            desc: at,
            driver,
            device,
            tables,
            end: tables + table * u64::from(size.min(TABLES)),
        }
    }
}

/// A piece of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Its address.
    pub addr: u64,
    /// Its length in bytes.
    pub len: u32,
}

/// How a buffer is put into descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A chain of descriptors in the ring.
    Direct,
    /// One descriptor in the ring, that refers to a table of all of them.
    Indirect,
    /// This many descriptors in the ring, of which the last refers to a table of the rest. Split
    /// rings only.
    Mixed(u16),
}

/// There is no room for the buffer: too few descriptors are free, or no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the ring is full")
    }
}

impl std::error::Error for Full {}

/// A buffer that the device gave back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// What [`Ring::add`] was given with the buffer.
    pub token: u64,
    /// How many bytes the device wrote, unless it skipped the entry of this buffer (IN_ORDER).
    pub written: Option<u32>,
}

/// The device did what it may not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// It used a buffer that it does not have.
    UnknownId(u32),
    /// It used a buffer of IN_ORDER before an earlier one.
    OutOfOrder(u32),
    /// It wrote more than the writable part of the buffer.
    TooLong {
        /// What it says it wrote, in bytes.
        written: u32,
        /// What it could write, in bytes.
        writable: u32,
    },
    /// It used more buffers than it has.
    UsedIndex(u16),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownId(id) => write!(f, "the device used buffer {id}, which it does not have"),
            Self::OutOfOrder(id) => write!(f, "the device used buffer {id} out of order"),
            Self::TooLong { written, writable } => {
                write!(f, "the device wrote {written} bytes of {writable}")
            }
            Self::UsedIndex(n) => write!(f, "the used index jumped ahead by {n}"),
        }
    }
}

impl std::error::Error for Broken {}

/// A buffer that the device has.
#[derive(Clone, Debug)]
struct InFlight {
    token: u64,
    /// How many buffers were added before it.
    turn: u64,
    /// Its descriptors in the ring, in order.
    descs: Vec<u16>,
    table: Option<u64>,
    writable: u32,
}

/// The indirect tables of a ring that are free.
#[derive(Debug)]
struct Tables {
    entries: usize,
    free: Vec<u64>,
}

impl Tables {
    fn new(layout: &Layout, size: u16, options: &Options) -> Self {
        let entries = options.table_entries;
        let count = if entries == 0 { 0 } else { size.min(TABLES) };
        let at = |n| layout.tables + DESC * u64::from(entries) * u64::from(n);
        Self {
            entries: usize::from(entries),
            free: (0..count).map(at).collect(),
        }
    }

    fn take(&mut self, entries: usize) -> Result<u64, Full> {
        if entries > self.entries {
            return Err(Full);
        }
        self.free.pop().ok_or(Full)
    }
}

/// A list of pieces with the direction of each.
fn pieces<'a>(out: &'a [Buffer], into: &'a [Buffer]) -> impl Iterator<Item = (Buffer, u16)> + 'a {
    out.iter()
        .map(|&b| (b, 0))
        .chain(into.iter().map(|&b| (b, WRITE)))
}

/// Returns whether `event` is among the entries from `old` up to but not including `new`
/// (virtio 1.3, 2.7.7.1).
fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// A virtqueue, from the driver's side.
#[derive(Debug)]
pub struct Ring(Kind);

#[derive(Debug)]
enum Kind {
    Split(SplitRing),
    Packed(PackedRing),
}

macro_rules! each {
    ($self:ident, $ring:ident => $body:expr) => {
        match &mut $self.0 {
            Kind::Split($ring) => $body,
            Kind::Packed($ring) => $body,
        }
    };
}

impl Ring {
    /// Makes an empty ring of `size` entries at the address `at` of `region`.
    ///
    /// # Panics
    ///
    /// If the region does not hold it, `at` is not a multiple of 4096, or the size is not one that
    /// the layout can have.
    pub fn new(region: &Region, at: u64, size: u16, options: Options) -> Self {
        assert!((1..=32768).contains(&size));
        let layout = Layout::new(at, size, &options);
        assert!(
            region.contains(at, layout.end - at),
            "the ring does not fit"
        );
        region.fill(at, layout.end - at);
        Self(if options.packed {
            Kind::Packed(PackedRing::new(region, layout, size, options))
        } else {
            assert!(size.is_power_of_two());
            Kind::Split(SplitRing::new(region, layout, size, options))
        })
    }

    /// Where the areas are.
    pub fn layout(&self) -> Layout {
        match &self.0 {
            Kind::Split(ring) => ring.layout,
            Kind::Packed(ring) => ring.layout,
        }
    }

    /// Adds a buffer: `out` for the device to read, then `into` for it to write. `token` comes back
    /// with it. The device sees it after [`Ring::publish`].
    ///
    /// # Errors
    ///
    /// [`Full`] if there is no room for it now.
    ///
    /// # Panics
    ///
    /// If the buffer has no pieces.
    pub fn add(
        &mut self,
        out: &[Buffer],
        into: &[Buffer],
        shape: Shape,
        token: u64,
    ) -> Result<(), Full> {
        assert!(!out.is_empty() || !into.is_empty());
        each!(self, ring => ring.add(out, into, shape, token))
    }

    /// Makes what was added available to the device, and returns whether it has to be kicked for
    /// it.
    pub fn publish(&mut self) -> bool {
        each!(self, ring => ring.publish())
    }

    /// Takes the next buffer that the device used.
    ///
    /// # Errors
    ///
    /// [`Broken`] if the device did what it may not do.
    pub fn used(&mut self) -> Result<Option<Used>, Broken> {
        each!(self, ring => ring.used())
    }

    /// Asks the device for no notifications. It may send some all the same.
    pub fn disable_interrupts(&mut self) {
        each!(self, ring => ring.disable_interrupts())
    }

    /// Asks the device for a notification when it has used `count` more buffers, or packed
    /// descriptors, at the latest; when it uses the next one, without EVENT_IDX. Returns whether
    /// there are used buffers already, for which none may come.
    pub fn enable_interrupts(&mut self, count: u16) -> bool {
        each!(self, ring => ring.enable_interrupts(count))
    }

    /// How many descriptors are free.
    pub fn free(&self) -> usize {
        match &self.0 {
            Kind::Split(ring) => ring.free(),
            Kind::Packed(ring) => ring.free(),
        }
    }

    /// Where the ring stands, as the driver sees it: what has been made available, and what has
    /// been taken back. A device that has used everything has both as its state, once the driver
    /// has taken everything back. Split: two indices. Packed: two positions with the wrap counter
    /// in bit 15.
    pub fn position(&self) -> (u16, u16) {
        match &self.0 {
            Kind::Split(ring) => ring.position(),
            Kind::Packed(ring) => ring.position(),
        }
    }

    /// Gives up all buffers that the device has, as after a reset, and returns their tokens in the
    /// order they were added. The ring must not be used any more.
    pub fn detach(self) -> Vec<u64> {
        match self.0 {
            Kind::Split(ring) => ring.detach(),
            Kind::Packed(ring) => ring.detach(),
        }
    }
}
