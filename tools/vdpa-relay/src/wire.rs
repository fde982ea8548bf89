// SPDX-License-Identifier: GPL-2.0

//! Messages of vhost-user, as they are on the socket. All numbers are in the native byte order.

use std::{
    io::{
        self,
        IoSliceMut,
        Read,
        Write, //
    },
    mem::MaybeUninit,
    os::{
        fd::OwnedFd,
        unix::net::UnixStream, //
    },
};

use rustix::net::{
    recvmsg,
    RecvAncillaryBuffer,
    RecvAncillaryMessage,
    RecvFlags, //
};
use zerocopy::{
    FromBytes,
    FromZeros,
    IntoBytes, //
};
use zerocopy_derive::{
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout, //
};

/// What a monitor asks, by the protocol's numbers.
pub mod request {
    #![allow(missing_docs)]
    pub const GET_FEATURES: u32 = 1;
    pub const SET_FEATURES: u32 = 2;
    pub const SET_OWNER: u32 = 3;
    pub const RESET_OWNER: u32 = 4;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_VRING_NUM: u32 = 8;
    pub const SET_VRING_ADDR: u32 = 9;
    pub const SET_VRING_BASE: u32 = 10;
    pub const GET_VRING_BASE: u32 = 11;
    pub const SET_VRING_KICK: u32 = 12;
    pub const SET_VRING_CALL: u32 = 13;
    pub const SET_VRING_ERR: u32 = 14;
    pub const GET_PROTOCOL_FEATURES: u32 = 15;
    pub const SET_PROTOCOL_FEATURES: u32 = 16;
    pub const GET_QUEUE_NUM: u32 = 17;
    pub const SET_VRING_ENABLE: u32 = 18;
    pub const SET_BACKEND_REQ_FD: u32 = 21;
    pub const SET_VRING_ENDIAN: u32 = 23;
    pub const GET_CONFIG: u32 = 24;
    pub const SET_CONFIG: u32 = 25;
    pub const RESET_DEVICE: u32 = 34;
    pub const GET_MAX_MEM_SLOTS: u32 = 36;
    pub const ADD_MEM_REG: u32 = 37;
    pub const REM_MEM_REG: u32 = 38;
    pub const SET_STATUS: u32 = 39;
    pub const GET_STATUS: u32 = 40;
}

/// What the back end asks of a monitor: it shall look at the configuration space again.
const CONFIG_CHANGE: u32 = 2;

/// Protocol features, as bits.
pub mod protocol {
    #![allow(missing_docs)]
    pub const MQ: u64 = 1;
    pub const REPLY_ACK: u64 = 1 << 3;
    pub const BACKEND_REQ: u64 = 1 << 5;
    pub const CROSS_ENDIAN: u64 = 1 << 6;
    pub const CONFIG: u64 = 1 << 9;
    pub const RESET_DEVICE: u64 = 1 << 13;
    pub const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
    pub const STATUS: u64 = 1 << 16;
}

/// The feature bit by which a monitor asks for protocol features.
pub const PROTOCOL_FEATURES: u64 = 1 << 30;

/// Flags of a header.
const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// In the message of a descriptor: there is none.
const NO_DESCRIPTOR: u64 = 1 << 8;

/// No message is longer, in bytes.
const MAX_BODY: usize = 0x1000;

/// No message has more descriptors: one for each slot of a table that fits.
const MAX_DESCRIPTORS: usize = MAX_BODY / size_of::<MemoryRegion>();

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Header {
    request: u32,
    flags: u32,
    size: u32,
}

/// A ring, and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct VringState {
    /// Which ring.
    pub index: u32,
    /// What that is depends on the request.
    pub num: u32,
}

/// Where a ring is, by the monitor's addresses.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct VringAddr {
    /// Which ring.
    pub index: u32,
    /// Bit 0: what is used is to be logged.
    pub flags: u32,
    /// The descriptor area.
    pub descriptor: u64,
    /// The device area.
    pub used: u64,
    /// The driver area.
    pub available: u64,
    /// Where it is to be logged.
    pub log: u64,
}

/// A part of the guest's memory.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MemoryRegion {
    /// Where the guest has it.
    pub guest: u64,
    /// Its length in bytes.
    pub size: u64,
    /// Where the monitor has it.
    pub user: u64,
    /// Where in its file it begins.
    pub offset: u64,
}

