// SPDX-License-Identifier: GPL-2.0

//! The driver's memory, for devices that work in software, and for what others do in software.
//!
//! A device has one or more address spaces, and its groups of virtqueues are each in one of them.
//! vhost-vdpa fills an address space with maps of the user's memory ([`Spaces`] is told by the
//! trampolines of the mapping operations, and by nobody else). To work, the device takes a
//! [`View`]: a snapshot that does not change, looked things up in without any lock. It implements
//! [`virtio::memory::Memory`].
//!
//! What keeps this sound does not depend on the order in which C does things: every map holds
//! references to its pages, and a view holds its maps. (vhost-vdpa unpins a user's pages *before*
//! it tells the device of the unmap.) That nothing is accessed any more after an unmap is a promise
//! to the user; it is kept by waiting for the views that were taken before.
//!
//! The kernel's own drivers (`virtio_vdpa`) make no maps. They ask for the address of each buffer
//! instead, and get the physical address. From the first time one asks until the next reset, and
//! only if there is no map, a view reaches all RAM of the kernel, as a DMA capable device without
//! an IOMMU does. A user of vhost-vdpa cannot ask, so an address space without maps is an empty one
//! for him.
//!
//! A device that reaches memory by itself is given the whole of an address space whenever it changed,
//! as a [`Snapshot`]. It holds the pages, too, so a device may let go of memory when it likes: what
//! it has not forgotten yet is nobody else's. What such a device does in software it does by views
//! as well; the kernel's own drivers give it addresses that the DMA API made, which a view follows
//! back to the memory.
//!
//! Such a view is as dangerous as such a device, and no type says so: a device that takes its
//! addresses from anywhere but the rings of its driver overwrites the kernel, and what the driver
//! freed without a reset is written to all the same. All the crate can do is to refuse what is not
//! RAM, and to let no reset return while such a view is left.

use kernel::{
    device,
    new_mutex,
    new_spinlock_irq,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        lock::{
            mutex::MutexBackend,
            Guard, //
        },
        Arc,
        Mutex,
        SetOnce,
        SpinLockIrq, //
    }, //
};

use crate::{
    count::Count,
    ops::Extent,
    ratelimit::RateLimit, //
};

mod copy;
pub(crate) mod identity;
mod pages;
pub(crate) mod refusal;
mod snapshot;
mod table;
mod view;

pub use copy::{
    copy,
    CopyError, //
};
pub use snapshot::{
    Held,
    Snapshot, //
};
pub use view::View;

pub(crate) use view::Cursor;

use pages::Pages;
use table::{
    Entry,
    Map,
    Table, //
};
use view::Everything;

/// The most memory that is held, or let go of, as one: a power of two, of which extents that
/// [`Snapshot`]s have cross no multiple.
pub const WINDOW: u64 = 1 << 30;

/// How long an unmap waits for the views that were taken before it, in milliseconds. A view is
/// held for a batch of work, which takes far less.
const DRAIN_MS: u32 = 10_000;

/// What to do about a view that is not dropped within [`DRAIN_MS`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    /// Leave it. It keeps its pages, so it does no harm but to the user it belongs to.
    Limited,
    /// Wait on.
    Endless,
}

/// The address spaces of a device, and which of them its groups of virtqueues are in.
pub struct Spaces {
    spaces: KVec<Pin<KBox<Space>>>,
    groups: KVec<Atomic<u32>>,
    /// The kernel's own driver asked for addresses since the last reset.
    kernel_user: Atomic<bool>,
    /// Whose addresses the kernel's own driver gives, if not physical ones.
    dma: SetOnce<ARef<device::Device>>,
}

impl Spaces {
    pub(crate) fn new(groups: u32, asids: u32) -> Result<Self> {
        let mut spaces = KVec::new();
        for _ in 0..asids {
            let views = Arc::new(Count::new(), GFP_KERNEL)?;
            spaces.push(KBox::pin_init(Space::new(views), GFP_KERNEL)?, GFP_KERNEL)?;
        }
        let mut asid_of = KVec::new();
        for _ in 0..groups {
            asid_of.push(Atomic::new(0), GFP_KERNEL)?;
        }
        Ok(Self {
            spaces,
            groups: asid_of,
            kernel_user: Atomic::new(false),
            dma: SetOnce::new(),
        })
    }

