// SPDX-License-Identifier: GPL-2.0

//! Frames between two functions, through rings, switch and steering.

use driver::Shape;
use mlx5_host::{
    net::{
        Header,
        Net,
        Options, //
    },
    objects::Match,
    packet::{
        payload,
        Flow, //
    },
    Board, //
};
use prm::cap::virtio_feature;

use mlx5_host::pair::{
    flow,
    pair,
    Side, //
};

/// Lengths of payload: the least, odd and even, the most.
const LENGTHS: [usize; 6] = [0, 1, 2, 63, 700, 1472];

fn both_ways(profile: &str, options: Options) {
    let (mut a, mut b) = pair(profile, options);
    for round in 0..40 {
        for len in LENGTHS {
            let there = flow(&a, &b).frame(&payload(round, len));
            a.send(&there);
            assert_eq!(b.receive(), there);
            let back = flow(&b, &a).frame(&payload(round + 1, len));
            b.send(&back);
            assert_eq!(a.receive(), back);
        }
    }
    a.end();
    b.end();
}

#[test]
fn modern() {
    both_ways("cx7", Options::default());
}

#[test]
fn legacy() {
    for mergeable in [0, 1 << virtio_feature::MRG_RXBUF] {
        let options = Options {
            version_1: false,
            features: mergeable,
            ..Options::default()
        };
        both_ways("legacy-only", options);
    }
}

#[test]
fn every_profile() {
    for (profile, channels) in [
        ("cx6dx-old", true),
        ("minimal", true),
        ("modern-only", false),
    ] {
        let options = Options {
            channels,
            features: 0,
            ..Options::default()
        };
        both_ways(profile, options);
    }
}

#[test]
fn a_frame_in_several_buffers() {
    let options = Options {
        features: 1 << virtio_feature::MRG_RXBUF,
        ..Options::default()
    };
    let small = Options {
        buffer: 256,
        ..options
    };
    let board = Board::new(2).unwrap();
    let mut a = Side::new(&board, "cx7", 0, options);
    let mut b = Side::new(&board, "cx7", 1, small);
    for len in [100, 202, 203, 458, 459, 1472] {
        let frame = flow(&a, &b).frame(&payload(7, len));
        a.send(&frame);
        let (header, got) = b.net.receive(&mut b.host, 0).unwrap();
        assert_eq!(got, frame);
        let buffers = (options.header() + frame.len()).div_ceil(256);
        assert_eq!(usize::from(header.num_buffers), buffers);
    }
    a.end();
    b.end();
}

#[test]
fn indirect_and_scattered() {
    let options = Options {
        table: 16,
        ..Options::default()
    };
    let (mut a, mut b) = pair("cx7", options);
    for shape in [Shape::Direct, Shape::Indirect, Shape::Mixed(2)] {
        for piece in [1000, 200, 101] {
            let frame = flow(&a, &b).frame(&payload(3, 1000));
            assert!(a.net.put(1, &Header::default(), &frame, piece, shape));
            a.net.publish(&a.host, 1);
            assert_eq!(b.receive(), frame);
        }
    }
}

#[test]
fn checksums_are_completed() {
    let (mut a, mut b) = pair("cx7", Options::default());
    for tcp in [false, true] {
        for v6 in [false, true] {
            for vlan in [None, Some(5)] {
                let flow = Flow {
                    tcp,
                    v6,
                    vlan,
                    ..flow(&a, &b)
                };
                let data = payload(9, 333);
                a.send_with(&flow.checksum(), &flow.partial(&data));
                let (header, frame) = b.net.receive(&mut b.host, 0).unwrap();
                assert_eq!(frame, flow.frame(&data), "{flow:?}");
                // Data is valid: the receiver need not look.
                assert_eq!(header.flags, 2, "{flow:?}");
                let mut broken = flow.frame(&data);
                *broken.last_mut().unwrap() ^= 0x55;
                a.send(&broken);
                let (header, frame) = b.net.receive(&mut b.host, 0).unwrap();
                assert_eq!(frame, broken, "a wrong checksum is the receiver's business");
                assert_eq!(header.flags, 0);
            }
        }
    }
}

#[test]
fn large_frames_are_cut() {
    let options = Options {
        features: (1 << virtio_feature::CSUM)
            | (1 << virtio_feature::GUEST_CSUM)
            | (1 << virtio_feature::HOST_TSO4)
            | (1 << virtio_feature::HOST_TSO6),
        buffer: 1 << 16,
        ..Options::default()
    };
    let (mut a, mut b) = pair("cx7", options);
    for v6 in [false, true] {
        for (size, len) in [(1448, 60000), (536, 5000), (1448, 1448), (100, 101)] {
            let flow = Flow {
                tcp: true,
                v6,
                ..flow(&a, &b)
            };
            let data = payload(len as u32, len);
            a.send_with(&flow.segmentation(size), &flow.partial(&data));
            let mut got = Vec::new();
            while got.len() < len {
                let frame = b.receive();
                assert!(flow.is_whole(&frame), "a segment's checksums are right");
                let part = &frame[flow.payload()..];
                assert!(!part.is_empty() && part.len() <= usize::from(size));
                let sequence = &frame[flow.transport() + 4..flow.transport() + 8];
                let expected = 0x1000 + got.len() as u32;
                assert_eq!(sequence, expected.to_be_bytes());
                got.extend_from_slice(part);
            }
            assert_eq!(got, data);
        }
    }
}

