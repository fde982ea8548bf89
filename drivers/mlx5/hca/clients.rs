// SPDX-License-Identifier: GPL-2.0

//! Who is told of the firmware's death, and that it lives again.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

use super::era::Era;

/// Who has objects in the firmware, and outlives it.
///
/// Called by the function's thread, one call at a time, and with a lock held that joining and leaving
/// take: a client does what takes long, or waits for others, on a thread of its own.
pub(crate) trait Client: Send + Sync {
    /// The firmware died: nothing is asked of it any more. What a client has of it, it lets go of;
    /// that speaks to nobody.
    fn died(&self);

    /// It lives again, and has nothing of what it was given before.
    fn lives(&self, era: &Arc<Era>);
}

/// The clients of a function.
#[pin_data]
pub(crate) struct Clients {
    #[pin]
    all: Mutex<KVec<Arc<dyn Client>>>,
}

impl Clients {
    /// Nobody yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                all <- new_mutex!(KVec::new()),
            }),
            GFP_KERNEL,
        )
    }

    /// Tells `client` from now on, until the membership is dropped.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn join(this: &Arc<Self>, client: Arc<dyn Client>) -> Result<Membership> {
        this.all.lock().push(client.clone(), GFP_KERNEL)?;
        Ok(Membership {
            clients: this.clone(),
            client,
        })
    }

    /// Calls something of each client.
    pub(crate) fn each(&self, tell: impl Fn(&dyn Client)) {
        for client in self.all.lock().iter() {
            tell(&**client);
        }
    }
}

/// Somebody is told. Dropping it leaves, and waits for a call under way; so a client does not drop
/// its own in one.
pub(crate) struct Membership {
    clients: Arc<Clients>,
    client: Arc<dyn Client>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut all = self.clients.all.lock();
        let at = all
            .iter()
            .position(|other| Arc::ptr_eq(other, &self.client));
        let left = at.and_then(|at| all.remove(at).ok());
        drop(all);
        // Dropped without the lock.
        drop(left);
    }
}
