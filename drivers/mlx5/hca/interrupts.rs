// SPDX-License-Identifier: GPL-2.0

//! The function's interrupt vectors.
//!
//! All of them are requested when the device is bound, and released when its users are gone: one
//! that was requested later would be released earlier, under a guest that runs. A vector is a
//! [`Line`]: it serves event queues, virtqueues, or both.
//!
//! Vector 0 is that of the firmware's own events. The others are [taken](Interrupts::take) by who
//! wants one for himself; when there are none left, they are [shared](sharing).

mod sharing;

use hardware::{
    Device,
    Handler,
    Vector,
    Vectors, //
};
use kernel::{
    cpu::nr_cpu_ids,
    cpumask::Cpumask,
    device::Bound,
    new_spinlock_irq,
    pci,
    prelude::*,
    sync::{
        Arc,
        SpinLockIrq, //
    }, //
};

use self::sharing::{
    Sharing,
    FIRMWARE,
    MOST, //
};
use super::eq::Events;

/// Who is told that a virtqueue used buffers.
pub(crate) trait Used: Send + Sync {
    /// Buffers of virtqueue `queue`, by its number in its device, may have been used. Any context, with
    /// locks held that nothing else takes.
    fn used(&self, queue: u16);
}

/// What a vector serves.
enum Served {
    /// An event queue.
    Events(Arc<Events>),
    /// A virtqueue that interrupts by itself, by its number in its device.
    Queue(Arc<dyn Used>, u16),
}

impl Served {
    fn is_queue(&self, told: &Arc<dyn Used>, queue: u16) -> bool {
        match self {
            Self::Queue(other, number) => *number == queue && Arc::ptr_eq(other, told),
            Self::Events(_) => false,
        }
    }
}

/// A vector, and what it serves.
#[pin_data]
pub(crate) struct Line {
    index: u16,
    #[pin]
    served: SpinLockIrq<KVec<Served>>,
}

impl Line {
    fn new(index: u16) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                index,
                served <- new_spinlock_irq!(KVec::new()),
            }),
            GFP_KERNEL,
        )
    }

    /// Its number in the table of vectors: `intr` of an event queue, `event_qpn_or_msix` of a
    /// virtqueue.
    pub(crate) fn number(&self) -> u16 {
        self.index
    }

    /// Serves something more from now on.
    fn add(&self, served: Served) -> Result {
        loop {
            let (capacity, len) = {
                let mut all = self.served.lock();
                if all.len() < all.capacity() {
                    return Ok(all.push_within_capacity(served)?);
                }
                (all.capacity(), all.len())
            };
            // Where one may sleep; and the old memory is freed there as well.
            let mut larger = KVec::with_capacity(len + 4, GFP_KERNEL)?;
            let mut all = self.served.lock();
            if all.capacity() == capacity {
                for old in all.drain_all() {
                    // There is room for more.
                    let _ = larger.push_within_capacity(old);
                }
                core::mem::swap(&mut *all, &mut larger);
            }
            drop(all);
        }
    }

    /// Serves something not any more. What runs has ended when this returns.
    fn remove(&self, is_it: impl Fn(&Served) -> bool) {
        let mut all = self.served.lock();
        let Some(at) = all.iter().position(is_it) else {
            return;
        };
        let removed = all.remove(at);
        drop(all);
        // Dropped without the lock.
        drop(removed);
    }

    /// Looks at an event queue from now on.
    pub(crate) fn add_events(&self, events: &Arc<Events>) -> Result {
        self.add(Served::Events(events.clone()))
    }

    /// Does not look at an event queue any more.
    pub(crate) fn remove_events(&self, events: &Arc<Events>) {
        self.remove(|served| match served {
            Served::Events(other) => Arc::ptr_eq(other, events),
            Served::Queue(..) => false,
        });
    }

    /// Looks at all event queues, as if the vector was raised, and for what no event told of. Any
    /// context.
    pub(crate) fn look(&self) {
        for served in self.served.lock().iter() {
            if let Served::Events(events) = served {
                events.look();
            }
        }
    }
}

impl Handler for Line {
    fn interrupt(&self) {
        for served in self.served.lock().iter() {
            match served {
                Served::Events(events) => events.take(),
                Served::Queue(told, queue) => told.used(*queue),
            }
        }
    }
}

/// A vector, with what is called when it is raised.
struct Requested {
    line: Arc<Line>,
    vector: Vector<Line>,
}

/// The vectors of a function.
#[pin_data]
pub(crate) struct Interrupts {
    all: KVec<Requested>,
    #[pin]
    sharing: SpinLockIrq<Sharing>,
}

