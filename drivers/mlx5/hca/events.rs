// SPDX-License-Identifier: GPL-2.0

//! What the firmware reports by itself, and who is told.

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
use prm::{
    eq::{
        Eqe,
        EqeComp,
        EqeCqErr,
        EqeObjChange,
        EqeQpSrq,
        EventType, //
    },
    Layout,
    ObjectType, //
};

use super::eq::Sink;

/// What an event is about; an object by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// A virtqueue changed by itself: it is in error.
    Virtqueue(u32),
    /// A completion queue has completions, and was armed for them.
    Completions(u32),
    /// A completion queue is in error.
    CompletionQueue(u32),
    /// A queue pair is in error.
    QueuePair(u32),
    /// The link of the function's port went up or down.
    Port,
}

impl Subject {
    /// What `entry` is about, if it is one of these.
    pub(crate) fn of(entry: &Eqe) -> Option<Self> {
        let data = entry.data();
        match entry.event_type().ok()? {
            EventType::OBJECT_CHANGE => EqeObjChange::split(data)
                .filter(|(event, _)| event.obj_type() == ObjectType::VIRTIO_NET_Q as u16)
                .map(|(event, _)| Self::Virtqueue(event.obj_id())),
            EventType::COMP => {
                EqeComp::split(data).map(|(event, _)| Self::Completions(event.cqn()))
            }
            EventType::CQ_ERROR => {
                EqeCqErr::split(data).map(|(event, _)| Self::CompletionQueue(event.cqn()))
            }
            EventType::WQ_CATAS_ERROR
            | EventType::WQ_INVAL_REQ_ERROR
            | EventType::WQ_ACCESS_ERROR => EqeQpSrq::split(data)
                .filter(|(event, _)| event.queue_type() == 0)
                .map(|(event, _)| Self::QueuePair(event.qp_srq_n())),
            EventType::PORT_CHANGE => Some(Self::Port),
            _ => None,
        }
    }
}

/// Who is told of events about an object.
pub(crate) trait Listener: Send + Sync {
    /// There was one. Called with interrupts off and locks of this folder held, but none that anybody
    /// else takes: it may fire callbacks, and wake threads.
    fn event(&self);
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

    /// Tells who listens of an event. Any context.
    pub(crate) fn tell(&self, entry: &Eqe) {
        let Some(subject) = Subject::of(entry) else {
            return;
        };
        // With the lock held: who does not listen any more is not called.
        if let Some(listener) = self.by_subject.lock().get(&subject) {
            listener.event();
        }
    }
}

impl Sink for Listeners {
    fn event(&self, entry: &Eqe) {
        self.tell(entry);
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
