// SPDX-License-Identifier: GPL-2.0

use etherparse::{
    NetHeaders,
    PacketBuilder,
    PacketHeaders,
    TransportHeader, //
};
use proptest::prelude::*;
use virtio::net::header::{
    Header,
    GSO_ECN,
    NEEDS_CSUM, //
};

use super::{
    checksum,
    segment::Segmenter,
    write_u16,
    Headers,
    Ip,
    TCP,
    UDP, //
};

/// A TCP packet with `flags` (the low byte), perhaps in a VLAN, with its checksum whole.
fn tcp(ip: Ip, tagged: bool, flags: u8, payload: &[u8]) -> Vec<u8> {
    let start = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let mut frame = Vec::new();
    macro_rules! finish {
        ($step:expr) => {{
            let mut step = $step.tcp(4000, 80, 0xffff_ff00, 512);
            for (bit, set) in [(0x01, 0), (0x08, 1), (0x10, 2), (0x80, 3)] {
                if flags & bit != 0 {
                    step = match set {
                        0 => step.fin(),
                        1 => step.psh(),
                        2 => step.ack(77),
                        _ => step.cwr(),
                    };
                }
            }
            step.write(&mut frame, payload).unwrap();
        }};
    }
    let v4 = ([10, 0, 0, 1], [10, 0, 0, 2], 64);
    let v6 = ([0xfd; 16], [0xfe; 16], 64);
    match (ip, tagged) {
        (Ip::V4, false) => finish!(start.ipv4(v4.0, v4.1, v4.2)),
        (Ip::V4, true) => finish!(start
            .single_vlan(5.try_into().unwrap())
            .ipv4(v4.0, v4.1, v4.2)),
        (Ip::V6, false) => finish!(start.ipv6(v6.0, v6.1, v6.2)),
        (Ip::V6, true) => finish!(start
            .single_vlan(5.try_into().unwrap())
            .ipv6(v6.0, v6.1, v6.2)),
    }
    frame
}

fn udp(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .udp(1, 2)
        .write(&mut frame, payload)
        .unwrap();
    frame
}

/// The header of a driver that wants `frame` cut into pieces of `size` bytes.
fn offload(frame: &[u8], size: u16) -> Header {
    let headers = Headers::parse(frame).unwrap();
    Header {
        flags: NEEDS_CSUM,
        gso_type: match headers.ip {
            Ip::V4 => 1,
            Ip::V6 => 4,
        } | GSO_ECN,
        gso_size: size,
        csum_start: headers.l4 as u16,
        csum_offset: 16,
        ..Header::default()
    }
}

fn segments(frame: &[u8], size: u16) -> Vec<Vec<u8>> {
    let mut segmenter = Segmenter::new(frame, &offload(frame, size)).unwrap();
    let mut segments = Vec::new();
    let mut segment = vec![0xee; 3];
    while segmenter.next_into(&mut segment) {
        segments.push(segment.clone());
    }
    segments
}

/// Checks the checksums of a segment by other means, and returns its headers and payload.
fn opened(segment: &[u8]) -> (PacketHeaders<'_>, etherparse::TcpHeader, &[u8]) {
    let packet = PacketHeaders::from_ethernet_slice(segment).unwrap();
    let Some(TransportHeader::Tcp(tcp)) = packet.transport.clone() else {
        panic!("{packet:?}");
    };
    let payload = packet.payload.slice();
    match packet.net.as_ref().unwrap() {
        NetHeaders::Ipv4(ip, _) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!(tcp.checksum, tcp.calc_checksum_ipv4(ip, payload).unwrap());
        }
        NetHeaders::Ipv6(ip, _) => {
            assert_eq!(tcp.checksum, tcp.calc_checksum_ipv6(ip, payload).unwrap());
        }
        other => panic!("{other:?}"),
    }
    (packet, tcp, payload)
}

fn any_ip() -> impl Strategy<Value = Ip> {
    prop_oneof![Just(Ip::V4), Just(Ip::V6)]
}

