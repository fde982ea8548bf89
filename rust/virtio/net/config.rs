// SPDX-License-Identifier: GPL-2.0

//! The configuration space of a network device (virtio 1.3, 5.1.4).
//!
//! It is kept little-endian, as every driver but a big-endian legacy one reads it, and converted
//! for that one as it is read.

use core::fmt;
use core::mem::offset_of;

use zerocopy::little_endian::{U16, U32};
use zerocopy::IntoBytes;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::rss::Limits;
use super::{is_station_address, MacAddress, MAC_LEN};
use crate::byte_order::ByteOrder;
use crate::lifecycle::ConfigWrite;

/// Bit of `status`: the link is up.
pub const LINK_UP: u16 = 1;
/// Bit of `status`: the driver is asked to announce itself.
pub const ANNOUNCE: u16 = 2;

/// `struct virtio_net_config`, little-endian.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Layout {
    /// The MAC address; there if MAC is offered. Only legacy drivers may write it.
    pub mac: MacAddress,
    /// [`LINK_UP`] and [`ANNOUNCE`]; there if STATUS is offered.
    pub status: U16,
    /// The most pairs of virtqueues; there if MQ or RSS is offered.
    pub max_virtqueue_pairs: U16,
    /// The most payload of an Ethernet frame, in bytes; there if MTU is offered.
    pub mtu: U16,
    /// Mbit/s, all ones if unknown; there, as `duplex` is, if SPEED_DUPLEX is offered.
    pub speed: U32,
    /// 1 is full duplex, 0 half, 0xff unknown.
    pub duplex: u8,
    /// Bytes; there, as what follows is, if RSS or HASH_REPORT is offered.
    pub rss_max_key_size: u8,
    /// Entries.
    pub rss_max_indirection_table_length: U16,
    /// Hash types the device knows.
    pub supported_hash_types: U32,
}

/// The size of the configuration space in bytes.
pub const SIZE: usize = size_of::<Layout>();

const _: () = assert!(SIZE == 24);

/// The two-byte fields that a legacy driver finds in its own byte order, by their offsets.
///
/// The fields after them belong to features beyond the 32 bits of a legacy driver.
const LEGACY_FIELDS: [usize; 3] = [
    offset_of!(Layout, status),
    offset_of!(Layout, max_virtqueue_pairs),
    offset_of!(Layout, mtu),
];

/// The smallest MTU in bytes, which every IPv4 link has (RFC 791).
pub const MIN_MTU: u16 = 68;

/// Why a device cannot have what an administrator wants it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Invalid {
    /// The address is not one that a network interface can have.
    Mac(MacAddress),
    /// The MTU is below [`MIN_MTU`].
    SmallMtu(u16),
    /// The MTU is above what the device has room for, which is the second.
    LargeMtu(u16, u16),
    /// The number of pairs of virtqueues is 0, or above the most there can be, which is the second.
    Pairs(u16, u16),
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac([a, b, c, d, e, g]) => write!(
                f,
                "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x} is not the address of a station"
            ),
            Self::SmallMtu(mtu) => write!(f, "an MTU of {mtu} is below {MIN_MTU}"),
            Self::LargeMtu(mtu, most) => write!(f, "an MTU of {mtu} is above {most}"),
            Self::Pairs(pairs, most) => write!(f, "{pairs} queue pairs are not 1 to {most}"),
        }
    }
}

/// Checks an address that a device is to have.
///
/// # Errors
///
/// [`Invalid::Mac`].
pub fn check_mac(mac: MacAddress) -> Result<MacAddress, Invalid> {
    if is_station_address(&mac) {
        Ok(mac)
    } else {
        Err(Invalid::Mac(mac))
    }
}

/// Checks an MTU that a device is to show, which may be `most` at most.
///
/// # Errors
///
/// [`Invalid::SmallMtu`], [`Invalid::LargeMtu`].
pub fn check_mtu(mtu: u16, most: u16) -> Result<u16, Invalid> {
    if mtu < MIN_MTU {
        Err(Invalid::SmallMtu(mtu))
    } else if mtu > most {
        Err(Invalid::LargeMtu(mtu, most))
    } else {
        Ok(mtu)
    }
}

/// Checks a number of pairs of virtqueues, of which there may be `most` at most.
///
/// # Errors
///
/// [`Invalid::Pairs`].
pub fn check_pairs(pairs: u16, most: u16) -> Result<u16, Invalid> {
    if (1..=most).contains(&pairs) {
        Ok(pairs)
    } else {
        Err(Invalid::Pairs(pairs, most))
    }
}

