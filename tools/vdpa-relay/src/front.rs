// SPDX-License-Identifier: GPL-2.0

//! Requests of a monitor: each is decoded, done by the session, and answered.
//!
//! The handler of the crate `vhost` is not used: it knows neither the device status nor byte
//! orders, and refuses rings that are enabled before features are set, which QEMU does.

use std::{
    fs::File,
    io,
    os::unix::net::UnixStream, //
};

use tracing::{
    debug,
    warn, //
};
use virtio::byte_order::ByteOrder;
use zerocopy::IntoBytes;

use crate::{
    device::Device,
    failure::{
        Failure,
        Result, //
    },
    mapping,
    memory::Region,
    ring::Addresses,
    session::{
        Session,
        MEMORY_SLOTS, //
    },
    wire::{
        self,
        request,
        ConfigHeader,
        MemoryHeader,
        MemoryRegion,
        Message,
        VringAddr,
        VringState, //
    },
};

/// What a request is answered with, a part after the other; none, if it has no answer of its own.
type Answer = Option<Vec<u8>>;

/// A monitor that is served.
#[derive(Debug)]
pub struct Front<D> {
    socket: UnixStream,
    session: Session<D>,
    /// What the monitor listens on.
    channel: Option<UnixStream>,
}

impl<D: Device> Front<D> {
    /// Serves who is at the other end of `socket`.
    pub fn new(socket: UnixStream, session: Session<D>) -> Self {
        Self {
            socket,
            session,
            channel: None,
        }
    }

    /// The socket, which requests come by.
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// The session.
    pub fn session(&self) -> &Session<D> {
        &self.session
    }

    /// Waits for a request and does what it asks for. Returns false if the monitor is gone.
    ///
    /// # Errors
    ///
    /// If it is not done, and the monitor cannot be told that.
    pub fn serve_one(&mut self) -> Result<bool> {
        let Some(message) = Message::receive(&self.socket)? else {
            return Ok(false);
        };
        let (asked, wants) = (message.request, message.needs_reply);
        let wants_word = wants && self.session.acknowledges();
        let word = match self.answer(message) {
            Ok(Some(bytes)) => {
                wire::reply(&self.socket, asked, &[&bytes])?;
                return Ok(true);
            }
            Ok(None) => 0u64,
            Err(error) if wants_word && !answers(asked) => {
                warn!("request {asked} failed: {error}");
                1
            }
            Err(error) => return Err(error),
        };
        if wants_word {
            wire::reply(&self.socket, asked, &[word.as_bytes()])?;
        }
        Ok(true)
    }

    /// Tells the monitor that the configuration space has changed, if it wants to be told.
    pub fn config_changed(&mut self) {
        let Some(channel) = &self.channel else {
            return;
        };
        if let Err(error) = wire::config_changed(channel) {
            warn!("the VMM cannot be told of a change of the configuration: {error}");
            self.channel = None;
        }
    }

    /// Does what a request asks for.
    fn answer(&mut self, mut message: Message) -> Result<Answer> {
        let session = &mut self.session;
        debug!("request {}, {} bytes", message.request, message.body.len());
        match message.request {
            request::GET_FEATURES => return word(session.offered()),
            request::SET_FEATURES => session.set_features(message.get()?)?,
            request::GET_PROTOCOL_FEATURES => return word(session.offered_protocol()),
            request::SET_PROTOCOL_FEATURES => session.set_protocol(message.get()?)?,
            request::GET_QUEUE_NUM => return word(session.queues()),
            request::GET_MAX_MEM_SLOTS => return word(MEMORY_SLOTS),
            // The device belongs to whoever is connected.
            request::SET_OWNER => {}
            request::RESET_OWNER | request::RESET_DEVICE => session.reset()?,
            request::SET_STATUS => {
                let value: u64 = message.get()?;
                let status = u8::try_from(value).map_err(|_| Failure::Value {
                    what: "the device status",
                    value,
                })?;
                session.set_status(status)?;
            }
            request::GET_STATUS => return word(session.status()?.into()),
            request::GET_CONFIG | request::SET_CONFIG => return config(session, &message),
            request::SET_MEM_TABLE | request::ADD_MEM_REG | request::REM_MEM_REG => {
                memory(session, message)?;
            }
            request::SET_BACKEND_REQ_FD => {
                self.channel = Some(UnixStream::from(message.descriptor()?));
            }
            _ => return ring(session, message),
        }
        Ok(None)
    }
}

/// Returns whether a request has an answer of its own.
fn answers(asked: u32) -> bool {
    matches!(
        asked,
        request::GET_FEATURES
            | request::GET_PROTOCOL_FEATURES
            | request::GET_QUEUE_NUM
            | request::GET_MAX_MEM_SLOTS
            | request::GET_STATUS
            | request::GET_CONFIG
            | request::GET_VRING_BASE
    )
}

