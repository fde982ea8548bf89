// SPDX-License-Identifier: GPL-2.0

//! Steering on the model: filters as entries of its tables let in what they should, and flows of
//! every kind are spread.

use std::{
    collections::{
        BTreeSet,
        HashMap, //
    },
    sync::Arc,
};

use mlx5_host::{
    net::{
        Net,
        Options, //
    },
    Board,
    Host, //
};
use mlx5_model::{
    eswitch::{
        Connection,
        Port, //
    },
    frame::Frame, //
};
use prm::{
    flow::{
        CreateFlowGroup,
        CreateFlowTable,
        DeleteFlowTableEntry,
        SetFlowTableEntry,
        SetFlowTableRoot,
        SetFteIn, //
    },
    rqt::{
        CreateRqt,
        CreateRqtIn,
        ModifyRqt,
        ModifyRqtIn, //
    },
    tir::CreateTir,
    vport::{
        AllowedListType,
        ModifyNicVportContext,
        ModifyNicVportContextIn,
        QueryNicVportContext,
        QueryVportState, //
    },
    Layout, //
};
use proptest::{
    prelude::*,
    test_runner::TestRunner, //
};
use virtio::net::MacAddress;
use zerocopy::IntoBytes;

use crate::net::{
    steering::{
        rules::{
            tests::{
                filter,
                rules,
                seen,
                Seen,
                OWN, //
            },
            Group,
            Places,
            Rule,
            Table, //
        },
        spread::{
            self,
            Compared,
            Hashing,
            Traffic, //
        }, //
    },
    wire::{
        port::{
            self,
            Modes, //
        },
        steer::{
            self,
            Criteria,
            Destination,
            Match,
            Spot, //
        }, //
    }, //
};

/// Who sends, and hears nothing.
struct Deaf;

impl Port for Deaf {
    fn receive(&self, _: &[&Frame]) {}
}

/// A function with a device that everything below is steered to.
struct Rig {
    host: Host,
    net: Net,
    sender: Connection,
    tables: [u32; 2],
    groups: HashMap<(u8, u8), u32>,
    kinds: u32,
    rqt: u32,
    places: Places,
    entries: HashMap<Rule, Spot>,
}

impl Rig {
    fn new(pairs: u16) -> Self {
        let board = Board::new(1).unwrap();
        let mut host = board.host("cx7", 0).unwrap();
        host.start().unwrap();
        let options = Options {
            pairs,
            ..Options::default()
        };
        let mut net = Net::without_rules(&mut host, options).unwrap();
        net.start(&mut host).unwrap();
        let sender = board.eswitch.attach(Arc::new(Deaf), 9000);

        let mut table = |level, log_size| {
            let output = host.call::<CreateFlowTable>(|input| steer::table(input, level, log_size));
            output.unwrap().table_id()
        };
        let tables = [Table::Vlan, Table::Mac].map(|which| table(which as u8, which.log_size()));
        let kinds = table(2, spread::LOG_KINDS);
        let mut group = |table, range, criteria| {
            let output =
                host.call::<CreateFlowGroup>(|input| steer::group(input, table, range, criteria));
            output.unwrap().group_id()
        };
        let mut groups = HashMap::new();
        for which in [Table::Vlan, Table::Mac] {
            for part in [Group::Exact, Group::Kind] {
                let criteria = Criteria::Filter(which, part);
                let id = group(tables[which as usize], which.range(part), criteria);
                groups.insert((which as u8, part as u8), id);
            }
        }
        let by_traffic = Compared::ALL.map(|compared| {
            let id = group(kinds, compared.range(), Criteria::Traffic(compared));
            (compared, id)
        });
        host.call::<SetFlowTableRoot>(|input| steer::root(input, tables[0]))
            .unwrap();
        let queues: Vec<u32> = net.queues.iter().step_by(2).map(|queue| queue.id).collect();
        let count = spread::entries(pairs);
        let mut input = CreateRqtIn::new();
        steer::rqt(&mut input, count);
        let tail: Vec<u8> = spread::fill(&queues, count)
            .flat_map(steer::queue)
            .collect();
        let (output, _) = host.execute::<CreateRqt>(&input, &tail, 0).unwrap();
        let rqt = output.rqtn();
        for (index, traffic) in (0u32..).zip(Traffic::ALL) {
            let output = host.call::<CreateTir>(|input| {
                steer::tir(input, net.transport_domain, rqt, traffic, &Hashing::USUAL);
            });
            let to = Destination::Tir(output.unwrap().tirn());
            let (_, group) = by_traffic[traffic.compared() as usize];
            let spot = Spot {
                table: kinds,
                group,
                index,
            };
            set(&mut host, spot, Match::Traffic(traffic), to);
        }
        Self {
            host,
            net,
            sender,
            tables,
            groups,
            kinds,
            rqt,
            places: Places::new(),
            entries: HashMap::new(),
        }
    }

