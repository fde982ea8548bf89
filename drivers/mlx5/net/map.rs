// SPDX-License-Identifier: GPL-2.0

//! The driver's memory, as the firmware knows it.
//!
//! ```text
//!   vhost-vdpa --> Map: what is wanted, for each address space; holds the pages
//!                    |
//!                 install, when queues are to use it
//!                    |
//!                  Installed: mappings for DMA, keys in the firmware --> virtqueues
//! ```
//!
//! A [`Map`] takes changes and asks the firmware nothing. What is [`Installed`] is brought to it, by
//! difference, when virtqueues start, and while they run whenever it changes. So a VMM that stops
//! its guest, takes all memory away and gives it back finds every key where it was.
//!
//! A key, or a part of one, leads to pages that vhost-vdpa gave back long ago. They are held: each
//! key keeps the mappings that it was made of, and those the pages, until the firmware has said that
//! it is gone; see [`Object`](crate::hca::Object). What nobody wants any more goes
//! [after a while](Installed::trim) if it is not replaced before.
//!
//! Beside the driver's memory a key may lead to [shadow rings](shadow), which the driver did not map.
//!
//! The kernel's own driver (`virtio_vdpa`) makes no maps. It has its buffers mapped for DMA, and
//! gets a key of all bus addresses; the process behind vhost-vdpa never does.

mod key;
mod shadow;

pub(crate) mod extent;
pub(crate) mod plan;

use core::fmt;

use hardware::{
    Device,
    Mapping, //
};
use kernel::{
    alloc::AllocError,
    prelude::*,
    sync::Arc, //
};
use vdpa::{
    device::User,
    memory::{
        Snapshot,
        WINDOW, //
    },
    ops::Extent, //
};

pub(crate) use self::shadow::Shadow;

use self::{
    extent::{
        Rights,
        Run,
        Runs, //
    },
    key::{
        Pieces,
        Root, //
    },
    plan::{
        Limits,
        NewPiece,
        Part,
        Piece,
        Plan,
        LOG_ENTRY, //
    },
    shadow::{
        Shadows,
        Window, //
    }, //
};
use super::{
    machine::{
        GROUP_DATA,
        GROUP_RINGS, //
    },
    wire, //
};
use crate::hca::{
    end_all,
    Era,
    Failure,
    Object, //
};

/// The number of groups of virtqueues.
const GROUPS: usize = 3;

const LIMITS: Limits = Limits {
    log_piece: LOG_ENTRY,
    entries: 8192,
};

/// The most entries of a root, whatever the firmware takes: as many as fit into a command.
const MOST_ENTRIES: u32 = 1 << 15;

/// What is mapped at once ends where a part of the root does, and a piece.
const _: () = assert!(WINDOW == 1 << LOG_ENTRY);

/// The number of the piece that shadow rings are in, which is none of the driver's memory.
const SHADOW: usize = usize::MAX;

/// vhost-vdpa takes 2048 maps; who comes near is told.
const MANY: usize = 1920;

/// What is mapped in the address spaces of a device, and which of them its groups are in.
pub(crate) struct Map {
    wanted: KVec<Snapshot>,
    groups: [u32; GROUPS],
    /// Counts changes.
    version: u64,
    /// It was said once that there are many maps.
    is_hinted: bool,
}

impl Map {
    /// Nothing is mapped, and all groups are in address space 0.
    pub(crate) fn new() -> Self {
        Self {
            wanted: KVec::new(),
            groups: [0; GROUPS],
            version: 1,
            is_hinted: false,
        }
    }

    /// Takes what is mapped in address space `asid` from now on. Returns what was so before.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, but not for an address space that there was something of.
    pub(crate) fn want(&mut self, asid: u32, snapshot: Snapshot) -> Result<Snapshot> {
        let index = asid as usize;
        while self.wanted.len() <= index {
            self.wanted.push(Snapshot::EMPTY, GFP_KERNEL)?;
        }
        let count = ranges(&snapshot);
        if count >= MANY && !self.is_hinted {
            self.is_hinted = true;
            pr_warn!(
                "{} ranges are mapped; vhost-vdpa takes 2048 (its parameter max_iotlb_entries): use huge pages for the guest\n",
                count
            );
        }
        self.version += 1;
        let wanted = self.wanted.get_mut(index).ok_or(EINVAL)?;
        Ok(core::mem::replace(wanted, snapshot))
    }

