// SPDX-License-Identifier: GPL-2.0

//! Virtqueue objects from state to state, and how they tell their driver.

use std::sync::{
    mpsc,
    Arc,
    Mutex, //
};

use mlx5_host::{
    net::{
        Net,
        Options, //
    },
    packet::{
        payload,
        Flow, //
    },
    Board,
    Failure,
    Host, //
};
use mlx5_model::{
    eswitch::Port,
    frame::Frame, //
};
use prm::{
    virtq::{
        modify,
        DestroyVirtioNetQ,
        DestroyVirtioQCounters,
        State, //
    },
    Status, //
};

use mlx5_host::pair::{
    flow,
    pair,
    Side, //
};

#[test]
fn by_queue_pairs_instead_of_vectors() {
    let options = Options {
        channels: true,
        ..Options::default()
    };
    let board = Board::new(2).unwrap();
    let mut a = Side::new(&board, "cx6dx-old", 0, options);
    let mut b = Side::new(&board, "cx6dx-old", 1, options);
    // More often than there are receive entries and completions.
    for n in 0..300 {
        let frame = flow(&a, &b).frame(&payload(n, 80));
        a.send(&frame);
        assert_eq!(b.receive(), frame);
    }
    a.end();
    b.end();
}

#[test]
fn a_kick_before_its_time_is_lost() {
    let board = Board::new(1).unwrap();
    let mut host = board.host("cx7", 0).unwrap();
    host.start().unwrap();
    let mut net = Net::new(&mut host, Options::default(), [2, 0, 0, 0, 0, 9]).unwrap();
    let frame = Flow::new([2, 0, 0, 0, 0, 9], [0xff; 6]).frame(b"early");
    // The queue is in INIT: this kick is heard by nobody.
    net.send(&host, 1, &Default::default(), &frame);
    net.set_state(&mut host, 1, State::RDY).unwrap();
    // Commands after it have passed, and nothing was sent.
    let object = net.query(&mut host, 1).unwrap();
    assert_eq!(object.state(), Ok(State::RDY));
    host.kick(1);
    assert!(net.wait_used(&mut host, 1).is_some());
    net.destroy(&mut host).unwrap();
    host.stop().unwrap();
}

/// A port that says when a frame comes, and keeps its thread as long as it is closed.
struct Gate {
    came: mpsc::Sender<()>,
    closed: Mutex<()>,
}

impl Port for Gate {
    fn receive(&self, _: &[&Frame]) {
        let _ = self.came.send(());
        drop(self.closed.lock());
    }
}

#[test]
fn what_a_destroyed_queue_used_is_free_though_its_turn_is_still_to_come() {
    let board = Board::new(1).unwrap();
    let mut host = board.host("cx7", 0).unwrap();
    host.start().unwrap();
    let options = Options {
        pairs: 2,
        ..Options::default()
    };
    let mut net = Net::new(&mut host, options, [2, 0, 0, 0, 0, 9]).unwrap();
    net.start(&mut host).unwrap();
    let (came, comes) = mpsc::channel();
    let closed = Mutex::new(());
    let gate = Arc::new(Gate { came, closed });
    let _port = board.eswitch.attach(gate.clone(), 9000);
    let frame = Flow::new([2, 0, 0, 0, 0, 9], [0xff; 6]).frame(b"held up");

    // The only worker is held up with a frame of one queue, so that another one waits in line.
    let closed = gate.closed.lock().unwrap();
    net.send(&host, 1, &Default::default(), &frame);
    comes.recv().unwrap();
    net.send(&host, 3, &Default::default(), &frame);
    let queue = &net.queues[3];
    host.call::<DestroyVirtioNetQ>(|input| {
        input.set_obj_id(queue.id);
    })
    .unwrap();
    let free = host.call::<DestroyVirtioQCounters>(|input| {
        input.set_obj_id(queue.counters);
    });
    drop(closed);
    free.unwrap();
}

#[test]
fn suspended_asked_and_resumed() {
    let (mut a, mut b) = pair("cx7", Options::default());
    for round in 1..=5 {
        for n in 0..10 {
            let frame = flow(&a, &b).frame(&payload(n, 100));
            a.send(&frame);
            assert_eq!(b.receive(), frame);
        }
        a.net.set_state(&mut a.host, 1, State::SUSPEND).unwrap();
        let object = a.net.query(&mut a.host, 1).unwrap();
        assert_eq!(object.state(), Ok(State::SUSPEND));
        assert_eq!(object.hw_used_index(), round * 11 - 1);
        // What is made available now waits.
        let frame = flow(&a, &b).frame(&payload(77, 100));
        a.net.send(&a.host, 1, &Default::default(), &frame);
        assert_eq!(a.net.reap(1), 0);
        a.net.set_state(&mut a.host, 1, State::RDY).unwrap();
        a.host.kick(1);
        let used = a.net.wait_used(&mut a.host, 1).unwrap();
        a.net.give_back(1, &used);
        assert_eq!(b.receive(), frame);
    }
    a.end();
    b.end();
}

#[test]
fn a_suspended_queue_continues_in_another_object() {
    let (mut a, mut b) = pair("cx7", Options::default());
    for n in 0..7 {
        let frame = flow(&a, &b).frame(&payload(n, 100));
        a.send(&frame);
        b.receive();
    }
    a.net.set_state(&mut a.host, 1, State::SUSPEND).unwrap();
    let object = a.net.query(&mut a.host, 1).unwrap();
    assert_eq!(object.hw_used_index(), 7);
    a.net
        .replace(&mut a.host, 1, object.hw_used_index())
        .unwrap();
    a.net.set_state(&mut a.host, 1, State::RDY).unwrap();
    for n in 0..300 {
        let frame = flow(&a, &b).frame(&payload(n, 100));
        a.send(&frame);
        assert_eq!(b.receive(), frame);
    }
    a.end();
    b.end();
}

#[test]
fn states_that_cannot_follow_are_refused() {
    let board = Board::new(1).unwrap();
    let mut host = board.host("cx6dx-old", 0).unwrap();
    host.start().unwrap();
    let options = Options {
        channels: true,
        ..Options::default()
    };
    let net = Net::new(&mut host, options, [2, 0, 0, 0, 0, 9]).unwrap();
    let refused = |result: Result<(), Failure>| result.unwrap_err().status().unwrap();
    let set = |host: &mut Host, state| net.set_state(host, 0, state);
    assert_ne!(refused(set(&mut host, State::SUSPEND)), Status::OK);
    set(&mut host, State::RDY).unwrap();
    assert_ne!(refused(set(&mut host, State::INIT)), Status::OK);
    // The addresses of a queue that runs stay what they are.
    let result = net.modify(&mut host, 0, modify::VIRTIO_Q_ADDRS, |object| {
        object.virtio_q_context_mut().set_desc_addr(0x1000);
    });
    assert_ne!(refused(result), Status::OK);
    set(&mut host, State::SUSPEND).unwrap();
    // The firmware is too old for that.
    assert_ne!(refused(set(&mut host, State::RDY)), Status::OK);
    net.destroy(&mut host).unwrap();
    host.stop().unwrap();
}
