// SPDX-License-Identifier: GPL-2.0
//! The driver's memory, as the device under test sees it.

use std::{
    cell::{
        Cell,
        RefCell, //
    },
    collections::HashSet,
    ops::Range, //
};

use driver::{
    Endian,
    Layout,
    Region, //
};
use virtio::{
    byte_order::ByteOrder,
    memory::{
        Fault,
        Memory, //
    },
    ring::{
        Config,
        Options, //
    },
};

/// A region, of which some parts are for reading or writing only.
pub(crate) struct Guest {
    pub(crate) region: Region,
    read_only: Vec<Range<u64>>,
    write_only: Vec<Range<u64>>,
    /// How often the device accessed memory.
    pub(crate) accesses: Cell<usize>,
    /// The bytes that were read, if each may be read only once.
    once: Option<RefCell<HashSet<u64>>>,
}

impl Guest {
    pub(crate) fn new(region: &Region) -> Self {
        Self {
            region: region.clone(),
            read_only: Vec::new(),
            write_only: Vec::new(),
            accesses: Cell::new(0),
            once: None,
        }
    }

    /// Permits only what a device needs: it has no business writing to the driver area, nor reading
    /// from the device area.
    pub(crate) fn protect(mut self, layout: &Layout, size: u16, packed: bool) -> Self {
        let (read_only, len) = if packed {
            (layout.driver, 4)
        } else {
            (layout.desc, 6 + 8 * u64::from(size))
        };
        self.read_only.push(read_only..layout.device);
        self.write_only.push(layout.device..layout.device + len);
        self
    }

    /// From now on, each byte may be read only once until [`Self::forget`].
    pub(crate) fn read_once(mut self) -> Self {
        self.once = Some(RefCell::default());
        self
    }

    pub(crate) fn forget(&self) {
        if let Some(once) = &self.once {
            once.borrow_mut().clear();
        }
    }

    fn check(&self, addr: u64, len: usize, denied: &[Range<u64>]) -> bool {
        self.accesses.set(self.accesses.get() + 1);
        let len = len as u64;
        self.region.contains(addr, len)
            && !denied
                .iter()
                .any(|range| addr < range.end && addr + len > range.start)
    }

    fn note_read(&self, addr: u64, len: usize) {
        if let Some(once) = &self.once {
            for byte in addr..addr + len as u64 {
                assert!(once.borrow_mut().insert(byte), "{byte:#x} is read twice");
            }
        }
    }
}

impl Memory for Guest {
    fn read(&self, addr: u64, to: &mut [u8]) -> Result<(), Fault> {
        if !self.check(addr, to.len(), &self.write_only) {
            return Err(Fault::read(addr));
        }
        self.note_read(addr, to.len());
        self.region.read(addr, to);
        Ok(())
    }

    fn write(&self, addr: u64, from: &[u8]) -> Result<(), Fault> {
        if !self.check(addr, from.len(), &self.read_only) {
            return Err(Fault::write(addr));
        }
        self.region.write(addr, from);
        Ok(())
    }

    fn load_u16(&self, addr: u64) -> Result<u16, Fault> {
        if addr % 2 != 0 || !self.check(addr, 2, &self.write_only) {
            return Err(Fault::read(addr));
        }
        self.note_read(addr, 2);
        Ok(self.region.load_u16(addr))
    }

    fn store_u16(&self, addr: u64, value: u16) -> Result<(), Fault> {
        if addr % 2 != 0 || !self.check(addr, 2, &self.read_only) {
            return Err(Fault::write(addr));
        }
        self.region.store_u16(addr, value);
        Ok(())
    }
}

/// What the device is told about a ring of the driver.
pub(crate) fn config(layout: &Layout, size: u16, options: &driver::Options) -> Config {
    Config {
        size,
        desc: layout.desc,
        driver: layout.driver,
        device: layout.device,
        byte_order: match options.endian {
            Endian::Little => ByteOrder::Little,
            Endian::Big => ByteOrder::Big,
        },
        options: Options {
            packed: options.packed,
            indirect: options.table_entries != 0,
            event_index: options.event_index,
            in_order: options.in_order,
            notify_on_empty: false,
        },
    }
}