    /// Puts a group into address space `asid`.
    pub(crate) fn set_group(&mut self, group: u32, asid: u32) {
        if let Some(group) = self.groups.get_mut(group as usize) {
            if *group != asid {
                *group = asid;
                self.version += 1;
            }
        }
    }

    /// Whether something has changed since it was installed.
    pub(crate) fn is_dirty(&self, installed: &Installed) -> bool {
        self.version != installed.version
    }

    /// Whether the hardware reaches address space `asid`: the control queue alone does not need
    /// keys.
    pub(crate) fn concerns_hardware(&self, asid: u32) -> bool {
        self.asid(GROUP_DATA) == asid || self.asid(GROUP_RINGS) == asid
    }

    /// Whether there is memory for frames that was mapped by a process.
    pub(crate) fn has_user_map(&self) -> bool {
        !self.wanted(GROUP_DATA).is_empty()
    }

    fn asid(&self, group: u32) -> u32 {
        self.groups.get(group as usize).copied().unwrap_or(0)
    }

    /// What is mapped for a group.
    fn wanted(&self, group: u32) -> &Snapshot {
        const NOTHING: Snapshot = Snapshot::EMPTY;
        let asid = self.asid(group) as usize;
        self.wanted.get(asid).unwrap_or(&NOTHING)
    }
}

/// Why memory cannot be made known to the firmware.
pub(crate) enum MapError {
    /// There is none.
    Empty,
    /// It does not consist of whole pages.
    Crooked,
    /// The rings are in another address space than the buffers, which the hardware cannot have.
    Apart,
    /// The root would have more entries than this.
    Sparse(u32),
    /// There is no room left for so many bytes of shadow rings.
    Full(u64),
    /// A range cannot be mapped for DMA.
    Unreachable(u64, u64, Error),
    /// There is no key for a range.
    Refused(u64, u64, Failure),
    /// There is no memory for it.
    Memory,
}

impl From<AllocError> for MapError {
    fn from(_error: AllocError) -> Self {
        Self::Memory
    }
}

impl From<MapError> for Error {
    fn from(error: MapError) -> Self {
        match error {
            MapError::Empty | MapError::Crooked => EINVAL,
            MapError::Apart => EOPNOTSUPP,
            MapError::Sparse(_) => E2BIG,
            MapError::Full(_) => ENOSPC,
            MapError::Unreachable(_, _, error) => error,
            MapError::Refused(_, _, failure) => failure.into(),
            MapError::Memory => ENOMEM,
        }
    }
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("no memory is mapped"),
            Self::Crooked => f.write_str("memory is mapped that does not consist of whole pages"),
            Self::Apart => {
                f.write_str("the hardware cannot have rings in another address space than buffers")
            }
            Self::Sparse(most) => write!(
                f,
                "memory is mapped too far apart: it takes more than {most} entries of a key"
            ),
            Self::Full(size) => write!(
                f,
                "memory is mapped everywhere: no {size} addresses are left for shadow rings"
            ),
            Self::Unreachable(iova, end, error) => write!(
                f,
                "the device cannot reach {iova:#x}..{end:#x} without copies: error {}",
                -error.to_errno()
            ),
            Self::Refused(iova, end, failure) => {
                write!(f, "no key for {iova:#x}..{end:#x}: {failure}")
            }
            Self::Memory => f.write_str("no memory for keys"),
        }
    }
}

/// How many ranges are mapped, as far as that can be told: one that is larger than [`WINDOW`] comes in
/// several extents.
fn ranges(snapshot: &Snapshot) -> usize {
    let mut next = None;
    let mut count = 0;
    for Extent { iova, size, pa, .. } in snapshot.extents() {
        let is_cut = iova % WINDOW == 0 && next == Some((iova, pa));
        count += usize::from(!is_cut);
        next = iova.checked_add(size).zip(pa.checked_add(size));
    }
    count
}

/// What the device may do to the memory of an extent.
fn rights(extent: &Extent) -> Rights {
    Rights {
        read: extent.readable,
        write: extent.writable,
    }
}

/// A range of memory that is mapped for DMA.
#[derive(Clone)]
struct Mapped {
    run: Run,
    pa: u64,
    mapping: Arc<Mapping>,
}

impl Mapped {
    /// Whether it is the memory of an extent, with its rights.
    fn is_of(&self, extent: &Extent) -> bool {
        (self.run.iova, self.run.size, self.pa) == (extent.iova, extent.size, extent.pa)
            && self.run.rights == rights(extent)
    }
}

