// SPDX-License-Identifier: GPL-2.0

//! Steering against a naive matcher, and what it refuses.

use std::{
    mem,
    sync::{
        Arc,
        Mutex, //
    }, //
};

use prm::{
    flow::{
        DestFormat,
        FlowContext,
        FlowCounterList,
        FlowDestinationType,
        FteMatchParam,
        FteMatchSetLyr24,
        ACTION_ALLOW,
        ACTION_COUNT,
        ACTION_DROP,
        ACTION_FWD_DEST,
        MATCH_OUTER_HEADERS, //
    },
    layout::bits,
    tir::{
        DispType,
        L3ProtType,
        L4ProtType,
        RxHashFn,
        TirContext, //
    },
    Layout, //
};
use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::{
    counter::FlowCounter,
    entry::{
        Entry,
        Rule, //
    },
    flow_table::{
        FlowTable,
        Group, //
    },
    headers::Headers,
    receiver::Receiver,
    rqt::{
        Queue,
        Rqt, //
    },
    tir::{
        Hash,
        Tir, //
    },
    toeplitz::toeplitz,
    ReceiveQueue,
    Steering, //
};
use crate::{
    eswitch::Port,
    frame::Frame,
    object::Table,
    pd::TransportDomain,
    profile::Profile,
    refusal::Refusal, //
};

/// A queue that keeps what it receives.
#[derive(Default)]
struct Sink(Mutex<Vec<Frame>>);

impl ReceiveQueue for Sink {
    fn receive(&self, frames: &[&Frame]) {
        let frames = frames.iter().map(|&frame| frame.clone());
        self.0.lock().unwrap().extend(frames);
    }
}

#[derive(Clone, Debug)]
enum Transport {
    Tcp(u16, u16, u16),
    Udp(u16, u16),
    Other(u8),
}

#[derive(Clone, Debug)]
enum Network {
    None,
    /// Addresses, and whether it is a fragment.
    V4([u8; 4], [u8; 4], bool, Transport),
    /// The same, and how many extension headers there are.
    V6([u8; 16], [u8; 16], bool, usize, Transport),
}

#[derive(Clone, Debug)]
struct Packet {
    dmac: [u8; 6],
    smac: [u8; 6],
    tags: Vec<(u16, u16)>,
    network: Network,
}

fn transport() -> impl Strategy<Value = Transport> {
    let port = || prop_oneof![Just(80u16), Just(0x1234)];
    prop_oneof![
        (port(), port(), 0..0x200u16).prop_map(|(a, b, c)| Transport::Tcp(a, b, c)),
        (port(), port()).prop_map(|(a, b)| Transport::Udp(a, b)),
        Just(Transport::Other(1)),
    ]
}

fn packet() -> impl Strategy<Value = Packet> {
    let mac = || {
        prop_oneof![
            Just([2, 0, 0, 0, 0, 1]),
            Just([2, 0, 0, 0, 0, 2]),
            Just([0xff; 6])
        ]
    };
    let tag = (
        prop_oneof![Just(0x8100u16), Just(0x88a8)],
        prop_oneof![Just(0u16), Just(7), Just(0x6007)],
    );
    let network = prop_oneof![
        1 => Just(Network::None),
        3 => (0..2u8, 0..2u8, any::<bool>(), transport())
            .prop_map(|(a, b, c, d)| Network::V4([10, 0, 0, a], [10, 0, 0, b], c, d)),
        3 => (0..2u8, 0..2u8, any::<bool>(), 0..3usize, transport())
            .prop_map(|(a, b, c, d, e)| Network::V6([a; 16], [b; 16], c, d, e)),
    ];
    (mac(), mac(), prop::collection::vec(tag, 0..3), network).prop_map(
        |(dmac, smac, tags, network)| Packet {
            dmac,
            smac,
            tags,
            network,
        },
    )
}

