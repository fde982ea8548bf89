// SPDX-License-Identifier: GPL-2.0

//! A monitor at the other end of a socket, which writes messages byte by byte as the protocol's
//! document has them.

use std::{
    cell::RefCell,
    fs::File,
    io::{
        Read,
        Write, //
    },
    os::{
        fd::AsRawFd,
        unix::net::UnixStream, //
    },
    rc::Rc, //
};

use vmm_sys_util::{
    eventfd::EventFd,
    sock_ctrl_msg::ScmSocket,
    tempfile::TempFile, //
};

use super::fake::{
    traits,
    Fake,
    State, //
};
use crate::{
    failure::Failure,
    front::Front,
    session::Session, //
};

/// A request that wants to be told how it went.
const NEED_REPLY: u32 = 8;

struct Monitor {
    socket: UnixStream,
    front: Front<Fake>,
    state: Rc<RefCell<State>>,
}

fn words(values: &[u64]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_ne_bytes())
        .collect()
}

fn pair(first: u32, second: u32) -> Vec<u8> {
    [first.to_ne_bytes(), second.to_ne_bytes()].concat()
}

impl Monitor {
    fn new() -> Self {
        let (socket, other) = UnixStream::pair().unwrap();
        let (device, state) = Fake::new(traits());
        Self {
            socket,
            front: Front::new(other, Session::new(device)),
            state,
        }
    }

    fn send(
        &mut self,
        request: u32,
        flags: u32,
        body: &[u8],
        files: &[i32],
    ) -> Result<bool, Failure> {
        let mut message = pair(request, 1 | flags);
        message.extend((body.len() as u32).to_ne_bytes());
        message.extend(body);
        if files.is_empty() {
            self.socket.write_all(&message).unwrap();
        } else {
            self.socket
                .send_with_fds(&[message.as_slice()], files)
                .unwrap();
        }
        self.front.serve_one()
    }

    /// Reads an answer to `request`.
    fn answer(&mut self, request: u32) -> Vec<u8> {
        let mut header = [0; 12];
        self.socket.read_exact(&mut header).unwrap();
        assert_eq!(header[..8], pair(request, 1 | 4));
        let mut body = vec![0; header[8].into()];
        self.socket.read_exact(&mut body).unwrap();
        body
    }

    fn ask(&mut self, request: u32, body: &[u8]) -> Vec<u8> {
        assert!(self.send(request, 0, body, &[]).unwrap());
        self.answer(request)
    }

    /// Makes a request and returns whether it is said to be done.
    fn tell(&mut self, request: u32, body: &[u8], files: &[i32]) -> bool {
        assert!(self.send(request, NEED_REPLY, body, files).unwrap());
        match u64::from_ne_bytes(self.answer(request).try_into().unwrap()) {
            0 => true,
            1 => false,
            other => panic!("an answer of {other}"),
        }
    }

    fn negotiate(&mut self) {
        let features = self.ask(1, &[]);
        let protocol = self.ask(15, &[]);
        // Nothing is acknowledged before it is agreed that things are.
        self.send(16, 0, &protocol, &[]).unwrap();
        assert!(self.tell(2, &features, &[]));
    }
}

fn guest_memory() -> File {
    let file = TempFile::new().unwrap().into_file();
    file.set_len(0x10000).unwrap();
    file
}

