// SPDX-License-Identifier: GPL-2.0

//! Counting what must be gone before something goes on.

use kernel::sync::{
    atomic::{
        Atomic,
        Full, //
    },
    Arc, //
};

/// A number of things alive, and a way to wait until there are none.
pub(crate) struct Count(Atomic<i32>);

impl Count {
    /// No things.
    pub(crate) const fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// Counts one more. Fully ordered.
    pub(crate) fn enter(&self) {
        self.0.fetch_add(1, Full);
    }

    /// Counts one less, and wakes who waits when it was the last.
    pub(crate) fn leave(&self) {
        // SAFETY: The pointer is to a live 32-bit atomic, which is what an `atomic_t` is. The
        // waiters are found by the address only, so they may free it as soon as it is zero.
        unsafe { vdpa_bindings::rust_vdpa_count_leave(self.0.as_ptr()) };
    }

    /// Waits until there are none, for at most `ms` milliseconds. Returns whether there are none.
    ///
    /// May sleep.
    pub(crate) fn wait(&self, ms: u32) -> bool {
        // SAFETY: The pointer is to a live 32-bit atomic, which is what an `atomic_t` is.
        unsafe { vdpa_bindings::rust_vdpa_count_wait(self.0.as_ptr(), ms) }
    }
}

/// One thing counted by a [`Count`], for as long as this value lives.
pub(crate) struct Counted(Arc<Count>);

impl Counted {
    /// Counts one more in `count`.
    pub(crate) fn new(count: Arc<Count>) -> Self {
        count.enter();
        Self(count)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.leave();
    }
}
