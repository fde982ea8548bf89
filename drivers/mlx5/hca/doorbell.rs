// SPDX-License-Identifier: GPL-2.0

//! The doorbells of virtqueues, in a region of BAR 0.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::{
    capability::Capabilities,
    registers::Registers, //
};

/// Rings the doorbells of the function's virtqueues.
#[derive(Clone)]
pub(crate) struct Doorbell {
    registers: Arc<Registers>,
    /// Where the first one is in the BAR.
    offset: usize,
    /// The logarithm of the bytes from one to the next; all are one if it is 0.
    log_stride: u8,
}

impl Doorbell {
    /// The doorbells that the firmware says there are.
    ///
    /// # Errors
    ///
    /// `EINVAL` if they are at an offset that no BAR has.
    pub(crate) fn new(registers: &Arc<Registers>, capabilities: &Capabilities) -> Result<Self> {
        let vdpa = capabilities.vdpa.as_ref().ok_or(EINVAL)?;
        Ok(Self {
            registers: registers.clone(),
            offset: usize::try_from(vdpa.doorbell_bar_offset())?,
            log_stride: vdpa.log_doorbell_stride(),
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
}
