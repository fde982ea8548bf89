// SPDX-License-Identifier: GPL-2.0

//! Receive-side scaling, as a driver configures it (virtio 1.3, 5.1.6.5.7).

use super::control::CommandError;
use crate::byte_order::ByteOrder;

/// Kinds of traffic that can be hashed (virtio 1.3, 5.1.6.4.3.1).
pub mod hash_type {
    /// IPv4 by its addresses.
    pub const IPV4: u32 = 1 << 0;
    /// TCP over IPv4 by addresses and ports.
    pub const TCPV4: u32 = 1 << 1;
    /// UDP over IPv4 by addresses and ports.
    pub const UDPV4: u32 = 1 << 2;
    /// IPv6 by its addresses.
    pub const IPV6: u32 = 1 << 3;
    /// TCP over IPv6 by addresses and ports.
    pub const TCPV6: u32 = 1 << 4;
    /// UDP over IPv6 by addresses and ports.
    pub const UDPV6: u32 = 1 << 5;
}

/// The fewest bytes of a key that a device with RSS takes.
pub const KEY_LEN: u8 = 40;
/// The fewest entries of a table that a device with RSS takes.
pub const TABLE_LEN: u16 = 128;

/// The bytes before the table of queues.
const FIXED_LEN: usize = 8;

/// What a device takes. Of one without RSS, nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of a key.
    pub key_len: u8,
    /// The most entries of a table of queues.
    pub table_len: u16,
    /// The kinds of traffic it can hash: [`hash_type`].
    pub types: u32,
}

/// A configuration, checked against what the device takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scaling<'a> {
    order: ByteOrder,
    types: u32,
    table: &'a [u8],
    unclassified: u16,
    transmit: u16,
    key: &'a [u8],
}

impl<'a> Scaling<'a> {
    /// Decodes what follows the header of the command.
    ///
    /// # Errors
    ///
    /// [`CommandError::Malformed`] if `data` are too short for what they say to hold;
    /// [`CommandError::Invalid`] if the table is not of a power of two of entries, or anything is
    /// beyond `limits` or the `pairs` pairs of virtqueues that there are.
    pub fn decode(
        data: &'a [u8],
        order: ByteOrder,
        limits: &Limits,
        pairs: u16,
    ) -> Result<Self, CommandError> {
        let (fixed, data) = data
            .split_first_chunk::<FIXED_LEN>()
            .ok_or(CommandError::Malformed)?;
        let &[a, b, c, d, mask_low, mask_high, rest_low, rest_high] = fixed;
        let types = order.read_u32([a, b, c, d]);
        let mask = order.read_u16([mask_low, mask_high]);
        let unclassified = order.read_u16([rest_low, rest_high]);
        if mask & mask.wrapping_add(1) != 0 || mask >= limits.table_len {
            return Err(CommandError::Invalid);
        }
        let (table, data) = data
            .split_at_checked(2 * (usize::from(mask) + 1))
            .ok_or(CommandError::Malformed)?;
        let (transmit, data) = data
            .split_first_chunk::<2>()
            .ok_or(CommandError::Malformed)?;
        let (&[key_len], data) = data
            .split_first_chunk::<1>()
            .ok_or(CommandError::Malformed)?;
        let key = data
            .get(..usize::from(key_len))
            .ok_or(CommandError::Malformed)?;
        let scaling = Self {
            order,
            types,
            table,
            unclassified,
            transmit: order.read_u16(*transmit),
            key,
        };
        let is_valid = types & !limits.types == 0
            && key_len <= limits.key_len
            && unclassified < pairs
            && (1..=pairs).contains(&scaling.transmit)
            && scaling.queues().all(|queue| queue < pairs);
        if is_valid {
            Ok(scaling)
        } else {
            Err(CommandError::Invalid)
        }
    }

    /// The kinds of traffic to hash: [`hash_type`].
    pub fn types(&self) -> u32 {
        self.types
    }

