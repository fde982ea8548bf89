// SPDX-License-Identifier: GPL-2.0

//! From one driver's memory into another's.

use kernel::bindings;

use virtio::{
    memory::{
        Access,
        Fault, //
    },
    ring::Segment, //
};

use super::view::{
    Cursor,
    View, //
};

/// Whose memory could not be accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyError {
    /// That which was read.
    Source(Fault),
    /// That which was written.
    Target(Fault),
}

/// Copies `len` bytes from one list of segments into another, which may be in another address
/// space or of another device, each beginning at a byte of the segments taken together.
///
/// The bytes are copied once, directly.
///
/// # Errors
///
/// The [`Fault`] of one side, also if its segments are too short. Some bytes may have been copied.
pub fn copy(
    from: &View,
    from_segments: &[Segment],
    from_at: usize,
    to: &View,
    to_segments: &[Segment],
    to_at: usize,
    len: usize,
) -> Result<(), CopyError> {
    let mut source = Cursor::new(from_segments, from_at);
    let mut target = Cursor::new(to_segments, to_at);
    let mut left = len;
    while left > 0 {
        let (addr, count) = source.next(left).ok_or(CopyError::Source(Fault::read(0)))?;
        let read = from
            .piece(addr, count, Access::Read)
            .map_err(CopyError::Source)?;
        source.back(count - read.len);

        // What was found at once on one side is spread over the other as it comes.
        let mut done = 0;
        while done < read.len {
            let rest = read.len - done;
            let (addr, count) = target
                .next(rest)
                .ok_or(CopyError::Target(Fault::write(0)))?;
            let written = to
                .piece(addr, count, Access::Write)
                .map_err(CopyError::Target)?;
            target.back(count - written.len);
            // SAFETY: There are `written.len` bytes at both places: on the reading side because
            // it is not more than `rest`. They may overlap, as both sides may be one memory.
            unsafe {
                bindings::memmove(
                    written.host.as_ptr().cast(),
                    read.host.as_ptr().add(done).cast(),
                    written.len,
                );
            }
            done += written.len;
        }
        left -= read.len;
    }
    Ok(())
}
