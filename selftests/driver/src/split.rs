// SPDX-License-Identifier: GPL-2.0
//! The driver's side of the split layout (virtio 1.3, 2.7).

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
    NEXT, //
};

#[derive(Debug)]
pub(crate) struct SplitRing {
    region: Region,
    pub(crate) layout: Layout,
    size: u16,
    options: Options,
    /// Free descriptors. Those freed last are reused first, which shuffles the table, unless the
    /// order has to be kept.
    free: VecDeque<u16>,
    tables: Tables,
    /// What the device has, by first descriptor.
    in_flight: Vec<Option<InFlight>>,
    /// First descriptors by when they were added.
    order: BTreeMap<u64, u16>,
    /// How many were added.
    added: u64,
    /// The index of the next entry in the available ring.
    avail: u16,
    /// That index when the device saw it last.
    published: u16,
    /// The index of the next used entry to take.
    used: u16,
    /// With IN_ORDER, how many buffers of the current used entry are left to return, and the
    /// length told for the last of them.
    batch: Option<(u16, u32)>,
}

impl SplitRing {
    pub(crate) fn new(region: &Region, layout: Layout, size: u16, options: Options) -> Self {
        let start = options.start.unwrap_or(0);
        let ring = Self {
            region: region.clone(),
            layout,
            size,
            options,
            free: (0..size).collect(),
            tables: Tables::new(&layout, size, &options),
            in_flight: vec![None; usize::from(size)],
            order: BTreeMap::new(),
            added: 0,
            avail: start,
            published: start,
            used: start,
            batch: None,
        };
        ring.store(layout.driver + 2, start);
        ring.store(layout.device + 2, start);
        ring
    }

    fn load(&self, addr: u64) -> u16 {
        self.options.endian.fix(self.region.load_u16(addr))
    }

    fn store(&self, addr: u64, value: u16) {
        self.region.store_u16(addr, self.options.endian.fix(value));
    }

    fn put(&self, addr: u64, buffer: Buffer, flags: u16, next: u16) {
        let endian = self.options.endian;
        let mut bytes = Vec::with_capacity(16);
        bytes.extend(endian.u64(buffer.addr));
        bytes.extend(endian.u32(buffer.len));
        bytes.extend(endian.u16(flags));
        bytes.extend(endian.u16(next));
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
        let direct = match shape {
            Shape::Direct => list.len(),
            Shape::Indirect => 0,
            Shape::Mixed(n) => usize::from(n.saturating_sub(1)).min(list.len() - 1),
        };
        let indirect = list.split_off(direct);
        if direct + usize::from(!indirect.is_empty()) > self.free.len() {
            return Err(Full);
        }
        let mut table = None;
        if !indirect.is_empty() {
            let addr = self.tables.take(indirect.len())?;
            for (n, &(buffer, flags)) in indirect.iter().enumerate() {
                let more = if n + 1 < indirect.len() { NEXT } else { 0 };
                self.put(addr + DESC * n as u64, buffer, flags | more, n as u16 + 1);
            }
            let len = (DESC * indirect.len() as u64) as u32;
            list.push((Buffer { addr, len }, INDIRECT));
            table = Some(addr);
        }

        let descs: Vec<u16> = self.free.drain(..list.len()).collect();
        for (n, &(buffer, flags)) in list.iter().enumerate() {
            let at = self.layout.desc + DESC * u64::from(descs[n]);
            match descs.get(n + 1) {
                Some(&next) => self.put(at, buffer, flags | NEXT, next),
                // The field means nothing here; a device that follows it all the same goes astray.
                None => self.put(at, buffer, flags, 0xffff),
            }
        }
        let head = descs[0];
        self.in_flight[usize::from(head)] = Some(InFlight {
            token,
            turn: self.added,
            descs,
            table,
            writable: into.iter().map(|b| b.len).sum(),
        });
        self.order.insert(self.added, head);
        self.added += 1;
        let place = u64::from(self.avail % self.size);
        self.store(self.layout.driver + 4 + 2 * place, head);
        self.avail = self.avail.wrapping_add(1);
        Ok(())
    }

