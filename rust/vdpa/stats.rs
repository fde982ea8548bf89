// SPDX-License-Identifier: GPL-2.0

//! Statistics for the `vdpa` tool.
//!
//! C header: [`include/uapi/linux/vdpa.h`](srctree/include/uapi/linux/vdpa.h)

use core::marker::PhantomData;

use kernel::{
    bindings,
    error::to_result,
    prelude::*, //
};

/// The statistics of a virtqueue, being written into a netlink message.
///
/// # Invariants
///
/// `msg` is a valid message, and `extack` a valid place for a reason or null, for `'a`.
pub struct Stats<'a> {
    msg: *mut bindings::sk_buff,
    extack: *mut bindings::netlink_ext_ack,
    _message: PhantomData<&'a mut bindings::sk_buff>,
}

impl Stats<'_> {
    /// # Safety
    ///
    /// `msg` must be valid, and `extack` valid or null, for as long as the value is used.
    pub(crate) unsafe fn new(
        msg: *mut bindings::sk_buff,
        extack: *mut bindings::netlink_ext_ack,
    ) -> Self {
        // INVARIANT: By the function requirements.
        Self {
            msg,
            extack,
            _message: PhantomData,
        }
    }

    /// Adds a number with a name, which is at most 31 bytes long by convention.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if the message is full.
    pub fn put(&mut self, name: &CStr, value: u64) -> Result {
        let bytes = name.to_bytes_with_nul();
        // CAST: These are small constants of the netlink interface.
        let (name_type, value_type, pad) = (
            vdpa_bindings::VDPA_ATTR_DEV_VENDOR_ATTR_NAME as i32,
            vdpa_bindings::VDPA_ATTR_DEV_VENDOR_ATTR_VALUE as i32,
            vdpa_bindings::VDPA_ATTR_PAD as i32,
        );
        let len = i32::try_from(bytes.len())?;
        // SAFETY: By the type invariant the message is valid. It checks whether there is room.
        to_result(unsafe { bindings::nla_put(self.msg, name_type, len, bytes.as_ptr().cast()) })?;
        // SAFETY: As above.
        to_result(unsafe {
            bindings::nla_put_64bit(
                self.msg,
                value_type,
                8,
                core::ptr::from_ref(&value).cast(),
                pad,
            )
        })
    }

    /// Says why there are no statistics. The operation then returns an error.
    pub fn refuse(&mut self, reason: &CStr) {
        if self.extack.is_null() {
            return;
        }
        // SAFETY: By the type invariant the extack is valid, and ours while the operation runs.
        let extack = unsafe { &mut *self.extack };
        // The reason is copied: the message is sent when this module may be gone.
        let room = extack._msg_buf.len() - 1;
        extack._msg_buf.fill(0);
        for (to, from) in extack
            ._msg_buf
            .iter_mut()
            .zip(reason.to_bytes().iter().take(room))
        {
            *to = *from;
        }
        extack._msg = extack._msg_buf.as_ptr();
    }
}