    /// The kernel's own driver gives addresses that the DMA API made for `device`.
    pub(crate) fn set_dma(&self, device: &device::Device) {
        self.dma.populate(device.into());
    }

    /// Takes a snapshot of address space `asid`.
    ///
    /// Take one for a batch of work and drop it before waiting for anything: an unmap waits for
    /// it. May sleep, as may dropping the view.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such address space, `ENOMEM`.
    pub fn view(&self, asid: u32) -> Result<View> {
        let table = self.space(asid)?.table()?;
        let everything = match self.dma.as_ref() {
            _ if !table.is_empty() || !self.kernel_user() => Everything::Nothing,
            None => Everything::Physical,
            Some(device) => Everything::Dma(device.clone()),
        };
        Ok(View::new(table, everything))
    }

    /// Takes a snapshot of the address space that `group` is in.
    ///
    /// # Errors
    ///
    /// As [`Self::view`].
    pub fn view_of_group(&self, group: u32) -> Result<View> {
        let mut asid = self.asid_of_group(group);
        loop {
            let view = self.view(asid)?;
            // The group may have been moved, and the old address space found without views,
            // between the two. If it was not, whoever moves it from now on waits for this view.
            let now = self.asid_of_group(group);
            if now == asid {
                return Ok(view);
            }
            asid = now;
        }
    }

    /// The address space `group` is in. 0 for a group there is not.
    pub fn asid_of_group(&self, group: u32) -> u32 {
        self.groups
            .get(group as usize)
            .map_or(0, |asid| asid.load(Acquire))
    }

    /// Whether a user of vhost-vdpa mapped any memory. May be called in any context.
    pub fn user_map_exists(&self) -> bool {
        self.spaces.iter().any(|space| space.mapped.load(Acquire))
    }

    /// Whether the kernel's own driver uses the device and lets it have the addresses of its
    /// buffers. It does that only if it acknowledged VIRTIO_F_ACCESS_PLATFORM; of a device that
    /// reaches memory by itself all that is known is that it uses the device.
    pub fn kernel_user(&self) -> bool {
        self.kernel_user.load(Acquire)
    }

    /// The kernel's own driver uses the device, which reaches memory by itself.
    pub(crate) fn set_dma_user(&self) {
        // Without DMA there are no addresses either.
        if self.dma.as_ref().is_some() {
            self.set_kernel_user();
        }
    }

    fn space(&self, asid: u32) -> Result<&Space> {
        Ok(self.spaces.get(asid as usize).ok_or(EINVAL)?)
    }

    /// The kernel's own driver asked for an address.
    pub(crate) fn set_kernel_user(&self) {
        if !self.kernel_user.load(Relaxed) {
            self.kernel_user.store(true, Release);
        }
    }

    /// Adds a map to address space `asid`.
    ///
    /// # Errors
    ///
    /// `EEXIST` if it overlaps one that is there, `EINVAL` if it is empty, wraps around or is for
    /// memory that is not RAM, `ENOMEM`.
    ///
    /// # Safety
    ///
    /// The caller must hold references to all pages of the extent.
    pub(crate) unsafe fn map(&self, asid: u32, extent: &Extent) -> Result {
        let space = self.space(asid)?;
        // SAFETY: By the function requirements.
        let pages = unsafe { Pages::hold(extent.pa, extent.size) }?;
        let entry = Entry::new(
            extent.iova,
            extent.readable,
            extent.writable,
            Arc::new(pages, GFP_KERNEL)?,
        )?;
        let mut state = space.state.lock();
        state.map.insert(entry)?;
        space.mapped.store(true, Release);
        space.outdate();
        Ok(())
    }

    /// Removes `size` bytes at `iova` from address space `asid`, and waits until nobody uses them.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the range is empty or wraps around.
    pub(crate) fn unmap(&self, asid: u32, iova: u64, size: u64) -> Result {
        let last = size
            .checked_sub(1)
            .and_then(|length| iova.checked_add(length))
            .ok_or(EINVAL)?;
        self.space(asid)?.shrink(|maps| maps.remove(iova, last));
        Ok(())
    }

