// SPDX-License-Identifier: GPL-2.0
//! What the kernel says.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

/// What the kernel says from now on.
pub(crate) struct Log(File);

impl Log {
    pub(crate) fn follow() -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")?;
        file.seek(SeekFrom::End(0))?;
        Ok(Log(file))
    }

    /// Whether it has said this, which is read once.
    pub(crate) fn says(&mut self, text: &str) -> io::Result<bool> {
        let mut record = [0; 8192];
        loop {
            match self.0.read(&mut record) {
                Ok(length) if String::from_utf8_lossy(&record[..length]).contains(text) => {
                    return Ok(true)
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                // Some of it is gone already; what comes next is there.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
