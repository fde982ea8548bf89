// SPDX-License-Identifier: GPL-2.0

//! Which legacy drivers a device serves, as it is told and asked from outside: two attributes in
//! the device's directory in sysfs, for administrators and for VMMs, and bits that VMMs see among
//! the features of vhost-vdpa.
//!
//! C header: [`include/linux/device.h`](srctree/include/linux/device.h)

use core::{
    marker::PhantomData,
    ptr, //
};

use kernel::{
    bindings,
    container_of,
    ffi::{
        c_char,
        c_ulong, //
    },
    page::PAGE_SIZE,
    prelude::*, //
};
use vdpa_bindings::vdpa_device;
use virtio::{
    byte_order::ByteOrder,
    lifecycle::{
        Legacy,
        LegacySupport, //
    }, //
};

use crate::{
    ops::Operations,
    Device, //
};

/// Backend feature `VHOST_BACKEND_F_LEGACY`: the device serves legacy drivers.
const F_LEGACY: u64 = 1 << 9;

/// Backend feature `VHOST_BACKEND_F_LEGACY_BE`: it serves those of big-endian guests, too, if it is
/// told that they are such.
const F_LEGACY_BE: u64 = 1 << 10;

/// What VMMs are told of the legacy drivers a device can serve: none of the bits if it is modern
/// only.
pub(crate) fn backend_features(support: LegacySupport) -> u64 {
    match support {
        LegacySupport::None => 0,
        LegacySupport::LittleEndian => F_LEGACY,
        LegacySupport::AnyEndian => F_LEGACY | F_LEGACY_BE,
    }
}

/// The words of the attribute `legacy`.
const LEGACY: [(&[u8], Legacy); 3] = [
    (b"off", Legacy::Off),
    (b"allow", Legacy::Allow),
    (b"require", Legacy::Require),
];

/// The words of the attribute `legacy_byte_order`.
const BYTE_ORDER: [(&[u8], ByteOrder); 2] =
    [(b"little", ByteOrder::Little), (b"big", ByteOrder::Big)];

/// An attribute as C has it, which everybody may read and root may write.
const fn attribute(name: &'static CStr, show: Show, store: Store) -> bindings::device_attribute {
    // SAFETY: Its members are numbers and pointers; with lockdep there are more than those below.
    let mut attr: bindings::attribute = unsafe { core::mem::zeroed() };
    attr.name = name.to_bytes_with_nul().as_ptr();
    attr.mode = 0o644;
    bindings::device_attribute {
        attr,
        __bindgen_anon_1: bindings::device_attribute__bindgen_ty_1 { show: Some(show) },
        __bindgen_anon_2: bindings::device_attribute__bindgen_ty_2 { store: Some(store) },
    }
}

/// How C reads an attribute: into a page, from the beginning.
type Show = unsafe extern "C" fn(
    *mut bindings::device,
    *mut bindings::device_attribute,
    *mut c_char,
) -> isize;

/// How C writes an attribute.
type Store = unsafe extern "C" fn(
    *mut bindings::device,
    *mut bindings::device_attribute,
    *const c_char,
    c_ulong,
) -> isize;

/// The attributes of a device with the data `T`.
///
/// The driver core makes them when the device is registered, before anybody is told of it or a
/// driver bound, and takes them away first when it is unregistered: it waits for who reads or
/// writes one just then, and a file that is open yet leads nowhere.
///
/// # Safety
///
/// The functions are for C to call, for a device that was made with [`Self::GROUPS`].
pub(crate) struct Attributes<T: Operations>(PhantomData<T>);

impl<T: Operations> Attributes<T> {
    const LEGACY: &'static bindings::device_attribute =
        &attribute(c"legacy", Self::show_legacy, Self::store_legacy);

