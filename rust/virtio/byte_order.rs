// SPDX-License-Identifier: GPL-2.0

//! The byte order of what driver and device share.
//!
//! A driver that acknowledged VERSION_1 uses little-endian everywhere; a legacy driver uses the
//! byte order of its guest (virtio 1.3, 2.4.3, 2.6.1 and 5.1.6.1).

/// The byte order of rings, headers, configuration fields and control commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ByteOrder {
    /// Least significant byte first: every driver of virtio 1.0 and later, and legacy drivers of
    /// little-endian guests.
    #[default]
    Little,
    /// Most significant byte first: legacy drivers of big-endian guests only.
    Big,
}

/// Defines the conversions of one unsigned integer type.
macro_rules! conversions {
    ($int:ident, $len:literal, $read:ident, $write:ident, $swap:ident) => {
        #[doc = concat!("Returns the `", stringify!($int), "` that `bytes` hold in this order.")]
        #[inline]
        pub const fn $read(self, bytes: [u8; $len]) -> $int {
            match self {
                Self::Little => $int::from_le_bytes(bytes),
                Self::Big => $int::from_be_bytes(bytes),
            }
        }

        #[doc = concat!("Returns the bytes of a `", stringify!($int), "` in this order.")]
        #[inline]
        pub const fn $write(self, value: $int) -> [u8; $len] {
            match self {
                Self::Little => value.to_le_bytes(),
                Self::Big => value.to_be_bytes(),
            }
        }

        #[doc = concat!("Converts a `", stringify!($int), "` between this order and the native one.")]
        ///
        /// It serves words loaded from and stored to shared memory as they are. The conversion is
        /// its own inverse.
        #[inline]
        pub const fn $swap(self, raw: $int) -> $int {
            match self {
                Self::Little => raw.to_le(),
                Self::Big => raw.to_be(),
            }
        }
    };
}

impl ByteOrder {
    /// The byte order of the machine this code runs on.
    pub const NATIVE: Self = if cfg!(target_endian = "big") {
        Self::Big
    } else {
        Self::Little
    };

    conversions!(u16, 2, read_u16, write_u16, swap_u16);
    conversions!(u32, 4, read_u32, write_u32, swap_u32);
    conversions!(u64, 8, read_u64, write_u64, swap_u64);

    /// Returns whether this is [`ByteOrder::Big`].
    #[inline]
    pub const fn is_big(self) -> bool {
        matches!(self, Self::Big)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_in_the_order_named() {
        assert_eq!(ByteOrder::Little.read_u16([0x34, 0x12]), 0x1234);
        assert_eq!(ByteOrder::Big.read_u16([0x12, 0x34]), 0x1234);
        assert_eq!(
            ByteOrder::Little.write_u32(0x1234_5678),
            [0x78, 0x56, 0x34, 0x12]
        );
        assert_eq!(
            ByteOrder::Big.write_u32(0x1234_5678),
            [0x12, 0x34, 0x56, 0x78]
        );
        assert_eq!(ByteOrder::Big.read_u64([0, 0, 0, 0, 0, 0, 1, 2]), 0x102);
    }

    #[test]
    fn swapping_agrees_with_bytes_and_is_its_own_inverse() {
        for order in [ByteOrder::Little, ByteOrder::Big] {
            let raw = u16::from_ne_bytes(order.write_u16(0xa1b2));
            assert_eq!(order.swap_u16(raw), 0xa1b2);
            assert_eq!(order.swap_u16(order.swap_u16(raw)), raw);
            let raw = u64::from_ne_bytes(order.write_u64(0x0102_0304_0506_0708));
            assert_eq!(order.swap_u64(raw), 0x0102_0304_0506_0708);
        }
        assert_eq!(ByteOrder::NATIVE.swap_u32(0x1234_5678), 0x1234_5678);
    }
}
