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
    impl_has_work,
    new_spinlock_irq,
    new_work,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc,
        SpinLockIrq, //
    },
    task::Task,
    time::msecs_to_jiffies,
    types::Opaque,
    workqueue, //
};

use vdpa_bindings::{
    kthread_delayed_work,
    kthread_work,
    kthread_worker, //
};

use crate::count::Count;

/// The threads of this module, and what they run.
static THREADS: Count = Count::new();

/// One of [`THREADS`], for as long as this value lives.
struct Member(());

impl Member {
    /// # Errors
    ///
    /// `ENODEV` if nobody would wait for it.
    fn new() -> Result<Self> {
        // Counted first: the last `Stay` sees this one when it looks, or was seen to be gone here.
        THREADS.enter();
        let this = Self(());
        if STAYS.load(Relaxed) == 0 {
            return Err(ENODEV);
        }
        Ok(this)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        THREADS.leave();
    }
}

/// Work for a [`Worker`].
pub trait Run: Send + Sync {
    /// Does the work there is. Called on the worker's thread, never twice at once; at least once
    /// after each time it was queued.
    fn run(&self);
}

/// A kernel thread that runs one piece of work whenever it is asked to.
///
/// Dropping it does what is queued, forgets what is delayed, and ends the thread. Dropped by its own
/// thread, it ends when what runs has returned.
///
/// It belongs to a device or to a management device, and there is none without: when the last
/// [`Registration`](crate::mgmt::Registration) of the module, or the last [`Stay`], is dropped, that
/// waits for all workers.
pub struct Worker {
    /// `None` only while this value is being dropped.
    work: Option<Pin<KBox<Work>>>,
    link: Arc<Link>,
}

/// The thread. Dropping it does what is queued, and ends it.
///
/// # Invariants
///
/// The pointer is valid, and this value alone ends the thread.
struct Thread(NonNull<kthread_worker>);

// SAFETY: What is done with a worker takes its own lock.
unsafe impl Send for Thread {}
// SAFETY: As above.
unsafe impl Sync for Thread {}

impl Thread {
    fn new(name: &CStr) -> Result<Self> {
        // SAFETY: The name is copied, by the format for it.
        let thread = from_err_ptr(unsafe {
            vdpa_bindings::kthread_create_worker_on_node(
                0,
                bindings::NUMA_NO_NODE,
                c"%s".as_char_ptr(),
                name.as_char_ptr(),
            )
        })?;
        let thread = NonNull::new(thread).ok_or(ENOMEM)?;
        // INVARIANT: The thread was just made.
        let this = Self(thread);
        // SAFETY: The task is the worker's own, which has not run yet.
        unsafe { bindings::wake_up_process(this.task()) };
        Ok(this)
    }

    fn task(&self) -> *mut bindings::task_struct {
        // SAFETY: By the type invariant. C sets the task once, before it returns the worker.
        unsafe { (*self.0.as_ptr()).task }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the thread is valid, and it is not used after this.
        unsafe { vdpa_bindings::kthread_destroy_worker(self.0.as_ptr()) };
    }
}

/// What is queued, and where.
#[pin_data(PinnedDrop)]
struct Work {
    #[pin]
    now: Opaque<kthread_work>,
    #[pin]
    later: Opaque<kthread_delayed_work>,
    /// Drops this value, where the thread itself cannot.
    #[pin]
    retire: workqueue::Work<Self>,
    /// Dropped before what it runs.
    thread: Thread,
    target: Arc<dyn Run>,
    /// Dropped last: the target may end in our code too, on whatever task drops it.
    _member: Member,
}

// SAFETY: C takes the worker's lock for what it does with the members it owns.
unsafe impl Send for Work {}
// SAFETY: As above.
unsafe impl Sync for Work {}

impl_has_work! {
    impl HasWork<Self> for Work { self.retire }
}

impl workqueue::WorkItem for Work {
    type Pointer = Pin<KBox<Self>>;

    fn run(this: Pin<KBox<Self>>) {
        drop(this);
    }
}

impl Work {
    fn new(thread: Thread, target: Arc<dyn Run>, member: Member) -> impl PinInit<Self> {
        pin_init!(Self {
            now <- Opaque::ffi_init(|work: *mut kthread_work| {
                // SAFETY: The memory is ours and does not move. `run_now` is for such a member.
                unsafe { vdpa_bindings::rust_vdpa_init_work(work, Some(Self::run_now)) };
            }),
            later <- Opaque::ffi_init(|work: *mut kthread_delayed_work| {
                // SAFETY: As above, with `run_later`.
                unsafe { vdpa_bindings::rust_vdpa_init_delayed_work(work, Some(Self::run_later)) };
            }),
            retire <- new_work!("vdpa::Work::retire"),
            thread,
            target,
            _member: member,
        })
    }

    /// # Safety
    ///
    /// For C to call, on a member of a [`Work`] that was queued.
    unsafe extern "C" fn run_now(work: *mut kthread_work) {
        // SAFETY: C passes the member `now` of a `Work`.
        let this = unsafe { container_of!(Opaque::cast_from(work), Self, now) };
        // SAFETY: The target is dropped only after the thread has ended. Of the rest no reference
        // is made: it may be about to be dropped.
        let target = unsafe { &(*this).target };
        target.run();
    }

