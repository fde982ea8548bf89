// SPDX-License-Identifier: GPL-2.0
//! The arithmetic of event indices (virtio 1.3, 2.7.7.1 and 2.8.10).

/// Returns whether the entry that one side asked to be notified of is among the `since` entries
/// that the other one published last, used or available ones.
///
/// `ahead` is the distance from that entry to the next one to be published: 1 if it was the last
/// one, 0 if it is the next one.
#[inline]
pub(crate) fn passed(ahead: u32, since: u32) -> bool {
    ahead.wrapping_sub(1) < since
}

#[cfg(test)]
mod tests {
    use super::passed;

    #[test]
    fn an_entry_is_passed_once() {
        // Entries 4, 5 and 6 became used; the next one is 7.
        for (event, wanted) in [(3, false), (4, true), (5, true), (6, true), (7, false)] {
            let ahead = 7u16.wrapping_sub(event);
            assert_eq!(passed(ahead.into(), 3), wanted, "event {event}");
        }
    }

    #[test]
    fn nothing_is_passed_by_nothing() {
        assert!(!passed(0, 0));
        assert!(!passed(1, 0));
    }

    #[test]
    fn indices_wrap() {
        let ahead = 1u16.wrapping_sub(65535);
        assert!(passed(ahead.into(), 2));
        assert!(!passed(ahead.into(), 1));
    }
}
