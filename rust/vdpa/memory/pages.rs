// SPDX-License-Identifier: GPL-2.0

//! References to the pages behind a map.

use core::ptr::NonNull;

use kernel::{
    page::PAGE_SHIFT,
    prelude::*, //
};

/// Physical memory that stays where it is for as long as this value lives.
///
/// # Invariants
///
/// - A reference is held to every folio that has a page in the first `held` of the pages from
///   that of `pa` on, as often as [`Pages::hold`] took one.
/// - `held` covers the `size` bytes from `pa` on, which are in the kernel's direct map at `host`.
pub(super) struct Pages {
    pa: u64,
    held: usize,
    host: NonNull<u8>,
    size: u64,
}

// SAFETY: References to pages belong to no task, and neither does the direct map.
unsafe impl Send for Pages {}
// SAFETY: As above; nothing changes while the value is shared.
unsafe impl Sync for Pages {}

impl Pages {
    /// Takes references to the pages of the `size` bytes at physical address `pa`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the range is empty or wraps around, or a page is no memory or has too many
    /// references.
    ///
    /// # Safety
    ///
    /// The caller must hold references to these pages.
    pub(super) unsafe fn hold(pa: u64, size: u64) -> Result<Self> {
        let last = size
            .checked_sub(1)
            .and_then(|length| pa.checked_add(length))
            .ok_or(EINVAL)?;
        let first = usize::try_from(pa >> PAGE_SHIFT)?;
        let count = usize::try_from(last >> PAGE_SHIFT)? - first + 1;

        // SAFETY: Any number may be asked about.
        let host = unsafe { vdpa_bindings::rust_vdpa_phys_to_virt(pa) };
        let mut pages = Self {
            pa,
            held: 0,
            host: NonNull::new(host.cast()).ok_or(EINVAL)?,
            size,
        };
        while pages.held < count {
            // On an error, what is held so far is given back by `drop`.
            // SAFETY: By the function requirements the page is in use.
            let more = unsafe {
                vdpa_bindings::rust_vdpa_folio_get(first + pages.held, count - pages.held)
            };
            if more == 0 {
                return Err(EINVAL);
            }
            pages.held += more;
        }
        // INVARIANT: All of the pages are held, and memory that has pages is in the direct map.
        Ok(pages)
    }

    /// The physical address of the first byte.
    pub(super) fn pa(&self) -> u64 {
        self.pa
    }

    /// Where the kernel sees the first byte.
    pub(super) fn host(&self) -> NonNull<u8> {
        self.host
    }

    /// How many bytes there are. Not 0.
    pub(super) fn size(&self) -> u64 {
        self.size
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // CAST: The number of a page, which `hold` has found to fit.
        let first = (self.pa >> PAGE_SHIFT) as usize;
        let mut given = 0;
        while given < self.held {
            // SAFETY: By the type invariant a reference to this folio is held. With it, the folio
            // was not split or merged, so that the same steps are taken as in `hold`.
            let put =
                unsafe { vdpa_bindings::rust_vdpa_folio_put(first + given, self.held - given) };
            given += put;
        }
    }
}