/// The keys of one address space.
struct Tree {
    keys: key::Keys,
    /// The number of the key for all of it; 0 if there is none.
    number: u32,
    /// What the keys of pages are for, in their order.
    pieces: KVVec<Piece>,
    /// What is reached through them.
    parts: KVVec<Part>,
    /// The shadow rings that are reached besides.
    window: Option<Window>,
    /// What they lead to, in order of address, as far as it was wanted when they were made.
    mapped: KVVec<Mapped>,
}

/// A plan, written down.
struct Written {
    new: KVVec<NewPiece>,
    parts: KVVec<Part>,
}

impl Plan for Written {
    type Error = AllocError;

    fn create(&mut self, piece: NewPiece) -> Result<(), AllocError> {
        self.new.push(piece, GFP_KERNEL)
    }

    fn part(&mut self, part: Part) -> Result<(), AllocError> {
        self.parts.push(part, GFP_KERNEL)
    }
}

impl Tree {
    const NONE: Self = Self {
        keys: key::Keys::NONE,
        number: 0,
        pieces: KVVec::new(),
        parts: KVVec::new(),
        window: None,
        mapped: KVVec::new(),
    };

    /// Maps what is wanted for DMA, if it is not yet.
    fn map(&self, device: &Arc<Device>, wanted: &Snapshot) -> Result<KVVec<Mapped>, MapError> {
        let mut all = KVVec::with_capacity(wanted.extents().len(), GFP_KERNEL)?;
        let mut before = self.mapped.iter().peekable();
        for (index, extent) in wanted.extents().enumerate() {
            let rights = rights(&extent);
            if !rights.read && !rights.write {
                continue;
            }
            while before
                .next_if(|mapped| mapped.run.iova < extent.iova)
                .is_some()
            {}
            // The same pages: they are held by the mapping.
            let same = before.peek().filter(|mapped| mapped.is_of(&extent));
            let mapping = match same {
                Some(mapped) => mapped.mapping.clone(),
                None => {
                    let end = extent.iova.saturating_add(extent.size);
                    let no_way = |error| MapError::Unreachable(extent.iova, end, error);
                    let held = wanted.held(index).ok_or(no_way(EINVAL))?;
                    let mapping = Mapping::new(device, held, rights.read, rights.write);
                    Arc::new(mapping.map_err(no_way)?, GFP_KERNEL)?
                }
            };
            let mapped = Mapped {
                run: Run {
                    iova: extent.iova,
                    size: extent.size,
                    bus: mapping.bus(),
                    rights,
                },
                pa: extent.pa,
                mapping,
            };
            all.push(mapped, GFP_KERNEL)?;
        }
        Ok(all)
    }

    /// Plans what leads to `runs`.
    fn plan(&mut self, runs: &[Run]) -> Result<Written, MapError> {
        let mut written = Written {
            new: KVVec::new(),
            parts: KVVec::new(),
        };
        let wanted = Runs::check(runs).ok_or(MapError::Crooked)?;
        let (pieces, parts) = (&mut self.pieces, &self.parts);
        plan::plan(pieces, parts, wanted, &LIMITS, &mut written)?;
        Ok(written)
    }

