// SPDX-License-Identifier: GPL-2.0

//! The function's registers: BAR 0, in big-endian words of 32 bits.

use kernel::{
    io::Io,
    pci,
    prelude::*,
    sync::Arc, //
};
use prm::layout::Info;

/// What is read where nothing answers.
pub(crate) const GONE: u32 = u32::MAX;

/// The size of a page of doorbells.
pub(crate) const UAR_BYTES: usize = 4096;

/// BAR 0. Once the device is unbound it reads as if it was gone.
pub(crate) struct Registers(pci::DevresBar);

impl Registers {
    /// Maps the registers of a function.
    ///
    /// # Errors
    ///
    /// `EBUSY` if somebody has them, `ENOMEM`; `EINVAL` without BAR 0.
    pub(crate) fn map(pdev: &pci::Device<kernel::device::Core<'_>>) -> Result<Arc<Self>> {
        let bar = pdev.iomap_region(0, crate::NAME)?.into_devres()?;
        Ok(Arc::new(Self(bar), GFP_KERNEL)?)
    }

    /// Reads a register; all ones where there is none.
    pub(crate) fn read(&self, at: usize) -> u32 {
        let Some(bar) = self.0.try_access() else {
            return GONE;
        };
        // The accessor takes the device for little-endian.
        (&*bar).try_read32(at).map_or(GONE, u32::swap_bytes)
    }

    /// Writes a register. What was written to memory shared with the device before is seen by it
    /// when it sees this.
    pub(crate) fn write(&self, at: usize, value: u32) {
        if let Some(bar) = self.0.try_access() {
            // Beyond the end of the BAR there is nobody to tell.
            let _ = (&*bar).try_write32(value.swap_bytes(), at);
        }
    }
}

impl Registers {
    /// Writes two registers beside each other, of 64 bits together, `bytes` as they are to stand
    /// there. Order and end of the BAR are as with [`Self::write`].
    pub(crate) fn write_pair(&self, at: usize, bytes: [u8; 8]) {
        if let Some(bar) = self.0.try_access() {
            // The accessor takes the device for little-endian.
            let _ = (&*bar).try_write64(u64::from_le_bytes(bytes), at);
        }
    }

    /// Writes the number of a virtqueue to the doorbell at `at`, in the byte order of virtio.
    pub(crate) fn write_doorbell(&self, at: usize, queue: u16) {
        if let Some(bar) = self.0.try_access() {
            let _ = (&*bar).try_write16(queue, at);
        }
    }
}

/// The offset in bytes of a register of 32 bits or of a part of the structure `info`, by name.
///
/// To be used in constants: it panics if there is none.
pub(crate) const fn offset(info: &Info, name: &str) -> usize {
    let mut i = 0;
    while i < info.fields.len() {
        if is_same(info.fields[i].name, name) {
            return info.fields[i].offset / 8;
        }
        i += 1;
    }
    panic!("no such register")
}

const fn is_same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}
