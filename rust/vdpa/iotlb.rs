// SPDX-License-Identifier: GPL-2.0

//! The map of an address space, as vhost keeps it.
//!
//! C header: [`include/linux/vhost_iotlb.h`](srctree/include/linux/vhost_iotlb.h)

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};

use kernel::types::Opaque;

use vdpa_bindings::{
    vhost_iotlb,
    vhost_iotlb_map, //
};

use crate::ops::Extent;

/// All maps of an address space.
///
/// # Invariants
///
/// The tree does not change while a reference exists.
#[repr(transparent)]
pub(crate) struct Iotlb(Opaque<vhost_iotlb>);

impl Iotlb {
    /// # Safety
    ///
    /// `ptr` must be valid, and the tree must not change, for `'a`.
    pub(crate) unsafe fn from_raw<'a>(ptr: *mut vhost_iotlb) -> &'a Self {
        // SAFETY: By the function requirements; the type is transparent.
        unsafe { &*ptr.cast() }
    }

    /// The maps, in order of address.
    // Inlined, so that a module that does not walk maps does not depend on vhost_iotlb.ko.
    #[inline]
    pub(crate) fn iter(&self) -> Iter<'_> {
        // SAFETY: By the type invariant the tree is valid.
        let first = unsafe { vdpa_bindings::vhost_iotlb_itree_first(self.0.get(), 0, u64::MAX) };
        Iter {
            next: NonNull::new(first),
            _iotlb: PhantomData,
        }
    }
}

/// The maps of an [`Iotlb`], one after the other.
///
/// # Invariants
///
/// `next` is a node of a tree that lives and does not change for `'a`.
pub(crate) struct Iter<'a> {
    next: Option<NonNull<vhost_iotlb_map>>,
    _iotlb: PhantomData<&'a Iotlb>,
}

impl Iterator for Iter<'_> {
    type Item = Extent;

    #[inline]
    fn next(&mut self) -> Option<Extent> {
        let node = self.next?;
        // SAFETY: By the type invariant the node is valid and does not change.
        let map = unsafe { node.as_ref() };
        let extent = Extent {
            iova: map.start,
            size: map.size,
            pa: map.addr,
            readable: map.perm & vdpa_bindings::VHOST_MAP_RO != 0,
            writable: map.perm & vdpa_bindings::VHOST_MAP_WO != 0,
        };
        // INVARIANT: C returns another node of the same tree.
        // SAFETY: By the type invariant the node is valid.
        self.next = NonNull::new(unsafe {
            vdpa_bindings::vhost_iotlb_itree_next(node.as_ptr(), 0, u64::MAX)
        });
        Some(extent)
    }
}