fn word(value: u64) -> Result<Answer> {
    Ok(Some(value.as_bytes().to_vec()))
}

/// Requests about one ring.
fn ring<D: Device>(session: &mut Session<D>, mut message: Message) -> Result<Answer> {
    match message.request {
        request::SET_VRING_NUM => {
            let VringState { index, num } = message.get()?;
            session.set_size(index, num)?;
        }
        request::SET_VRING_BASE => {
            let VringState { index, num } = message.get()?;
            session.set_base(index, num)?;
        }
        request::GET_VRING_BASE => {
            let VringState { index, .. } = message.get()?;
            let num = session.stop_ring(index)?;
            return Ok(Some(VringState { index, num }.as_bytes().to_vec()));
        }
        request::SET_VRING_ADDR => {
            let at: VringAddr = message.get()?;
            let addresses = Addresses {
                descriptor: at.descriptor,
                available: at.available,
                used: at.used,
            };
            session.set_addresses(at.index, addresses)?;
        }
        request::SET_VRING_ENABLE => {
            let VringState { index, num } = message.get()?;
            session.set_enabled(index, flag("the enabling of a ring", num)?)?;
        }
        request::SET_VRING_ENDIAN => {
            let VringState { index, num } = message.get()?;
            let order = if flag("the byte order of a ring", num)? {
                ByteOrder::Big
            } else {
                ByteOrder::Little
            };
            session.set_order(index, order)?;
        }
        request::SET_VRING_KICK => {
            let (index, by) = message.ring_descriptor()?;
            session.set_kick(index, by)?;
        }
        request::SET_VRING_CALL => {
            let (index, by) = message.ring_descriptor()?;
            session.set_call(index, by)?;
        }
        request::SET_VRING_ERR => {
            let (index, by) = message.ring_descriptor()?;
            session.set_error(index, by)?;
        }
        other => return Err(Failure::Unknown(other)),
    }
    Ok(None)
}

fn flag(what: &'static str, num: u32) -> Result<bool> {
    match num {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Failure::Value {
            what,
            value: other.into(),
        }),
    }
}

/// Requests about the configuration space. One that cannot be read is answered with nothing.
fn config<D: Device>(session: &mut Session<D>, message: &Message) -> Result<Answer> {
    let (header, bytes) = message.front::<ConfigHeader>()?;
    let whole = bytes.get(..header.size as usize);
    let bytes = whole.ok_or(Failure::Value {
        what: "the length of a piece of the configuration space",
        value: header.size.into(),
    })?;
    if message.request == request::SET_CONFIG {
        session.set_config(header.offset, bytes)?;
        return Ok(None);
    }
    let read = session.config(header.offset, header.size);
    let bytes = read.unwrap_or_else(|error| {
        warn!("the configuration space is not read: {error}");
        Vec::new()
    });
    let header = ConfigHeader {
        size: bytes.len() as u32,
        ..header
    };
    Ok(Some([header.as_bytes(), &bytes].concat()))
}

/// Requests about the guest's memory.
fn memory<D: Device>(session: &mut Session<D>, mut message: Message) -> Result<()> {
    if message.request == request::SET_MEM_TABLE {
        let regions = message.regions()?;
        if regions.len() != message.descriptors.len() {
            return Err(Failure::Value {
                what: "the number of descriptors with a table of memory",
                value: message.descriptors.len() as u64,
            });
        }
        let files = message.descriptors.into_iter().map(File::from);
        let regions: io::Result<Vec<_>> = regions
            .into_iter()
            .zip(files)
            .map(|(region, file)| Ok((identified(region, &file)?, file)))
            .collect();
        return session.set_memory(regions?);
    }
    let (_, bytes) = message.front::<MemoryHeader>()?;
    let one = Message {
        body: bytes.to_vec(),
        descriptors: std::mem::take(&mut message.descriptors),
        ..message
    };
    one_region(session, one)
}

fn one_region<D: Device>(session: &mut Session<D>, mut message: Message) -> Result<()> {
    let region: MemoryRegion = message.get()?;
    if message.request == request::REM_MEM_REG {
        return session.remove_memory(region.guest, region.size, region.user);
    }
    let file = File::from(message.descriptor()?);
    session.add_memory(identified(region, &file)?, file)
}

fn identified(region: MemoryRegion, file: &File) -> io::Result<Region> {
    Ok(Region {
        guest: region.guest,
        size: region.size,
        user: region.user,
        file: mapping::identify(file)?,
        offset: region.offset,
    })
}
