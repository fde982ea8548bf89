// SPDX-License-Identifier: GPL-2.0

//! Ethernet frames in the hands of the network stack.
//!
//! A sender leaves checksums and the cutting of large TCP frames to the device, which leaves them
//! to the receiver if that one negotiated it. If it did not, the kernel's own code does the work
//! here: the frame is copied into a packet of the network stack, and what comes out is copied to
//! the receiver.
//!
//! C headers: [`include/linux/skbuff.h`](srctree/include/linux/skbuff.h),
//! [`include/linux/virtio_net.h`](srctree/include/linux/virtio_net.h)

use core::ptr::NonNull;

use kernel::{
    bindings,
    error::{
        from_err_ptr,
        to_result, //
    },
    ffi::c_int,
    prelude::*, //
};

use virtio::{
    memory::{
        Access,
        Fault, //
    },
    ring::Segment, //
};

use crate::memory::{
    Cursor,
    View, //
};

/// A checksum that is not complete yet (virtio 1.3, 5.1.6.2: VIRTIO_NET_HDR_F_NEEDS_CSUM).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// From which byte of the frame on to sum.
    pub start: u16,
    /// Where the sum goes, in bytes from `start`.
    pub offset: u16,
}

/// How a frame is to be cut (virtio 1.3, 5.1.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// TCP over IPv6, not IPv4.
    pub ipv6: bool,
    /// VIRTIO_NET_HDR_GSO_ECN: only the first segment has the CWR flag.
    pub ecn: bool,
    /// The greatest number of bytes behind the headers of a segment.
    pub size: u16,
}

/// A frame of its own, in kernel memory.
///
/// # Invariants
///
/// The pointer is to a packet that nobody else refers to and that is in no list.
pub struct Frame(NonNull<bindings::sk_buff>);

// SAFETY: A packet nobody else refers to belongs to no task.
unsafe impl Send for Frame {}

impl Frame {
    /// The longest frame that is taken, in bytes: the largest of IP, and before it an Ethernet
    /// header with two VLAN tags.
    const MAX: usize = 65535 + 14 + 2 * 4;

    /// Makes a frame of `len` bytes: first `head`, which may be what was read of it before, then
    /// what is in `segments`, beginning at byte `at` of them taken together. May sleep.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if it is empty, too long, or shorter than `head`; `EFAULT` if it cannot be read;
    /// `ENOMEM`.
    pub fn gather(
        head: &[u8],
        view: &View,
        segments: &[Segment],
        at: usize,
        len: usize,
    ) -> Result<Self> {
        if len == 0 || len > Self::MAX || len < head.len() {
            return Err(EMSGSIZE);
        }
        // SAFETY: Any length may be asked for.
        let skb = unsafe { vdpa_bindings::rust_vdpa_skb_alloc(len) };
        // INVARIANT: The packet is new.
        let this = Self(NonNull::new(skb).ok_or(ENOMEM)?);

        // SAFETY: There are `head.len()` bytes at the source, and room for them in the packet, which
        // has `len` bytes. That is no more than `Self::MAX`.
        to_result(unsafe {
            bindings::skb_store_bits(skb, 0, head.as_ptr().cast(), head.len() as c_int)
        })?;

        let mut cursor = Cursor::new(segments, at);
        let mut done = head.len();
        while done < len {
            let (addr, count) = cursor.next(len - done).ok_or(EFAULT)?;
            let piece = view.piece(addr, count, Access::Read).map_err(|_| EFAULT)?;
            cursor.back(count - piece.len);
            // SAFETY: There are `piece.len` bytes at the source, and room for them in the packet,
            // which has `len` bytes. No number is greater than `Self::MAX`.
            to_result(unsafe {
                bindings::skb_store_bits(
                    skb,
                    done as c_int,
                    piece.host.as_ptr().cast(),
                    piece.len as c_int,
                )
            })?;
            done += piece.len;
        }
        Ok(this)
    }

    /// Copies the frame into `segments`, beginning at byte `at` of them taken together.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if they cannot be written, or are too short. Some bytes may have been copied.
    pub fn scatter(&self, view: &View, segments: &[Segment], at: usize) -> Result<(), Fault> {
        let len = self.len();
        let mut cursor = Cursor::new(segments, at);
        let mut done = 0;
        while done < len {
            let (addr, count) = cursor.next(len - done).ok_or(Fault::write(0))?;
            let piece = view.piece(addr, count, Access::Write)?;
            cursor.back(count - piece.len);
            // SAFETY: There is room for `piece.len` bytes at the target, and the packet has them.
            let result = to_result(unsafe {
                bindings::skb_copy_bits(
                    self.0.as_ptr(),
                    done as c_int,
                    piece.host.as_ptr().cast(),
                    piece.len as c_int,
                )
            });
            result.map_err(|_| Fault::write(addr))?;
            done += piece.len;
        }
        Ok(())
    }

