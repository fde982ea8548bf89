// SPDX-License-Identifier: GPL-2.0

//! How received frames are spread over the receive queues.
//!
//! A receive interface (TIR) hashes the fields of one network and one transport protocol; of a
//! frame of others it knows nothing to hash. So there is one for each kind of traffic, and a table
//! that tells the kinds apart; all of them choose from one table of queues (RQT).
//!
//! A driver with receive-side scaling (RSS) chooses key and table, and which kinds are hashed. Those
//! that are not go to a queue of its choice, which is a table of its own.

use prm::tir::{
    L3ProtType,
    L4ProtType,
    HASH_DST_IP,
    HASH_L4_DPORT,
    HASH_L4_SPORT,
    HASH_SRC_IP, //
};
use virtio::net::rss::{
    self,
    hash_type,
    KEY_LEN,
    TABLE_LEN, //
};

/// The numbers of protocols: in Ethernet headers, and in IP headers.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The kinds of traffic that can be hashed.
pub(crate) const HASH_TYPES: u32 = hash_type::IPV4
    | hash_type::TCPV4
    | hash_type::UDPV4
    | hash_type::IPV6
    | hash_type::TCPV6
    | hash_type::UDPV6;

/// How frames are hashed, and which kinds of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hashing {
    /// The kinds: [`hash_type`].
    pub(crate) types: u32,
    /// The key.
    pub(crate) key: [u8; KEY_LEN as usize],
    /// Whether both directions of a flow have the same hash.
    pub(crate) symmetric: bool,
}

impl Hashing {
    /// For drivers that have no say in it. The key is that by which implementations of the hash are
    /// verified (Microsoft, "Verifying the RSS Hash Calculation").
    pub(crate) const USUAL: Self = Self {
        types: HASH_TYPES,
        key: [
            0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
            0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
            0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
        ],
        symmetric: true,
    };
}

/// What a driver with receive-side scaling wants.
#[derive(Clone, Debug)]
pub(crate) struct Scaling {
    /// How frames are hashed.
    pub(crate) hashing: Hashing,
    table: [u16; TABLE_LEN as usize],
    len: usize,
    unclassified: u16,
}

impl Scaling {
    /// What a driver's command says.
    pub(crate) fn new(command: &rss::Scaling<'_>) -> Self {
        let mut this = Self {
            hashing: Hashing {
                types: command.types(),
                key: [0; KEY_LEN as usize],
                symmetric: false,
            },
            table: [0; TABLE_LEN as usize],
            // No more than that was let in.
            len: command.queues().len().clamp(1, usize::from(TABLE_LEN)),
            unclassified: command.unclassified(),
        };
        for (to, byte) in this.hashing.key.iter_mut().zip(command.key()) {
            *to = *byte;
        }
        for (to, queue) in this.table.iter_mut().zip(command.queues()) {
            *to = queue;
        }
        this
    }

    /// Iterates over the `count` entries of a table of queues, of which `queues` are the objects.
    pub(crate) fn fill<'a>(
        &'a self,
        queues: &'a [u32],
        count: u16,
    ) -> impl Iterator<Item = u32> + 'a {
        let table = self.table.get(..self.len).unwrap_or(&[]);
        // All of them are there, for as many pairs are in use.
        let choose = |queue: &u16| queues.get(usize::from(*queue)).or(queues.first()).copied();
        table
            .iter()
            .cycle()
            .take(usize::from(count))
            .filter_map(choose)
    }

    /// The object of the queue for what is not hashed.
    pub(crate) fn rest(&self, queues: &[u32]) -> Option<u32> {
        queues.get(usize::from(self.unclassified)).copied()
    }
}

/// The logarithm of the size of the table that tells kinds of traffic apart.
pub(crate) const LOG_KINDS: u8 = 3;

/// A kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// TCP over IPv4.
    Tcp4,
    /// UDP over IPv4.
    Udp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv6.
    Udp6,
    /// Other IPv4.
    Ip4,
    /// Other IPv6.
    Ip6,
    /// The rest, which goes to the first queue.
    Other,
}

/// What entries of the table of kinds compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compared {
    /// Network and transport protocol.
    Transport,
    /// Network protocol.
    Network,
    /// Nothing.
    Nothing,
}

