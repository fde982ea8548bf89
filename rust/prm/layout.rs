// SPDX-License-Identifier: GPL-2.0
//! How a structure of the reference is written down, once, for both ends.
//!
//! Firmware structures are big-endian strings of bits: a field is a bit offset, counted from the
//! most significant bit of the first byte, and a width. [`layout!`](crate::layout) turns such a
//! list into a `zerocopy` structure with a typed getter and setter for each field, and into a
//! table ([`Info`]) from which traces are decoded, capability profiles are read and offsets are
//! compared with those of other drivers.

use zerocopy::{
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
    Unaligned, //
};

/// A value that a field of up to 64 bits holds.
pub trait Field: Sized {
    /// What reading gives: the value itself, or a result where not every number is one.
    type Read;

    /// The name of a number, where the reference gives it one.
    const NAMES: fn(u64) -> Option<&'static str> = |_| None;

    /// Makes the value of the field's bits, which stand in the low end of `bits`.
    fn from_bits(bits: u64) -> Self::Read;

    /// The bits of the value, in the low end.
    fn into_bits(self) -> u64;
}

macro_rules! number {
    ($($type:ty)*) => {$(
        impl Field for $type {
            type Read = Self;

            fn from_bits(bits: u64) -> Self {
                // A field is never wider than its type: `layout!` asserts it.
                bits as Self
            }

            fn into_bits(self) -> u64 {
                self.into()
            }
        }
    )*};
}

number!(u8 u16 u32 u64);

impl Field for bool {
    type Read = Self;

    fn from_bits(bits: u64) -> Self {
        bits != 0
    }

    fn into_bits(self) -> u64 {
        self.into()
    }
}

/// A number in a field of which the reference says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown(
    /// The number.
    pub u64,
);

