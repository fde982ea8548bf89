// SPDX-License-Identifier: GPL-2.0

//! Commands of the control virtqueue (virtio 1.3, 5.1.6.5).
//!
//! A command is decoded from the bytes a driver put into the readable part of a chain, however it
//! spread them over descriptors; so a legacy driver's framing and any other are the same here.

use super::features::{
    CTRL_GUEST_OFFLOADS, CTRL_MAC_ADDR, CTRL_RX, CTRL_RX_EXTRA, CTRL_VLAN, CTRL_VQ, GUEST_ANNOUNCE,
    GUEST_CSUM, GUEST_ECN, GUEST_TSO4, GUEST_TSO6, GUEST_UFO, GUEST_USO4, GUEST_USO6, MQ, RSS,
};
use super::rss::{Limits, Scaling};
use super::{is_station_address, MacAddress, MAC_LEN};
use crate::byte_order::ByteOrder;
use crate::features::Features;

/// The answer to a command that was carried out.
pub const OK: u8 = 0;
/// The answer to a command that was not.
pub const ERR: u8 = 1;

/// The number of VLAN identifiers.
pub const VLANS: u16 = 4096;

/// The bytes of the class and the number of a command.
const HEADER_LEN: u64 = 2;
/// The bytes of the number of entries before a table of addresses.
const COUNT_LEN: u64 = 4;

/// Returns the index of the control virtqueue of a device with up to `max_pairs` pairs of virtqueues,
/// if there is one: it comes after all of them if the driver knows of several, and after the first
/// otherwise (virtio 1.3, 5.1.2).
pub fn queue_index(features: Features, max_pairs: u16) -> Option<u16> {
    if !features.contains(CTRL_VQ) {
        None
    } else if features.intersects(MQ.union(RSS)) {
        max_pairs.checked_mul(2)
    } else {
        Some(2)
    }
}

/// The offloads a driver can switch on and off while it runs, as far as it negotiated them.
pub const GUEST_OFFLOADS: Features = GUEST_CSUM
    .union(GUEST_TSO4)
    .union(GUEST_TSO6)
    .union(GUEST_ECN)
    .union(GUEST_UFO)
    .union(GUEST_USO4)
    .union(GUEST_USO6);

/// A mode of the receive filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReceiveMode {
    /// Receive everything.
    Promiscuous,
    /// Receive all multicast.
    AllMulticast,
    /// Receive all unicast.
    AllUnicast,
    /// Receive no multicast.
    NoMulticast,
    /// Receive no unicast.
    NoUnicast,
    /// Receive no broadcast.
    NoBroadcast,
}

/// A table of addresses as the driver gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacTable<'a> {
    /// The addresses, if all of them are there.
    addresses: Option<&'a [u8]>,
}

impl<'a> MacTable<'a> {
    /// Iterates over the addresses, or returns nothing if there are more than were looked at: the
    /// filter must then let everything of its kind in.
    pub fn addresses(&self) -> Option<impl ExactSizeIterator<Item = MacAddress> + 'a> {
        let bytes = self.addresses?;
        Some(bytes.chunks_exact(MAC_LEN).map(|chunk| {
            let mut mac = [0; MAC_LEN];
            mac.copy_from_slice(chunk);
            mac
        }))
    }
}

/// A command, checked against the features negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Switch a receive mode on or off.
    Receive(ReceiveMode, bool),
    /// Replace the tables of addresses to receive.
    MacTables {
        /// Addresses of single stations.
        unicast: MacTable<'a>,
        /// Addresses of groups.
        multicast: MacTable<'a>,
    },
    /// Use another MAC address.
    MacAddress(MacAddress),
    /// Let a VLAN in.
    AddVlan(u16),
    /// Do not let a VLAN in any more.
    DeleteVlan(u16),
    /// The driver has announced itself.
    AnnounceAck,
    /// Use this many pairs of virtqueues, from 1 to the most there are.
    VirtqueuePairs(u16),
    /// Spread what is received like this.
    Scale(Scaling<'a>),
    /// Use exactly these offloads towards the driver.
    GuestOffloads(Features),
}