/// The front of a table of regions, and of a region alone, where the number means nothing.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MemoryHeader {
    /// How many regions follow.
    pub regions: u32,
    /// Nothing.
    pub padding: u32,
}

/// The front of a piece of the configuration space.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ConfigHeader {
    /// Where it begins.
    pub offset: u32,
    /// Its length in bytes.
    pub size: u32,
    /// Bit 0: it is written although the driver may not, since the guest moves.
    pub flags: u32,
}

/// A message.
#[derive(Debug)]
pub struct Message {
    /// What is asked.
    pub request: u32,
    /// Whether the sender wants to know how that went.
    pub needs_reply: bool,
    /// What follows the header.
    pub body: Vec<u8>,
    /// The descriptors that came with it.
    pub descriptors: Vec<OwnedFd>,
}

/// Returns an error about a message that is not as it should be.
fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl Message {
    /// Waits for a message. Returns `None` if the other side is gone.
    ///
    /// # Errors
    ///
    /// If what comes is no message, or ends in the middle of one.
    pub fn receive(socket: &UnixStream) -> io::Result<Option<Self>> {
        let mut header = Header::new_zeroed();
        let mut descriptors = Vec::new();
        let length = size_of::<Header>();
        let mut have = 0;
        while have < length {
            let more = receive_some(socket, &mut header.as_mut_bytes()[have..], &mut descriptors)?;
            match more {
                0 if have == 0 => return Ok(None),
                0 => return Err(malformed("a message ends in its header")),
                _ => have += more,
            }
        }
        let size = header.size as usize;
        if header.flags & VERSION_MASK != VERSION || header.flags & REPLY != 0 {
            return Err(malformed(
                "a message is not one of version 1 that asks something",
            ));
        }
        if size > MAX_BODY {
            return Err(malformed("a message is longer than 4096 bytes"));
        }
        let mut body = vec![0; size];
        let mut stream = socket;
        stream.read_exact(&mut body)?;
        Ok(Some(Self {
            request: header.request,
            needs_reply: header.flags & NEED_REPLY != 0,
            body,
            descriptors,
        }))
    }

    /// Returns the body, which is a `T` and nothing more.
    ///
    /// # Errors
    ///
    /// If it has another length.
    pub fn get<T: FromBytes>(&self) -> io::Result<T> {
        T::read_from_bytes(&self.body)
            .map_err(|_| malformed("a message has not the length it should"))
    }

    /// Returns the `T` at the front of the body, and the rest.
    ///
    /// # Errors
    ///
    /// If the body is too short.
    pub fn front<T: FromBytes>(&self) -> io::Result<(T, &[u8])> {
        T::read_from_prefix(&self.body).map_err(|_| malformed("a message is too short"))
    }

    /// Returns the ring that a descriptor is for, and the descriptor, unless there is none.
    ///
    /// # Errors
    ///
    /// If the message does not say which, or has not as many descriptors as it says.
    pub fn ring_descriptor(&mut self) -> io::Result<(u32, Option<OwnedFd>)> {
        let word: u64 = self.get()?;
        let descriptor = if word & NO_DESCRIPTOR == 0 {
            Some(self.descriptor()?)
        } else {
            None
        };
        Ok((u32::from(word as u8), descriptor))
    }

    /// Returns the one descriptor.
    ///
    /// # Errors
    ///
    /// If there is none, or more.
    pub fn descriptor(&mut self) -> io::Result<OwnedFd> {
        match self.descriptors.pop() {
            Some(descriptor) if self.descriptors.is_empty() => Ok(descriptor),
            _ => Err(malformed("a message has not the one descriptor it should")),
        }
    }

    /// Returns the regions of a table.
    ///
    /// # Errors
    ///
    /// If the length does not fit their number.
    pub fn regions(&self) -> io::Result<Vec<MemoryRegion>> {
        let (header, rest) = self.front::<MemoryHeader>()?;
        let (regions, rest) =
            <[MemoryRegion]>::ref_from_prefix_with_elems(rest, header.regions as usize)
                .map_err(|_| malformed("a table of memory is shorter than it says"))?;
        if !rest.is_empty() {
            return Err(malformed("a table of memory is longer than it says"));
        }
        Ok(regions.to_vec())
    }
}