    /// Brings the entries of the filter's tables to `rules`.
    fn apply(&mut self, rules: &[Rule]) {
        let wanted: BTreeSet<Rule> = rules.iter().copied().collect();
        let gone: Vec<Rule> = self
            .entries
            .keys()
            .filter(|rule| !wanted.contains(rule))
            .copied()
            .collect();
        for rule in wanted {
            if self.entries.contains_key(&rule) {
                continue;
            }
            let (table, group) = rule.place();
            let spot = Spot {
                table: self.tables[table as usize],
                group: self.groups[&(table as u8, group as u8)],
                index: self.places.take(&rule).unwrap(),
            };
            let to = match (table, rule) {
                (Table::Vlan, _) => Destination::Table(self.tables[1]),
                (_, Rule::DropBroadcast) => Destination::Nowhere,
                _ => Destination::Table(self.kinds),
            };
            set(&mut self.host, spot, Match::Rule(rule), to);
            self.entries.insert(rule, spot);
        }
        for rule in gone {
            let spot = self.entries.remove(&rule).unwrap();
            self.host
                .call::<DeleteFlowTableEntry>(|input| steer::end_entry(input, spot))
                .unwrap();
            self.places.give(&rule, spot.index);
        }
    }

    /// Sends a frame to the function, and returns the pair that received it.
    fn pair_of(&mut self, frame: Vec<u8>) -> Option<usize> {
        self.sender.send(&[Frame { bytes: frame }]);
        let mut found = None;
        for pair in 0..usize::from(self.net.options.pairs) {
            let index = 2 * pair;
            while let Some(used) = self.net.queues[index].ring.used().unwrap() {
                assert_eq!(found, None, "received twice");
                found = Some(pair);
                self.net.give_back(index, &used);
            }
            self.net.fill(&self.host, index);
        }
        found
    }
}

fn set(host: &mut Host, spot: Spot, what: Match, to: Destination) {
    let mut input = SetFteIn::new();
    steer::entry(&mut input, spot, what, to);
    let list = to.list();
    let tail = list.as_ref().map_or(&[][..], IntoBytes::as_bytes);
    host.execute::<SetFlowTableEntry>(&input, tail, 0).unwrap();
}

/// A frame behind a header, with a tag of type `tag` in front of it if there is one.
fn frame(to: MacAddress, tag: Option<(u16, u16)>, ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut bytes = to.to_vec();
    bytes.extend([2, 0xee, 0, 0, 0, 1]);
    if let Some((type_, vlan)) = tag {
        bytes.extend(type_.to_be_bytes());
        bytes.extend((vlan | (3 << 13)).to_be_bytes());
    }
    bytes.extend(ethertype.to_be_bytes());
    bytes.extend(packet);
    bytes.resize(bytes.len().max(60), 0);
    bytes
}

#[test]
fn the_model_lets_in_what_the_filter_does() {
    let mut rig = Rig::new(1);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(200));
    let strategy = (filter(), prop::collection::vec(seen(), 12));
    let rig = std::cell::RefCell::new(&mut rig);
    runner
        .run(&strategy, |(filter, frames)| {
            let mut rig = rig.borrow_mut();
            rig.apply(&rules(&filter, OWN));
            for Seen { to, vlan } in frames {
                let tag = vlan.map(|vlan| (0x8100, vlan));
                let received = rig.pair_of(frame(to, tag, 0x88b5, b"?")).is_some();
                prop_assert_eq!(
                    received,
                    filter.accepts(&OWN, &to, vlan),
                    "{:x?} {:?}",
                    to,
                    vlan
                );
                // A service provider's tag is none of a driver's VLANs.
                let received = rig
                    .pair_of(frame(to, Some((0x88a8, 7)), 0x88b5, b"?"))
                    .is_some();
                prop_assert_eq!(received, filter.accepts(&OWN, &to, None), "{:x?}", to);
            }
            Ok(())
        })
        .unwrap();
}

