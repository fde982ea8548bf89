// SPDX-License-Identifier: GPL-2.0

//! How received frames are spread over the receive queues.
//!
//! A receive interface (TIR) hashes the fields of one network and one transport protocol; of a
//! frame of others it knows nothing to hash. So there is one for each kind of traffic, and a table
//! that tells the kinds apart; all of them choose from one table of queues (RQT).

use prm::tir::{
    L3ProtType,
    L4ProtType,
    HASH_DST_IP,
    HASH_L4_DPORT,
    HASH_L4_SPORT,
    HASH_SRC_IP, //
};

/// The numbers of protocols: in Ethernet headers, and in IP headers.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const UDP: u8 = 17;

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

    /// What is hashed of it. Of the rest that is nothing, so that it goes to the first queue.
    pub(crate) fn hashed(self) -> Hashed {
        const ADDRESSES: u32 = HASH_SRC_IP | HASH_DST_IP;
        const PORTS: u32 = HASH_L4_SPORT | HASH_L4_DPORT;

        let network = match self.ethertype() {
            IPV6 => L3ProtType::IPV6,
            _ => L3ProtType::IPV4,
        };
        let (transport, fields) = match self.protocol() {
            TCP => (L4ProtType::TCP, ADDRESSES | PORTS),
            UDP => (L4ProtType::UDP, ADDRESSES | PORTS),
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
            let ports = traffic.hashed().fields & HASH_L4_SPORT != 0;
            assert_eq!(ports, traffic.protocol() != 0);
        }
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
