// SPDX-License-Identifier: GPL-2.0

//! The devices: one with all that a device with an IOMMU of its own can have, and one with nothing
//! but what is required, on addresses of its user.

use core::ops::RangeInclusive;

use kernel::{
    mm::Mm,
    prelude::*,
    sync::Arc, //
};
use vdpa::{
    memory::Snapshot,
    ops::{
        Extent,
        VqState, //
    },
    Device,
    NotificationArea,
    Operations,
    Setup, //
};
use virtio::{
    byte_order::ByteOrder,
    features::Features,
    lifecycle::{
        Legacy,
        LegacySupport, //
    }, //
};

use crate::{
    notes::Notes,
    required::required,
    wire::{
        Op,
        QUEUES, //
    }, //
};

/// What devices offer.
pub(crate) const FEATURES: Features = Features::VERSION_1
    .union(Features::ACCESS_PLATFORM)
    .union(Features::RING_PACKED);

/// A device around the records.
pub(crate) trait Kind: Operations {
    /// Makes what belongs to a device before itself.
    const SETUP: fn(u16, u32, u32) -> Result<Setup>;

    fn new(notes: Arc<Notes>) -> Self;
}

/// A device with an IOMMU of its own that takes a whole address space at once.
pub(crate) struct Whole {
    notes: Arc<Notes>,
}

impl Kind for Whole {
    const SETUP: fn(u16, u32, u32) -> Result<Setup> = Setup::hardware_with_spaces;

    fn new(notes: Arc<Notes>) -> Self {
        Self { notes }
    }
}

#[vtable]
impl Operations for Whole {
    required!();

    fn set_vq_cb(dev: &Device<Self>, index: u16, set: bool) {
        let arguments = [u64::from(set), 0, 0];
        dev.notes
            .note_only(Op::SetVqCb, u32::from(index), arguments);
    }

    fn get_vq_notification(dev: &Device<Self>, index: u16) -> NotificationArea<'_> {
        // The last virtqueue has no doorbell. The others have one for who asks first only: it is
        // the crate that asks, and keeps the answer.
        if index + 1 < QUEUES && !dev.notes.asked(index) {
            dev.notes.doorbell.area()
        } else {
            NotificationArea::default()
        }
    }

    fn get_vq_irq(dev: &Device<Self>, index: u16) -> Option<u32> {
        dev.notes
            .note(Op::GetVqIrq, u32::from(index), [0; 3])
            .ok()?;
        // No interrupt has this number, so that KVM can do nothing with it.
        (index + 1 < QUEUES).then_some(i32::MAX.unsigned_abs())
    }

    fn get_vq_size(_dev: &Device<Self>, index: u16) -> u16 {
        32 << index
    }

    fn get_vq_group(_dev: &Device<Self>, index: u16) -> u32 {
        u32::from(index)
    }

    fn get_vq_desc_group(_dev: &Device<Self>, index: u16) -> u32 {
        u32::from((index + 1) % QUEUES)
    }

    fn get_backend_features(_dev: &Device<Self>) -> u64 {
        // VHOST_BACKEND_F_ENABLE_AFTER_DRIVER_OK
        1 << 6
    }

    fn get_legacy_support(_dev: &Device<Self>) -> LegacySupport {
        LegacySupport::AnyEndian
    }

    fn get_legacy(_dev: &Device<Self>) -> Legacy {
        Legacy::Require
    }

    fn set_legacy(dev: &Device<Self>, legacy: Legacy) -> Result {
        let number = match legacy {
            Legacy::Off => 0,
            Legacy::Allow => 1,
            Legacy::Require => 2,
        };
        dev.notes.note(Op::SetLegacy, 0, [number, 0, 0])
    }

    fn get_byte_order(_dev: &Device<Self>, _index: Option<u16>) -> ByteOrder {
        ByteOrder::Big
    }

    fn set_byte_order(dev: &Device<Self>, index: Option<u16>, order: ByteOrder) -> Result {
        let about = index.map_or(0, |index| 1 + u32::from(index));
        let arguments = [u64::from(order.is_big()), 0, 0];
        dev.notes.note(Op::SetByteOrder, about, arguments)
    }

    fn get_vq_num_min(_dev: &Device<Self>) -> u16 {
        16
    }

    fn compat_reset(dev: &Device<Self>, clean_map: bool) -> Result {
        let arguments = [u64::from(clean_map), 0, 0];
        dev.notes.note(Op::CompatReset, 0, arguments)?;
        dev.notes.reset();
        Ok(())
    }

    fn suspend(dev: &Device<Self>) -> Result {
        dev.notes.note(Op::Suspend, 0, [0; 3])
    }

    fn resume(dev: &Device<Self>) -> Result {
        dev.notes.note(Op::Resume, 0, [0; 3])
    }

    fn get_iova_range(_dev: &Device<Self>) -> RangeInclusive<u64> {
        0x1000..=0xffff_ffff
    }

    fn set_map(dev: &Device<Self>, asid: u32, map: &Snapshot) -> Result {
        let result = dev.notes.note(Op::SetMap, asid, [0; 3]);
        map.extents()
            .for_each(|extent| dev.notes.note_extent(&extent));
        result
    }

    fn reset_map(dev: &Device<Self>, asid: u32) -> Result {
        dev.notes.note(Op::ResetMap, asid, [0; 3])
    }

    fn set_group_asid(dev: &Device<Self>, group: u32, asid: u32) -> Result {
        dev.notes
            .note(Op::SetGroupAsid, group, [u64::from(asid), 0, 0])
    }
}

/// A device that works on addresses of its user, and has nothing that is not required for that.
pub(crate) struct Bare {
    notes: Arc<Notes>,
}

impl Kind for Bare {
    const SETUP: fn(u16, u32, u32) -> Result<Setup> = Setup::hardware;

    fn new(notes: Arc<Notes>) -> Self {
        Self { notes }
    }
}

#[vtable]
impl Operations for Bare {
    const USE_VA: bool = true;

    required!();

    fn dma_map(dev: &Device<Self>, asid: u32, extent: &Extent) -> Result {
        let result = dev.notes.note(Op::DmaMap, asid, [0; 3]);
        dev.notes.note_extent(extent);
        result
    }

    fn dma_unmap(dev: &Device<Self>, asid: u32, iova: u64, size: u64) -> Result {
        dev.notes.note(Op::DmaUnmap, asid, [iova, size, 0])
    }

    fn bind_mm(dev: &Device<Self>, _mm: &Mm) -> Result {
        dev.notes.note(Op::BindMm, 0, [0; 3])
    }

    fn unbind_mm(dev: &Device<Self>) {
        dev.notes.note_only(Op::UnbindMm, 0, [0; 3]);
    }
}
