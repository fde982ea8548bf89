// SPDX-License-Identifier: GPL-2.0

//! Interrupts from a device to the driver side.

use core::ptr::NonNull;

use kernel::{
    bindings,
    new_spinlock_irq,
    prelude::*,
    sync::SpinLockIrq, //
};

use kernel::ffi::c_void;

/// The callbacks of a device: one for each virtqueue, and one for configuration changes.
///
/// Whoever uses the device sets them, at any time. A virtqueue's callback is reached only while the
/// virtqueue is enabled, and none is reached after a reset until it is set again: the users of the
/// bus free what a callback refers to then, and do not clear the callback. None is reached after
/// the device was unregistered.
///
/// The device fires them, in any context but one: not in
/// [`Operations::kick_vq`](crate::Operations::kick_vq), nor with a lock held that `kick_vq` takes.
/// A user may give the eventfd of a callback as that of a kick as well, of any device, so that
/// firing one ends in `kick_vq`.
pub struct Callbacks {
    queues: KVec<Pin<KBox<Slot>>>,
    config: Pin<KBox<Slot>>,
}

impl Callbacks {
    pub(crate) fn new(queues: u16) -> Result<Self> {
        let mut slots = KVec::with_capacity(usize::from(queues), GFP_KERNEL)?;
        for _ in 0..queues {
            slots.push(KBox::pin_init(Slot::new(false), GFP_KERNEL)?, GFP_KERNEL)?;
        }
        Ok(Self {
            queues: slots,
            config: KBox::pin_init(Slot::new(true), GFP_KERNEL)?,
        })
    }

    /// Tells the driver that buffers of virtqueue `index` were used.
    ///
    /// Does nothing if the virtqueue is not enabled, has no callback, or does not exist.
    pub fn queue(&self, index: u16) {
        if let Some(slot) = self.slot(index) {
            slot.fire();
        }
    }

    /// Tells the driver that the configuration or the device status changed.
    pub fn config(&self) {
        self.config.fire();
    }

    /// Whether virtqueue `index` has a callback. A driver that polls sets none.
    pub fn is_set(&self, index: u16) -> bool {
        self.slot(index)
            .is_some_and(|slot| slot.state.lock().target.is_some())
    }

    fn slot(&self, index: u16) -> Option<&Slot> {
        Some(self.queues.get(usize::from(index))?)
    }

    /// Sets the callback of virtqueue `index`.
    ///
    /// # Safety
    ///
    /// As for [`Target::new`], until the callback is replaced, the virtqueue is disabled or all
    /// callbacks are cleared.
    pub(crate) unsafe fn set_queue(&self, index: u16, callback: &vdpa_bindings::vdpa_callback) {
        if let Some(slot) = self.slot(index) {
            // SAFETY: By the function requirements.
            slot.replace(unsafe { Target::new(callback) });
        }
    }

    /// Sets the callback for configuration changes.
    ///
    /// # Safety
    ///
    /// As for [`Target::new`], until the callback is replaced or all callbacks are cleared.
    pub(crate) unsafe fn set_config(&self, callback: &vdpa_bindings::vdpa_callback) {
        // An eventfd of the configuration callback is not looked at: C never sets the member
        // that would hold it, which is left uninitialised.
        let target = callback.callback.map(|function| Target::Function {
            function,
            private: callback.private,
        });
        self.config.replace(target);
    }

    /// Lets the callback of virtqueue `index` be reached, or not any more. When it returns after
    /// closing, the bus driver's function does not run; a user's eventfd may be signalled once
    /// more.
    pub(crate) fn open_queue(&self, index: u16, open: bool) {
        if let Some(slot) = self.slot(index) {
            slot.state.lock().open = open;
        }
    }

    /// Forgets all callbacks. When it returns, no function of the bus driver runs.
    pub(crate) fn clear(&self) {
        for slot in &self.queues {
            slot.replace(None);
            slot.state.lock().open = false;
        }
        self.config.replace(None);
    }
}

/// Where one callback is kept.
#[pin_data]
struct Slot {
    /// Held while a function of the bus driver runs, so that one that was replaced has stopped
    /// running. It is made for hard interrupts, so it does not sleep, nor call back into the
    /// device. Not held while an eventfd is signalled: that runs whatever waits for it, up to the
    /// `kick_vq` of some device.
    #[pin]
    state: SpinLockIrq<State>,
}

