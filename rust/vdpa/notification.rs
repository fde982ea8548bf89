// SPDX-License-Identifier: GPL-2.0

//! Doorbells that a user of vhost-vdpa maps, to ring them without a call.
//!
//! C header: [`include/linux/vdpa.h`](srctree/include/linux/vdpa.h),
//! `struct vdpa_notification_area`

use core::marker::PhantomData;

use kernel::{
    alloc::flags::__GFP_ZERO,
    page::{
        Page,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

/// A page whose stores ring the doorbell of a virtqueue, to be mapped into a guest.
///
/// The default is none.
///
/// # Invariants
///
/// `size` is 0, or there are `size` bytes at `addr` for `'a`, to which a user may write whatever he
/// likes.
#[derive(Clone, Copy, Debug, Default)]
pub struct NotificationArea<'a> {
    addr: u64,
    size: u64,
    _place: PhantomData<&'a ()>,
}

impl NotificationArea<'_> {
    /// The `size` bytes at physical address `addr`.
    ///
    /// C maps them only if the address is aligned to a page and the size is that of a page.
    ///
    /// # Safety
    ///
    /// They must be registers of the device that returns this value from
    /// [`Operations::get_vq_notification`](crate::Operations::get_vq_notification), which is asked
    /// once, for as long as it is registered. Nothing but its doorbell may be among them: C lets a
    /// user's process write to all of them.
    pub const unsafe fn new(addr: u64, size: u64) -> Self {
        // INVARIANT: By the function requirements.
        Self {
            addr,
            size,
            _place: PhantomData,
        }
    }

    /// The physical address.
    pub fn addr(&self) -> u64 {
        self.addr
    }

    /// The length in bytes. 0 if there is nothing to be mapped.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// A page of memory in place of registers, for a device in software that looks there by itself: a
/// store to it makes no interrupt.
///
/// It belongs to the device's data, and so stays where it is for as long as the device is
/// registered, which is for longer than anybody has it mapped.
pub struct DoorbellPage(Page);

impl DoorbellPage {
    /// A page of zeros.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new() -> Result<Self> {
        Ok(Self(Page::alloc_page(GFP_KERNEL | __GFP_ZERO)?))
    }

    /// What [`Operations::get_vq_notification`](crate::Operations::get_vq_notification) returns.
    pub fn area(&self) -> NotificationArea<'_> {
        // INVARIANT: It is memory of this page alone, which nothing relies on the contents of.
        NotificationArea {
            addr: self.addr(),
            size: PAGE_SIZE as u64,
            _place: PhantomData,
        }
    }

    /// The 32-bit word number `index`, as it was written last. `None` behind the end of the page.
    pub fn load(&self, index: usize) -> Option<u32> {
        if index >= PAGE_SIZE / size_of::<u32>() {
            return None;
        }
        // SAFETY: Any address may be asked for. This one is that of a page.
        let page = unsafe { vdpa_bindings::rust_vdpa_phys_to_virt(self.addr()) }.cast::<u32>();
        // SAFETY: The word lies within the page, which lives as long as `self` and is written to
        // by a user, in one piece or not, and by nobody else.
        let word = unsafe { Atomic::from_ptr(page.add(index)) };
        Some(word.load(Relaxed))
    }

    fn addr(&self) -> u64 {
        // SAFETY: The page is valid.
        unsafe { vdpa_bindings::rust_vdpa_page_to_phys(self.0.as_ptr()) }
    }
}