    /// # Safety
    ///
    /// For C to call, on a member of a [`Work`] that was queued.
    unsafe extern "C" fn run_later(work: *mut kthread_work) {
        // `work` is the first member of `struct kthread_delayed_work`.
        let later = work.cast::<kthread_delayed_work>();
        // SAFETY: C passes the first member of `later` of a `Work`.
        let this = unsafe { container_of!(Opaque::cast_from(later), Self, later) };
        // SAFETY: As in `run_now`.
        let target = unsafe { &(*this).target };
        target.run();
    }
}

#[pinned_drop]
impl PinnedDrop for Work {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: The work is initialised, and queued on this worker if at all. Nobody has a way to
        // it any more, so it is not queued again.
        unsafe { vdpa_bindings::kthread_cancel_delayed_work_sync(self.later.get()) };
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
/// The pointer is valid while this value is in a [`Link`].
struct Alive(NonNull<Work>);

// SAFETY: `Work` may be used by any task.
unsafe impl Send for Alive {}

impl Alive {
    fn work(&self) -> &Work {
        // SAFETY: By the type invariant.
        unsafe { self.0.as_ref() }
    }
}

impl Worker {
    /// Starts a thread called `name` that runs `target`.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the module has no management device, as before its first is registered, and no
    /// [`Stay`];
    /// `ENOMEM`, and what C reports if no thread can be made.
    pub fn new<T: Run + 'static>(name: &CStr, target: Arc<T>) -> Result<Self> {
        let member = Member::new()?;
        let work = KBox::pin_init(Work::new(Thread::new(name)?, target, member), GFP_KERNEL)?;
        // INVARIANT: `drop` takes the value out before the work is gone.
        let alive = Alive(NonNull::from(&*work));
        let link = Arc::pin_init(
            pin_init!(Link {
                alive <- new_spinlock_irq!(Some(alive)),
            }),
            GFP_KERNEL,
        )?;
        Ok(Self {
            work: Some(work),
            link,
        })
    }

    /// Something to queue the work by, which does not keep the worker alive.
    pub fn handle(&self) -> Handle {
        Handle(self.link.clone())
    }

    /// Lets the thread run on the processors of `mask` only.
    ///
    /// # Errors
    ///
    /// `EINVAL` if none of them is online.
    pub fn set_affinity(&self, mask: &Cpumask) -> Result {
        let work = self.work.as_ref().ok_or(EINVAL)?;
        // SAFETY: The task lives as long as the worker; the mask is valid, and copied.
        to_result(unsafe { bindings::set_cpus_allowed_ptr(work.thread.task(), mask.as_raw()) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // From here on nothing is queued.
        *self.link.alive.lock() = None;
        let Some(work) = self.work.take() else {
            return;
        };
        // A thread cannot wait for its own end.
        if work.thread.task() == Task::current_raw() {
            workqueue::system_long().enqueue(work);
        }
    }
}

/// Keeps the module's code for who is in it: when the last of these is dropped, it waits until the
/// last worker is gone, be it one that was leaked, and every task that ended something has returned
/// from our code.
///
/// Every [`Registration`](crate::mgmt::Registration) has one. A driver whose workers begin before
/// that keeps another, and drops it behind them, in what ends before the module does.
pub struct Stay(());

/// How many [`Stay`] there are.
static STAYS: Atomic<i32> = Atomic::new(0);

impl Stay {
    /// Allows workers, for as long as the value lives.
    pub fn new() -> Self {
        STAYS.add(1, Relaxed);
        Self(())
    }
}

impl Default for Stay {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        if STAYS.fetch_sub(1, Full) == 1 {
            // Who comes meanwhile waits for all of them when he is gone.
            while STAYS.load(Relaxed) == 0 && !THREADS.wait(10_000) {
                pr_warn!("waiting for workers that belong to no device\n");
            }
            // The task that ended the last one may still be about to return from our code.
            // SAFETY: No lock is held here.
            unsafe { vdpa_bindings::rust_vdpa_synchronize_tasks() };
        }
    }
}

/// A way to have a [`Worker`]'s work done, as long as there is a worker.
#[derive(Clone)]
pub struct Handle(Arc<Link>);

impl Handle {
    /// Has the work done as soon as possible, even if it is delayed. May be called in any context.
    pub fn queue(&self) {
        if let Some(alive) = &*self.0.alive.lock() {
            let work = alive.work();
            // SAFETY: By its invariant the thread is valid. The work is initialised.
            unsafe { vdpa_bindings::kthread_queue_work(work.thread.0.as_ptr(), work.now.get()) };
        }
    }

    /// Has the work done in `ms` milliseconds, instead of when an earlier call of this function
    /// asked for. May be called in any context.
    pub fn queue_after(&self, ms: u32) {
        if let Some(alive) = &*self.0.alive.lock() {
            let work = alive.work();
            // SAFETY: As in `queue`.
            unsafe {
                vdpa_bindings::kthread_mod_delayed_work(
                    work.thread.0.as_ptr(),
                    work.later.get(),
                    msecs_to_jiffies(ms),
                )
            };
        }
    }
}
