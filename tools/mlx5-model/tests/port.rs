// SPDX-License-Identifier: GPL-2.0

//! What a driver says of its port, as the switch and the other functions feel it.

use mlx5_host::{
    net::Options,
    packet::{
        payload,
        Flow, //
    },
    pair::{
        flow,
        pair,
        Side, //
    },
    Board,
    Host, //
};
use mlx5_model::{
    fault::Fault,
    vport::FRAME_OVERHEAD, //
};
use prm::{
    eq::EventType,
    vport::{
        MacAddressLayout,
        ModifyNicVportContext,
        ModifyNicVportContextIn,
        ModifyVportState,
        QueryNicVportContext,
        QueryVnicEnv,
        QueryVportCounter,
        QueryVportCounterOut,
        QueryVportState,
        VportAdminState,
        VportState, //
    },
    Layout, //
};
use serde_json::json;
use zerocopy::IntoBytes;

fn counters(host: &mut Host, clear: bool) -> QueryVportCounterOut {
    host.call::<QueryVportCounter>(|input| {
        input.set_clear(clear);
    })
    .unwrap()
}

fn received(host: &mut Host) -> u64 {
    counters(host, false).received_eth_unicast().packets()
}

fn administer(host: &mut Host, state: VportAdminState) {
    host.call::<ModifyVportState>(|input| {
        input.set_admin_state(state);
    })
    .unwrap();
}

fn is_up(host: &mut Host) -> bool {
    let state = host.call::<QueryVportState>(|_| {}).unwrap();
    state.state() == Ok(VportState::UP)
}

fn is_told_of_the_link(side: &mut Side) {
    let event = side.host.wait_event().unwrap();
    assert_eq!(event.event_type(), Ok(EventType::PORT_CHANGE));
}

/// How many frames a function received, and sent, while its link was down.
fn lost(host: &mut Host) -> (u64, u64) {
    let env = host.call::<QueryVnicEnv>(|_| {}).unwrap();
    let env = env.vport_env();
    (
        env.receive_discard_vport_down(),
        env.transmit_discard_vport_down(),
    )
}

/// Nothing passes the link of `b`, either way, until `up` brings it up again.
fn nothing_passes(a: &mut Side, b: &mut Side, up: impl FnOnce(&mut Side)) {
    assert!(!is_up(&mut b.host));
    let (received, sent) = lost(&mut b.host);
    for n in 0..3 {
        a.send(&flow(a, b).frame(&payload(n, 10)));
        b.send(&flow(b, a).frame(&payload(n, 10)));
    }
    assert_eq!(lost(&mut b.host), (received + 3, sent + 3));
    up(b);
    is_told_of_the_link(b);
    assert!(is_up(&mut b.host));
    // The first frames that arrive are those that were sent afterwards.
    let there = flow(a, b).frame(b"there");
    a.send(&there);
    assert_eq!(b.receive(), there);
    let back = flow(b, a).frame(b"back");
    b.send(&back);
    assert_eq!(a.receive(), back);
}

#[test]
fn nothing_passes_a_link_that_is_down() {
    let (mut a, mut b) = pair("cx7", Options::default());
    let fault: Fault = serde_json::from_value(json!({"kind": "link", "state": "down"})).unwrap();
    let id = b.host.function.inject(fault).unwrap();
    is_told_of_the_link(&mut b);
    nothing_passes(&mut a, &mut b, |b| {
        b.host.function.clear_fault(id).unwrap();
    });

    administer(&mut b.host, VportAdminState::DOWN);
    is_told_of_the_link(&mut b);
    nothing_passes(&mut a, &mut b, |b| {
        administer(&mut b.host, VportAdminState::UP);
    });
    a.end();
    b.end();
}

#[test]
fn a_driver_cannot_bring_up_what_is_not_connected() {
    let (a, mut b) = pair("cx7", Options::default());
    let fault: Fault = serde_json::from_value(json!({"kind": "link", "state": "down"})).unwrap();
    b.host.function.inject(fault).unwrap();
    administer(&mut b.host, VportAdminState::UP);
    assert!(!is_up(&mut b.host));
    a.end();
    b.end();
}

