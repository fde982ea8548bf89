// SPDX-License-Identifier: GPL-2.0

//! What the firmware reports by itself, and who is told.

mod subject;

use kernel::{
    new_spinlock_irq,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNode, //
    },
    sync::{
        Arc,
        SpinLockIrq, //
    }, //
};
use prm::eq::Eqe;

pub(crate) use self::subject::Subject;

/// Who is told of events about an object.
pub(crate) trait Listener: Send + Sync {
    /// There was one. Called with interrupts off and locks of this folder held, but none that anybody
    /// else takes: it may fire callbacks, and wake threads.
    fn event(&self);

    /// Looks whether there was something that no event told of. Called every second, as
    /// [`Self::event`].
    fn look(&self) {}
}

/// Who is to be told of what.
#[pin_data]
pub(crate) struct Listeners {
    #[pin]
    by_subject: SpinLockIrq<RBTree<Subject, Arc<dyn Listener>>>,
}

impl Listeners {
    /// Nobody yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                by_subject <- new_spinlock_irq!(RBTree::new()),
            }),
            GFP_KERNEL,
        )
    }

    /// Tells `listener` of events about `subject`, until the value that is returned is dropped.
    ///
    /// # Errors
    ///
    /// `EBUSY` if somebody is told of it already, `ENOMEM`.
    pub(crate) fn add(
        this: &Arc<Self>,
        subject: Subject,
        listener: Arc<dyn Listener>,
    ) -> Result<Listening> {
        let node = RBTreeNode::new(subject, listener, GFP_KERNEL)?;
        let mut by_subject = this.by_subject.lock();
        let other = by_subject.insert(node);
        if let Some(other) = other {
            let ours = by_subject.insert(other);
            drop(by_subject);
            // Freed where no lock is held.
            drop(ours);
            return Err(EBUSY);
        }
        drop(by_subject);
        Ok(Listening {
            listeners: this.clone(),
            subject,
        })
    }

    /// Tells who listens of an event. Returns whether it was for somebody. Any context.
    pub(crate) fn tell(&self, entry: &Eqe) -> bool {
        let Some(subject) = Subject::of(entry) else {
            return false;
        };
        // With the lock held: who does not listen any more is not called.
        let by_subject = self.by_subject.lock();
        let listener = by_subject.get(&subject);
        if let Some(listener) = listener {
            listener.event();
        }
        listener.is_some()
    }

    /// Has all who listen look. Any context.
    pub(crate) fn look(&self) {
        for listener in self.by_subject.lock().values() {
            listener.look();
        }
    }

    /// Whether nobody listens.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_subject.lock().values().next().is_none()
    }
}

/// Somebody is told of events about a subject, for as long as this value lives. A call under way has
/// ended when it is gone.
pub(crate) struct Listening {
    listeners: Arc<Listeners>,
    subject: Subject,
}

impl Drop for Listening {
    fn drop(&mut self) {
        let node = self.listeners.by_subject.lock().remove_node(&self.subject);
        // Freed where no lock is held.
        drop(node);
    }
}