    /// The length in bytes.
    #[expect(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        // SAFETY: By the type invariant the packet is valid, and ours.
        unsafe { vdpa_bindings::rust_vdpa_skb_len(self.0.as_ptr()) as usize }
    }

    /// Completes a checksum.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is not within the frame, `ENOMEM`.
    pub fn checksum(self, checksum: Checksum) -> Result<Self> {
        self.set_header(Some(checksum), None)?;
        // SAFETY: By the type invariant the packet is valid, and ours. It is not for segmentation,
        // and where the checksum is was checked by C when the header was set.
        to_result(unsafe { vdpa_bindings::skb_checksum_help(self.0.as_ptr()) })?;
        Ok(self)
    }

    /// Cuts a frame, completing the checksums. If the frame is short enough already, that is the
    /// one that comes out.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the frame is not what the arguments say, or has no checksum to complete, which
    /// a driver must not send (virtio 1.3, 5.1.6.2.1); `ENOMEM`.
    pub fn segment(
        self,
        checksum: Option<Checksum>,
        segmentation: Segmentation,
    ) -> Result<Segments> {
        let checksum = checksum.ok_or(EINVAL)?;
        self.set_header(Some(checksum), Some(segmentation))?;
        // SAFETY: By the type invariant the packet is valid.
        if !unsafe { vdpa_bindings::rust_vdpa_skb_is_gso(self.0.as_ptr()) } {
            let frame = self.checksum(checksum)?;
            return Ok(Segments(Some(frame.into_raw())));
        }
        // SAFETY: By the type invariant the packet is valid, and ours. It stays ours.
        let list = from_err_ptr(unsafe { vdpa_bindings::rust_vdpa_skb_segment(self.0.as_ptr()) })?;
        // INVARIANT: The list is a new one. C gives none if there is nothing to be cut.
        Ok(Segments(Some(NonNull::new(list).ok_or(EINVAL)?)))
    }

    /// Tells the network stack what the sender said of the frame. C checks it against the frame.
    fn set_header(&self, checksum: Option<Checksum>, segmentation: Option<Segmentation>) -> Result {
        let mut header = vdpa_bindings::virtio_net_hdr::default();
        if let Some(checksum) = checksum {
            // CAST: The constants of the header are bytes.
            header.flags = vdpa_bindings::VIRTIO_NET_HDR_F_NEEDS_CSUM as u8;
            header.csum_start = checksum.start.to_le();
            header.csum_offset = checksum.offset.to_le();
        }
        if let Some(segmentation) = segmentation {
            let mut gso_type = if segmentation.ipv6 {
                vdpa_bindings::VIRTIO_NET_HDR_GSO_TCPV6
            } else {
                vdpa_bindings::VIRTIO_NET_HDR_GSO_TCPV4
            };
            if segmentation.ecn {
                gso_type |= vdpa_bindings::VIRTIO_NET_HDR_GSO_ECN;
            }
            // CAST: As above.
            header.gso_type = gso_type as u8;
            header.gso_size = segmentation.size.to_le();
        }
        // SAFETY: By the type invariant the packet is valid, and ours.
        to_result(unsafe { vdpa_bindings::rust_vdpa_skb_set_header(self.0.as_ptr(), &header) })
    }

    fn into_raw(self) -> NonNull<bindings::sk_buff> {
        let skb = self.0;
        core::mem::forget(self);
        skb
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the packet is ours.
        unsafe { vdpa_bindings::rust_vdpa_skb_free(self.0.as_ptr()) };
    }
}

/// What came out of [`Frame::segment`], in order.
///
/// # Invariants
///
/// The pointer is to the first of a list of packets that nobody else refers to.
pub struct Segments(Option<NonNull<bindings::sk_buff>>);

// SAFETY: As for `Frame`.
unsafe impl Send for Segments {}

impl Iterator for Segments {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        let first = self.0?;
        // SAFETY: By the type invariant the packet is valid, and ours.
        let next = unsafe { vdpa_bindings::rust_vdpa_skb_unlink_next(first.as_ptr()) };
        self.0 = NonNull::new(next);
        // INVARIANT: The packet was just taken out of the list.
        Some(Frame(first))
    }
}

impl Drop for Segments {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}