    /// Brings the keys to what is wanted, and the shadow rings of `window`. Returns those that are not
    /// needed any more, which are destroyed with what is returned.
    ///
    /// # Errors
    ///
    /// A [`MapError`]. What was there before is there yet.
    fn install(
        &mut self,
        era: &Era,
        pd: u32,
        wanted: &Snapshot,
        window: Option<Window>,
    ) -> Result<key::Keys, MapError> {
        let mapped = self.map(era.device(), wanted)?;
        let (Some(first), Some(last)) = (mapped.first(), mapped.last()) else {
            return Err(MapError::Empty);
        };
        let (iova, end) = (first.run.iova, last.run.iova.saturating_add(last.run.size));
        let runs = runs(&mapped)?;
        let Written { new, mut parts } = self.plan(&runs)?;
        let is_same = *parts == *self.parts && self.window == window;
        if self.number != 0 && new.is_empty() && is_same {
            self.mapped = mapped;
            return Ok(key::Keys::NONE);
        }

        // All that needs memory comes before what changes anything.
        let mut gone = KVVec::with_capacity(self.pieces.len(), GFP_KERNEL)?;
        let room = self.pieces.len() + new.len();
        let mut pieces = KVVec::with_capacity(room, GFP_KERNEL)?;
        let mut objects = KVVec::with_capacity(room, GFP_KERNEL)?;
        let gone_before = gone_before(&self.pieces)?;

        let checked = Runs::check(&runs).ok_or(MapError::Crooked)?;
        let mut making = Pieces::new(era, pd);
        for piece in &new {
            let of = mapped.iter().skip(piece.first).take(piece.count);
            let rights = runs.get(piece.first).ok_or(MapError::Crooked)?.rights;
            making
                .make(
                    piece,
                    rights,
                    checked,
                    of.map(|mapped| mapped.mapping.clone()),
                )
                .map_err(refused(piece.iova, piece.iova + piece.size))?;
        }
        let mut made = key::Keys {
            root: None,
            pieces: making.finish().map_err(refused(iova, end))?,
        };

        let made_of = with_window(&parts, window)?;
        let (number, root) = self.root(era, pd, &made_of, (&new, &made.pieces), window)?;

        // Nothing fails from here on.
        self.sort_out(&mut gone, &mut objects);
        for object in core::mem::take(&mut made.pieces) {
            let _ = objects.push_within_capacity(object);
        }
        let created = new.iter().map(|piece| piece.made(checked));
        renumber(&mut parts, &gone_before);
        for piece in Iterator::chain(self.pieces.iter().copied(), created) {
            if piece.used != 0 {
                let _ = pieces.push_within_capacity(piece);
            }
        }
        self.pieces = pieces;
        self.keys.pieces = objects;
        self.parts = parts;
        self.window = window;
        self.mapped = mapped;
        self.number = number;
        Ok(key::Keys {
            root: core::mem::replace(&mut self.keys.root, root),
            pieces: gone,
        })
    }

    /// Makes the key for all of it: `parts` of the pieces that are there, of the `new` ones, which were
    /// made, and of the shadow rings of `window`. Returns its number, and the key if it is not the one
    /// of a piece.
    fn root(
        &self,
        era: &Era,
        pd: u32,
        parts: &[Part],
        (new, made): (&[NewPiece], &[Object]),
        window: Option<Window>,
    ) -> Result<(u32, Option<Object>), MapError> {
        let there = self.pieces.len();
        let number = |piece: usize| {
            if let (SHADOW, Some(window)) = (piece, window) {
                return window.key;
            }
            let object = match piece.checked_sub(there) {
                Some(piece) => made.get(piece),
                None => self.keys.pieces.get(piece),
            };
            object.map_or(0, |object| wire::key::number(object.id()))
        };
        let size = |piece: usize| match piece.checked_sub(there) {
            Some(piece) => new.get(piece).map(|piece| piece.size),
            None => self.pieces.get(piece).map(|piece| piece.size),
        };

        let mut entries = plan::root(parts);
        if let (Some(only), None) = (entries.next(), entries.next()) {
            // Unless a part of it is not to be reached.
            let whole = only
                .piece
                .filter(|piece| size(*piece) == Some(only.size.into()));
            if let Some(piece) = whole {
                return Ok((number(piece), None));
            }
        }
        let most = era.capabilities().klm_entries().min(MOST_ENTRIES);
        let mut root = Root::new();
        for entry in plan::root(parts) {
            if root.entries() >= most as usize {
                return Err(MapError::Sparse(most));
            }
            let key = entry.piece.map_or(era.null_mkey(), number);
            root.add(&entry, key)?;
        }
        let (iova, end) = root.range();
        let root = root.make(era, pd).map_err(refused(iova, end))?;
        Ok((wire::key::number(root.id()), Some(root)))
    }

    /// Takes the keys of all pieces, and sorts out those that no part is reached through any more.
    /// There must be room for all of them in both lists.
    fn sort_out(&mut self, gone: &mut KVVec<Object>, kept: &mut KVVec<Object>) {
        let objects = core::mem::take(&mut self.keys.pieces);
        for (piece, object) in self.pieces.iter().zip(objects) {
            let to = if piece.used == 0 {
                &mut *gone
            } else {
                &mut *kept
            };
            let _ = to.push_within_capacity(object);
        }
    }