    pub(crate) fn publish(&mut self) -> bool {
        if self.avail == self.published {
            return false;
        }
        self.store(self.layout.driver + 2, self.avail);
        self.region.fence();
        let old = std::mem::replace(&mut self.published, self.avail);
        if self.options.event_index {
            let event = self.load(self.layout.device + 4 + 8 * u64::from(self.size));
            need_event(event, self.avail, old)
        } else {
            self.load(self.layout.device) & 1 == 0
        }
    }

    /// Takes the buffer with the first descriptor `head` back.
    fn take(&mut self, head: u16, written: Option<u32>) -> Result<Used, Broken> {
        let known = self.in_flight[usize::from(head)].take();
        let buffer = known.ok_or(Broken::UnknownId(head.into()))?;
        if let Some(written) = written.filter(|&written| written > buffer.writable) {
            return Err(Broken::TooLong {
                written,
                writable: buffer.writable,
            });
        }
        if self.options.in_order {
            self.free.extend(buffer.descs);
        } else {
            for desc in buffer.descs {
                self.free.push_front(desc);
            }
        }
        self.tables.free.extend(buffer.table);
        self.order.remove(&buffer.turn);
        self.used = self.used.wrapping_add(1);
        Ok(Used {
            token: buffer.token,
            written,
        })
    }

    pub(crate) fn used(&mut self) -> Result<Option<Used>, Broken> {
        if let Some((left, len)) = self.batch {
            return self.batched(left, len).map(Some);
        }
        let pending = self.load(self.layout.device + 2).wrapping_sub(self.used);
        if pending == 0 {
            return Ok(None);
        }
        if usize::from(pending) > self.order.len() {
            return Err(Broken::UsedIndex(pending));
        }
        let at = self.layout.device + 4 + 8 * u64::from(self.used % self.size);
        let [i0, i1, i2, i3, l0, l1, l2, l3] = self.region.get(at, 8)[..] else {
            unreachable!()
        };
        let id = self.options.endian.read_u32([i0, i1, i2, i3]);
        let len = self.options.endian.read_u32([l0, l1, l2, l3]);
        if id >= self.size.into() || self.in_flight[id as usize].is_none() {
            return Err(Broken::UnknownId(id));
        }
        if !self.options.in_order {
            return self.take(id as u16, Some(len)).map(Some);
        }
        let skipped = self.order.values().position(|&head| u32::from(head) == id);
        match skipped {
            Some(n) if n < usize::from(pending) => self.batched(n as u16 + 1, len).map(Some),
            _ => Err(Broken::OutOfOrder(id)),
        }
    }

    /// Takes the first of `left` buffers of a used entry.
    fn batched(&mut self, left: u16, len: u32) -> Result<Used, Broken> {
        let (_, &head) = self.order.first_key_value().expect("a batch has buffers");
        self.batch = (left > 1).then_some((left - 1, len));
        self.take(head, (left == 1).then_some(len))
    }

    pub(crate) fn disable_interrupts(&mut self) {
        if self.options.event_index {
            // As far away as can be.
            self.store(self.used_event(), self.used.wrapping_sub(1));
        } else {
            self.store(self.layout.driver, 1);
        }
    }

    pub(crate) fn enable_interrupts(&mut self, count: u16) -> bool {
        if self.options.event_index {
            let event = self.used.wrapping_add(count.max(1) - 1);
            self.store(self.used_event(), event);
        } else {
            self.store(self.layout.driver, 0);
        }
        self.region.fence();
        self.batch.is_some() || self.load(self.layout.device + 2) != self.used
    }

    fn used_event(&self) -> u64 {
        self.layout.driver + 4 + 2 * u64::from(self.size)
    }

    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    pub(crate) fn position(&self) -> (u16, u16) {
        (self.published, self.used)
    }

    pub(crate) fn detach(self) -> Vec<u64> {
        self.order
            .values()
            .filter_map(|&head| self.in_flight[usize::from(head)].as_ref())
            .map(|buffer| buffer.token)
            .collect()
    }
}