impl Interrupts {
    /// Requests one vector for the firmware, and two for each processor, as far as the device and the
    /// system have them; one at least.
    ///
    /// # Errors
    ///
    /// As [`Vectors::new`] and [`Vector::new`].
    pub(crate) fn new(device: &Arc<Device>, pdev: &pci::Device<Bound>) -> Result<Arc<Self>> {
        // All functions of a host share what each processor has of vectors.
        let wanted = 2 * nr_cpu_ids() + 1;
        let wanted = u16::try_from(wanted).map_or(MOST, |wanted| wanted.min(MOST));
        let vectors = Vectors::new(device, pdev, 1, wanted)?;
        let mut all = KVec::with_capacity(vectors.len().into(), GFP_KERNEL)?;
        for index in 0..vectors.len() {
            let line = Line::new(index)?;
            match Vector::new(&vectors, pdev, index, crate::NAME, line.clone()) {
                Ok(vector) => all.push(Requested { line, vector }, GFP_KERNEL)?,
                Err(error) if all.is_empty() => return Err(error),
                // The system has no more.
                Err(_) => break,
            }
        }
        // No more than `MOST`.
        let sharing = Sharing::new(all.len() as u16);
        Arc::pin_init(
            pin_init!(Self {
                all,
                sharing <- new_spinlock_irq!(sharing),
            }),
            GFP_KERNEL,
        )
    }

    /// The line of the firmware's own events.
    ///
    /// # Errors
    ///
    /// None: there is one vector at least.
    pub(crate) fn shared(&self) -> Result<&Arc<Line>> {
        let requested = self.all.get(usize::from(FIRMWARE)).ok_or(ENODEV)?;
        Ok(&requested.line)
    }

    /// Looks at all event queues, as if each vector was raised, and for what no event told of: an
    /// interrupt or an event may be lost, and with it all that would follow.
    pub(crate) fn look(&self) {
        for requested in self.all.iter() {
            requested.line.look();
        }
    }

    /// How many vectors there are.
    pub(crate) fn count(&self) -> usize {
        self.all.len()
    }

    /// A vector that nobody else has; or if all are taken, one that the fewest share.
    pub(crate) fn take(this: &Arc<Self>) -> Taken {
        let index = this.sharing.lock().take();
        Taken {
            interrupts: this.clone(),
            index,
            served: None,
        }
    }
}

/// A vector for a virtqueue or an event queue. Dropped, it serves that no longer, and is free again
/// when a handler that runs has returned.
pub(crate) struct Taken {
    interrupts: Arc<Interrupts>,
    index: u16,
    served: Option<(Arc<dyn Used>, u16)>,
}

impl Taken {
    fn requested(&self) -> Option<&Requested> {
        self.interrupts.all.get(usize::from(self.index))
    }

    /// Its line.
    ///
    /// # Errors
    ///
    /// None: what was taken is there.
    pub(crate) fn line(&self) -> Result<&Arc<Line>> {
        Ok(&self.requested().ok_or(ENODEV)?.line)
    }

    /// Its number in the table of vectors: `event_qpn_or_msix` of a virtqueue.
    pub(crate) fn number(&self) -> u16 {
        self.index
    }

    /// Whether it tells of a virtqueue.
    pub(crate) fn is_serving(&self) -> bool {
        self.served.is_some()
    }

    /// The interrupt's number in the system, if it is that of a virtqueue and of nothing else: for
    /// `get_vq_irq`, by which others may have it delivered to a guest directly. Nobody else gets the
    /// vector then.
    pub(crate) fn irq(&self) -> Option<u32> {
        self.served.as_ref()?;
        let requested = self.requested()?;
        let is_alone = self.interrupts.sharing.lock().keep(self.index);
        is_alone.then(|| requested.vector.irq())
    }

    /// Has the vector tell `told` of virtqueue `queue`, instead of what it did for this value before.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn serve(&mut self, told: Arc<dyn Used>, queue: u16) -> Result {
        self.release();
        self.line()?.add(Served::Queue(told.clone(), queue))?;
        self.served = Some((told, queue));
        Ok(())
    }

    fn release(&mut self) {
        if let (Some((told, queue)), Ok(line)) = (self.served.take(), self.line()) {
            line.remove(|served| served.is_queue(&told, queue));
        }
    }

    /// Has the interrupt raised on processors of `mask`; on one of the driver's choice with `None`.
    /// That of a vector with other users stays where it is.
    ///
    /// # Errors
    ///
    /// As [`Vector::set_affinity`].
    pub(crate) fn set_affinity(&self, mask: Option<&Cpumask>) -> Result {
        let is_alone = self.interrupts.sharing.lock().is_alone(self.index);
        match self.requested() {
            Some(requested) if is_alone => requested.vector.set_affinity(mask),
            _ => Ok(()),
        }
    }

    /// Waits until a handler that runs has returned. Not with a lock held that who is told takes.
    pub(crate) fn synchronize(&self) {
        if let Some(requested) = self.requested() {
            requested.vector.synchronize();
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.release();
        self.interrupts.sharing.lock().put_back(self.index);
    }
}