impl Compared {
    /// The groups of the table of kinds, the most special one first.
    pub(crate) const ALL: [Self; 3] = [Self::Transport, Self::Network, Self::Nothing];

    /// The first and the last index of the entries that compare this.
    pub(crate) fn range(self) -> (u32, u32) {
        match self {
            Self::Transport => (0, 3),
            Self::Network => (4, 5),
            Self::Nothing => (6, 6),
        }
    }
}

/// What of a frame is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hashed {
    /// The network protocol.
    pub(crate) network: L3ProtType,
    /// The transport protocol.
    pub(crate) transport: L4ProtType,
    /// The fields: `HASH_*`.
    pub(crate) fields: u32,
}

impl Traffic {
    /// All kinds, in the order of their entries.
    pub(crate) const ALL: [Self; 7] = [
        Self::Tcp4,
        Self::Udp4,
        Self::Tcp6,
        Self::Udp6,
        Self::Ip4,
        Self::Ip6,
        Self::Other,
    ];

    /// What tells frames of this kind from others.
    pub(crate) fn compared(self) -> Compared {
        match self {
            Self::Tcp4 | Self::Udp4 | Self::Tcp6 | Self::Udp6 => Compared::Transport,
            Self::Ip4 | Self::Ip6 => Compared::Network,
            Self::Other => Compared::Nothing,
        }
    }

    /// The number of its network protocol in Ethernet headers; 0 if any.
    pub(crate) fn ethertype(self) -> u16 {
        match self {
            Self::Tcp4 | Self::Udp4 | Self::Ip4 => IPV4,
            Self::Tcp6 | Self::Udp6 | Self::Ip6 => IPV6,
            Self::Other => 0,
        }
    }

    /// The number of its transport protocol in IP headers; 0 if any.
    pub(crate) fn protocol(self) -> u8 {
        match self {
            Self::Tcp4 | Self::Tcp6 => TCP,
            Self::Udp4 | Self::Udp6 => UDP,
            Self::Ip4 | Self::Ip6 | Self::Other => 0,
        }
    }

    /// The types of hash for it: by addresses and ports, and by addresses alone.
    fn hash_types(self) -> (u32, u32) {
        match self {
            Self::Tcp4 => (hash_type::TCPV4, hash_type::IPV4),
            Self::Udp4 => (hash_type::UDPV4, hash_type::IPV4),
            Self::Tcp6 => (hash_type::TCPV6, hash_type::IPV6),
            Self::Udp6 => (hash_type::UDPV6, hash_type::IPV6),
            Self::Ip4 => (0, hash_type::IPV4),
            Self::Ip6 => (0, hash_type::IPV6),
            Self::Other => (0, 0),
        }
    }

    /// Whether something is hashed of it, if the kinds of `types` are.
    pub(crate) fn is_hashed(self, types: u32) -> bool {
        let (both, addresses) = self.hash_types();
        types & (both | addresses) != 0
    }

    /// Whether it is hashed otherwise by one way of hashing than by another; the one before is `None`
    /// if it is not known.
    pub(crate) fn is_rehashed(self, before: Option<&Hashing>, hashing: &Hashing) -> bool {
        let Some(before) = before else {
            return true;
        };
        let hashed = |hashing: &Hashing| {
            self.is_hashed(hashing.types)
                .then(|| (self.hashed(hashing.types), hashing.key, hashing.symmetric))
        };
        hashed(before) != hashed(hashing)
    }

    /// What is hashed of it, if the kinds of `types` are. What says nothing of a frame that is none
    /// of them makes no difference: it goes to the first queue.
    pub(crate) fn hashed(self, types: u32) -> Hashed {
        const ADDRESSES: u32 = HASH_SRC_IP | HASH_DST_IP;
        const PORTS: u32 = HASH_L4_SPORT | HASH_L4_DPORT;

        let (both, _) = self.hash_types();
        let ports = if types & both != 0 { PORTS } else { 0 };
        let network = match self.ethertype() {
            IPV6 => L3ProtType::IPV6,
            _ => L3ProtType::IPV4,
        };
        let (transport, fields) = match self.protocol() {
            TCP => (L4ProtType::TCP, ADDRESSES | ports),
            UDP => (L4ProtType::UDP, ADDRESSES | ports),
            _ => (L4ProtType::TCP, ADDRESSES),
        };
        Hashed {
            network,
            transport,
            fields,
        }
    }
}

