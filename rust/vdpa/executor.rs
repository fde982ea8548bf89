// SPDX-License-Identifier: GPL-2.0

//! Has a lifecycle decide, and a device do it.
//!
//! [`Lifecycle`] says what follows from an event, and knows nothing of locks. A device that is
//! driven by it keeps it in an [`Executor`], together with what it needs to carry decisions out,
//! and implements [`Execute`]: what it is to do in order to obey.

use core::ops::{
    Deref,
    DerefMut, //
};

use kernel::{
    new_mutex,
    new_spinlock_irq,
    prelude::*,
    sync::{
        lock::{
            mutex::MutexBackend,
            Guard, //
        },
        Mutex,
        SpinLockIrq, //
    }, //
};
use virtio::lifecycle::{
    Actions,
    Event,
    Kick,
    Lifecycle,
    Refusal,
    RefusalKind, //
};

/// The lifecycle of a device, and what it takes to execute its decisions.
#[pin_data]
pub struct Executor<S> {
    /// Taken in any context, for as long as a decision takes, and nothing is taken under it.
    #[pin]
    life: SpinLockIrq<Lifecycle>,
    /// Held from a decision until it is carried out, so that the next one is made on what is.
    #[pin]
    state: Mutex<S>,
}

impl<S> Executor<S> {
    /// Has `life` decide over `state`.
    pub fn new(life: Lifecycle, state: S) -> impl PinInit<Self> {
        pin_init!(Self {
            life <- new_spinlock_irq!(life),
            state <- new_mutex!(state),
        })
    }

    /// Asks the lifecycle something. May be called in any context.
    pub fn ask<R>(&self, question: impl FnOnce(&Lifecycle) -> R) -> R {
        question(&self.life.lock())
    }

    /// Takes a kick of virtqueue `index`. May be called in any context.
    pub fn kick(&self, index: u16) -> Kick {
        self.life.lock().kick(index)
    }
}

/// A device that does what its lifecycle decides.
pub trait Execute: Sized {
    /// What is needed for it, and changes.
    type State: Unpin;

    /// Where the lifecycle is kept.
    fn executor(&self) -> &Executor<Self::State>;

    /// Does what `actions` say of virtqueues, in their order. Returns what came of it, if that is
    /// for the lifecycle to know.
    fn perform(&self, state: &mut Self::State, actions: &Actions) -> Option<Event>;

    /// Tells the driver that the configuration or the status changed. No lock is held here.
    fn notify_config(&self);

    /// Says why an event was refused, or why the device did not show what the driver wrote to the
    /// status field. The latter is worth a message, and so is a refusal that
    /// [lasts](Refusal::lasts).
    fn refused(&self, refusal: Refusal, shown: bool);

    /// Waits until it is one's turn to do something to the device. May sleep.
    fn turn(&self) -> Turn<'_, Self> {
        Turn {
            state: self.executor().state.lock(),
            notification: Notification {
                device: self,
                due: false,
            },
        }
    }

    /// Has the lifecycle decide what follows from `event`, and does it. May sleep.
    ///
    /// # Errors
    ///
    /// The lifecycle's refusal: `EINVAL`, `EBUSY`, `EOPNOTSUPP` or `EIO`.
    fn event(&self, event: Event) -> Result {
        self.turn().event(event)
    }
}

/// The turn of somebody to do something to a device: nobody else does, and what is decided is done,
/// before the next turn.
pub struct Turn<'a, T: Execute> {
    /// Dropped first: drivers are told with no lock held.
    state: Guard<'a, T::State, MutexBackend>,
    notification: Notification<'a, T>,
}

impl<T: Execute> Turn<'_, T> {
    /// Has the lifecycle decide what follows from `event`, and does it.
    ///
    /// # Errors
    ///
    /// The lifecycle's refusal: `EINVAL`, `EBUSY`, `EOPNOTSUPP` or `EIO`.
    pub fn event(&mut self, event: Event) -> Result {
        let device = self.notification.device;
        let actions = self.decide(event).map_err(|refusal| {
            device.refused(refusal, false);
            match refusal.kind() {
                RefusalKind::Invalid => EINVAL,
                RefusalKind::Busy => EBUSY,
                RefusalKind::Unsupported => EOPNOTSUPP,
                RefusalKind::Broken => EIO,
            }
        })?;
        let mut next = Some(actions);
        while let Some(actions) = next.take() {
            let outcome = device.perform(&mut self.state, &actions);
            if let Some(refusal) = actions.refused {
                device.refused(refusal, true);
            }
            self.notification.due |= actions.notify_config;
            // Outcomes that come too late are refused, and that is the end of it.
            next = outcome.and_then(|event| self.decide(event).ok());
        }
        Ok(())
    }

    fn decide(&self, event: Event) -> Result<Actions, Refusal> {
        self.notification
            .device
            .executor()
            .life
            .lock()
            .handle(event)
    }
}

impl<T: Execute> Deref for Turn<'_, T> {
    type Target = T::State;

    fn deref(&self) -> &T::State {
        &self.state
    }
}

impl<T: Execute> DerefMut for Turn<'_, T> {
    fn deref_mut(&mut self) -> &mut T::State {
        &mut self.state
    }
}

/// Tells the driver, when it is dropped, what it is due.
struct Notification<'a, T: Execute> {
    device: &'a T,
    due: bool,
}

impl<T: Execute> Drop for Notification<'_, T> {
    fn drop(&mut self) {
        if self.due {
            self.device.notify_config();
        }
    }
}