/// A packet of the `n`th flow of a kind.
fn packet(traffic: Traffic, n: u16) -> Vec<u8> {
    let [high, low] = n.to_be_bytes();
    let mut bytes = match traffic.ethertype() {
        0x0800 => {
            let mut header = vec![0x45, 0, 0, 60, 0, 0, 0, 0, 64, traffic.protocol(), 0, 0];
            header.extend([10, 0, high, low, 10, 1, 0, 1]);
            header
        }
        0x86dd => {
            let mut header = vec![0x60, 0, 0, 0, 0, 20, traffic.protocol(), 64];
            header.extend([0xfd; 14]);
            header.extend([high, low]);
            header.extend([0xfd; 16]);
            header
        }
        _ => vec![high, low],
    };
    let ports = bytes.len();
    bytes.extend([0; 20]);
    if traffic.protocol() != 0 {
        // Flows of the same two hosts.
        let address = if ports == 20 { 14 } else { 22 };
        bytes[address..address + 2].fill(0);
        bytes[ports..ports + 4].copy_from_slice(&[high, low, 0, 80]);
    }
    bytes
}

#[test]
fn flows_of_every_kind_are_spread() {
    let mut rig = Rig::new(4);
    rig.apply(&[
        Rule::Untagged,
        Rule::Tagged,
        Rule::AllUnicast,
        Rule::AllMulticast,
    ]);
    for traffic in Traffic::ALL {
        let mut pairs = BTreeSet::new();
        for n in 0..64 {
            let bytes = frame(OWN, None, traffic.ethertype(), &packet(traffic, n));
            let pair = rig.pair_of(bytes.clone()).expect("it is received");
            assert_eq!(rig.pair_of(bytes), Some(pair), "a flow stays where it is");
            pairs.insert(pair);
        }
        let expected = if traffic == Traffic::Other { 1 } else { 4 };
        assert_eq!(pairs.len(), expected, "{traffic:?}");
    }

    // Fewer pairs in use.
    let queues = [rig.net.queues[0].id, rig.net.queues[2].id];
    let count = spread::entries(4);
    let mut input = ModifyRqtIn::new();
    steer::change_rqt(&mut input, rig.rqt, count);
    let tail: Vec<u8> = spread::fill(&queues, count)
        .flat_map(steer::queue)
        .collect();
    rig.host.execute::<ModifyRqt>(&input, &tail, 0).unwrap();
    for n in 0..64 {
        let bytes = frame(OWN, None, 0x0800, &packet(Traffic::Udp4, n));
        assert!(rig.pair_of(bytes).is_some_and(|pair| pair < 2));
    }
}

#[test]
fn the_port_takes_addresses_and_an_mtu() {
    let board = Board::new(1).unwrap();
    let mut host = board.host("cx7", 3).unwrap();
    host.start().unwrap();
    let ask = |host: &mut Host| {
        let context = host.call::<QueryNicVportContext>(|_| {}).unwrap();
        let state = host.call::<QueryVportState>(|_| {}).unwrap();
        port::read(&context, &state)
    };
    let before = ask(&mut host);
    assert_eq!(before.mac, mlx5_host::mac(3));
    assert_eq!(before.mtu, 9000);
    assert!(before.up);

    host.call::<ModifyNicVportContext>(|input| port::set_mtu(input, 1400))
        .unwrap();
    let mut input = ModifyNicVportContextIn::new();
    port::set_list(&mut input, AllowedListType::UC, 2);
    let list = [port::address(OWN), port::address([2, 0, 0, 0, 0, 9])];
    host.execute::<ModifyNicVportContext>(&input, list.as_bytes(), 0)
        .unwrap();
    let after = ask(&mut host);
    assert_eq!((after.mac, after.mtu), (before.mac, 1400));
    let (_, tail) = host
        .execute::<QueryNicVportContext>(&Layout::new(), &[], 64)
        .unwrap();
    assert_eq!(tail[..16], *list.as_bytes());

    // And groups, of which single stations are none.
    for (address, is_group) in [([1, 0, 0x5e, 0, 0, 1], true), (OWN, false)] {
        let mut input = ModifyNicVportContextIn::new();
        port::set_list(&mut input, AllowedListType::MC, 1);
        let list = [port::address(address)];
        let done = host.execute::<ModifyNicVportContext>(&input, list.as_bytes(), 0);
        assert_eq!(done.is_ok(), is_group);
    }
    let modes = Modes {
        all: false,
        groups: true,
    };
    host.call::<ModifyNicVportContext>(|input| port::set_modes(input, modes))
        .unwrap();
    let context = host
        .call::<QueryNicVportContext>(|input| {
            input.set_allowed_list_type(AllowedListType::MC);
        })
        .unwrap();
    let context = context.nic_vport_context();
    assert_eq!(context.allowed_list_size(), 1);
    assert!(context.promisc_mc() && !context.promisc_all() && !context.promisc_uc());
}