/// Makes an address for a device that was given none: a locally administered one, from 40 bits of
/// `seed`, which is to be different for each device, on other hosts as well.
pub fn local_mac(seed: u64) -> MacAddress {
    let [a, b, c, d, e, ..] = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    [0x02, a, b, c, d, e]
}

/// What a device is given when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// The MAC address.
    pub mac: MacAddress,
    /// Whether `mac` was chosen by the administrator, so that a VMM's default must not replace it.
    pub mac_provisioned: bool,
    /// The MTU in bytes, 0 if there is none to tell.
    pub mtu: u16,
    /// The most pairs of virtqueues.
    pub max_virtqueue_pairs: u16,
    /// What the driver can configure of receive-side scaling.
    pub rss: Limits,
}

/// The configuration space and who may change what in it.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    layout: Layout,
    /// The address in use. That of `layout` differs from it while a driver is writing a new one
    /// byte by byte.
    mac: MacAddress,
    /// The address after a reset.
    default_mac: MacAddress,
    mac_provisioned: bool,
    generation: u32,
}

impl ConfigSpace {
    /// Makes the configuration space of a new device, whose link is up.
    pub fn new(attributes: Attributes) -> Self {
        Self {
            layout: Layout {
                mac: attributes.mac,
                status: U16::new(LINK_UP),
                max_virtqueue_pairs: U16::new(attributes.max_virtqueue_pairs),
                mtu: U16::new(attributes.mtu),
                speed: U32::new(u32::MAX),
                duplex: u8::MAX,
                rss_max_key_size: attributes.rss.key_len,
                rss_max_indirection_table_length: U16::new(attributes.rss.table_len),
                supported_hash_types: U32::new(attributes.rss.types),
            },
            mac: attributes.mac,
            default_mac: attributes.mac,
            mac_provisioned: attributes.mac_provisioned,
            generation: 0,
        }
    }

    /// Returns the MAC address in use.
    pub fn mac(&self) -> MacAddress {
        self.mac
    }

    /// Returns the MTU in bytes, 0 if there is none.
    pub fn mtu(&self) -> u16 {
        self.layout.mtu.get()
    }

    /// Returns the most pairs of virtqueues.
    pub fn max_virtqueue_pairs(&self) -> u16 {
        self.layout.max_virtqueue_pairs.get()
    }

    /// Returns what the driver can configure of receive-side scaling.
    pub fn rss(&self) -> Limits {
        Limits {
            key_len: self.layout.rss_max_key_size,
            table_len: self.layout.rss_max_indirection_table_length.get(),
            types: self.layout.supported_hash_types.get(),
        }
    }

    /// Returns `status`: [`LINK_UP`] and [`ANNOUNCE`].
    pub fn status(&self) -> u16 {
        self.layout.status.get()
    }

    /// Returns the number that changes whenever the device changes its configuration.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Takes a MAC address from the administrator: it is provisioned from now on.
    ///
    /// The caller sends a configuration change notification, as for every `set_` here.
    pub fn set_mac(&mut self, mac: MacAddress) {
        self.default_mac = mac;
        self.mac_provisioned = true;
        self.set_driver_mac(mac);
        self.changed();
    }

    /// Takes a MAC address from the driver's control command; it lasts until the next reset.
    pub fn set_driver_mac(&mut self, mac: MacAddress) {
        self.mac = mac;
        self.layout.mac = mac;
    }

    /// Sets the MTU in bytes.
    pub fn set_mtu(&mut self, mtu: u16) {
        self.layout.mtu.set(mtu);
        self.changed();
    }

    /// Sets bits of `status`, and clears others.
    pub fn set_status(&mut self, set: u16, clear: u16) {
        let status = self.status() & !clear | set;
        if status != self.status() {
            self.layout.status.set(status);
            self.changed();
        }
    }

