// SPDX-License-Identifier: GPL-2.0

//! Kernel threads that do a device's work.
//!
//! C header: [`include/linux/kthread.h`](srctree/include/linux/kthread.h)

use core::ptr::NonNull;

use kernel::{
    bindings,
    container_of,
    cpumask::Cpumask,
    error::{
        from_err_ptr,
        to_result, //
    },
    new_spinlock_irq,
    prelude::*,
    sync::{
        Arc,
        SpinLockIrq, //
    },
    time::msecs_to_jiffies,
    types::Opaque, //
};

use vdpa_bindings::{
    kthread_delayed_work,
    kthread_work,
    kthread_worker, //
};

/// Work for a [`Worker`].
pub trait Run: Send + Sync {
    /// Does the work there is. Called on the worker's thread, never twice at once; at least once
    /// after each time it was queued.
    fn run(&self);
}

/// A kernel thread that runs one piece of work whenever it is asked to.
///
/// Dropping it does what is queued, forgets what is delayed, and ends the thread. It must not be
/// dropped by its own thread: what it runs must not own it, but may hold a [`Handle`].
pub struct Worker {
    work: Pin<KBox<Work>>,
    thread: Thread,
    link: Arc<Link>,
}

/// The thread.
///
/// # Invariants
///
/// The pointer is valid; the thread is ended by the [`Worker`] alone.
#[derive(Clone, Copy)]
struct Thread(NonNull<kthread_worker>);

// SAFETY: What is done with a worker takes its own lock.
unsafe impl Send for Thread {}
// SAFETY: As above.
unsafe impl Sync for Thread {}

/// What is queued.
#[pin_data]
struct Work {
    #[pin]
    now: Opaque<kthread_work>,
    #[pin]
    later: Opaque<kthread_delayed_work>,
    target: Arc<dyn Run>,
}

// SAFETY: C takes the worker's lock for what it does with the members it owns.
unsafe impl Send for Work {}
// SAFETY: As above.
unsafe impl Sync for Work {}

impl Work {
    fn new(target: Arc<dyn Run>) -> impl PinInit<Self> {
        pin_init!(Self {
            now <- Opaque::ffi_init(|work: *mut kthread_work| {
                // SAFETY: The memory is ours and does not move. `run_now` is for such a member.
                unsafe { vdpa_bindings::rust_vdpa_init_work(work, Some(Self::run_now)) };
            }),
            later <- Opaque::ffi_init(|work: *mut kthread_delayed_work| {
                // SAFETY: As above, with `run_later`.
                unsafe { vdpa_bindings::rust_vdpa_init_delayed_work(work, Some(Self::run_later)) };
            }),
            target,
        })
    }

    /// # Safety
    ///
    /// For C to call, on a member of a [`Work`] that was queued.
    unsafe extern "C" fn run_now(work: *mut kthread_work) {
        // SAFETY: C passes the member `now` of a `Work`, which lives until the thread has ended.
        let this = unsafe { &*container_of!(Opaque::cast_from(work), Self, now) };
        this.target.run();
    }

    /// # Safety
    ///
    /// For C to call, on a member of a [`Work`] that was queued.
    unsafe extern "C" fn run_later(work: *mut kthread_work) {
        // `work` is the first member of `struct kthread_delayed_work`.
        let later = work.cast::<kthread_delayed_work>();
        // SAFETY: C passes the first member of `later` of a `Work`, as above.
        let this = unsafe { &*container_of!(Opaque::cast_from(later), Self, later) };
        this.target.run();
    }
}

/// What handles have in common: a way to the worker while there is one.
#[pin_data]
struct Link {
    #[pin]
    alive: SpinLockIrq<Option<Alive>>,
}

/// # Invariants
///
/// Both pointers are valid while this value is in a [`Link`].
struct Alive {
    thread: Thread,
    work: NonNull<Work>,
}

// SAFETY: `Work` may be used by any task.
unsafe impl Send for Alive {}

impl Worker {
    /// Starts a thread called `name` that runs `target`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and what C reports if no thread can be made.
    pub fn new<T: Run + 'static>(name: &CStr, target: Arc<T>) -> Result<Self> {
        let work = KBox::pin_init(Work::new(target), GFP_KERNEL)?;
        let link = Arc::pin_init(
            pin_init!(Link {
                alive <- new_spinlock_irq!(None),
            }),
            GFP_KERNEL,
        )?;
        // SAFETY: The name is copied, by the format for it.
        let thread = from_err_ptr(unsafe {
            vdpa_bindings::kthread_create_worker_on_node(
                0,
                bindings::NUMA_NO_NODE,
                c"%s".as_char_ptr(),
                name.as_char_ptr(),
            )
        })?;
        // INVARIANT: The thread was just made.
        let thread = Thread(NonNull::new(thread).ok_or(ENOMEM)?);
        // SAFETY: The task is the worker's own, which has not run yet.
        unsafe { bindings::wake_up_process((*thread.0.as_ptr()).task) };

        // INVARIANT: `drop` takes the value out before either is gone.
        *link.alive.lock() = Some(Alive {
            thread,
            work: NonNull::from(&*work),
        });
        Ok(Self { work, thread, link })
    }

    /// Something to queue the work by, which does not keep the worker alive.
    pub fn handle(&self) -> Handle {
        Handle(self.link.clone())
    }

    /// Waits until what is queued now is done. May sleep.
    pub fn flush(&self) {
        // SAFETY: By its invariant the thread is valid.
        unsafe { vdpa_bindings::kthread_flush_worker(self.thread.0.as_ptr()) };
    }

    /// Lets the thread run on the processors of `mask` only.
    ///
    /// # Errors
    ///
    /// `EINVAL` if none of them is online.
    pub fn set_affinity(&self, mask: &Cpumask) -> Result {
        // SAFETY: The task lives as long as the worker; the mask is valid, and copied.
        to_result(unsafe {
            bindings::set_cpus_allowed_ptr((*self.thread.0.as_ptr()).task, mask.as_raw())
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // From here on nothing is queued.
        *self.link.alive.lock() = None;
        // SAFETY: The work is initialised, and queued on this worker if at all.
        unsafe { vdpa_bindings::kthread_cancel_delayed_work_sync(self.work.later.get()) };
        // SAFETY: By its invariant the thread is valid, and not used after this. What is queued is
        // done first, while `work` still lives.
        unsafe { vdpa_bindings::kthread_destroy_worker(self.thread.0.as_ptr()) };
    }
}

/// A way to have a [`Worker`]'s work done, as long as there is a worker.
#[derive(Clone)]
pub struct Handle(Arc<Link>);

impl Handle {
    /// Has the work done as soon as possible, even if it is delayed. May be called in any context.
    pub fn queue(&self) {
        if let Some(alive) = &*self.0.alive.lock() {
            // SAFETY: By the invariant of `Alive` both are valid, and the work initialised.
            unsafe {
                vdpa_bindings::kthread_queue_work(
                    alive.thread.0.as_ptr(),
                    alive.work.as_ref().now.get(),
                )
            };
        }
    }

    /// Has the work done in `ms` milliseconds, instead of when an earlier call of this function
    /// asked for. May be called in any context.
    pub fn queue_after(&self, ms: u32) {
        if let Some(alive) = &*self.0.alive.lock() {
            // SAFETY: As in `queue`.
            unsafe {
                vdpa_bindings::kthread_mod_delayed_work(
                    alive.thread.0.as_ptr(),
                    alive.work.as_ref().later.get(),
                    msecs_to_jiffies(ms),
                )
            };
        }
    }
}
