// SPDX-License-Identifier: GPL-2.0
//! The driver's side of the packed layout (virtio 1.3, 2.8).

use std::collections::{
    BTreeMap,
    VecDeque, //
};

use super::{
    need_event,
    pieces,
    Broken,
    Buffer,
    Full,
    InFlight,
    Layout,
    Options,
    Region,
    Shape,
    Tables,
    Used,
    DESC,
    INDIRECT,
    NEXT,
    WRITE, //
};

const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

const DISABLE: u16 = 1;
const ENABLE_DESC: u16 = 2;

/// An index and the wrap counter that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cursor {
    index: u16,
    wrap: bool,
}

impl Cursor {
    fn step(&mut self, size: u16) {
        self.index += 1;
        if self.index == size {
            *self = Self {
                index: 0,
                wrap: !self.wrap,
            };
        }
    }

    fn bits(self) -> u16 {
        self.index | if self.wrap { 0x8000 } else { 0 }
    }
}

#[derive(Debug)]
pub(crate) struct PackedRing {
    region: Region,
    pub(crate) layout: Layout,
    size: u16,
    options: Options,
    /// Free descriptors.
    room: u16,
    /// Free buffer ids.
    ids: VecDeque<u16>,
    tables: Tables,
    /// What the device has, by id.
    in_flight: Vec<Option<InFlight>>,
    /// Ids by when they were added.
    order: BTreeMap<u64, u16>,
    /// How many were added.
    added: u64,
    /// Where the next descriptor is put.
    avail: Cursor,
    /// Where it was put when the device was told last, and how many descriptors ago.
    published: Cursor,
    unpublished: u16,
    /// First descriptors of buffers that the device cannot see yet: where their flags go, and the
    /// flags.
    hidden: Vec<(u64, u16)>,
    /// Where the next used descriptor is expected.
    used: Cursor,
    /// With IN_ORDER, how many buffers of the current used descriptor are left to return, and the
    /// length told for the last of them.
    batch: Option<(usize, u32)>,
}

impl PackedRing {
    pub(crate) fn new(region: &Region, layout: Layout, size: u16, options: Options) -> Self {
        let start = options.start.unwrap_or(0x8000);
        let at = Cursor {
            index: start & 0x7fff,
            wrap: start & 0x8000 != 0,
        };
        assert!(at.index < size);
        let mut ring = Self {
            region: region.clone(),
            layout,
            size,
            options,
            room: size,
            ids: (0..size).collect(),
            tables: Tables::new(&layout, size, &options),
            in_flight: vec![None; usize::from(size)],
            order: BTreeMap::new(),
            added: 0,
            avail: at,
            published: at,
            unpublished: 0,
            hidden: Vec::new(),
            used: at,
            batch: None,
        };
        // What lies in a ring that goes on there is used descriptors of the last round: of this
        // wrap counter before the index, of the other one from there on.
        for index in 0..size {
            let used = (index < at.index) == at.wrap;
            let flags = if used { AVAIL | USED } else { 0 };
            ring.store(ring.desc(index) + 14, flags);
        }
        ring.enable_interrupts(1);
        ring
    }

    fn load(&self, addr: u64) -> u16 {
        self.options.endian.fix(self.region.load_u16(addr))
    }

    fn store(&self, addr: u64, value: u16) {
        self.region.store_u16(addr, self.options.endian.fix(value));
    }

    fn desc(&self, index: u16) -> u64 {
        self.layout.desc + DESC * u64::from(index)
    }

    /// Writes a descriptor except for its flags.
    fn put(&self, addr: u64, buffer: Buffer, id: u16) {
        let endian = self.options.endian;
        let mut bytes = Vec::with_capacity(14);
        bytes.extend(endian.u64(buffer.addr));
        bytes.extend(endian.u32(buffer.len));
        bytes.extend(endian.u16(id));
        self.region.write(addr, &bytes);
    }

    pub(crate) fn add(
        &mut self,
        out: &[Buffer],
        into: &[Buffer],
        shape: Shape,
        token: u64,
    ) -> Result<(), Full> {
        let mut list: Vec<(Buffer, u16)> = pieces(out, into).collect();
        let direct = shape == Shape::Direct;
        let needed = if direct { list.len() } else { 1 };
        if needed > usize::from(self.room) {
            return Err(Full);
        }
        let mut table = None;
        if !direct {
            let addr = self.tables.take(list.len())?;
            for (n, &(buffer, flags)) in list.iter().enumerate() {
                let at = addr + DESC * n as u64;
                // The id means nothing in a table.
                self.put(at, buffer, 0xffff);
                self.store(at + 14, flags);
            }
            let len = (DESC * list.len() as u64) as u32;
            list = vec![(Buffer { addr, len }, INDIRECT)];
            table = Some(addr);
        }

        let id = self.ids.pop_front().expect("as many ids as descriptors");
        let mut descs = Vec::new();
        for (n, &(buffer, mut flags)) in list.iter().enumerate() {
            let last = n + 1 == list.len();
            flags |= if last { 0 } else { NEXT };
            flags |= if self.avail.wrap { AVAIL } else { USED };
            let at = self.desc(self.avail.index);
            // The id counts in the last descriptor only.
            self.put(at, buffer, if last { id } else { 0xffff });
            if n == 0 {
                self.hidden.push((at + 14, flags));
            } else {
                self.store(at + 14, flags);
            }
            descs.push(self.avail.index);
            self.avail.step(self.size);
        }
        self.room -= list.len() as u16;
        self.unpublished += list.len() as u16;
        self.in_flight[usize::from(id)] = Some(InFlight {
            token,
            turn: self.added,
            descs,
            table,
            writable: into.iter().map(|b| b.len).sum(),
        });
        self.order.insert(self.added, id);
        self.added += 1;
        Ok(())
    }