    const BYTE_ORDER: &'static bindings::device_attribute = &attribute(
        c"legacy_byte_order",
        Self::show_byte_order,
        Self::store_byte_order,
    );

    const LIST: &'static [*mut bindings::attribute; 3] = &[
        ptr::from_ref(&Self::LEGACY.attr).cast_mut(),
        ptr::from_ref(&Self::BYTE_ORDER.attr).cast_mut(),
        ptr::null_mut(),
    ];

    const GROUP: &'static bindings::attribute_group = &bindings::attribute_group {
        name: ptr::null(),
        __bindgen_anon_1: bindings::attribute_group__bindgen_ty_1 { is_visible: None },
        is_bin_visible: None,
        bin_size: None,
        __bindgen_anon_2: bindings::attribute_group__bindgen_ty_2 {
            attrs: Self::LIST.as_ptr().cast_mut(),
        },
        bin_attrs: ptr::null(),
    };

    /// For the `groups` member of a device before it is registered. C only reads it: of a device
    /// whose operations have nothing to say of legacy drivers, it has no attributes.
    pub(crate) const GROUPS: &'static [*const bindings::attribute_group; 2] = {
        assert!(
            T::HAS_GET_LEGACY_SUPPORT == T::HAS_GET_LEGACY
                && T::HAS_GET_LEGACY == T::HAS_SET_LEGACY
                && T::HAS_SET_LEGACY == T::HAS_GET_BYTE_ORDER
                && T::HAS_GET_BYTE_ORDER == T::HAS_SET_BYTE_ORDER,
            "the operations for legacy drivers come together"
        );
        if T::HAS_GET_LEGACY {
            &[Self::GROUP, ptr::null()]
        } else {
            &[ptr::null(); 2]
        }
    };

    /// The device that an attribute belongs to.
    ///
    /// # Safety
    ///
    /// `dev` must be what C passed to a function of an attribute; the reference must not outlive
    /// the call.
    unsafe fn device<'a>(dev: *mut bindings::device) -> &'a Device<T> {
        // SAFETY: By the type's contract with C, the device is that of a vDPA device of ours. It is
        // registered until the call returns, so its parts are set.
        unsafe { Device::from_raw(container_of!(dev, vdpa_device, dev)) }
    }

    /// # Safety
    ///
    /// See [`Attributes`].
    unsafe extern "C" fn show_legacy(
        dev: *mut bindings::device,
        _attr: *mut bindings::device_attribute,
        to: *mut c_char,
    ) -> isize {
        // SAFETY: By the type's contract with C.
        let legacy = T::get_legacy(unsafe { Self::device(dev) });
        // SAFETY: C passes a page.
        unsafe { show(&LEGACY, legacy, to) }
    }

    /// # Safety
    ///
    /// See [`Attributes`].
    unsafe extern "C" fn store_legacy(
        dev: *mut bindings::device,
        _attr: *mut bindings::device_attribute,
        from: *const c_char,
        len: c_ulong,
    ) -> isize {
        // SAFETY: By the type's contract with C.
        let dev = unsafe { Self::device(dev) };
        // SAFETY: C passes that many bytes.
        unsafe { store(&LEGACY, from, len, |legacy| T::set_legacy(dev, legacy)) }
    }

    /// # Safety
    ///
    /// See [`Attributes`].
    unsafe extern "C" fn show_byte_order(
        dev: *mut bindings::device,
        _attr: *mut bindings::device_attribute,
        to: *mut c_char,
    ) -> isize {
        // SAFETY: By the type's contract with C.
        let order = T::get_byte_order(unsafe { Self::device(dev) }, None);
        // SAFETY: C passes a page.
        unsafe { show(&BYTE_ORDER, order, to) }
    }

    /// # Safety
    ///
    /// See [`Attributes`].
    unsafe extern "C" fn store_byte_order(
        dev: *mut bindings::device,
        _attr: *mut bindings::device_attribute,
        from: *const c_char,
        len: c_ulong,
    ) -> isize {
        // SAFETY: By the type's contract with C.
        let dev = unsafe { Self::device(dev) };
        // SAFETY: C passes that many bytes.
        unsafe {
            store(&BYTE_ORDER, from, len, |order| {
                T::set_byte_order(dev, None, order)
            })
        }
    }
}

/// Writes the word for `value` and the end of a line to `to`, and returns the length.
///
/// # Safety
///
/// A page may be written to at `to`.
unsafe fn show<V: Copy + PartialEq>(words: &[(&[u8], V)], value: V, to: *mut c_char) -> isize {
    // SAFETY: By the function requirements, and any bytes will do.
    let page = unsafe { core::slice::from_raw_parts_mut(to.cast::<u8>(), PAGE_SIZE) };
    let Some((word, _)) = words.iter().find(|(_, meaning)| *meaning == value) else {
        return 0;
    };
    let line = Iterator::chain(word.iter(), b"\n");
    let written = page.iter_mut().zip(line).map(|(to, from)| *to = *from);
    // No more than a page, which fits.
    written.count() as isize
}

/// Finds the value of the word at `from`, and has it `set`. Returns the length, or an error.
///
/// # Safety
///
/// There must be `len` bytes at `from`.
unsafe fn store<V: Copy>(
    words: &[(&[u8], V)],
    from: *const c_char,
    len: usize,
    set: impl FnOnce(V) -> Result,
) -> isize {
    // SAFETY: By the function requirements.
    let line = unsafe { core::slice::from_raw_parts(from.cast::<u8>(), len) };
    let word = line.strip_suffix(b"\n").unwrap_or(line);
    let value = words.iter().find(|(known, _)| *known == word);
    let result = value.ok_or(EINVAL).and_then(|(_, value)| set(*value));
    match result {
        // C passes no more than a page, which fits.
        Ok(()) => len as isize,
        Err(error) => error.to_errno() as isize,
    }
}