    /// Makes address space `asid` what `extents` say, which are in order of address, and waits
    /// until nobody uses what is not in it any more.
    ///
    /// What was there before keeps its pages, so that the time it takes depends on what is new.
    /// Extents are cut at multiples of [`WINDOW`]: who holds some of what was mapped, and lets go of the
    /// rest, keeps no more of it than that.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such address space, or a map overlaps one before it, is empty, wraps
    /// around or is for memory that is not RAM; `ENOMEM`. Nothing is mapped then.
    ///
    /// # Safety
    ///
    /// The caller must hold references to all pages of all extents.
    // Generic, so that a module that does not walk maps does not depend on vhost_iotlb.ko.
    pub(crate) unsafe fn replace(
        &self,
        asid: u32,
        extents: impl Iterator<Item = Extent>,
    ) -> Result<Snapshot> {
        let mut replacement = self.space(asid)?.replacement();
        for extent in extents {
            let mut rest = Some(extent);
            while let Some(extent) = rest {
                let (first, behind) = extent.cut(WINDOW);
                // SAFETY: By the function requirements, as it is some of an extent.
                unsafe { replacement.push(&first) }?;
                rest = behind;
            }
        }
        replacement.finish()
    }

    /// Removes all maps of address space `asid`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such address space.
    pub(crate) fn unmap_all(&self, asid: u32) -> Result {
        self.space(asid)?.shrink(Map::clear);
        Ok(())
    }

    /// Removes all maps of all address spaces.
    pub(crate) fn clear(&self) {
        for space in &self.spaces {
            space.shrink(Map::clear);
        }
    }

    /// Puts `group` into address space `asid`. Returns which one it was in.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such group or address space.
    pub(crate) fn set_group_asid(&self, group: u32, asid: u32) -> Result<u32> {
        self.space(asid)?;
        let group = self.groups.get(group as usize).ok_or(EINVAL)?;
        let old = group.xchg(asid, kernel::sync::atomic::Full);
        if old != asid {
            self.space(old)?.drain(Patience::Limited);
        }
        Ok(old)
    }

    /// The device was reset: the next driver starts without anything but the maps.
    ///
    /// Waits for the views of a driver in the kernel, however long it takes: the driver frees its
    /// memory next, and nothing else keeps it.
    pub(crate) fn reset(&self) {
        for group in &self.groups {
            group.store(0, Release);
        }
        if self.kernel_user.xchg(false, kernel::sync::atomic::Full) {
            for space in &self.spaces {
                space.drain(Patience::Endless);
            }
        }
    }
}

/// One address space.
#[pin_data]
struct Space {
    #[pin]
    state: Mutex<State>,
    /// Whether anything is mapped. Changed only with `state` locked.
    mapped: Atomic<bool>,
    /// A snapshot of the map, if one was taken since it last changed. Set only with `state` locked.
    #[pin]
    current: SpinLockIrq<Option<Arc<Table>>>,
    /// Held while waiting for snapshots: who comes second has to wait for the first one's, too.
    #[pin]
    draining: Mutex<()>,
}

struct State {
    /// What is mapped.
    map: Map,
    /// The snapshots alive that were taken since the last drain began.
    views: Arc<Count>,
}