/// Why a command is answered with [`ERR`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommandError {
    /// It is shorter, or a table in it is longer, than what the driver gave.
    Malformed,
    /// It is none of those the driver negotiated.
    Unknown,
    /// An argument is out of bounds.
    Invalid,
}

/// What decoding depends on.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// The byte order of the driver.
    pub order: ByteOrder,
    /// The features in use.
    pub features: Features,
    /// The most pairs of virtqueues.
    pub max_virtqueue_pairs: u16,
    /// What the driver can configure of receive-side scaling.
    pub rss: Limits,
}

impl Context {
    /// Decodes a command.
    ///
    /// `bytes` is the readable part of the chain, or as much of its beginning as was read; `whole`
    /// is the length in bytes of all of it. Tables that are not wholly in `bytes` are given as too
    /// long; a configuration of receive-side scaling is to be there as far as the device takes one,
    /// and every other command fits in 16 bytes.
    ///
    /// # Errors
    ///
    /// Why the command cannot be carried out, which the driver is told as [`ERR`].
    pub fn decode<'a>(&self, bytes: &'a [u8], whole: u64) -> Result<Command<'a>, CommandError> {
        let (&[class, command], data) = bytes.split_first_chunk().ok_or(CommandError::Malformed)?;
        match (class, command) {
            (0, 0) => self.receive(CTRL_RX, ReceiveMode::Promiscuous, data),
            (0, 1) => self.receive(CTRL_RX, ReceiveMode::AllMulticast, data),
            (0, 2) => self.receive(CTRL_RX_EXTRA, ReceiveMode::AllUnicast, data),
            (0, 3) => self.receive(CTRL_RX_EXTRA, ReceiveMode::NoMulticast, data),
            (0, 4) => self.receive(CTRL_RX_EXTRA, ReceiveMode::NoUnicast, data),
            (0, 5) => self.receive(CTRL_RX_EXTRA, ReceiveMode::NoBroadcast, data),
            (1, 0) => self.mac_tables(data, whole),
            (1, 1) => self.mac_address(data),
            (2, 0) => Ok(Command::AddVlan(self.vlan(data)?)),
            (2, 1) => Ok(Command::DeleteVlan(self.vlan(data)?)),
            (3, 0) => {
                self.need(GUEST_ANNOUNCE)?;
                Ok(Command::AnnounceAck)
            }
            (4, 0) => self.virtqueue_pairs(data),
            (4, 1) => {
                self.need(RSS)?;
                Scaling::decode(data, self.order, &self.rss, self.max_virtqueue_pairs)
                    .map(Command::Scale)
            }
            (5, 0) => self.guest_offloads(data),
            _ => Err(CommandError::Unknown),
        }
    }

    fn need(&self, feature: Features) -> Result<(), CommandError> {
        if self.features.contains(feature) {
            Ok(())
        } else {
            Err(CommandError::Unknown)
        }
    }

    fn receive(
        &self,
        feature: Features,
        mode: ReceiveMode,
        data: &[u8],
    ) -> Result<Command<'static>, CommandError> {
        self.need(feature)?;
        let [on] = first(data)?;
        Ok(Command::Receive(mode, on != 0))
    }

    fn mac_tables<'a>(&self, data: &'a [u8], whole: u64) -> Result<Command<'a>, CommandError> {
        self.need(CTRL_RX)?;
        let left = whole.saturating_sub(HEADER_LEN);
        let (unicast, data, left) = self.mac_table(data, left)?;
        // What follows a table that was not looked at cannot be known.
        let multicast = match unicast.addresses {
            Some(_) => self.mac_table(data, left)?.0,
            None => unicast,
        };
        Ok(Command::MacTables { unicast, multicast })
    }

    /// Takes a table from the beginning of `data`, which is the beginning of `left` bytes.
    ///
    /// Returns the table, and what follows it of both.
    fn mac_table<'a>(
        &self,
        data: &'a [u8],
        left: u64,
    ) -> Result<(MacTable<'a>, &'a [u8], u64), CommandError> {
        let too_long = MacTable { addresses: None };
        let Some((&count, data)) = data.split_first_chunk() else {
            return if left < COUNT_LEN {
                Err(CommandError::Malformed)
            } else {
                Ok((too_long, &[], 0))
            };
        };
        let count = u64::from(self.order.read_u32(count));
        let length = count.saturating_mul(MAC_LEN as u64);
        let left = left
            .checked_sub(COUNT_LEN)
            .and_then(|left| left.checked_sub(length))
            .ok_or(CommandError::Malformed)?;
        let parts = usize::try_from(length)
            .ok()
            .and_then(|length| data.split_at_checked(length));
        Ok(match parts {
            Some((table, rest)) => {
                let addresses = Some(table);
                (MacTable { addresses }, rest, left)
            }
            None => (too_long, &[], left),
        })
    }

    fn mac_address(&self, data: &[u8]) -> Result<Command<'static>, CommandError> {
        self.need(CTRL_MAC_ADDR)?;
        let mac = first(data)?;
        if is_station_address(&mac) {
            Ok(Command::MacAddress(mac))
        } else {
            Err(CommandError::Invalid)
        }
    }

    fn vlan(&self, data: &[u8]) -> Result<u16, CommandError> {
        self.need(CTRL_VLAN)?;
        let vlan = self.order.read_u16(first(data)?);
        if vlan < VLANS {
            Ok(vlan)
        } else {
            Err(CommandError::Invalid)
        }
    }

    fn virtqueue_pairs(&self, data: &[u8]) -> Result<Command<'static>, CommandError> {
        self.need(MQ)?;
        let pairs = self.order.read_u16(first(data)?);
        if (1..=self.max_virtqueue_pairs).contains(&pairs) {
            Ok(Command::VirtqueuePairs(pairs))
        } else {
            Err(CommandError::Invalid)
        }
    }

    fn guest_offloads(&self, data: &[u8]) -> Result<Command<'static>, CommandError> {
        self.need(CTRL_GUEST_OFFLOADS)?;
        let offloads = Features::from_bits(self.order.read_u64(first(data)?));
        if (self.features & GUEST_OFFLOADS).contains(offloads) {
            Ok(Command::GuestOffloads(offloads))
        } else {
            Err(CommandError::Invalid)
        }
    }
}

