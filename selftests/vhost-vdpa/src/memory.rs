// SPDX-License-Identifier: GPL-2.0
//! Memory of this process that a device is given.

use std::io::{self, Error};
use std::ptr::NonNull;

/// Page size of the kernel, in bytes.
pub(crate) const PAGE: usize = 4096;

/// Anonymous pages, zeroed, returned when dropped.
pub(crate) struct Pages {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: The pages belong to the value, which gives out their address only.
unsafe impl Send for Pages {}
// SAFETY: As above.
unsafe impl Sync for Pages {}

impl Pages {
    /// At least `length` bytes that can be read and written.
    pub(crate) fn new(length: usize) -> io::Result<Self> {
        Self::with_protection(length, libc::PROT_READ | libc::PROT_WRITE)
    }

    /// At least `length` bytes that can be read only.
    pub(crate) fn read_only(length: usize) -> io::Result<Self> {
        Self::with_protection(length, libc::PROT_READ)
    }

    fn with_protection(length: usize, protection: i32) -> io::Result<Self> {
        let length = length.next_multiple_of(PAGE);
        // SAFETY: A new mapping at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                protection,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        match NonNull::new(start.cast()) {
            Some(start) => Ok(Pages { start, length }),
            None => Err(Error::from_raw_os_error(libc::ENOMEM)),
        }
    }

    /// Address of the first byte, for the kernel.
    pub(crate) fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    /// Length in bytes, whole pages.
    pub(crate) fn length(&self) -> usize {
        self.length
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: The mapping is the value's own and goes with it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}
