// SPDX-License-Identifier: GPL-2.0

//! Waiting with a bound on the time.
//!
//! C header: [`include/linux/wait.h`](srctree/include/linux/wait.h)

use kernel::{
    bindings,
    ffi::c_void,
    prelude::*,
    types::Opaque, //
};

/// Tasks that wait until something has happened.
#[pin_data]
pub struct WaitQueue {
    #[pin]
    head: Opaque<bindings::wait_queue_head>,
}

// SAFETY: C takes the queue's lock for what it does with it.
unsafe impl Send for WaitQueue {}
// SAFETY: As above.
unsafe impl Sync for WaitQueue {}

impl WaitQueue {
    /// A queue in which nobody waits.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            head <- Opaque::ffi_init(|head: *mut bindings::wait_queue_head| {
                // SAFETY: The memory is ours and does not move.
                unsafe { vdpa_bindings::rust_vdpa_wait_init(head) };
            }),
        })
    }

    /// Waits until `done` returns true, for at most `ms` milliseconds. Returns whether it did.
    ///
    /// No signal ends it. May sleep, but `done` must not: it is called on the verge of it.
    pub fn wait<F: Fn() -> bool>(&self, ms: u32, done: F) -> bool {
        /// # Safety
        ///
        /// `data` must be valid, and an `F`.
        unsafe extern "C" fn call<F: Fn() -> bool>(data: *const c_void) -> bool {
            // SAFETY: By the function requirements.
            let done = unsafe { &*data.cast::<F>() };
            done()
        }

        let data: *const F = &done;
        // SAFETY: The queue is initialised. The closure lives until the call returns, and its type
        // is that of `call`.
        unsafe { vdpa_bindings::rust_vdpa_wait(self.head.get(), Some(call::<F>), data.cast(), ms) }
    }

    /// Has all who wait look again. May be called in any context.
    pub fn wake(&self) {
        // SAFETY: The queue is initialised.
        unsafe { vdpa_bindings::rust_vdpa_wake_all(self.head.get()) };
    }
}