#[test]
fn a_whole_life() {
    let mut monitor = Monitor::new();
    monitor.negotiate();
    assert!(monitor.tell(3, &[], &[]));
    assert_eq!(monitor.ask(17, &[]), words(&[1]));
    assert_eq!(monitor.ask(36, &[]), words(&[509]));
    let file = guest_memory();
    let mut table = pair(1, 0);
    table.extend(words(&[0x10000, 0x8000, 0x7000_0000, 0x1000]));
    assert!(monitor.tell(5, &table, &[file.as_raw_fd()]));
    let mut region = words(&[0]);
    region.extend(words(&[0x40000, 0x1000, 0x7100_0000, 0x9000]));
    assert!(monitor.tell(37, &region, &[file.as_raw_fd()]));
    assert_eq!(monitor.state.borrow().memory.len(), 2);
    assert!(monitor.tell(38, &region, &[]));
    assert!(!monitor.tell(38, &region, &[]));

    let (kick, call) = (EventFd::new(0).unwrap(), EventFd::new(0).unwrap());
    assert!(monitor.tell(8, &pair(1, 128), &[]));
    assert!(monitor.tell(10, &pair(1, 77), &[]));
    let mut addresses = pair(1, 0);
    addresses.extend(words(&[0x7000_0000, 0x7000_2000, 0x7000_1000, 0]));
    assert!(monitor.tell(9, &addresses, &[]));
    assert!(monitor.tell(13, &words(&[1]), &[call.as_raw_fd()]));
    assert!(monitor.tell(14, &words(&[1 | 0x100]), &[]));
    assert!(monitor.tell(12, &words(&[1]), &[kick.as_raw_fd()]));
    assert!(monitor.tell(18, &pair(1, 1), &[]));
    assert!(monitor.tell(39, &words(&[0xf]), &[]));
    assert_eq!(monitor.ask(40, &[]), words(&[0xf]));
    {
        let state = monitor.state.borrow();
        let ring = &state.rings[1];
        assert!(state.runs() && ring.ready && ring.kick && ring.call);
        assert_eq!((ring.size, ring.base), (128, 77));
        let at = ring.addresses.unwrap();
        assert_eq!(
            (at.descriptor, at.used, at.available),
            (0x10000, 0x12000, 0x11000)
        );
    }
    monitor.state.borrow_mut().status |= 0x40;
    assert_eq!(monitor.ask(40, &[]), words(&[0x4f]));
    monitor.state.borrow_mut().rings[1].base = 80;
    assert_eq!(monitor.ask(11, &pair(1, 0)), pair(1, 80));
    assert!(monitor.tell(34, &[], &[]));
    assert_eq!(monitor.ask(40, &[]), words(&[0]));

    drop(monitor.socket);
    assert!(!monitor.front.serve_one().unwrap());
}

#[test]
fn the_configuration_space() {
    let mut monitor = Monitor::new();
    monitor.negotiate();
    let piece = |offset: u32, size: u32, bytes: &[u8]| {
        let mut body = pair(offset, size);
        body.extend(0u32.to_ne_bytes());
        body.extend(bytes);
        body
    };
    assert_eq!(
        monitor.ask(24, &piece(2, 3, &[0; 3])),
        piece(2, 3, &[2, 3, 4])
    );
    // What is not there is answered with nothing.
    assert_eq!(monitor.ask(24, &piece(12, 1, &[0])), piece(12, 0, &[]));
    assert!(monitor.tell(25, &piece(4, 1, &[9]), &[]));
    assert!(!monitor.tell(25, &piece(4, 2, &[9]), &[]));
    assert_eq!(monitor.state.borrow().config[4], 9);

    let (mut ours, theirs) = UnixStream::pair().unwrap();
    monitor.front.config_changed();
    assert!(monitor.tell(21, &[], &[theirs.as_raw_fd()]));
    drop(theirs);
    monitor.front.config_changed();
    let mut message = [0; 12];
    ours.read_exact(&mut message).unwrap();
    assert_eq!(message[..8], pair(2, 1));
    assert_eq!(message[8..], [0; 4]);
    drop(ours);
    // Who does not listen any more is not told again.
    monitor.front.config_changed();
    monitor.front.config_changed();
}

#[test]
fn rings_are_enabled_before_the_features() {
    let mut monitor = Monitor::new();
    let protocol = monitor.ask(15, &[]);
    monitor.send(16, 0, &protocol, &[]).unwrap();
    assert!(monitor.tell(18, &pair(0, 1), &[]));
}

#[test]
fn byte_orders() {
    let mut monitor = Monitor::new();
    monitor.negotiate();
    assert!(monitor.tell(23, &pair(0, 1), &[]));
    assert!(monitor.tell(23, &pair(0, 0), &[]));
    assert!(!monitor.tell(23, &pair(0, 2), &[]));
    assert!(!monitor.tell(23, &pair(9, 0), &[]));
}

#[test]
fn failures_are_told_or_end_it() {
    let mut monitor = Monitor::new();
    // Nobody would be told of these.
    for (request, body) in [
        (8, pair(9, 1)),
        (11, pair(9, 0)),
        (18, pair(0, 2)),
        (39, words(&[0x100])),
        (2, words(&[u64::MAX])),
        (99, Vec::new()),
        (8, vec![0; 7]),
        (5, pair(1, 0)),
        (12, words(&[0])),
        (24, Vec::new()),
    ] {
        assert!(monitor.send(request, 0, &body, &[]).is_err(), "{request}");
    }
    monitor.negotiate();
    assert!(!monitor.tell(8, &pair(9, 1), &[]));
    assert!(!monitor.tell(99, &[], &[]));
    // This one waits for an answer that is not a word.
    assert!(monitor.send(11, NEED_REPLY, &pair(9, 0), &[]).is_err());
}
