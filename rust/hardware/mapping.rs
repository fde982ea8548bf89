// SPDX-License-Identifier: GPL-2.0

//! Memory of somebody else that a device may reach.
//!
//! C header: [`include/linux/dma-mapping.h`](srctree/include/linux/dma-mapping.h)

use kernel::{
    bindings,
    device::{
        self,
        Bound, //
    },
    dma::DataDirection,
    prelude::*,
    sync::Arc, //
};
use vdpa::memory::Held;

use crate::Device;

/// Memory that its holder keeps, at an address at which a device may reach it.
///
/// What the device writes is seen at once and the other way round, without anybody being told: the
/// memory itself is reached, not a copy of it.
///
/// To be dropped where one may sleep, and after the device was told to forget it.
///
/// # Invariants
///
/// `bus` is where the DMA API mapped the memory of `held` for `device`, in direction `direction`.
pub struct Mapping {
    device: Arc<Device>,
    held: Held,
    bus: u64,
    direction: DataDirection,
}

impl Mapping {
    /// What the memory is mapped with. No copies in memory that the device reaches instead (bounce
    /// buffers), and no caches between the device and the processors: nobody would keep them in
    /// step. What fails is reported by who wants it.
    const ATTRIBUTES: usize =
        (bindings::DMA_ATTR_REQUIRE_COHERENT | bindings::DMA_ATTR_NO_WARN) as usize;

    /// Lets the device reach `held`: `read` it, `write` it, or both.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it may do neither; `ENODEV` if the device is not bound; `EIO` if the platform
    /// has no address for it, or none without copying.
    pub fn new(device: &Arc<Device>, held: Held, read: bool, write: bool) -> Result<Self> {
        let direction = match (read, write) {
            (true, true) => DataDirection::Bidirectional,
            (true, false) => DataDirection::ToDevice,
            (false, true) => DataDirection::FromDevice,
            (false, false) => return Err(EINVAL),
        };
        let size = usize::try_from(held.size())?;
        let bus = device.bound(|pdev| {
            // SAFETY: The device is bound, and its DMA masks were set when it was enabled. The
            // memory is pages that `held` keeps, for longer than they are mapped.
            Ok(unsafe {
                bindings::dma_map_phys(
                    raw(pdev.as_ref()),
                    held.pa(),
                    size,
                    direction.into(),
                    Self::ATTRIBUTES,
                )
            })
        })?;
        // `DMA_MAPPING_ERROR`
        if bus == bindings::dma_addr_t::MAX {
            return Err(EIO);
        }
        // INVARIANT: It was just mapped there.
        Ok(Self {
            device: device.clone(),
            held,
            bus,
            direction,
        })
    }

    /// Where the first byte is for the device.
    pub fn bus(&self) -> u64 {
        self.bus
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // When the device is not bound any more, its addresses lead nowhere.
        let _ = self.device.bound(|pdev| {
            // SAFETY: By the type invariant this is how it was mapped, and the device is bound. The
            // size fitted then.
            unsafe {
                bindings::dma_unmap_phys(
                    raw(pdev.as_ref()),
                    self.bus,
                    self.held.size() as usize,
                    self.direction.into(),
                    Self::ATTRIBUTES,
                );
            }
            Ok(())
        });
    }
}

fn raw(dev: &device::Device<Bound>) -> *mut bindings::device {
    let dev: *const device::Device<Bound> = dev;
    // `device::Device` is transparent.
    dev.cast_mut().cast()
}