/// Takes what is in every receive queue; how many frames each had.
fn spread(side: &mut Side, count: usize) -> Vec<usize> {
    let receivers: Vec<usize> = (0..side.net.queues.len()).step_by(2).collect();
    let mut counts = vec![0; receivers.len()];
    let mut seen: Vec<u64> = vec![0; receivers.len()];
    let start = std::time::Instant::now();
    while counts.iter().sum::<usize>() < count {
        assert!(start.elapsed() < mlx5_host::vectors::PATIENCE, "{counts:?}");
        for (n, &queue) in receivers.iter().enumerate() {
            let raised = side.host.vectors.count(side.net.queues[queue].vector());
            if raised > seen[n] {
                seen[n] = raised;
                while let Some(used) = side.net.queues[queue].ring.used().unwrap() {
                    side.net.give_back(queue, &used);
                    counts[n] += 1;
                }
                side.net.queues[queue].ring.enable_interrupts(1);
                while let Some(used) = side.net.queues[queue].ring.used().unwrap() {
                    side.net.give_back(queue, &used);
                    counts[n] += 1;
                }
                side.net.fill(&side.host, queue);
            }
        }
        std::thread::yield_now();
    }
    counts
}

#[test]
fn flows_are_spread_over_queues() {
    let options = Options {
        pairs: 4,
        ..Options::default()
    };
    let (mut a, mut b) = pair("cx7", options);
    let flows: Vec<Flow> = (0..64)
        .map(|n| Flow {
            tcp: true,
            ports: (1000 + 7 * n, 80),
            ..flow(&a, &b)
        })
        .collect();
    for flow in &flows {
        a.send(&flow.frame(b"spread"));
    }
    let counts = spread(&mut b, flows.len());
    let used = counts.iter().filter(|count| **count > 0).count();
    assert!(used >= 3, "{counts:?}");
    // One flow has one queue.
    for _ in 0..10 {
        a.send(&flows[5].frame(b"together"));
    }
    let counts = spread(&mut b, 10);
    assert!(counts.contains(&10), "{counts:?}");
    // And what goes to one queue by the table goes there.
    let last = b.net.queues[6].id;
    let rqtn = b.net.rqtn;
    b.host.modify_rqt(rqtn, &[last]).unwrap();
    for flow in &flows[..20] {
        a.send(&flow.frame(b"last"));
    }
    assert_eq!(spread(&mut b, 20), [0, 0, 0, 20]);
    a.end();
    b.end();
}

#[test]
fn many_queues_at_once() {
    const EACH: usize = 60;
    const SENDERS: [usize; 4] = [1, 3, 5, 7];

    let options = Options {
        pairs: 4,
        ..Options::default()
    };
    let (mut a, mut b) = pair("cx7", options);
    for round in 0..5 {
        for (queue, n) in SENDERS
            .iter()
            .flat_map(|queue| (0..EACH).map(|n| (*queue, n)))
        {
            let flow = Flow {
                tcp: true,
                ports: ((1000 + n) as u16, queue as u16),
                ..flow(&a, &b)
            };
            let frame = flow.frame(&payload(round, n));
            assert!(a
                .net
                .put(queue, &Header::default(), &frame, 2000, Shape::Direct));
        }
        for queue in SENDERS {
            a.net.publish(&a.host, queue);
        }
        spread(&mut b, SENDERS.len() * EACH);
        for queue in SENDERS {
            for _ in 0..EACH {
                let used = a
                    .net
                    .wait_used(&mut a.host, queue)
                    .expect("a frame is sent");
                a.net.give_back(queue, &used);
            }
        }
    }
    a.end();
    b.end();
}

#[test]
fn steering_by_address_and_vlan() {
    let (mut a, mut b) = pair("cx7", Options::default());
    let marker = flow(&a, &b).frame(b"marker");
    // For somebody else: the switch does not know who, so it reaches the function and no rule.
    let stranger = Flow::new(a.mac, [2, 9, 9, 9, 9, 9]);
    a.send(&stranger.frame(b"stranger"));
    a.send(&marker);
    assert_eq!(b.receive(), marker);
    // To all, and to a group.
    for to in [[0xff; 6], [0x33, 0x33, 0, 0, 0, 1]] {
        let frame = Flow::new(a.mac, to).frame(b"to many");
        a.send(&frame);
        assert_eq!(b.receive(), frame);
    }
    a.end();
    b.end();

    // Only one VLAN.
    let (mut a, mut b) = pair("cx7", Options::default());
    let b_options = b.net.options;
    let (b_mac, tagged) = (b.mac, Some(Some(7)));
    b.net.destroy(&mut b.host).unwrap();
    b.net = Net::without_rules(&mut b.host, b_options).unwrap();
    let what = Match {
        dmac: Some(([0xff; 6], b_mac)),
        vlan: tagged,
    };
    b.net.steer(&mut b.host, what).unwrap();
    b.net.start(&mut b.host).unwrap();
    for vlan in [None, Some(6), Some(8)] {
        let flow = Flow {
            vlan,
            ..flow(&a, &b)
        };
        a.send(&flow.frame(b"not for the VLAN"));
    }
    let inside = Flow {
        vlan: Some(7),
        ..flow(&a, &b)
    };
    let frame = inside.frame(b"for the VLAN");
    a.send(&frame);
    assert_eq!(b.receive(), frame);
    a.end();
    b.end();
}

#[test]
fn counters_count() {
    let (mut a, mut b) = pair("cx7", Options::default());
    for n in 0..5 {
        let frame = flow(&a, &b).frame(&payload(n, 50));
        a.send(&frame);
        b.receive();
    }
    let sent = a.net.counters(&mut a.host, 1).unwrap();
    assert_eq!((sent.received_desc(), sent.completed_desc()), (5, 5));
    let received = b.net.counters(&mut b.host, 0).unwrap();
    assert_eq!(
        (received.received_desc(), received.completed_desc()),
        (5, 5)
    );
    assert_eq!(received.bad_desc_errors(), 0);
}