impl Transport {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Tcp(source, destination, flags) => {
                let mut bytes = [source.to_be_bytes(), destination.to_be_bytes()].concat();
                bytes.extend([0; 8]);
                bytes.extend((0x5000 | flags).to_be_bytes());
                bytes.extend([0; 6]);
                bytes
            }
            Self::Udp(source, destination) => [
                source.to_be_bytes(),
                destination.to_be_bytes(),
                [0; 2],
                [0; 2],
            ]
            .concat(),
            Self::Other(_) => vec![8, 0, 0, 0],
        }
    }

    fn protocol(&self) -> u8 {
        match self {
            Self::Tcp(..) => 6,
            Self::Udp(..) => 17,
            Self::Other(protocol) => *protocol,
        }
    }

    fn describe(&self, set: &mut FteMatchSetLyr24) {
        match *self {
            Self::Tcp(source, destination, flags) => {
                set.set_tcp_sport(source)
                    .set_tcp_dport(destination)
                    .set_tcp_flags(flags);
            }
            Self::Udp(source, destination) => {
                set.set_udp_sport(source).set_udp_dport(destination);
            }
            Self::Other(_) => (),
        }
    }
}

impl Packet {
    fn frame(&self) -> Frame {
        let mut bytes = [self.dmac, self.smac].concat();
        for (type_, tag) in &self.tags {
            bytes.extend(type_.to_be_bytes());
            bytes.extend(tag.to_be_bytes());
        }
        match &self.network {
            Network::None => bytes.extend([0x88, 0xb5, 1, 2, 3]),
            Network::V4(source, destination, fragment, transport) => {
                bytes.extend([0x08, 0x00, 0x46, 0x29, 0, 0, 0, 0]);
                bytes.extend([
                    if *fragment { 0x20 } else { 0x40 },
                    0,
                    64,
                    transport.protocol(),
                ]);
                bytes.extend([0, 0]);
                bytes.extend(source);
                bytes.extend(destination);
                // An option.
                bytes.extend([1; 4]);
                bytes.extend(transport.bytes());
            }
            Network::V6(source, destination, fragment, extensions, transport) => {
                let mut chain = vec![60; *extensions];
                chain.extend(fragment.then_some(44));
                chain.push(transport.protocol());
                bytes.extend([0x86, 0xdd, 0x62, 0x90, 0, 0, 0, 0, chain[0], 64]);
                bytes.extend(source);
                bytes.extend(destination);
                for (this, next) in chain.iter().zip(&chain[1..]) {
                    let len = if *this == 60 { 16 } else { 8 };
                    let mut header = vec![0; len];
                    header[0] = *next;
                    header[1] = u8::from(*this == 60);
                    bytes.extend(header);
                }
                bytes.extend(transport.bytes());
            }
        }
        Frame { bytes }
    }

    /// The fields of the reference, by their names.
    fn fields(&self) -> FteMatchSetLyr24 {
        let split = |mac: [u8; 6]| {
            let [a, b, c, d, e, f] = mac;
            (u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([e, f]))
        };
        let mut set = FteMatchSetLyr24::new();
        let (high, low) = split(self.dmac);
        set.set_dmac_47_16(high).set_dmac_15_0(low);
        let (high, low) = split(self.smac);
        set.set_smac_47_16(high).set_smac_15_0(low);
        if let Some((type_, tag)) = self.tags.first() {
            set.set_cvlan_tag(*type_ == 0x8100)
                .set_svlan_tag(*type_ == 0x88a8);
            set.set_first_vid(tag & 0xfff)
                .set_first_prio((tag >> 13) as u8);
        }
        let (fragment, transport) = match &self.network {
            Network::None => {
                set.set_ethertype(0x88b5);
                return set;
            }
            Network::V4(source, destination, fragment, transport) => {
                set.set_ethertype(0x0800).set_ip_version(4).set_ipv4_ihl(6);
                set.src_ipv4_src_ipv6_mut()[12..].copy_from_slice(source);
                set.dst_ipv4_dst_ipv6_mut()[12..].copy_from_slice(destination);
                (*fragment, transport)
            }
            Network::V6(source, destination, fragment, _, transport) => {
                set.set_ethertype(0x86dd).set_ip_version(6);
                *set.src_ipv4_src_ipv6_mut() = *source;
                *set.dst_ipv4_dst_ipv6_mut() = *destination;
                (*fragment, transport)
            }
        };
        set.set_ip_dscp(10).set_ip_ecn(1).set_ttl_hoplimit(64);
        set.set_ip_protocol(transport.protocol()).set_frag(fragment);
        if !fragment {
            transport.describe(&mut set);
        }
        set
    }
}

