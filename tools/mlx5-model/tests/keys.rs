// SPDX-License-Identifier: GPL-2.0

//! Memory keys under virtqueues that run: maps that change, holes, rights, keys that are gone.

use driver::{
    Buffer,
    Shape, //
};
use mlx5_host::{
    net::Options,
    objects::{
        Access,
        Piece, //
    },
    packet::payload, //
    pair::{
        flow,
        pair,
        Side, //
    },
};
use prm::{
    eq::{
        EqeObjChange,
        EventType, //
    },
    mkey::QuerySpecialContexts,
    virtq::{
        modify,
        State, //
    },
    Layout, //
};

/// What a virtqueue says of memory that is not there, or not to be used so.
const INVALID_BUFFER: u8 = 3;

/// Gives running virtqueues another key.
fn remap(side: &mut Side, key: u32) {
    let Side { host, net, .. } = side;
    for index in 0..net.queues.len() {
        net.set_state(host, index, State::SUSPEND).unwrap();
    }
    for index in 0..net.queues.len() {
        let select = modify::STATE | modify::VIRTIO_Q_MKEY;
        net.modify(host, index, select, |object| {
            object
                .set_state(State::RDY)
                .virtio_q_context_mut()
                .set_virtio_q_mkey(key);
        })
        .unwrap();
        // Kicks of meanwhile are lost.
        host.kick(index as u16);
    }
}

/// A key of everything that `key` has but the page at `hole`.
fn with_a_hole(side: &mut Side, key: u32, hole: u64) -> u32 {
    let null = side.host.call::<QuerySpecialContexts>(|_| {}).unwrap();
    let memory = side.host.memory.region().clone();
    let (start, end) = (memory.base(), memory.base() + memory.len() as u64);
    let piece = |key, from: u64, to: u64| Piece {
        key,
        va: from,
        len: (to - from) as u32,
    };
    let pieces = [
        piece(key, start, hole),
        piece(null.null_mkey(), hole, hole + 0x1000),
        piece(key, hole + 0x1000, end),
    ];
    let pd = side.net.pd;
    side.host
        .create_klm_mkey(pd, Access::Write, (start, end - start), &pieces)
        .unwrap()
}

/// The virtqueue goes to error for its memory, and its driver is told.
fn fails(side: &mut Side, index: usize) {
    let event = side.host.wait_event().unwrap();
    assert_eq!(event.event_type(), Ok(EventType::OBJECT_CHANGE));
    let (change, _) = EqeObjChange::split(event.data()).unwrap();
    assert_eq!(change.obj_id(), side.net.queues[index].id);
    let object = side.net.query(&mut side.host, index).unwrap();
    assert_eq!(object.state(), Ok(State::ERR));
    assert_eq!(object.virtio_q_context().error_type(), INVALID_BUFFER);
}

fn exchange(a: &mut Side, b: &mut Side, seed: u32) {
    let there = flow(a, b).frame(&payload(seed, 300));
    a.send(&there);
    assert_eq!(b.receive(), there);
    let back = flow(b, a).frame(&payload(seed + 1, 300));
    b.send(&back);
    assert_eq!(a.receive(), back);
}

#[test]
fn a_running_device_is_given_another_map() {
    let (mut a, mut b) = pair("cx7", Options::default());
    let hole = a.host.memory.alloc(0x1000);
    let direct = a.net.mkey;
    for seed in 0..5 {
        exchange(&mut a, &mut b, 2 * seed);
        let before = a.net.mkey;
        a.net.mkey = with_a_hole(&mut a, direct, hole.addr());
        let key = a.net.mkey;
        remap(&mut a, key);
        // The old one is destroyed when nobody uses it any more.
        if before != direct {
            a.host.destroy_mkey(before).unwrap();
        }
    }
    exchange(&mut a, &mut b, 99);

    // Into the hole leads no way, and what came before is there and used.
    let there = flow(&a, &b).frame(b"before");
    a.net.send(&a.host, 1, &Default::default(), &there);
    let piece = Buffer {
        addr: hole.addr() - 0x10,
        len: 0x40,
    };
    let ring = &mut a.net.queues[1].ring;
    ring.add(&[piece], &[], Shape::Direct, 0).unwrap();
    a.net.publish(&a.host, 1);
    fails(&mut a, 1);
    assert_eq!(b.receive(), there);
    assert_eq!(a.net.reap(1), 1);
    a.host.destroy_mkey(direct).unwrap();
    a.end();
    b.end();
}

#[test]
fn a_key_that_is_gone_leads_nowhere() {
    let (mut a, mut b) = pair("cx7", Options::default());
    exchange(&mut a, &mut b, 1);
    a.host.destroy_mkey(a.net.mkey).unwrap();
    let frame = flow(&a, &b).frame(b"lost");
    a.net.send(&a.host, 1, &Default::default(), &frame);
    fails(&mut a, 1);
    b.send(&flow(&b, &a).frame(b"lost"));
    fails(&mut a, 0);
    b.end();
}

#[test]
fn a_key_to_read_is_not_written() {
    let (mut a, mut b) = pair("cx7", Options::default());
    let memory = a.host.memory.region().clone();
    let range = (memory.base(), memory.len() as u64);
    let pages: Vec<u64> = (range.0..range.0 + range.1).step_by(1 << 21).collect();
    let pd = a.net.pd;
    let key = a.host.create_mtt_mkey(pd, Access::Read, range, 21, &pages);
    let before = a.net.queues[0].data.get(0, 0x1_0000);
    remap(&mut a, key.unwrap());
    // Neither the used rings can be written nor buffers.
    fails(&mut a, 1);
    b.send(&flow(&b, &a).frame(b"unwanted"));
    fails(&mut a, 0);
    assert!(a.net.queues[0].data.get(0, 0x1_0000) == before);
    b.end();
}