/// Receives some bytes and what descriptors come with them.
fn receive_some(
    socket: &UnixStream,
    bytes: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(bytes)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok(received.bytes)
}

/// Sends a message of `parts`.
fn send(mut socket: &UnixStream, request: u32, flags: u32, parts: &[&[u8]]) -> io::Result<()> {
    let body = parts.concat();
    let header = Header {
        request,
        flags: flags | VERSION,
        size: body.len() as u32,
    };
    socket.write_all(&[header.as_bytes(), &body].concat())
}

/// Answers a request with `parts`, one after the other.
///
/// # Errors
///
/// If the other side does not take it.
pub fn reply(socket: &UnixStream, request: u32, parts: &[&[u8]]) -> io::Result<()> {
    send(socket, request, REPLY, parts)
}

/// Tells a monitor, by the channel it gave for that, that the configuration space has changed.
///
/// # Errors
///
/// If the other side does not take it.
pub fn config_changed(channel: &UnixStream) -> io::Result<()> {
    send(channel, CONFIG_CHANGE, 0, &[])
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use vmm_sys_util::{
        eventfd::EventFd,
        sock_ctrl_msg::ScmSocket, //
    };

    use super::*;

    fn header(request: u32, flags: u32, size: u32) -> Vec<u8> {
        [request, flags, size].as_bytes().to_vec()
    }

    #[test]
    fn messages_with_and_without_descriptors() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let event = EventFd::new(0).unwrap();
        let mut bytes = header(request::SET_VRING_CALL, VERSION | NEED_REPLY, 8);
        bytes.extend(3u64.as_bytes());
        let parts = [bytes.as_slice()];
        theirs.send_with_fds(&parts, &[event.as_raw_fd()]).unwrap();
        // A header may come in pieces.
        let next = header(request::GET_FEATURES, VERSION, 0);
        theirs.write_all(&next[..5]).unwrap();

        let mut message = Message::receive(&ours).unwrap().unwrap();
        assert_eq!(message.request, request::SET_VRING_CALL);
        assert!(message.needs_reply);
        let (ring, descriptor) = message.ring_descriptor().unwrap();
        assert_eq!(ring, 3);
        rustix::io::write(descriptor.unwrap(), 7u64.as_bytes()).unwrap();
        assert_eq!(event.read().unwrap(), 7);

        theirs.write_all(&next[5..]).unwrap();
        let message = Message::receive(&ours).unwrap().unwrap();
        assert_eq!(message.request, request::GET_FEATURES);
        assert!(!message.needs_reply && message.body.is_empty());
        reply(&ours, request::GET_FEATURES, &[&[1; 4], &[2; 4]]).unwrap();
        let mut answer = [0; 20];
        theirs.read_exact(&mut answer).unwrap();
        assert_eq!(
            answer[..12],
            header(request::GET_FEATURES, VERSION | REPLY, 8)
        );
        assert_eq!(answer[12..], [1, 1, 1, 1, 2, 2, 2, 2]);

        drop(theirs);
        assert!(Message::receive(&ours).unwrap().is_none());
    }

    #[test]
    fn what_is_no_message() {
        for bytes in [
            header(1, VERSION, 0)[..11].to_vec(),
            header(1, 0, 0),
            header(1, VERSION | REPLY, 0),
            header(1, VERSION, 4097),
            header(1, VERSION, 1),
        ] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(&bytes).unwrap();
            drop(theirs);
            assert!(Message::receive(&ours).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn tables_and_descriptors_that_are_not_as_they_say() {
        let mut message = Message {
            request: request::SET_MEM_TABLE,
            needs_reply: false,
            body: [1u32, 0].as_bytes().to_vec(),
            descriptors: Vec::new(),
        };
        assert!(message.regions().is_err());
        message.body.extend([0u8; 32]);
        assert_eq!(message.regions().unwrap().len(), 1);
        message.body.push(0);
        assert!(message.regions().is_err());
        message.body[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(message.regions().is_err());

        message.body = 5u64.as_bytes().to_vec();
        assert!(message.ring_descriptor().is_err());
        message.body = (5 | NO_DESCRIPTOR).as_bytes().to_vec();
        assert_eq!(message.ring_descriptor().unwrap().0, 5);
        assert!(message.get::<u32>().is_err());
    }
}