    /// The table: numbers of receive queues, a power of two of them.
    pub fn queues(&self) -> impl ExactSizeIterator<Item = u16> + 'a {
        let order = self.order;
        self.table.chunks_exact(2).map(move |entry| {
            let mut bytes = [0; 2];
            bytes.copy_from_slice(entry);
            order.read_u16(bytes)
        })
    }

    /// The number of the receive queue of what is not hashed.
    pub fn unclassified(&self) -> u16 {
        self.unclassified
    }

    /// How many pairs of virtqueues it takes: those that are sent by, and up to the last one that
    /// is received by.
    pub fn pairs(&self) -> u16 {
        let last = self.queues().max().unwrap_or(0).max(self.unclassified);
        self.transmit.max(last.saturating_add(1))
    }

    /// The key of the hash, of up to [`KEY_LEN`] bytes. What is missing of it is zero.
    pub fn key(&self) -> &'a [u8] {
        self.key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        key_len: KEY_LEN,
        table_len: TABLE_LEN,
        types: 0x3f,
    };

    fn command(types: u32, table: &[u16], rest: u16, transmit: u16, key: &[u8]) -> Vec<u8> {
        let mut bytes = types.to_le_bytes().to_vec();
        bytes.extend((table.len() as u16).wrapping_sub(1).to_le_bytes());
        bytes.extend(rest.to_le_bytes());
        bytes.extend(table.iter().flat_map(|queue| queue.to_le_bytes()));
        bytes.extend(transmit.to_le_bytes());
        bytes.push(key.len() as u8);
        bytes.extend(key);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Scaling<'_>, CommandError> {
        Scaling::decode(bytes, ByteOrder::Little, &LIMITS, 4)
    }

    #[test]
    fn a_configuration_is_read() {
        let bytes = command(0x12, &[0, 2, 1, 2], 1, 1, &[7; 40]);
        let scaling = decode(&bytes).unwrap();
        assert_eq!(scaling.types(), 0x12);
        assert_eq!(scaling.queues().collect::<Vec<_>>(), [0, 2, 1, 2]);
        assert_eq!((scaling.unclassified(), scaling.pairs()), (1, 3));
        assert_eq!(scaling.key(), [7; 40]);
        let bytes = command(0, &[0], 0, 4, &[]);
        assert_eq!(decode(&bytes).unwrap().pairs(), 4);
        let bytes = command(0, &[0], 2, 1, &[]);
        assert_eq!(decode(&bytes).unwrap().pairs(), 3);
        let bytes = command(0x3f, &[3; 128], 0, 1, &[1; 40]);
        assert_eq!(decode(&bytes).unwrap().queues().len(), 128);
    }

    #[test]
    fn what_is_cut_off_is_malformed() {
        let bytes = command(0x3f, &[0, 1, 2, 3], 0, 4, &[5; 40]);
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), Err(CommandError::Malformed), "{cut}");
        }
        // More than that is not looked at.
        let longer = [&bytes[..], &[1, 2, 3]].concat();
        assert_eq!(decode(&longer), decode(&bytes));
    }

    #[test]
    fn what_the_device_has_not_is_invalid() {
        for bytes in [
            command(0x40, &[0], 0, 1, &[]),
            command(1, &[0, 1, 2], 0, 1, &[1; 40]),
            command(1, &[], 0, 1, &[1; 40]),
            command(1, &[0; 256], 0, 1, &[1; 40]),
            command(1, &[0, 4], 0, 1, &[1; 40]),
            command(1, &[0, 0x8000], 0, 1, &[1; 40]),
            command(1, &[0], 4, 1, &[1; 40]),
            command(1, &[0], 0, 0, &[1; 40]),
            command(1, &[0], 0, 5, &[1; 40]),
            command(1, &[0], 0, 1, &[1; 41]),
        ] {
            assert_eq!(decode(&bytes), Err(CommandError::Invalid), "{bytes:?}");
        }
        // Without RSS there is nothing to be configured.
        let bytes = command(0, &[0], 0, 1, &[]);
        let none = Scaling::decode(&bytes, ByteOrder::Little, &Limits::default(), 4);
        assert_eq!(none, Err(CommandError::Invalid));
    }
}