/// Steering with one receive interface for each of some queues.
struct Bench {
    sinks: Table<Sink>,
    domains: Table<TransportDomain>,
    receiver: Arc<Receiver>,
    steering: Steering,
}

fn context() -> TirContext {
    let mut context = TirContext::new();
    context
        .set_disp_type(DispType::INDIRECT)
        .set_rx_hash_fn(RxHashFn::TOEPLITZ)
        .set_rx_hash_symmetric(true);
    for (at, byte) in context.rx_hash_toeplitz_key_mut().iter_mut().enumerate() {
        *byte = (at * 37 + 11) as u8;
    }
    context
        .rx_hash_field_selector_outer_mut()
        .set_selected_fields(0xf);
    context
}

impl Bench {
    fn new() -> Self {
        let receiver = Arc::<Receiver>::default();
        let profile = Profile::load("cx7").unwrap();
        let mut domains = Table::new("transport domain", 1, 8);
        domains.add(TransportDomain).unwrap();
        Self {
            sinks: Table::new("virtqueue", 1, 64),
            domains,
            steering: Steering::new(&profile, receiver.clone()),
            receiver,
        }
    }

    /// Makes an interface that spreads over `queues` queues of its own.
    fn add_tir(&mut self, queues: u16) -> u32 {
        let entries = (0..queues).map(|_| {
            let id = self.sinks.add(Sink::default()).unwrap();
            Queue::new(self.sinks.hold(id).unwrap())
        });
        let rqt = Rqt::new(queues, entries.collect()).unwrap();
        let rqtn = self.steering.rqts.add(rqt).unwrap();
        let (domain, _) = self.domains.iter().next().unwrap();
        let domain = self.domains.hold(domain).unwrap();
        let rqt = self.steering.rqts.hold(rqtn).unwrap();
        let tir = Tir::new(context(), rqt, domain).unwrap();
        self.steering.tirs.add(tir).unwrap()
    }

    fn add_table(&mut self, level: u8, miss: Option<u32>) -> u32 {
        let miss = miss.map(|id| self.steering.flow_tables.hold(id).unwrap());
        let table = FlowTable::new(level, 8, miss).unwrap();
        self.steering.flow_tables.add(table).unwrap()
    }

    fn table(&self, id: u32) -> Arc<FlowTable> {
        self.steering.flow_tables.get(id).unwrap().clone()
    }

    fn add_entry(&self, table: u32, group: u32, index: u32, rule: Rule) -> Result<(), Refusal> {
        let table = self.table(table);
        let group = table.hold_group(group, index)?;
        table.set_entry(index, Entry::new(&self.steering, &table, group, rule)?);
        Ok(())
    }

    /// What each queue received since it was last asked, by the queue's number.
    fn received(&self) -> Vec<(u32, Vec<Frame>)> {
        let take = |sink: &Sink| mem::take(&mut *sink.0.lock().unwrap());
        let all = self.sinks.iter().map(|(id, sink)| (id, take(sink)));
        all.filter(|(_, frames)| !frames.is_empty()).collect()
    }
}