    /// Gives back what is not wanted any more, without making anything. Queues must not run.
    ///
    /// # Errors
    ///
    /// A [`MapError`] without memory; nothing has changed.
    fn trim(&mut self, wanted: &Snapshot) -> Result<(), MapError> {
        let mut left = KVVec::new();
        {
            let mut extents = wanted.extents().peekable();
            for mapped in &self.mapped {
                while extents
                    .next_if(|extent| extent.iova < mapped.run.iova)
                    .is_some()
                {}
                if extents.peek().is_some_and(|extent| mapped.is_of(extent)) {
                    left.push(mapped.clone(), GFP_KERNEL)?;
                }
            }
        }
        let Written { mut parts, .. } = self.plan(&runs(&left)?)?;
        if self.pieces.iter().all(|piece| piece.used != 0) {
            return Ok(());
        }
        let mut gone = KVVec::with_capacity(self.pieces.len(), GFP_KERNEL)?;
        let mut objects = KVVec::with_capacity(self.pieces.len(), GFP_KERNEL)?;
        let gone_before = gone_before(&self.pieces)?;

        // The root names what goes.
        self.number = 0;
        self.sort_out(&mut gone, &mut objects);
        let there = self.pieces.len();
        parts.retain(|part| part.piece < there);
        renumber(&mut parts, &gone_before);
        self.pieces.retain(|piece| piece.used != 0);
        self.keys.pieces = objects;
        self.parts = parts;
        self.mapped = left;
        drop(key::Keys {
            root: self.keys.root.take(),
            pieces: gone,
        });
        Ok(())
    }
}

/// What is reached through pieces, and through the key of shadow rings, in order of address.
fn with_window(parts: &[Part], window: Option<Window>) -> Result<KVVec<Part>, AllocError> {
    let mut all = KVVec::with_capacity(parts.len() + 1, GFP_KERNEL)?;
    let shadow = window.map(|window| Part {
        run: window.run(),
        piece: SHADOW,
    });
    let at = shadow.map_or(parts.len(), |shadow| {
        parts.partition_point(|part| part.run.iova < shadow.run.iova)
    });
    let (before, behind) = parts.split_at_checked(at).unwrap_or((parts, &[]));
    all.extend_from_slice(before, GFP_KERNEL)?;
    if let Some(shadow) = shadow {
        all.push(shadow, GFP_KERNEL)?;
    }
    all.extend_from_slice(behind, GFP_KERNEL)?;
    Ok(all)
}

/// There is no key for a range.
fn refused(iova: u64, end: u64) -> impl Fn(Failure) -> MapError {
    move |failure| MapError::Refused(iova, end, failure)
}

/// Where memory is mapped.
fn runs(mapped: &[Mapped]) -> Result<KVVec<Run>, AllocError> {
    let mut runs = KVVec::with_capacity(mapped.len(), GFP_KERNEL)?;
    for mapped in mapped {
        runs.push(mapped.run, GFP_KERNEL)?;
    }
    Ok(runs)
}

/// How many pieces go before each, and before those that are made.
fn gone_before(pieces: &[Piece]) -> Result<KVVec<usize>, AllocError> {
    let mut all = KVVec::with_capacity(pieces.len() + 1, GFP_KERNEL)?;
    let mut gone = 0;
    all.push(gone, GFP_KERNEL)?;
    for piece in pieces {
        gone += usize::from(piece.used == 0);
        all.push(gone, GFP_KERNEL)?;
    }
    Ok(all)
}

/// Gives parts the numbers that pieces have when those that are not used are gone.
fn renumber(parts: &mut [Part], gone_before: &[usize]) {
    let all = gone_before.last().copied().unwrap_or(0);
    for part in parts {
        part.piece -= gone_before.get(part.piece).copied().unwrap_or(all);
    }
}

/// The numbers of the keys that virtqueues use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keys {
    /// That of the buffers, and of the rings unless those have one.
    pub(crate) data: u32,
    /// That of the rings; 0 if they have none of their own.
    pub(crate) rings: u32,
}

/// What the firmware knows of a [`Map`], for one life of it.
pub(crate) struct Installed {
    data: Tree,
    /// If the rings are in an address space of their own.
    rings: Tree,
    /// For the kernel's own driver.
    everything: Option<Object>,
    /// Behind the keys that lead to them.
    shadows: Option<Shadows>,
    /// The version of the map; 0 for none.
    version: u64,
}

/// Keys that are not needed any more. They are destroyed with this value: when no virtqueue uses
/// them.
pub(crate) struct Replaced {
    _data: key::Keys,
    _rings: key::Keys,
    _everything: Option<Object>,
    // Behind the keys that lead to them.
    _shadows: Option<Shadows>,
}

