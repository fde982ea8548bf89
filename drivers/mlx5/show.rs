// SPDX-License-Identifier: GPL-2.0
//! Printing values of crates that know no kernel.

use core::fmt::Display;

use kernel::fmt;

/// Shows with the kernel's formatting what knows only that of `core`.
pub(crate) struct Show<T>(pub(crate) T);

impl<T: Display> fmt::Display for Show<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(&self.0, f)
    }
}