    pub(crate) fn publish(&mut self) -> bool {
        if self.unpublished == 0 {
            return false;
        }
        for (at, flags) in std::mem::take(&mut self.hidden) {
            self.store(at, flags);
        }
        self.region.fence();
        let count = std::mem::take(&mut self.unpublished);
        self.published = self.avail;
        let flags = self.load(self.layout.device + 2) & 3;
        let off_wrap = self.load(self.layout.device);
        match flags {
            DISABLE => false,
            ENABLE_DESC if self.options.event_index => {
                let mut event = off_wrap & 0x7fff;
                if (off_wrap & 0x8000 != 0) != self.avail.wrap {
                    event = event.wrapping_sub(self.size);
                }
                let new = self.avail.index;
                need_event(event, new, new.wrapping_sub(count))
            }
            _ => true,
        }
    }

    /// Takes the buffer `id` back.
    fn take(&mut self, id: u16, written: Option<u32>) -> Result<Used, Broken> {
        let known = self.in_flight[usize::from(id)].take();
        let buffer = known.ok_or(Broken::UnknownId(id.into()))?;
        if let Some(written) = written.filter(|&written| written > buffer.writable) {
            return Err(Broken::TooLong {
                written,
                writable: buffer.writable,
            });
        }
        for _ in &buffer.descs {
            self.used.step(self.size);
        }
        self.room += buffer.descs.len() as u16;
        if self.options.in_order {
            self.ids.push_back(id);
        } else {
            self.ids.push_front(id);
        }
        self.tables.free.extend(buffer.table);
        self.order.remove(&buffer.turn);
        Ok(Used {
            token: buffer.token,
            written,
        })
    }

    /// Returns the flags of the next used descriptor, if there is one.
    fn used_flags(&self) -> Option<u16> {
        let flags = self.load(self.desc(self.used.index) + 14);
        let (avail, used) = (flags & AVAIL != 0, flags & USED != 0);
        (avail == used && used == self.used.wrap).then_some(flags)
    }

    pub(crate) fn used(&mut self) -> Result<Option<Used>, Broken> {
        if let Some((left, len)) = self.batch {
            return self.batched(left, len).map(Some);
        }
        let Some(flags) = self.used_flags() else {
            return Ok(None);
        };
        let [l0, l1, l2, l3, i0, i1] = self.region.get(self.desc(self.used.index) + 8, 6)[..]
        else {
            unreachable!()
        };
        let id = self.options.endian.fix(u16::from_ne_bytes([i0, i1]));
        let mut len = self.options.endian.read_u32([l0, l1, l2, l3]);
        if flags & WRITE == 0 {
            // The field means nothing then.
            len = 0;
        }
        if id >= self.size || self.in_flight[usize::from(id)].is_none() {
            return Err(Broken::UnknownId(id.into()));
        }
        if !self.options.in_order {
            return self.take(id, Some(len)).map(Some);
        }
        let skipped = self.order.values().position(|&other| other == id);
        let skipped = skipped.ok_or(Broken::OutOfOrder(id.into()))?;
        self.batched(skipped + 1, len).map(Some)
    }

    /// Takes the first of `left` buffers of a used descriptor.
    fn batched(&mut self, left: usize, len: u32) -> Result<Used, Broken> {
        let (_, &id) = self.order.first_key_value().expect("a batch has buffers");
        self.batch = (left > 1).then_some((left - 1, len));
        self.take(id, (left == 1).then_some(len))
    }

    pub(crate) fn disable_interrupts(&mut self) {
        self.store(self.layout.driver + 2, DISABLE);
    }

    pub(crate) fn enable_interrupts(&mut self, count: u16) -> bool {
        if self.options.event_index {
            let mut event = self.used;
            for _ in 1..count.min(self.size) {
                event.step(self.size);
            }
            self.store(self.layout.driver, event.bits());
            self.store(self.layout.driver + 2, ENABLE_DESC);
        } else {
            self.store(self.layout.driver + 2, 0);
        }
        self.region.fence();
        self.batch.is_some() || self.used_flags().is_some()
    }

    pub(crate) fn free(&self) -> usize {
        usize::from(self.room)
    }

    pub(crate) fn position(&self) -> (u16, u16) {
        (self.published.bits(), self.used.bits())
    }

    pub(crate) fn detach(self) -> Vec<u64> {
        self.order
            .values()
            .filter_map(|&id| self.in_flight[usize::from(id)].as_ref())
            .map(|buffer| buffer.token)
            .collect()
    }
}
