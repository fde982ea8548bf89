// SPDX-License-Identifier: GPL-2.0

//! A directory of a module in debugfs, for all devices that its drivers have.
//!
//! C header: [`include/linux/debugfs.h`](srctree/include/linux/debugfs.h)

use kernel::{
    debugfs::Dir,
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Full,
        Release, //
    }, //
};

kernel::sync::global_lock! {
    // SAFETY: `Views::new` initialises it before anybody else uses it: `READY` says so.
    unsafe(uninit) static DIR: Mutex<Option<Dir>> = None;
}

/// How far the lock is: not touched, being initialised, ready.
static READY: Atomic<u32> = Atomic::new(NEW);
const NEW: u32 = 0;
const BEGUN: u32 = 1;
const DONE: u32 = 2;

/// The module's directory, which goes with this value. A module has one at a time.
pub struct Views(());

impl Views {
    /// Makes the directory. To be called by the module before its driver is registered. Without
    /// debugfs, or if it fails, there is just nothing to be seen.
    pub fn new(name: &CStr) -> Self {
        if READY.cmpxchg(NEW, BEGUN, Full).is_ok() {
            // SAFETY: Only one comes here, and once.
            unsafe { DIR.init() };
            READY.store(DONE, Release);
        }
        if READY.load(Acquire) == DONE {
            *DIR.lock() = Some(Dir::new(name));
        }
        Self(())
    }

    /// A directory below that of the module, if that is there. It goes with the value that is
    /// returned, and all of what was made of it.
    pub fn dir(name: &CStr) -> Option<Dir> {
        if READY.load(Acquire) != DONE {
            return None;
        }
        DIR.lock().as_ref().map(|dir| dir.subdir(name))
    }
}

impl Drop for Views {
    fn drop(&mut self) {
        if READY.load(Acquire) == DONE {
            let dir = DIR.lock().take();
            drop(dir);
        }
    }
}