impl Installed {
    /// Nothing.
    pub(crate) fn none() -> Self {
        Self {
            data: Tree::NONE,
            rings: Tree::NONE,
            everything: None,
            shadows: None,
            version: 0,
        }
    }

    /// Makes what `map` needs for a driver of `user`, in protection domain `pd`, where it is not
    /// there already, and shadow rings for so many `shadows`, numbers of virtqueues from 0 on; the
    /// kernel's own driver has none. The keys that virtqueues use may be others then: [`Self::keys`].
    ///
    /// # Errors
    ///
    /// A [`MapError`]. The keys of before can still be used, unless rings and buffers have keys of
    /// their own: then one of them may be gone.
    pub(crate) fn install(
        &mut self,
        era: &Era,
        pd: u32,
        map: &Map,
        user: User,
        shadows: u16,
    ) -> Result<Replaced, MapError> {
        if user == User::Kernel {
            if self.everything.is_none() {
                let refused = |failure| MapError::Refused(0, u64::MAX, failure);
                self.everything = Some(key::everything(era, pd).map_err(refused)?);
            }
            // Nothing is kept of a process that had the device before.
            self.version = 0;
            return Ok(Replaced {
                _data: core::mem::replace(&mut self.data, Tree::NONE).keys,
                _rings: core::mem::replace(&mut self.rings, Tree::NONE).keys,
                _everything: None,
                _shadows: self.shadows.take(),
            });
        }
        // A process is never to have it, whatever fails.
        let everything = self.everything.take();
        let is_apart = map.asid(GROUP_RINGS) != map.asid(GROUP_DATA);
        if is_apart && !era.capabilities().ring_key() {
            return Err(MapError::Apart);
        }
        let wanted = map.wanted(GROUP_DATA);
        let is_kept = |there: &Shadows| shadows != 0 && there.fits(wanted);
        let kept = self.shadows.as_ref().filter(|there| is_kept(there));
        let (fresh, window) = match kept {
            Some(kept) => (None, Some(kept.window())),
            None if shadows == 0 => (None, None),
            None => {
                let fresh = Shadows::new(era, pd, wanted, shadows)?;
                let window = fresh.window();
                (Some(fresh), Some(window))
            }
        };
        let is_kept = kept.is_some();
        let rings = match is_apart {
            true => self.rings.install(era, pd, map.wanted(GROUP_RINGS), None)?,
            false => core::mem::replace(&mut self.rings, Tree::NONE).keys,
        };
        let data = self.data.install(era, pd, wanted, window)?;
        // Nothing fails from here on.
        let shadows = match is_kept {
            true => None,
            false => core::mem::replace(&mut self.shadows, fresh),
        };
        self.version = map.version;
        Ok(Replaced {
            _data: data,
            _rings: rings,
            _everything: everything,
            _shadows: shadows,
        })
    }

    /// The numbers of the keys that virtqueues are to use for a driver of `user`; 0 for none.
    pub(crate) fn keys(&self, user: User) -> Keys {
        match &self.everything {
            Some(key) if user == User::Kernel => Keys {
                data: wire::key::number(key.id()),
                rings: 0,
            },
            _ => Keys {
                data: self.data.number,
                rings: self.rings.number,
            },
        }
    }

    /// The shadow ring of virtqueue `index`, if there are any.
    pub(crate) fn shadow(&self, index: u16) -> Option<Shadow> {
        self.shadows.as_ref()?.get(index)
    }

    /// Destroys all keys. No virtqueue may use them.
    ///
    /// # Errors
    ///
    /// The first [`Failure`]. What cannot be destroyed is in the log, and keeps its memory.
    pub(crate) fn end(&mut self) -> Result<(), Failure> {
        let everything = end_all(self.everything.take());
        let data = self.data.keys.end();
        let rings = self.rings.keys.end();
        let shadows = end_all(self.shadows.take().map(Shadows::into_key));
        everything.and(data).and(rings).and(shadows)
    }

    /// Destroys the keys that lead to what `map` does not have any more, and lets go of its pages.
    /// For when no virtqueue runs, and is not soon to; they have no keys then until the next
    /// [`Self::install`].
    pub(crate) fn trim(&mut self, map: &Map) {
        if !map.is_dirty(self) {
            return;
        }
        // Without memory, what is not wanted stays until the next change.
        let _ = self.data.trim(map.wanted(GROUP_DATA));
        let _ = self.rings.trim(map.wanted(GROUP_RINGS));
    }
}
