// SPDX-License-Identifier: GPL-2.0

//! A tap interface as the uplink.

use std::{
    fs::File,
    io::{
        self,
        Read,
        Write, //
    },
    os::fd::{
        AsFd,
        AsRawFd, //
    },
    sync::{
        atomic::{
            AtomicU64,
            Ordering, //
        },
        Arc, //
    },
    thread::{
        self,
        JoinHandle, //
    }, //
};

use tun_rs::{
    DeviceBuilder,
    Layer, //
};
use vmm_sys_util::{
    epoll::{
        ControlOperation,
        Epoll,
        EpollEvent,
        EventSet, //
    },
    eventfd::{
        EventFd,
        EFD_NONBLOCK, //
    }, //
};

use crate::{
    eswitch::{
        Connection,
        Eswitch,
        Port, //
    },
    frame::Frame, //
};

/// How many frames are read before they are sent on.
const BATCH: usize = 64;

/// The longest frame that is read, in bytes: longer ones are cut off, and then too large.
const LONGEST: usize = 1 << 17;

/// The end of the wire: a file from which each read takes a frame and to which each write gives
/// one, and which makes nobody wait.
struct Wire {
    file: File,
    /// Frames that found no room.
    dropped: AtomicU64,
}

impl Port for Wire {
    fn receive(&self, frames: &[&Frame]) {
        for frame in frames {
            if (&self.file).write(&frame.bytes).is_err() {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// A tap interface that hangs on the switch. It is taken off when this is dropped.
pub(super) struct Tap {
    stop: EventFd,
    reader: Option<JoinHandle<()>>,
}

impl Tap {
    /// Opens the interface `name`, or makes it.
    pub(super) fn open(name: &str, eswitch: &Arc<Eswitch>, mtu: u16) -> io::Result<Self> {
        let device = DeviceBuilder::new()
            .name(name)
            .layer(Layer::L2)
            .inherit_enable_state()
            .build_sync()?;
        device.set_nonblocking(true)?;
        // Who may use an interface that is there already may not always set it up.
        if let Err(error) = device.enabled(true) {
            tracing::warn!("tap interface `{name}` is not set up: {error}");
        }
        // The interface is there as long as one of its descriptors.
        let file = File::from(device.as_fd().try_clone_to_owned()?);
        Self::start(file, eswitch, mtu)
    }

    /// Hangs `file` on the switch: a tap interface or the like.
    fn start(file: File, eswitch: &Arc<Eswitch>, mtu: u16) -> io::Result<Self> {
        let stop = EventFd::new(EFD_NONBLOCK)?;
        let epoll = Epoll::new()?;
        for fd in [file.as_raw_fd(), stop.as_raw_fd()] {
            let event = EpollEvent::new(EventSet::IN, fd as u64);
            epoll.ctl(ControlOperation::Add, fd, event)?;
        }
        let wire = Arc::new(Wire {
            file,
            dropped: AtomicU64::new(0),
        });
        let connection = eswitch.attach(wire.clone(), mtu);
        let stopped = stop.as_raw_fd() as u64;
        let reader = thread::Builder::new()
            .name("uplink".into())
            .spawn(move || read(&wire, &connection, &epoll, stopped))?;
        Ok(Self {
            stop,
            reader: Some(reader),
        })
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // Only fails if it is to be stopped already.
        let _ = self.stop.write(1);
        if let Some(reader) = self.reader.take() {
            // It does not panic; if it did, it told so.
            let _ = reader.join();
        }
    }
}

/// Sends on what comes from the wire, until `stopped` is heard of or the wire breaks.
fn read(wire: &Wire, connection: &Connection, epoll: &Epoll, stopped: u64) {
    let mut buffer = vec![0; LONGEST];
    let mut events = [EpollEvent::default(); 2];
    loop {
        let count = match epoll.wait(-1, &mut events) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return tracing::error!("the uplink ends: {error}"),
        };
        if events
            .iter()
            .take(count)
            .any(|event| event.data() == stopped)
        {
            let lost = wire.dropped.load(Ordering::Relaxed);
            return tracing::debug!("the uplink had no room for {lost} frames");
        }
        let mut frames = Vec::with_capacity(BATCH);
        let failure = loop {
            match (&wire.file).read(&mut buffer) {
                Ok(len) => frames.push(Frame {
                    bytes: buffer[..len].to_vec(),
                }),
                Err(error) => break Some(error),
            }
            if frames.len() == BATCH {
                break None;
            }
        };
        connection.send(&frames);
        match failure.map(|error| (error.kind(), error)) {
            None | Some((io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted, _)) => (),
            Some((_, error)) => return tracing::error!("the uplink ends: {error}"),
        }
    }
}
