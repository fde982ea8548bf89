// SPDX-License-Identifier: GPL-2.0
//! The arithmetic of event indices (virtio 1.3, 2.7.7.1 and 2.8.10).

/// Returns whether the entry that a driver asked to be notified of is among the `since` entries
/// that became used last.
///
/// `ahead` is the distance from that entry to the next one to become used: 1 if it was the last
/// one, 0 if it is the next one.
#[inline]
pub(super) fn passed(ahead: u32, since: u32) -> bool {
    ahead.wrapping_sub(1) < since
}
