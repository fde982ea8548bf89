// SPDX-License-Identifier: GPL-2.0

//! Two functions on one switch.

use crate::{
    mac,
    net::{
        Header,
        Net,
        Options, //
    },
    packet::Flow,
    Board,
    Host, //
};

/// A function and its network device.
pub struct Side {
    /// The function.
    pub host: Host,
    /// The device.
    pub net: Net,
    /// Its address.
    pub mac: [u8; 6],
}

impl Side {
    /// A device that runs, on the `number`th function of the board.
    ///
    /// # Panics
    ///
    /// As everything here does, if something does not go as it should.
    pub fn new(board: &Board, profile: &str, number: u16, options: Options) -> Self {
        let mut host = board.host(profile, number).unwrap();
        host.start().unwrap();
        let mac = mac(number);
        let mut net = Net::new(&mut host, options, mac).unwrap();
        net.start(&mut host).unwrap();
        Self { host, net, mac }
    }

    /// Sends a frame through the first transmit queue and waits until the device has it.
    pub fn send(&mut self, frame: &[u8]) {
        self.send_with(&Default::default(), frame);
    }

    /// The same with a header.
    pub fn send_with(&mut self, header: &Header, frame: &[u8]) {
        self.net.send(&self.host, 1, header, frame);
        let used = self.net.wait_used(&mut self.host, 1);
        self.net.give_back(1, &used.expect("a frame is sent"));
    }

    /// Receives a frame from the first receive queue.
    pub fn receive(&mut self) -> Vec<u8> {
        self.net
            .receive(&mut self.host, 0)
            .expect("a frame comes")
            .1
    }

    /// Takes everything down and sees that nothing is left.
    pub fn end(mut self) {
        self.net.destroy(&mut self.host).unwrap();
        self.host.stop().unwrap();
        assert_eq!(self.host.pages(), 0);
        for (name, count) in self.host.function.report().objects {
            assert_eq!(count, 0, "{name} left behind");
        }
    }
}

/// Two functions on a switch, that run.
pub fn pair(profile: &str, options: Options) -> (Side, Side) {
    let board = Board::new(2).unwrap();
    (
        Side::new(&board, profile, 0, options),
        Side::new(&board, profile, 1, options),
    )
}

/// What one of them sends to the other.
pub fn flow(from: &Side, to: &Side) -> Flow {
    Flow::new(from.mac, to.mac)
}