/// Takes a fixed number of bytes from the beginning of `data`.
fn first<const N: usize>(data: &[u8]) -> Result<[u8; N], CommandError> {
    data.first_chunk().copied().ok_or(CommandError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Context = Context {
        order: ByteOrder::Little,
        features: Features::from_bits(u64::MAX),
        max_virtqueue_pairs: 4,
        rss: Limits {
            key_len: 40,
            table_len: 128,
            types: 0x3f,
        },
    };
    const BIG: Context = Context {
        order: ByteOrder::Big,
        ..ALL
    };
    const NONE: Context = Context {
        features: Features::NONE,
        ..ALL
    };

    fn decode<'a>(context: &Context, bytes: &'a [u8]) -> Result<Command<'a>, CommandError> {
        context.decode(bytes, bytes.len() as u64)
    }

    #[test]
    fn the_control_queue_is_behind_all_others() {
        assert_eq!(queue_index(Features::NONE, 4), None);
        assert_eq!(queue_index(MQ, 4), None);
        assert_eq!(queue_index(CTRL_VQ, 4), Some(2));
        assert_eq!(queue_index(CTRL_VQ | MQ, 4), Some(8));
        assert_eq!(queue_index(CTRL_VQ | RSS, 4), Some(8));
    }

    #[test]
    fn every_command_needs_its_feature() {
        let commands: &[&[u8]] = &[
            &[0, 0, 1],
            &[0, 5, 1],
            &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[1, 1, 2, 0, 0, 0, 0, 1],
            &[2, 0, 1, 0],
            &[2, 1, 1, 0],
            &[3, 0],
            &[4, 0, 2, 0],
            &[4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0],
            &[5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ];
        for command in commands {
            assert!(decode(&ALL, command).is_ok(), "{command:?}");
            assert_eq!(decode(&NONE, command), Err(CommandError::Unknown));
        }
    }

    #[test]
    fn numbers_are_in_the_drivers_order() {
        assert_eq!(decode(&ALL, &[2, 0, 0x34, 2]), Ok(Command::AddVlan(0x234)));
        assert_eq!(decode(&BIG, &[2, 0, 2, 0x34]), Ok(Command::AddVlan(0x234)));
        assert_eq!(decode(&BIG, &[4, 0, 0, 3]), Ok(Command::VirtqueuePairs(3)));
        assert_eq!(
            decode(&BIG, &[5, 0, 0, 0, 0, 0, 0, 0, 0, 2]),
            Ok(Command::GuestOffloads(GUEST_CSUM))
        );
    }

    #[test]
    fn arguments_out_of_bounds_are_errors() {
        let invalid: &[&[u8]] = &[
            &[1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[1, 1, 0, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0x10],
            &[4, 0, 0, 0],
            &[4, 0, 5, 0],
            &[4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0],
            &[5, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        ];
        for command in invalid {
            assert_eq!(
                decode(&ALL, command),
                Err(CommandError::Invalid),
                "{command:?}"
            );
        }
    }

    #[test]
    fn short_commands_are_malformed_and_strange_ones_unknown() {
        for command in [
            &[][..],
            &[0],
            &[0, 0],
            &[1, 1, 2, 0, 0, 0, 0],
            &[2, 0, 1],
            &[4, 0, 1],
            &[4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0],
        ] {
            assert_eq!(
                decode(&ALL, command),
                Err(CommandError::Malformed),
                "{command:?}"
            );
        }
        for command in [[0, 6, 1], [6, 0, 0], [4, 2, 0], [255, 255, 255]] {
            assert_eq!(decode(&ALL, &command), Err(CommandError::Unknown));
        }
    }

    /// Encodes the tables of a driver in the given order.
    fn tables(order: ByteOrder, unicast: &[MacAddress], multicast: &[MacAddress]) -> Vec<u8> {
        let mut bytes = vec![1, 0];
        for table in [unicast, multicast] {
            bytes.extend(order.write_u32(table.len() as u32));
            bytes.extend(table.iter().flatten());
        }
        bytes
    }

    #[test]
    fn tables_are_read_in_either_order() {
        let (one, two) = ([2, 0, 0, 0, 0, 1], [1, 0, 0x5e, 0, 0, 1]);
        for context in [ALL, BIG] {
            for count in [0, 1, 3] {
                let bytes = tables(context.order, &vec![one; count], &[two]);
                let Ok(Command::MacTables { unicast, multicast }) = decode(&context, &bytes) else {
                    panic!("not a table");
                };
                assert_eq!(
                    unicast.addresses().unwrap().collect::<Vec<_>>(),
                    vec![one; count]
                );
                assert_eq!(multicast.addresses().unwrap().collect::<Vec<_>>(), [two]);
            }
        }
    }

    #[test]
    fn tables_beyond_what_was_read_are_too_long_and_lies_malformed() {
        let bytes = tables(ByteOrder::Little, &[[2; 6]; 10], &[[3; 6]; 10]);
        let whole = bytes.len() as u64;
        for cut in 2..bytes.len() {
            let Ok(Command::MacTables { unicast, multicast }) = ALL.decode(&bytes[..cut], whole)
            else {
                panic!("cut at {cut}");
            };
            assert_eq!(unicast.addresses().is_some(), cut >= 66);
            assert!(multicast.addresses().is_none());
            // The same bytes, with nothing behind them, are no command at all.
            assert_eq!(
                decode(&ALL, &bytes[..cut]),
                Err(CommandError::Malformed),
                "{cut}"
            );
        }
        let huge = [1, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        assert_eq!(decode(&ALL, &huge), Err(CommandError::Malformed));
    }
}