#[test]
fn frames_go_where_addresses_are() {
    let board = Board::new(2).unwrap();
    let [mut a, mut b, mut c] =
        [0, 1, 2].map(|number| Side::new(&board, "cx7", number, Options::default()));
    let [first, second] = [[2, 0xaa, 0, 0, 0, 1], [2, 0xaa, 0, 0, 0, 2]];
    let mut input = ModifyNicVportContextIn::new();
    input
        .field_select_mut()
        .set_permanent_address(true)
        .set_addresses_list(true);
    let context = input.nic_vport_context_mut();
    context.set_allowed_list_size(1);
    context.permanent_address_mut().set_address(first);
    let mut list = MacAddressLayout::new();
    list.set_address(second);
    b.host
        .execute::<ModifyNicVportContext>(&input, list.as_bytes(), 0)
        .unwrap();
    for to in [first, second] {
        a.send(&Flow::new(a.mac, to).frame(b"for b alone"));
    }
    assert_eq!((received(&mut b.host), received(&mut c.host)), (2, 0));
    // After a reset they are nobody's, and who they are for is asked of all.
    drop(b.net);
    b.host.reset();
    b.host.start().unwrap();
    let context = b.host.call::<QueryNicVportContext>(|_| {}).unwrap();
    let context = context.nic_vport_context();
    assert_eq!(context.permanent_address().address(), b.mac);
    assert_eq!(context.allowed_list_size(), 0);
    for to in [first, second] {
        a.send(&Flow::new(a.mac, to).frame(b"for nobody"));
    }
    assert_eq!((received(&mut b.host), received(&mut c.host)), (4, 2));
    b.host.stop().unwrap();
    a.end();
    c.end();
}

#[test]
fn who_was_behind_a_port_goes_with_its_driver() {
    let board = Board::new(2).unwrap();
    let [mut a, mut b, mut c] =
        [0, 1, 2].map(|number| Side::new(&board, "cx7", number, Options::default()));
    let guest = [2, 0xaa, 0, 0, 0, 3];
    b.send(&Flow::new(guest, a.mac).frame(b"here is a guest"));
    a.receive();
    a.send(&Flow::new(a.mac, guest).frame(b"for b alone"));
    assert_eq!((received(&mut b.host), received(&mut c.host)), (1, 0));
    // It may be anywhere once nobody drives that port.
    b.end();
    a.send(&Flow::new(a.mac, guest).frame(b"for whoever has it"));
    assert_eq!(received(&mut c.host), 1);
    a.end();
    c.end();
}

#[test]
fn frames_are_as_large_as_the_port_allows() {
    let (mut a, mut b) = pair("cx7", Options::default());
    let length = |frame: &[u8]| (frame.len() - 14) as u16;
    let largest = flow(&a, &b).frame(&payload(1, 100));
    let larger = flow(&a, &b).frame(&payload(1, 101));
    b.host
        .call::<ModifyNicVportContext>(|input| {
            input.field_select_mut().set_mtu(true);
            let context = input.nic_vport_context_mut();
            context.set_mtu(length(&largest) + FRAME_OVERHEAD);
        })
        .unwrap();
    a.send(&larger);
    a.send(&largest);
    assert_eq!(b.receive(), largest);
    assert_eq!(received(&mut b.host), 1);
    // Neither can it send them.
    b.send(&flow(&b, &a).frame(&payload(1, 101)));
    let back = flow(&b, &a).frame(&payload(1, 100));
    b.send(&back);
    assert_eq!(a.receive(), back);
    a.end();
    b.end();
}

#[test]
fn counters_count_by_kind_until_they_are_cleared() {
    let (mut a, mut b) = pair("cx7", Options::default());
    let group = [0x33, 0x33, 0, 0, 0, 1];
    let mut bytes = Vec::new();
    for (to, count) in [(b.mac, 3), (group, 2), ([0xff; 6], 1)] {
        let frame = Flow::new(a.mac, to).frame(b"counted");
        (0..count).for_each(|_| a.send(&frame));
        (0..count).for_each(|_| assert_eq!(b.receive(), frame));
        bytes.push(frame.len() as u64);
    }
    let expected = [(3, 3 * bytes[0]), (2, 2 * bytes[1]), (1, bytes[2])];
    let all = counters(&mut b.host, true);
    let amounts = [
        all.received_eth_unicast(),
        all.received_eth_multicast(),
        all.received_eth_broadcast(),
    ];
    assert_eq!(amounts.map(|a| (a.packets(), a.octets())), expected);
    assert_eq!(all.transmitted_eth_unicast().packets(), 0);
    let all = counters(&mut a.host, false);
    let amounts = [
        all.transmitted_eth_unicast(),
        all.transmitted_eth_multicast(),
        all.transmitted_eth_broadcast(),
    ];
    assert_eq!(amounts.map(|a| (a.packets(), a.octets())), expected);
    // What was read and cleared is gone, for who cleared it.
    assert_eq!(received(&mut b.host), 0);
    a.send(&flow(&a, &b).frame(b"one more"));
    assert_eq!(received(&mut b.host), 1);
    let sent = counters(&mut a.host, false);
    assert_eq!(sent.transmitted_eth_unicast().packets(), 4);
    a.end();
    b.end();
}