fn group(start: u32, end: u32, mask: &FteMatchSetLyr24) -> Result<Group, Refusal> {
    let mut criteria = FteMatchParam::new();
    *criteria.outer_headers_mut() = mask.clone();
    Group::new(start, end, MATCH_OUTER_HEADERS, criteria)
}

fn rule(action: u16, value: &FteMatchSetLyr24, to: &[(FlowDestinationType, u32)]) -> Rule {
    let mut context = FlowContext::new();
    context.set_action(action);
    *context.match_value_mut().outer_headers_mut() = value.clone();
    let destination = |(type_, id): &(FlowDestinationType, u32)| {
        let mut destination = DestFormat::new();
        destination
            .set_destination_type(*type_)
            .set_destination_id(*id);
        destination
    };
    Rule {
        context,
        destinations: to.iter().map(destination).collect(),
        counters: Vec::new(),
    }
}

fn to_tir(value: &FteMatchSetLyr24, tir: u32) -> Rule {
    rule(ACTION_FWD_DEST, value, &[(FlowDestinationType::TIR, tir)])
}

/// The fields that a mask of the property test can have, each with some bits.
const MASKS: &[&[(&str, u64)]] = &[
    &[],
    &[("dmac_47_16", 0xffff_ffff), ("dmac_15_0", 0xffff)],
    &[("dmac_47_16", 0x0100_0000)],
    &[
        ("dmac_15_0", 0xffff),
        ("cvlan_tag", 1),
        ("first_vid", 0xfff),
    ],
    &[("smac_15_0", 1), ("svlan_tag", 1), ("first_prio", 7)],
    &[("ethertype", 0xffff), ("frag", 1)],
    &[("ip_version", 0xf), ("ip_protocol", 0xff)],
    &[("tcp_dport", 0xffff), ("ip_protocol", 0xff)],
    &[("udp_sport", 0xffff), ("udp_dport", 0xff00)],
    &[
        ("tcp_flags", 0x012),
        ("ttl_hoplimit", 0xff),
        ("ip_dscp", 0x3f),
    ],
];

fn mask(number: usize) -> FteMatchSetLyr24 {
    let mut mask = FteMatchSetLyr24::new();
    for (name, value) in MASKS[number] {
        let field = FteMatchSetLyr24::INFO.field(name).unwrap();
        prm::layout::set_bits(mask.as_mut_bytes(), field.offset, field.width, *value);
    }
    // One that names addresses, which are no numbers.
    if number == 6 {
        mask.dst_ipv4_dst_ipv6_mut()[15] = 1;
    }
    mask
}