impl Space {
    /// Begins to replace all maps.
    fn replacement(&self) -> Replacement<'_> {
        Replacement {
            space: self,
            state: Some(self.state.lock()),
            at: 0,
            kept: 0,
            map: Map::new(),
        }
    }

    fn new(views: Arc<Count>) -> impl PinInit<Self> {
        pin_init!(Self {
            state <- new_mutex!(State {
                map: Map::new(),
                views,
            }),
            mapped: Atomic::new(false),
            current <- new_spinlock_irq!(None),
            draining <- new_mutex!(()),
        })
    }

    /// The current snapshot, made if there is none.
    fn table(&self) -> Result<Arc<Table>> {
        if let Some(table) = &*self.current.lock() {
            return Ok(table.clone());
        }
        let state = self.state.lock();
        if let Some(table) = &*self.current.lock() {
            return Ok(table.clone());
        }
        let table = Table::new(&state.map, Some(state.views.clone()))?;
        let table = Arc::new(table, GFP_KERNEL)?;
        *self.current.lock() = Some(table.clone());
        Ok(table)
    }

    /// Removes maps by `f`, and waits until nobody uses them.
    fn shrink(&self, f: impl FnOnce(&mut Map)) {
        {
            let mut state = self.state.lock();
            f(&mut state.map);
            self.mapped.store(!state.map.is_empty(), Release);
        }
        self.drain(Patience::Limited);
    }

    /// Lets the next view take a new snapshot. To be called with `state` locked.
    fn outdate(&self) {
        let old = self.current.lock().take();
        drop(old);
    }

    /// Waits until all snapshots taken so far are gone.
    fn drain(&self, patience: Patience) {
        let _draining = self.draining.lock();
        // Those that come later are counted apart, and so is from the next drain on what this one
        // gives up on: each is waited for once. Without memory they are waited for together.
        let later = Arc::new(Count::new(), GFP_KERNEL);
        let old = {
            let mut state = self.state.lock();
            self.outdate();
            match later {
                Ok(later) => core::mem::replace(&mut state.views, later),
                Err(_) => state.views.clone(),
            }
        };
        while !old.wait(DRAIN_MS) {
            static STUCK: RateLimit = RateLimit::new();
            if STUCK.allow() {
                pr_warn!(
                    "a device still uses memory {} s after its unmap\n",
                    DRAIN_MS / 1000
                );
            }
            if patience == Patience::Limited {
                break;
            }
        }
    }
}

/// What the maps of a [`Space`] are being replaced by. If it is dropped before it is finished,
/// nothing is mapped.
struct Replacement<'a> {
    space: &'a Space,
    /// `None` when it is finished.
    state: Option<Guard<'a, State, MutexBackend>>,
    /// The first of the old maps that does not lie before the new ones.
    at: usize,
    /// How many of the old maps are kept.
    kept: usize,
    map: Map,
}

impl Replacement<'_> {
    /// Adds a map behind all others.
    ///
    /// # Errors
    ///
    /// As [`Spaces::replace`].
    ///
    /// # Safety
    ///
    /// The caller must hold references to all pages of the extent.
    unsafe fn push(&mut self, extent: &Extent) -> Result {
        let old = self.state.as_ref().ok_or(EINVAL)?.map.entries();
        let rest = old.get(self.at..).unwrap_or(&[]);
        self.at += rest.partition_point(|entry| entry.extent().iova < extent.iova);
        let same = old.get(self.at).filter(|entry| entry.extent() == *extent);
        let entry = match same {
            Some(entry) => entry.clone(),
            None => {
                // SAFETY: By the function requirements.
                let pages = unsafe { Pages::hold(extent.pa, extent.size) }?;
                Entry::new(
                    extent.iova,
                    extent.readable,
                    extent.writable,
                    Arc::new(pages, GFP_KERNEL)?,
                )?
            }
        };
        self.kept += usize::from(same.is_some());
        self.map.push(entry)
    }

    /// Puts the new maps in place.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    fn finish(mut self) -> Result<Snapshot> {
        let snapshot = Snapshot::new(&self.map)?;
        let map = core::mem::replace(&mut self.map, Map::new());
        self.put(map);
        Ok(snapshot)
    }

    fn put(&mut self, map: Map) {
        let Some(mut state) = self.state.take() else {
            return;
        };
        self.space.mapped.store(!map.is_empty(), Release);
        let old = core::mem::replace(&mut state.map, map);
        if self.kept == old.entries().len() {
            // Who looks at what was there may go on.
            self.space.outdate();
            return;
        }
        drop(state);
        self.space.drain(Patience::Limited);
        drop(old);
    }
}

impl Drop for Replacement<'_> {
    fn drop(&mut self) {
        self.kept = 0;
        self.put(Map::new());
    }
}