proptest! {
    #[test]
    fn segments_are_the_packet(
        ip in any_ip(),
        tagged: bool,
        flags: u8,
        payload in proptest::collection::vec(any::<u8>(), 0..5000),
        size in 48u16..2000,
    ) {
        let frame = tcp(ip, tagged, flags, &payload);
        let (_, whole, _) = opened(&frame);
        let segments = segments(&frame, size);
        prop_assert_eq!(segments.len(), payload.len().div_ceil(size.into()).max(1));
        let mut together = Vec::new();
        for (at, segment) in segments.iter().enumerate() {
            let (packet, tcp, payload) = opened(segment);
            let last = at + 1 == segments.len();
            prop_assert_eq!(&segment[..14], &frame[..14]);
            prop_assert_eq!(
                tcp.sequence_number,
                whole.sequence_number.wrapping_add(together.len() as u32)
            );
            prop_assert_eq!(tcp.acknowledgment_number, whole.acknowledgment_number);
            prop_assert_eq!(tcp.ack, whole.ack);
            prop_assert_eq!(tcp.fin, whole.fin && last);
            prop_assert_eq!(tcp.psh, whole.psh && last);
            prop_assert_eq!(tcp.cwr, whole.cwr && at == 0);
            prop_assert!(last || payload.len() == usize::from(size));
            if let Some(NetHeaders::Ipv4(ip, _)) = packet.net {
                prop_assert_eq!(usize::from(ip.identification), at);
            }
            prop_assert!(checksum::is_whole(segment));
            together.extend_from_slice(payload);
        }
        prop_assert_eq!(together, payload);
    }

    #[test]
    fn partial_checksums_are_completed(
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        ip in any_ip(),
    ) {
        let whole = tcp(ip, false, 0x10, &payload);
        prop_assert!(checksum::is_whole(&whole));
        let headers = Headers::parse(&whole).unwrap();
        let mut partial = whole.clone();
        // What a driver leaves there: the sum of the pseudo header, not inverted.
        let pseudo = checksum::Sum::default().with(&whole[headers.l4..]).finish();
        write_u16(&mut partial, headers.l4 + 16, pseudo);
        checksum::complete(&mut partial, headers.l4 as u16, 16);
        prop_assert!(checksum::is_whole(&partial));
    }

    #[test]
    fn nothing_panics(
        bytes in proptest::collection::vec(any::<u8>(), 0..120),
        type_ in prop_oneof![Just(0x0800u16), Just(0x86dd), Just(0x8100), any::<u16>()],
        first in prop_oneof![Just(0x45u8), Just(0x60), Just(0x4f), any::<u8>()],
        header: [u8; 10],
        gso in prop_oneof![Just(1u8), Just(4)],
    ) {
        let mut frame = bytes;
        write_u16(&mut frame, 12, type_);
        if let Some(byte) = frame.get_mut(14) {
            *byte = first;
        }
        let mut header = Header::parse(&header, Default::default()).unwrap();
        header.gso_type = gso;
        if let Some(headers) = Headers::parse(&frame) {
            prop_assert!(headers.l3 <= headers.l4);
            prop_assert!(headers.l4 <= headers.end && headers.end <= frame.len());
            prop_assert!(headers.destination < headers.l4);
            header.csum_start = headers.l4 as u16;
            header.csum_offset = 16;
        }
        if let Ok(mut segmenter) = Segmenter::new(&frame, &header) {
            let mut segment = Vec::new();
            while segmenter.next_into(&mut segment) {}
        }
        checksum::is_whole(&frame);
        checksum::complete(&mut frame, header.csum_start, header.csum_offset);
    }
}

/// The same IPv6 packet with extension headers behind its header.
fn extended(frame: &[u8], extensions: &[(u8, &[u8])]) -> Vec<u8> {
    let (head, rest) = frame.split_at(54);
    let mut head = head.to_vec();
    let mut protocol = head[20];
    let mut middle = Vec::new();
    for (kind, rest) in extensions.iter().rev() {
        middle = [&[protocol][..], rest, &middle].concat();
        protocol = *kind;
    }
    head[20] = protocol;
    let len = middle.len() + rest.len();
    write_u16(&mut head, 18, len as u16);
    [&head[..], &middle, rest].concat()
}

/// The same without its extension headers, which have `len` bytes, on the last leg of its way.
fn stripped(frame: &[u8], len: usize, destination: [u8; 16]) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    let extensions: Vec<u8> = bytes.drain(54..54 + len).collect();
    let rest = (bytes.len() - 54) as u16;
    assert_eq!(usize::from(rest) + len, frame.len() - 54);
    assert_eq!(frame[18..20], (rest + len as u16).to_be_bytes());
    assert_eq!(extensions.len(), len);
    write_u16(&mut bytes, 18, rest);
    bytes[20] = TCP;
    bytes[38..54].copy_from_slice(&destination);
    bytes
}