/// Field by field, as the reference says it.
fn matches(mask: &FteMatchSetLyr24, value: &FteMatchSetLyr24, frame: &FteMatchSetLyr24) -> bool {
    FteMatchSetLyr24::INFO.fields.iter().all(|field| {
        (field.offset..field.offset + field.width).all(|bit| {
            let bit = |set: &FteMatchSetLyr24| bits(set.as_bytes(), bit, 1);
            bit(mask) == 0 || bit(value) == bit(frame)
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn headers_are_read_as_the_reference_names_them(packet in packet()) {
        let frame = packet.frame();
        let read = Headers::of(&frame.bytes);
        let fields = packet.fields();
        prop_assert_eq!(&read.0[..], fields.as_bytes());
        // Whatever is missing, reading ends.
        for len in 0..frame.bytes.len() {
            Headers::of(&frame.bytes[..len]);
        }
    }

    #[test]
    fn no_bytes_are_too_odd_to_be_read(bytes in prop::collection::vec(any::<u8>(), 0..128), type_ in 0..3usize) {
        let mut bytes = bytes;
        if let Some(place) = bytes.get_mut(12..14) {
            place.copy_from_slice(&[[8, 0], [0x86, 0xdd], [0x81, 0]][type_]);
        }
        Headers::of(&bytes);
    }

    #[test]
    fn tables_match_as_a_naive_one(
        groups in prop::collection::vec((0..MASKS.len(), 0..2usize), 1..6),
        entries in prop::collection::vec((0..6usize, 0..4u32, packet()), 0..24),
        packets in prop::collection::vec(packet(), 1..8),
        removed in prop::collection::vec(0..24usize, 0..4),
    ) {
        let mut bench = Bench::new();
        let tirs: Vec<_> = (0..24).map(|_| bench.add_tir(1)).collect();
        // A frame that the first table has nothing for goes to the second.
        let second = bench.add_table(2, None);
        let first = bench.add_table(1, Some(second));
        let tables = [first, second];
        bench.receiver.set_root(Some(bench.table(first)));

        let mut ids = Vec::new();
        for (number, (this, table)) in (0..).zip(&groups) {
            // The groups of a table are not made in the order of their entries.
            let start = 4 * (40 - number);
            let group = group(start, start + 3, &mask(*this)).unwrap();
            ids.push((tables[*table], bench.table(tables[*table]).add_group(group).unwrap(), start));
        }
        // Table, index, mask, value and interface of each entry.
        let mut naive: Vec<(usize, u32, FteMatchSetLyr24, FteMatchSetLyr24, u32)> = Vec::new();
        for (number, (group, offset, packet)) in entries.iter().enumerate() {
            let group = group % groups.len();
            let (table, id, start) = ids[group];
            let (index, value) = (start + offset, packet.fields());
            bench.add_entry(table, id, index, to_tir(&value, tirs[number])).unwrap();
            let place = groups[group].1;
            naive.retain(|entry| (entry.0, entry.1) != (place, index));
            naive.push((place, index, mask(groups[group].0), value, tirs[number]));
        }
        for number in removed {
            if number < naive.len() {
                let (place, index, ..) = naive.swap_remove(number);
                bench.table(tables[place]).remove_entry(index).unwrap();
            }
        }
        naive.sort_by_key(|entry| (entry.0, entry.1));

        let mut discarded = 0;
        for packet in packets {
            let frame = packet.frame();
            bench.receiver.receive(&[&frame]);
            let fields = packet.fields();
            let found = naive.iter().find(|entry| matches(&entry.2, &entry.3, &fields));
            // Queues were made in the order of interfaces.
            let expected = found.map(|entry| (entry.4, vec![frame]));
            discarded += u64::from(expected.is_none());
            prop_assert_eq!(bench.received(), expected.into_iter().collect::<Vec<_>>());
        }
        prop_assert_eq!(bench.receiver.discarded(), discarded);
    }

    #[test]
    fn both_directions_of_a_flow_go_to_one_queue(packet in packet()) {
        let mut back = packet.clone();
        match &mut back.network {
            Network::None => (),
            Network::V4(a, b, _, transport) => {
                mem::swap(a, b);
                transport.turn();
            }
            Network::V6(a, b, _, _, transport) => {
                mem::swap(a, b);
                transport.turn();
            }
        }
        for l3 in [L3ProtType::IPV4, L3ProtType::IPV6] {
            for l4 in [L4ProtType::TCP, L4ProtType::UDP] {
                let mut context = context();
                context
                    .rx_hash_field_selector_outer_mut()
                    .set_l3_prot_type(l3)
                    .set_l4_prot_type(l4);
                let hash = Hash::new(&context).unwrap().unwrap();
                let of = |packet: &Packet| hash.of(&Headers::of(&packet.frame().bytes));
                prop_assert_eq!(of(&packet), of(&back));
            }
        }
    }
}

impl Transport {
    fn turn(&mut self) {
        match self {
            Self::Tcp(a, b, _) | Self::Udp(a, b) => mem::swap(a, b),
            Self::Other(_) => (),
        }
    }
}

fn tcp(source: u8, sport: u16, fragment: bool) -> Packet {
    Packet {
        dmac: [2, 0, 0, 0, 0, 1],
        smac: [2, 0, 0, 0, 0, 2],
        tags: Vec::new(),
        network: Network::V4(
            [10, 0, 0, source],
            [10, 0, 0, 2],
            fragment,
            Transport::Tcp(sport, 80, 0x10),
        ),
    }
}

#[test]
fn only_the_chosen_fields_are_hashed() {
    let mut asymmetric = context();
    asymmetric.set_rx_hash_symmetric(false);
    let hash = |context: &TirContext, packet: &Packet| {
        let hash = Hash::new(context).unwrap().unwrap();
        hash.of(&Headers::of(&packet.frame().bytes))
    };
    let key = asymmetric.rx_hash_toeplitz_key();
    let addresses = [10, 0, 0, 9, 10, 0, 0, 2];
    let all = [&addresses[..], &[0x12, 0x34, 0, 80]].concat();
    assert_eq!(
        hash(&asymmetric, &tcp(9, 0x1234, false)),
        toeplitz(key, &all)
    );
    assert_eq!(
        hash(&asymmetric, &tcp(9, 0x1234, true)),
        toeplitz(key, &addresses)
    );
    let sorted = [10, 0, 0, 2, 10, 0, 0, 9, 0, 80, 0x12, 0x34];
    assert_eq!(
        hash(&context(), &tcp(9, 0x1234, false)),
        toeplitz(key, &sorted)
    );
    let mut other = context();
    other
        .rx_hash_field_selector_outer_mut()
        .set_l3_prot_type(L3ProtType::IPV6);
    assert_eq!(hash(&other, &tcp(9, 0x1234, false)), 0);
    // Of another transport protocol than the chosen one, only addresses count.
    let mut other = asymmetric.clone();
    other
        .rx_hash_field_selector_outer_mut()
        .set_l4_prot_type(L4ProtType::UDP);
    assert_eq!(
        hash(&other, &tcp(9, 0x1234, false)),
        toeplitz(key, &addresses)
    );

    let mut none = context();
    none.set_rx_hash_fn(RxHashFn::NONE);
    assert!(Hash::new(&none).unwrap().is_none());
    let refusal = |context: &TirContext| Hash::new(context).err();
    let mut odd = context();
    odd.set_rx_hash_fn(RxHashFn::INVERTED_XOR8);
    assert_eq!(refusal(&odd), Some(Refusal::HashFunction));
    let mut odd = context();
    odd.rx_hash_field_selector_outer_mut()
        .set_selected_fields(0x1f);
    assert_eq!(refusal(&odd), Some(Refusal::HashFields));
    odd.rx_hash_field_selector_outer_mut()
        .set_selected_fields(0x7);
    assert_eq!(refusal(&odd), Some(Refusal::HashFields));
}

#[test]
fn flows_are_spread_and_stay_in_order() {
    let mut bench = Bench::new();
    let tir = bench.add_tir(4);
    let table = bench.add_table(1, None);
    let id = bench
        .table(table)
        .add_group(group(0, 0, &FteMatchSetLyr24::new()).unwrap())
        .unwrap();
    bench
        .add_entry(table, id, 0, to_tir(&FteMatchSetLyr24::new(), tir))
        .unwrap();
    bench.receiver.set_root(Some(bench.table(table)));
    let frames: Vec<_> = (0..64)
        .map(|n| tcp(1, 1000 + n % 16, false).frame())
        .collect();
    bench.receiver.receive(&frames.iter().collect::<Vec<_>>());
    let received = bench.received();
    assert!(received.len() > 1, "everything went to one queue");
    let hash = Hash::new(&context()).unwrap().unwrap();
    for (queue, got) in received {
        let mut expected = frames.clone();
        expected.retain(|frame| hash.of(&Headers::of(&frame.bytes)) % 4 + 1 == queue);
        assert_eq!(got, expected);
    }
}

#[test]
fn a_frame_is_copied_to_each_interface_and_counted() {
    let mut bench = Bench::new();
    let tirs = [bench.add_tir(1), bench.add_tir(1)].map(|tir| (FlowDestinationType::TIR, tir));
    let table = bench.add_table(1, None);
    let id = bench
        .table(table)
        .add_group(group(0, 1, &mask(1)).unwrap())
        .unwrap();
    let counter = bench
        .steering
        .flow_counters
        .add(FlowCounter::default())
        .unwrap();
    let packet = tcp(1, 1, false);
    let mut copy = rule(ACTION_FWD_DEST | ACTION_COUNT, &packet.fields(), &tirs);
    let mut list = FlowCounterList::new();
    list.set_flow_counter_id(counter);
    copy.counters.push(list);
    bench.add_entry(table, id, 0, copy).unwrap();
    assert_eq!(
        bench.steering.flow_counters.remove(counter).err(),
        Some(Refusal::InUse("flow counter"))
    );

    // Nothing arrives as long as there is no root.
    let frame = packet.frame();
    bench.receiver.receive(&[&frame]);
    assert_eq!(bench.received(), []);
    bench.receiver.set_root(Some(bench.table(table)));
    bench.receiver.receive(&[&frame, &frame]);
    let both = vec![frame.clone(); 2];
    assert_eq!(bench.received(), [(1, both.clone()), (2, both)]);
    let value = bench
        .steering
        .flow_counters
        .get(counter)
        .unwrap()
        .value(true);
    assert_eq!(
        (value.packets(), value.octets()),
        (2, 2 * frame.bytes.len() as u64)
    );
    let value = bench
        .steering
        .flow_counters
        .get(counter)
        .unwrap()
        .value(false);
    assert_eq!(value.packets(), 0);

    // Nor when it is dropped, nor when the steering is gone.
    bench
        .add_entry(table, id, 0, rule(ACTION_DROP, &packet.fields(), &[]))
        .unwrap();
    bench.receiver.receive(&[&frame]);
    bench
        .add_entry(table, id, 0, to_tir(&packet.fields(), tirs[0].1))
        .unwrap();
    let Bench {
        steering,
        receiver,
        sinks,
        ..
    } = bench;
    drop(steering);
    receiver.receive(&[&frame]);
    assert!(sinks
        .iter()
        .all(|(_, sink)| sink.0.lock().unwrap().is_empty()));
    assert_eq!(receiver.discarded(), 3);
}

#[test]
fn what_is_in_use_stays() {
    let mut bench = Bench::new();
    let tir = bench.add_tir(1);
    let last = bench.add_table(2, None);
    let table = bench.add_table(1, Some(last));
    let id = bench
        .table(table)
        .add_group(group(0, 3, &mask(1)).unwrap())
        .unwrap();
    let value = tcp(1, 1, false).fields();
    bench.add_entry(table, id, 0, to_tir(&value, tir)).unwrap();

    let in_use = |name| Some(Refusal::InUse(name));
    assert_eq!(bench.sinks.remove(1).err(), in_use("virtqueue"));
    assert_eq!(
        bench.steering.rqts.remove(1).err(),
        in_use("receive queue table")
    );
    assert_eq!(
        bench.steering.tirs.remove(tir).err(),
        in_use("receive interface")
    );
    assert_eq!(
        bench.steering.flow_tables.remove(last).err(),
        in_use("flow table")
    );
    assert_eq!(
        bench.table(table).remove_group(id).err(),
        in_use("flow group")
    );
    let (domain, _) = bench.domains.iter().next().unwrap();
    assert!(bench.domains.remove(domain).is_err());

    assert_eq!(
        bench.table(table).remove_entry(1),
        Err(Refusal::NoFlowEntry)
    );
    bench.table(table).remove_entry(0).unwrap();
    bench.table(table).remove_group(id).unwrap();
    bench.table(table).set_miss(None).unwrap();
    bench.steering.flow_tables.remove(last).unwrap();
    bench.steering.tirs.remove(tir).unwrap();
    bench.steering.rqts.remove(1).unwrap();
    bench.sinks.remove(1).unwrap();
    bench.domains.remove(domain).unwrap();
}

#[test]
fn what_cannot_be_is_refused() {
    let mut bench = Bench::new();
    let tir = bench.add_tir(1);
    let low = bench.add_table(1, None);
    let table = bench.add_table(2, None);
    let high = bench.add_table(3, None);
    let hold = |id| Some(bench.steering.flow_tables.hold(id).unwrap());
    assert_eq!(
        FlowTable::new(2, 0, hold(table)).err(),
        Some(Refusal::FlowTableLevel)
    );
    assert_eq!(
        bench.table(table).set_miss(hold(low)),
        Err(Refusal::FlowTableLevel)
    );
    assert_eq!(
        bench.table(table).set_miss(hold(table)),
        Err(Refusal::FlowTableLevel)
    );
    assert_eq!(
        FlowTable::new(0, 25, None).err(),
        Some(Refusal::FlowTableSize)
    );
    assert_eq!(Rqt::new(1, Vec::new()).err(), Some(Refusal::QueueListSize));

    let add = |start, end, mask: &FteMatchSetLyr24| {
        bench.table(table).add_group(group(start, end, mask)?)
    };
    let mut kind = FteMatchSetLyr24::new();
    kind.set_l4_type(1);
    assert_eq!(add(0, 0, &kind), Err(Refusal::MatchCriteria));
    assert_eq!(
        Group::new(0, 0, 2, FteMatchParam::new()).err(),
        Some(Refusal::MatchCriteria)
    );
    assert_eq!(add(1, 0, &mask(1)), Err(Refusal::FlowGroupRange));
    assert_eq!(add(250, 256, &mask(1)), Err(Refusal::FlowGroupRange));
    let id = add(8, 255, &mask(1)).unwrap();
    assert_eq!(add(0, 8, &mask(2)), Err(Refusal::FlowGroupOverlap));

    let value = FteMatchSetLyr24::new();
    let to = |destinations: &[_]| {
        bench.add_entry(table, id, 8, rule(ACTION_FWD_DEST, &value, destinations))
    };
    let way = |action| bench.add_entry(table, id, 8, rule(action, &value, &[]));
    assert_eq!(
        bench.add_entry(table, id, 7, to_tir(&value, tir)),
        Err(Refusal::FlowIndex)
    );
    assert_eq!(
        bench.add_entry(table, id + 1, 8, to_tir(&value, tir)),
        Err(Refusal::NeverMade("flow group"))
    );
    assert_eq!(to(&[]), Err(Refusal::FlowList));
    assert_eq!(
        to(&[(FlowDestinationType::TIR, tir + 1)]),
        Err(Refusal::NeverMade("receive interface"))
    );
    assert_eq!(
        to(&[(FlowDestinationType::VPORT, 0)]),
        Err(Refusal::FlowDestination)
    );
    assert_eq!(
        to(&[(FlowDestinationType::FLOW_TABLE, low)]),
        Err(Refusal::FlowTableLevel)
    );
    let several = [(FlowDestinationType::FLOW_TABLE, high); 2];
    assert_eq!(to(&several), Err(Refusal::FlowDestination));
    assert_eq!(to(&several[..1]), Ok(()));
    assert_eq!(way(0), Err(Refusal::FlowAction));
    assert_eq!(way(ACTION_DROP | ACTION_ALLOW), Err(Refusal::FlowAction));
    assert_eq!(way(ACTION_DROP | 0x80), Err(Refusal::FlowAction));
    assert_eq!(way(ACTION_DROP | ACTION_COUNT), Err(Refusal::FlowList));
    assert_eq!(way(ACTION_ALLOW), Ok(()));
}