struct State {
    target: Option<Target>,
    open: bool,
}

impl Slot {
    fn new(open: bool) -> impl PinInit<Self> {
        pin_init!(Self {
            state <- new_spinlock_irq!(State { target: None, open }),
        })
    }

    fn replace(&self, target: Option<Target>) {
        let old = core::mem::replace(&mut self.state.lock().target, target);
        drop(old);
    }

    fn fire(&self) {
        // A callback may raise a softirq: with bottom halves off it runs as soon as they are on
        // again, instead of being left to ksoftirqd.
        let _bottom_halves = BottomHalves::disable();
        let eventfd = {
            let state = self.state.lock();
            match (state.open, &state.target) {
                (true, Some(Target::Eventfd(eventfd))) => eventfd.clone(),
                (true, Some(Target::Function { function, private })) => {
                    // SAFETY: By the requirements of `Target::new`: the slot is locked.
                    unsafe { function(*private) };
                    return;
                }
                _ => return,
            }
        };
        // It may have been replaced by now: a signal too many, to an eventfd that is still there.
        eventfd.signal();
    }
}

/// What a callback leads to.
enum Target {
    /// A user's eventfd, which is signalled directly.
    Eventfd(Eventfd),
    /// A function of the bus driver.
    Function {
        function: unsafe extern "C" fn(*mut c_void) -> bindings::irqreturn_t,
        private: *mut c_void,
    },
}

// SAFETY: An eventfd may be signalled from any context. The function is meant to be called from
// interrupts on any processor, with a pointer that is only passed on.
unsafe impl Send for Target {}

impl Target {
    /// Takes over `callback`, if there is one.
    ///
    /// # Safety
    ///
    /// For as long as the returned value is in a slot, the function may be called with the pointer
    /// that comes with it. The eventfd, if there is one, must be valid now; a reference to it is
    /// taken.
    unsafe fn new(callback: &vdpa_bindings::vdpa_callback) -> Option<Self> {
        if let Some(ctx) = NonNull::new(callback.trigger) {
            // SAFETY: By the function requirements the eventfd is valid.
            return Some(Self::Eventfd(unsafe { Eventfd::get(ctx) }));
        }
        Some(Self::Function {
            function: callback.callback?,
            private: callback.private,
        })
    }
}

/// A reference to an eventfd.
///
/// vhost drops its own reference to a virtqueue's old eventfd before it tells the device of the
/// new one, so the device must hold one itself.
///
/// # Invariants
///
/// The pointer is valid, and one reference belongs to this value.
struct Eventfd(NonNull<bindings::eventfd_ctx>);

impl Eventfd {
    /// # Safety
    ///
    /// `ctx` must be valid.
    unsafe fn get(ctx: NonNull<bindings::eventfd_ctx>) -> Self {
        // SAFETY: By the function requirements.
        unsafe { vdpa_bindings::rust_vdpa_eventfd_get(ctx.as_ptr()) };
        // INVARIANT: The reference was just taken.
        Self(ctx)
    }

    fn signal(&self) {
        // SAFETY: By the type invariant the eventfd is valid. It may be signalled in any context;
        // from within the wakeup of another one, C refuses.
        unsafe { vdpa_bindings::eventfd_signal_mask(self.0.as_ptr(), 0) };
    }
}

impl Clone for Eventfd {
    fn clone(&self) -> Self {
        // SAFETY: By the type invariant the eventfd is valid.
        unsafe { Self::get(self.0) }
    }
}

impl Drop for Eventfd {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this gives back a reference that is ours. C frees the
        // eventfd without sleeping.
        unsafe { vdpa_bindings::eventfd_ctx_put(self.0.as_ptr()) };
    }
}

/// Bottom halves are disabled for as long as this value lives, where that is allowed.
struct BottomHalves(bool);

impl BottomHalves {
    fn disable() -> Self {
        // SAFETY: May be called in any context; what it does is undone in `drop`.
        Self(unsafe { vdpa_bindings::rust_vdpa_bh_disable() })
    }
}

impl Drop for BottomHalves {
    fn drop(&mut self) {
        if self.0 {
            // SAFETY: Bottom halves were disabled by this value.
            unsafe { vdpa_bindings::rust_vdpa_bh_enable() };
        }
    }
}