#[test]
fn extension_headers_are_part_of_every_segment() {
    let last = [0xfe; 16];
    let payload: Vec<u8> = (0..3000).map(|n| n as u8).collect();
    let frame = tcp(Ip::V6, false, 0x18, &payload);
    let hop_by_hop: (u8, &[u8]) = (0, &[0, 1, 4, 0, 0, 0, 0]);
    let options: (u8, &[u8]) = (60, &[1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    // One segment is left, or none any more.
    let route = |left: u8| [&[2, 4, left, 0, 0, 0, 0][..], &last].concat();
    let (way, gone) = (route(1), route(0));
    for extensions in [
        vec![hop_by_hop],
        vec![hop_by_hop, (43, &way[..]), options],
        vec![(43, &gone[..])],
    ] {
        let mut whole = extended(&frame, &extensions);
        let len = whole.len() - frame.len();
        if extensions.contains(&(43, &way[..])) {
            whole[38..54].fill(0xfc);
        }
        assert!(checksum::is_whole(&whole));
        let mut together = Vec::new();
        for segment in segments(&whole, 1000) {
            assert_eq!(segment[54..54 + len], whole[54..54 + len]);
            assert!(checksum::is_whole(&segment));
            let plain = stripped(&segment, len, last);
            together.extend_from_slice(opened(&plain).2);
        }
        assert_eq!(together, payload);
    }
    // Nobody knows where this way leads.
    let unknown = [&[2, 3, 1, 0, 0, 0, 0][..], &last].concat();
    assert_eq!(
        Headers::parse(&extended(&frame, &[(43, &unknown[..])])),
        None
    );
    let short: (u8, &[u8]) = (43, &[0, 4, 1, 0, 0, 0, 0]);
    assert_eq!(Headers::parse(&extended(&frame, &[short])), None);
}

#[test]
fn headers_are_found() {
    let frame = udp(b"payload");
    let headers = Headers::parse(&frame).unwrap();
    assert_eq!((headers.l3, headers.l4, headers.end), (14, 34, 49));
    assert_eq!(headers.protocol, UDP);
    assert!(!headers.fragment);
    let frame = tcp(Ip::V6, true, 0, b"");
    let headers = Headers::parse(&frame).unwrap();
    assert_eq!((headers.ip, headers.l3, headers.l4), (Ip::V6, 18, 58));
    assert_eq!(headers.protocol, TCP);
    assert_eq!(Headers::parse(&frame[..57]), None);
}

#[test]
fn padding_and_broken_packets_do_not_deceive() {
    let mut frame = udp(b"x");
    frame.resize(60, 0xaa);
    assert!(checksum::is_whole(&frame));
    frame[42] ^= 1;
    assert!(!checksum::is_whole(&frame));
    // No checksum at all is not a right one.
    let mut frame = udp(b"x");
    write_u16(&mut frame, 40, 0);
    assert!(!checksum::is_whole(&frame));
    // Nor can that of a fragment be known.
    let mut frame = udp(b"x");
    frame[20] |= 0x20;
    assert!(!checksum::is_whole(&frame));
}

#[test]
fn what_is_not_as_the_header_says_is_not_cut() {
    let frame = tcp(Ip::V4, false, 0x10, &[7; 3000]);
    let good = offload(&frame, 1000);
    assert!(Segmenter::new(&frame, &good).is_ok());
    for bad in [
        Header {
            gso_type: 4,
            ..good
        },
        Header {
            gso_type: 5,
            ..good
        },
        Header {
            gso_size: 0,
            ..good
        },
        Header {
            gso_size: 1,
            ..good
        },
        Header {
            csum_start: 33,
            ..good
        },
        Header {
            csum_offset: 6,
            ..good
        },
    ] {
        assert!(Segmenter::new(&frame, &bad).is_err(), "{bad:?}");
    }
    let mut udp = frame.clone();
    udp[23] = UDP;
    assert!(Segmenter::new(&udp, &good).is_err());
    assert!(Segmenter::new(&frame[..40], &good).is_err());
}