    fn changed(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    /// Forgets what the driver changed.
    pub fn reset(&mut self) {
        self.set_driver_mac(self.default_mac);
        self.set_status(0, ANNOUNCE);
    }

    /// Reads from `offset` on, as a driver of this byte order does: any offset, any width.
    ///
    /// What lies beyond the configuration space reads as zero.
    pub fn read(&self, offset: usize, to: &mut [u8], order: ByteOrder) {
        let mut image = [0; SIZE];
        image.copy_from_slice(self.layout.as_bytes());
        if order.is_big() {
            for field in LEGACY_FIELDS {
                if let Some(bytes) = image.get_mut(field..field + 2) {
                    bytes.reverse();
                }
            }
        }
        let from = image.get(offset..).unwrap_or(&[]);
        for (at, byte) in to.iter_mut().enumerate() {
            *byte = from.get(at).copied().unwrap_or(0);
        }
    }

    /// Takes a write of `from` at `offset`, if `how` lets it in.
    ///
    /// Only the MAC address can be written. It may come byte by byte, first to last, and is used
    /// when its last byte has come (virtio 1.3, 5.1.4.2); until then it only reads back. Every
    /// other byte is read-only. Returns the MAC address to use from now on, if it changed.
    pub fn write(&mut self, offset: usize, from: &[u8], how: ConfigWrite) -> Option<MacAddress> {
        let lasting = match how {
            ConfigWrite::Apply => false,
            ConfigWrite::ApplyUnlessProvisioned if !self.mac_provisioned => true,
            ConfigWrite::ApplyUnlessProvisioned | ConfigWrite::Ignore => return None,
        };

        let to = self.layout.mac.get_mut(offset..).unwrap_or(&mut []);
        for (byte, &new) in to.iter_mut().zip(from) {
            *byte = new;
        }

        let end = offset.saturating_add(from.len());
        let complete = offset < MAC_LEN && end >= MAC_LEN;
        let mac = self.layout.mac;
        if !complete || mac == self.mac || !is_station_address(&mac) {
            return None;
        }
        self.mac = mac;
        if lasting {
            self.default_mac = mac;
        }
        Some(mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: MacAddress = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
    const THEIRS: MacAddress = [0x52, 0x54, 0, 0xaa, 0xbb, 0xcc];

    fn space(mac_provisioned: bool) -> ConfigSpace {
        ConfigSpace::new(Attributes {
            mac: OURS,
            mac_provisioned,
            mtu: 1500,
            max_virtqueue_pairs: 16,
            rss: Limits::default(),
        })
    }

    fn all(space: &ConfigSpace, order: ByteOrder) -> [u8; SIZE] {
        let mut image = [0; SIZE];
        space.read(0, &mut image, order);
        image
    }

    #[test]
    fn fields_lie_where_the_standard_puts_them() {
        let image = all(&space(true), ByteOrder::Little);
        assert_eq!(image[..6], OURS);
        assert_eq!(image[6..12], [1, 0, 16, 0, 0xdc, 0x05]);
        assert_eq!(image[12..17], [0xff; 5]);
        assert_eq!(image[17..], [0; 7]);
    }

    #[test]
    fn what_can_be_scaled_is_behind_the_rest() {
        let rss = Limits {
            key_len: 40,
            table_len: 0x180,
            types: 0x3f,
        };
        let space = ConfigSpace::new(Attributes {
            mac: OURS,
            mac_provisioned: true,
            mtu: 1500,
            max_virtqueue_pairs: 16,
            rss,
        });
        let image = all(&space, ByteOrder::Little);
        assert_eq!(image[17..], [40, 0x80, 1, 0x3f, 0, 0, 0]);
        assert_eq!(space.rss(), rss);
    }

    #[test]
    fn a_big_endian_legacy_driver_sees_its_own_order() {
        let image = all(&space(true), ByteOrder::Big);
        assert_eq!(image[..6], OURS);
        assert_eq!(image[6..12], [0, 1, 0, 16, 0x05, 0xdc]);
    }

    #[test]
    fn any_width_at_any_offset_reads_the_same() {
        let space = space(true);
        for order in [ByteOrder::Little, ByteOrder::Big] {
            let image = all(&space, order);
            for offset in 0..SIZE + 4 {
                for width in 0..SIZE + 4 {
                    let mut bytes = vec![0x5a; width];
                    space.read(offset, &mut bytes, order);
                    for (at, byte) in bytes.iter().enumerate() {
                        assert_eq!(*byte, image.get(offset + at).copied().unwrap_or(0));
                    }
                }
            }
            let mut byte = [0x5a];
            space.read(usize::MAX, &mut byte, order);
            assert_eq!(byte, [0]);
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_reason() {
        assert_eq!(check_mac(OURS), Ok(OURS));
        for mac in [[0; 6], [0xff; 6], [1, 0, 0x5e, 0, 0, 1]] {
            assert_eq!(check_mac(mac), Err(Invalid::Mac(mac)));
        }
        assert_eq!(
            check_mac([0xff; 6]).unwrap_err().to_string(),
            "ff:ff:ff:ff:ff:ff is not the address of a station"
        );
        assert_eq!(check_mtu(67, 9000), Err(Invalid::SmallMtu(67)));
        assert_eq!(check_mtu(9001, 9000), Err(Invalid::LargeMtu(9001, 9000)));
        assert_eq!(check_mtu(68, 9000), Ok(68));
        assert_eq!(check_mtu(9000, 9000), Ok(9000));
        assert_eq!(check_pairs(0, 4), Err(Invalid::Pairs(0, 4)));
        assert_eq!(
            check_pairs(5, 4).unwrap_err().to_string(),
            "5 queue pairs are not 1 to 4"
        );
        assert_eq!(check_pairs(4, 4), Ok(4));
    }

    #[test]
    fn an_address_is_made_for_who_has_none() {
        for seed in 0..1000 {
            assert_eq!(check_mac(local_mac(seed)), Ok(local_mac(seed)));
            assert_ne!(local_mac(seed), local_mac(seed + 1));
        }
    }

    #[test]
    fn a_legacy_mac_counts_from_its_last_byte() {
        let mut space = space(true);
        for (at, byte) in THEIRS.iter().enumerate() {
            assert_eq!(space.mac(), OURS);
            let taken = space.write(at, &[*byte], ConfigWrite::Apply);
            assert_eq!(taken, (at == 5).then_some(THEIRS));
            assert_eq!(all(&space, ByteOrder::Little)[at], *byte);
        }
        assert_eq!(space.mac(), THEIRS);
        space.reset();
        assert_eq!(space.mac(), OURS);
        assert_eq!(all(&space, ByteOrder::Little)[..6], OURS);
    }

    #[test]
    fn a_mac_in_writes_of_everything_arrives_too() {
        // As QEMU passes a legacy driver's bytes on: eight bytes each time, one of them new.
        let mut space = space(true);
        let mut bytes = all(&space, ByteOrder::Little);
        for (at, byte) in THEIRS.iter().enumerate() {
            bytes[at] = *byte;
            space.write(0, &bytes[..8], ConfigWrite::Apply);
        }
        assert_eq!(space.mac(), THEIRS);
        assert_eq!(space.status(), LINK_UP);
    }

    #[test]
    fn a_default_of_the_vmm_does_not_replace_a_provisioned_mac() {
        let how = ConfigWrite::ApplyUnlessProvisioned;
        let mut provisioned = space(true);
        assert_eq!(provisioned.write(0, &THEIRS, how), None);
        assert_eq!(provisioned.mac(), OURS);

        let mut free = space(false);
        assert_eq!(free.write(0, &THEIRS, how), Some(THEIRS));
        free.reset();
        assert_eq!(
            free.mac(),
            THEIRS,
            "it lasts, for the VMM resets the device after it"
        );

        free.set_mac(OURS);
        assert_eq!(free.write(0, &THEIRS, how), None);
    }

    #[test]
    fn everything_else_is_read_only() {
        let mut space = space(false);
        let before = all(&space, ByteOrder::Little);
        for offset in [6, 7, 12, SIZE, usize::MAX] {
            assert_eq!(space.write(offset, &[0xff; 32], ConfigWrite::Apply), None);
        }
        assert_eq!(space.write(0, &THEIRS, ConfigWrite::Ignore), None);
        assert_eq!(all(&space, ByteOrder::Little), before);
    }

    #[test]
    fn a_group_address_is_never_used() {
        let mut space = space(false);
        assert_eq!(space.write(0, &[0xff; 6], ConfigWrite::Apply), None);
        assert_eq!(space.write(0, &[0; 6], ConfigWrite::Apply), None);
        assert_eq!(space.mac(), OURS);
    }

    #[test]
    fn changes_by_the_device_change_the_generation() {
        let mut space = space(true);
        space.set_mtu(9000);
        space.set_status(ANNOUNCE, 0);
        assert_eq!(space.generation(), 2);
        space.set_status(ANNOUNCE, 0);
        assert_eq!(space.generation(), 2);
        assert_eq!(space.status(), LINK_UP | ANNOUNCE);
        space.reset();
        assert_eq!(space.status(), LINK_UP);
        assert_eq!(space.mtu(), 9000);
    }
}
