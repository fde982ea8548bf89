// SPDX-License-Identifier: GPL-2.0

//! The doorbells of virtqueues, in a region of BAR 0.

use hardware::Device;
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::Arc, //
};
use vdpa::NotificationArea;

use super::{
    capability::Capabilities,
    init_segment::COUNTER,
    registers::{
        Registers,
        UAR_BYTES, //
    }, //
};

/// Rings the doorbells of the function's virtqueues.
#[derive(Clone)]
pub(crate) struct Doorbell {
    registers: Arc<Registers>,
    /// Where the first one is in the BAR.
    offset: usize,
    /// The logarithm of the bytes from one to the next; all are one if it is 0.
    log_stride: u8,
    /// The page of doorbells that is the driver's own.
    uar: u32,
}

impl Doorbell {
    /// The doorbells that the firmware says there are, apart from page `uar`, which is the driver's.
    ///
    /// # Errors
    ///
    /// `EINVAL` if they are at an offset that no BAR has.
    pub(crate) fn new(
        registers: &Arc<Registers>,
        capabilities: &Capabilities,
        uar: u32,
    ) -> Result<Self> {
        let vdpa = capabilities.vdpa.as_ref().ok_or(EINVAL)?;
        Ok(Self {
            registers: registers.clone(),
            offset: usize::try_from(vdpa.doorbell_bar_offset())?,
            log_stride: vdpa.log_doorbell_stride(),
            uar,
        })
    }

    /// Where the doorbell of a virtqueue is.
    fn at(&self, queue: u16) -> Option<usize> {
        let stride = match self.log_stride {
            0 => 0,
            log => 1usize.checked_shl(log.into())?,
        };
        usize::from(queue)
            .checked_mul(stride)?
            .checked_add(self.offset)
    }

    /// Tells the device that there is something in virtqueue `queue`, by its number in its device.
    /// What was written to memory before is seen by then. Any context.
    pub(crate) fn ring(&self, queue: u16) {
        if let Some(at) = self.at(queue) {
            self.registers.write_doorbell(at, queue);
        }
    }

    /// The page with the doorbell of virtqueue `queue` at its beginning, for a guest to ring by itself.
    ///
    /// There is none where the doorbell does not begin a page of the host, or where something that is
    /// the driver's own is in that page: the function's registers, doorbells, or vectors.
    pub(crate) fn page<'a>(&self, device: &'a Device, queue: u16) -> Option<NotificationArea<'a>> {
        let at = self.at(queue)?;
        let uar = self.uar as usize * UAR_BYTES;
        let is_own = at <= COUNTER || at == uar & !(PAGE_SIZE - 1);
        if at % PAGE_SIZE != 0 || is_own {
            return None;
        }
        device.doorbell_page(0, at as u64).ok()
    }
}