/// What a field holds.
#[derive(Clone, Copy)]
pub enum Shape {
    /// A number of up to 64 bits, and how to name it.
    Bits(fn(u64) -> Option<&'static str>),
    /// A string of bytes.
    Bytes,
    /// Another structure.
    Part(&'static Info),
}

/// One field of a structure.
#[derive(Clone, Copy)]
pub struct FieldInfo {
    /// Its name in the reference.
    pub name: &'static str,
    /// The bits before it.
    pub offset: usize,
    /// Its width in bits.
    pub width: usize,
    /// What it holds.
    pub shape: Shape,
}

/// What there is to know of a structure without its type.
#[derive(Clone, Copy)]
pub struct Info {
    /// Its name in the C headers, without `mlx5_ifc_` and `_bits`; the whole name of a C structure
    /// that counts in bytes, `mlx5_eqe` for one; or nothing if they have none of the kind.
    pub name: &'static str,
    /// Its size in bytes.
    pub bytes: usize,
    /// Its fields in the order of their offsets.
    pub fields: &'static [FieldInfo],
}

impl Info {
    /// Finds a field by its name.
    pub fn field(&self, name: &str) -> Option<&'static FieldInfo> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Returns whether all fields lie inside the structure, in order and apart from each other.
    pub const fn is_sound(&self) -> bool {
        let mut end = 0;
        let mut i = 0;
        while i < self.fields.len() {
            let field = &self.fields[i];
            if field.offset < end || field.width == 0 {
                return false;
            }
            end = field.offset + field.width;
            match field.shape {
                Shape::Bits(_) => {
                    if field.width > 64 {
                        return false;
                    }
                }
                Shape::Bytes | Shape::Part(_) => {
                    if field.offset % 8 != 0 || field.width % 8 != 0 {
                        return false;
                    }
                }
            }
            i += 1;
        }
        end <= 8 * self.bytes
    }
}

/// A structure of the reference. Made by [`layout!`](crate::layout).
pub trait Layout:
    FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned + Clone + 'static
{
    /// Its name, size and fields.
    const INFO: Info;

    /// The structure with every bit 0.
    fn new() -> Self {
        Self::new_zeroed()
    }

    /// The structure at the beginning of `bytes`, and what follows it; nothing if it is cut short.
    fn split(bytes: &[u8]) -> Option<(&Self, &[u8])> {
        Self::ref_from_prefix(bytes).ok()
    }
}

/// Reads `width` bits (1 to 64) at bit `offset`; bits beyond the end of `bytes` read as 0.
pub fn bits(bytes: &[u8], offset: usize, width: usize) -> u64 {
    let mut value: u128 = 0;
    let first = offset / 8;
    let last = (offset + width).div_ceil(8);
    for at in first..last {
        value = (value << 8) | u128::from(bytes.get(at).copied().unwrap_or(0));
    }
    let value = value >> (8 * last - offset - width);
    (value & ((1 << width) - 1)) as u64
}

/// Writes the low `width` bits (1 to 64) of `value` at bit `offset`. Bits beyond the end of
/// `bytes`, and higher bits of `value`, are dropped.
pub fn set_bits(bytes: &mut [u8], offset: usize, width: usize, value: u64) {
    let first = offset / 8;
    let last = (offset + width).div_ceil(8);
    let shift = 8 * last - offset - width;
    let mask = ((1u128 << width) - 1) << shift;
    let value = (u128::from(value) << shift) & mask;
    for at in first..last {
        let down = 8 * (last - 1 - at);
        if let Some(byte) = bytes.get_mut(at) {
            *byte = *byte & !((mask >> down) as u8) | (value >> down) as u8;
        }
    }
}

/// Declares structures of the reference.
///
/// ```
/// use prm::{Layout, Status};
///
/// prm::layout! {
///     /// A point.
///     pub struct Point = "point", 8 {
///         /// Bits 4 to 15.
///         x: u16 @ 0x04, 12;
///         /// Of two numbers, each with a name.
///         kind: Status @ 0x10, 8;
///     }
///     /// A line.
///     pub struct Line = "line", 0x18 {
///         /// Another structure, at bit 0x40.
///         from: &Point @ 0x40;
///         /// Bytes.
///         label: [u8; 8] @ 0x80;
///     }
/// }
///
/// let mut line = Line::new();
/// line.from_mut().set_x(0x123);
/// assert_eq!(line.from().x(), 0x123);
/// ```
///
/// After the name come the C structure's name (see [`Info::name`]) and the size in bytes; after
/// each field its first bit, and its width if it is a number. That fields lie inside, in order and
/// apart is asserted when it is compiled, and so is the size.
#[macro_export]
macro_rules! layout {
    ($(
        $(#[$meta:meta])*
        $vis:vis struct $name:ident = $c:literal, $bytes:literal {
            $(
                $(#[$doc:meta])*
                $field:ident $(($alias:literal))? :
                    $(& $part:ident)? $([u8; $len:literal])? $($value:ident)?
                    @ $offset:literal $(, $width:literal)?;
            )*
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(
            Clone,
            $crate::zerocopy_derive::FromBytes,
            $crate::zerocopy_derive::IntoBytes,
            $crate::zerocopy_derive::KnownLayout,
            $crate::zerocopy_derive::Immutable,
            $crate::zerocopy_derive::Unaligned,
        )]
        #[repr(transparent)]
        $vis struct $name([u8; $bytes]);

        impl $crate::Layout for $name {
            const INFO: $crate::layout::Info = $crate::layout::Info {
                name: $c,
                bytes: $bytes,
                fields: &[$(
                    $crate::layout::FieldInfo {
                        name: $crate::layout::name!($field $($alias)?),
                        offset: $offset,
                        $(
                            width: 8 * ::core::mem::size_of::<$part>(),
                            shape: $crate::layout::Shape::Part(&<$part as $crate::Layout>::INFO),
                        )?
                        $(
                            width: 8 * $len,
                            shape: $crate::layout::Shape::Bytes,
                        )?
                        $(
                            width: $width,
                            shape: $crate::layout::Shape::Bits(
                                <$value as $crate::layout::Field>::NAMES,
                            ),
                        )?
                    },
                )*],
            };
        }

        const _: () = {
            assert!(<$name as $crate::Layout>::INFO.is_sound());
            assert!(::core::mem::size_of::<$name>() == $bytes);
            $($(assert!($width <= 8 * ::core::mem::size_of::<$value>());)?)*
        };

        #[allow(dead_code, missing_docs)]
        impl $name {
            $($crate::accessors! {
                $(#[$doc])*
                $field: $(& $part)? $([u8; $len])? $($value)? @ $offset $(, $width)?
            })*
        }

        impl ::core::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                $crate::layout::debug(&<Self as $crate::Layout>::INFO, &self.0, f)
            }
        }
    )*};
}

/// The name of a field: one that Rust has other plans for has it in brackets.
#[doc(hidden)]
#[macro_export]
macro_rules! field_name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $alias:literal) => {
        $alias
    };
}

/// The getter and the setter of one field of [`layout!`](crate::layout).
#[doc(hidden)]
#[macro_export]
macro_rules! accessors {
    ($(#[$doc:meta])* $field:ident : & $part:ident @ $offset:literal) => {
        $(#[$doc])*
        pub fn $field(&self) -> &$part {
            $crate::layout::part(&self.0, $offset)
        }

        $crate::layout::paste! {
            #[doc = concat!("Gives `", stringify!($field), "` to be written.")]
            pub fn [<$field _mut>](&mut self) -> &mut $part {
                $crate::layout::part_mut(&mut self.0, $offset)
            }
        }
    };
    ($(#[$doc:meta])* $field:ident : [u8; $len:literal] @ $offset:literal) => {
        $(#[$doc])*
        pub fn $field(&self) -> &[u8; $len] {
            $crate::layout::part(&self.0, $offset)
        }

        $crate::layout::paste! {
            #[doc = concat!("Gives `", stringify!($field), "` to be written.")]
            pub fn [<$field _mut>](&mut self) -> &mut [u8; $len] {
                $crate::layout::part_mut(&mut self.0, $offset)
            }
        }
    };
    ($(#[$doc:meta])* $field:ident : $value:ident @ $offset:literal, $width:literal) => {
        $(#[$doc])*
        pub fn $field(&self) -> <$value as $crate::layout::Field>::Read {
            <$value as $crate::layout::Field>::from_bits(
                $crate::layout::bits(&self.0, $offset, $width),
            )
        }

        $crate::layout::paste! {
            #[doc = concat!("Sets `", stringify!($field), "`.")]
            pub fn [<set_ $field>](&mut self, value: $value) -> &mut Self {
                $crate::layout::set_bits(
                    &mut self.0,
                    $offset,
                    $width,
                    <$value as $crate::layout::Field>::into_bits(value),
                );
                self
            }
        }
    };
}

/// Declares numbers that have names in the reference.
///
/// ```
/// prm::values! {
///     /// Ways of an event.
///     pub enum Way: u8 {
///         /// By interrupt.
///         MSIX = 1,
///     }
/// }
/// assert_eq!(Way::try_from(1u8).unwrap(), Way::MSIX);
/// assert_eq!(Way::MSIX.name(), "MSIX");
/// ```
#[macro_export]
macro_rules! values {
    ($(
        $(#[$meta:meta])*
        $vis:vis enum $name:ident : $repr:ident {
            $($(#[$doc:meta])* $value:ident = $number:literal,)*
        }
    )*) => {$(
        $(#[$meta])*
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr($repr)]
        $vis enum $name {
            $($(#[$doc])* $value = $number,)*
        }

        impl $name {
            /// Every one, in the order of the reference.
            $vis const ALL: &[Self] = &[$(Self::$value),*];

            /// The name in the reference.
            $vis const fn name(self) -> &'static str {
                match self {
                    $(Self::$value => stringify!($value),)*
                }
            }
        }

        impl TryFrom<$repr> for $name {
            type Error = $crate::layout::Unknown;

            fn try_from(number: $repr) -> Result<Self, Self::Error> {
                match number {
                    $($number => Ok(Self::$value),)*
                    other => Err($crate::layout::Unknown(other.into())),
                }
            }
        }

        impl $crate::layout::Field for $name {
            type Read = Result<Self, $crate::layout::Unknown>;

            const NAMES: fn(u64) -> Option<&'static str> = |number| {
                let number = $repr::try_from(number).ok()?;
                Self::try_from(number).ok().map(Self::name)
            };

            fn from_bits(bits: u64) -> Self::Read {
                $repr::try_from(bits)
                    .map_err(|_| $crate::layout::Unknown(bits))
                    .and_then(Self::try_from)
            }

            fn into_bits(self) -> u64 {
                (self as $repr).into()
            }
        }
    )*};
}

/// What the macros need and is nobody else's business.
mod support {
    use super::{
        bits,
        Info,
        Shape, //
    };

    use core::fmt;

    use zerocopy::{
        FromBytes,
        Immutable,
        IntoBytes,
        KnownLayout,
        Unaligned, //
    };

    #[cfg(CONFIG_RUST)]
    pub use kernel::macros::paste;
    #[cfg(not(CONFIG_RUST))]
    pub use pastey::paste;

    /// The part at bit `offset` of `bytes`, in which it lies: `Info::is_sound` was asserted.
    pub fn part<T: FromBytes + KnownLayout + Immutable + Unaligned>(
        bytes: &[u8],
        offset: usize,
    ) -> &T {
        match T::ref_from_prefix(&bytes[offset / 8..]) {
            Ok((part, _)) => part,
            Err(_) => unreachable!(),
        }
    }

    /// The same, to be written.
    pub fn part_mut<T: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned>(
        bytes: &mut [u8],
        offset: usize,
    ) -> &mut T {
        match T::mut_from_prefix(&mut bytes[offset / 8..]) {
            Ok((part, _)) => part,
            Err(_) => unreachable!(),
        }
    }

    /// Shows the fields that are not 0.
    pub fn debug(info: &Info, bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Part<'a>(&'a Info, &'a [u8]);

        impl fmt::Debug for Part<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                debug(self.0, self.1, f)
            }
        }

        let mut shown = f.debug_struct(info.name);
        for field in info.fields {
            let start = field.offset / 8;
            let end = (field.offset + field.width).div_ceil(8);
            let Some(window) = bytes.get(start..end) else {
                break;
            };
            if window.iter().all(|byte| *byte == 0) {
                continue;
            }
            match field.shape {
                Shape::Bytes => shown.field(field.name, &window),
                Shape::Part(part) => shown.field(field.name, &Part(part, window)),
                Shape::Bits(names) => {
                    let value = bits(bytes, field.offset, field.width);
                    match names(value) {
                        Some(name) => shown.field(field.name, &format_args!("{name}")),
                        None if value == 0 => continue,
                        None => shown.field(field.name, &format_args!("{value:#x}")),
                    }
                }
            };
        }
        shown.finish_non_exhaustive()
    }
}

#[doc(hidden)]
pub use crate::field_name as name;
#[doc(hidden)]
pub use support::{
    debug,
    part,
    part_mut,
    paste, //
};
