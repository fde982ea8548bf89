// SPDX-License-Identifier: GPL-2.0

//! Messages that somebody else can provoke.

use kernel::{
    bindings,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    time::NSEC_PER_SEC, //
};

/// Lets one message through in five seconds.
///
/// # Examples
///
/// ```ignore
/// static BROKEN: vdpa::RateLimit = vdpa::RateLimit::new();
///
/// if BROKEN.allow() {
///     pr_warn!("broken ring\n");
/// }
/// ```
pub struct RateLimit {
    /// When the next message may come, in nanoseconds of the monotonic clock.
    next: Atomic<i64>,
}

impl RateLimit {
    const INTERVAL: i64 = 5 * NSEC_PER_SEC;

    /// A limit that lets the first message through.
    pub const fn new() -> Self {
        Self {
            next: Atomic::new(0),
        }
    }

    /// Whether a message may be printed now.
    pub fn allow(&self) -> bool {
        // SAFETY: `ktime_get` has no requirements but that time keeping runs.
        let now = unsafe { bindings::ktime_get() };
        let next = self.next.load(Relaxed);
        // Of several at once, the one that moves the time speaks.
        now >= next
            && self
                .next
                .cmpxchg(next, now.saturating_add(Self::INTERVAL), Relaxed)
                .is_ok()
    }
}

impl Default for RateLimit {
    fn default() -> Self {
        Self::new()
    }
}