/// How many entries a table of queues has for up to `pairs` pairs: as many as a hash is spread over
/// evenly.
pub(crate) fn entries(pairs: u16) -> u16 {
    pairs.max(1).checked_next_power_of_two().unwrap_or(1 << 15)
}

/// Iterates over the `count` entries of a table of queues: `queues` again and again.
pub(crate) fn fill(queues: &[u32], count: u16) -> impl Iterator<Item = u32> + '_ {
    queues.iter().copied().cycle().take(usize::from(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_an_entry_in_the_group_that_compares_it() {
        for (index, traffic) in (0u32..).zip(Traffic::ALL) {
            let (first, last) = traffic.compared().range();
            assert!((first..=last).contains(&index), "{traffic:?}");
            assert_eq!(
                traffic.protocol() != 0,
                traffic.compared() == Compared::Transport
            );
            assert_eq!(
                traffic.ethertype() != 0,
                traffic.compared() != Compared::Nothing
            );
        }
        let mut next = 0;
        for group in Compared::ALL {
            let (first, last) = group.range();
            assert_eq!(first, next);
            next = last + 1;
        }
        assert_eq!(next, Traffic::ALL.len() as u32);
        assert!(next <= 1 << LOG_KINDS);
    }

    #[test]
    fn ports_are_hashed_of_what_has_them() {
        for traffic in Traffic::ALL {
            let ports = traffic.hashed(HASH_TYPES).fields & HASH_L4_SPORT != 0;
            assert_eq!(ports, traffic.protocol() != 0);
            assert_eq!(traffic.is_hashed(HASH_TYPES), traffic != Traffic::Other);
        }
    }

    #[test]
    fn drivers_choose_the_kinds() {
        let udp = Traffic::Udp4;
        assert_eq!(
            udp.hashed(hash_type::IPV4).fields,
            HASH_SRC_IP | HASH_DST_IP
        );
        assert!(udp.is_hashed(hash_type::IPV4) && udp.is_hashed(hash_type::UDPV4));
        assert!(!udp.is_hashed(hash_type::TCPV4 | hash_type::IPV6 | hash_type::UDPV6));
        // Without ports there is nothing of TCP about it.
        assert!(!Traffic::Ip4.is_hashed(hash_type::TCPV4 | hash_type::UDPV4));
        assert!(!Traffic::Other.is_hashed(u32::MAX));
    }

    #[test]
    fn a_drivers_table_is_repeated() {
        let mut bytes = vec![0x3f, 0, 0, 0, 3, 0, 2, 0];
        bytes.extend([0, 0, 2, 0, 1, 0, 2, 0]);
        bytes.extend([1, 0, 2, 0xaa, 0xbb]);
        let limits = rss::Limits {
            key_len: KEY_LEN,
            table_len: TABLE_LEN,
            types: HASH_TYPES,
        };
        let order = virtio::byte_order::ByteOrder::Little;
        let scaling = rss::Scaling::decode(&bytes, order, &limits, 3).unwrap();
        let scaling = Scaling::new(&scaling);
        let queues = [10, 11, 12];
        let filled: Vec<u32> = scaling.fill(&queues, 128).collect();
        assert_eq!(filled.len(), 128);
        assert!(filled.chunks(4).all(|part| part == [10, 12, 11, 12]));
        assert_eq!(scaling.rest(&queues), Some(12));
        assert_eq!(scaling.hashing.key[..3], [0xaa, 0xbb, 0]);
        assert!(!scaling.hashing.symmetric);
    }

    #[test]
    fn every_queue_is_in_the_table() {
        for pairs in 1..=32u16 {
            let count = entries(pairs);
            assert!(count.is_power_of_two() && count >= pairs && count < 2 * pairs);
            let queues: Vec<u32> = (0..u32::from(pairs)).collect();
            let table: Vec<u32> = fill(&queues, count).collect();
            assert_eq!(table.len(), usize::from(count));
            for queue in &queues {
                let times = table.iter().filter(|entry| *entry == queue).count();
                assert!((1..=2).contains(&times));
            }
        }
        assert_eq!(entries(0), 1);
        assert_eq!(fill(&[], 4).count(), 0);
    }
}
