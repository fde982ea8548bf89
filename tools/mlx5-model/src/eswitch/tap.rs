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

#[cfg(test)]
mod tests {
    use std::os::{
        fd::OwnedFd,
        unix::net::UnixDatagram, //
    };

    use super::*;
    use crate::eswitch::{
        tests::{
            frame,
            Sink, //
        },
        Uplink,
        UplinkError,
        UplinkKind, //
    };

    /// Hangs one end of a wire on the switch, and returns the other.
    fn plug(eswitch: &Arc<Eswitch>) -> (Tap, UnixDatagram) {
        let (near, far) = UnixDatagram::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let near = File::from(OwnedFd::from(near));
        (Tap::start(near, eswitch, 1500).unwrap(), far)
    }

    #[test]
    fn frames_go_both_ways() {
        let eswitch = Arc::<Eswitch>::default();
        let (tap, far) = plug(&eswitch);
        let sink = Arc::<Sink>::default();
        let port = eswitch.attach(sink.clone(), 9000);
        port.send(&[
            frame(1, 2, None, 50),
            frame(1, 2, None, 1501),
            frame(1, 2, None, 1500),
        ]);
        let mut buffer = vec![0; 1 << 16];
        for len in [50, 1500] {
            let got = far.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..got], frame(1, 2, None, len).bytes);
        }

        // Too large, too short, and then whole.
        far.send(&frame(2, 1, None, 1501).bytes).unwrap();
        far.send(&[0; 13]).unwrap();
        far.send(&frame(2, 1, None, 46).bytes).unwrap();
        let mut got = Vec::new();
        while got.is_empty() {
            thread::yield_now();
            got = sink.take();
        }
        assert_eq!(got, [frame(2, 1, None, 46)]);
        drop(tap);
        // The far end notices.
        assert!(far.send(&[0; 60]).is_err());
    }

    #[test]
    fn a_wire_nobody_reads_holds_nobody_up() {
        let eswitch = Arc::<Eswitch>::default();
        let (_tap, _far) = plug(&eswitch);
        let port = eswitch.attach(Arc::<Sink>::default(), 1500);
        for _ in 0..10_000 {
            port.send(&[frame(1, 2, None, 1500)]);
        }
    }

    #[test]
    fn what_an_interface_cannot_be_is_said() {
        let eswitch = Arc::<Eswitch>::default();
        let open = |text: &str| {
            let kind: UplinkKind = text.parse()?;
            Uplink::open(&kind, &eswitch, 1500)
        };
        let error = |text: &str| open(text).err().map(|error| error.to_string());
        assert!(open("none").is_ok());
        for text in ["", "tap", "tap:", "pcap:", "wire:x"] {
            assert!(matches!(open(text), Err(UplinkError::Kind(_))), "{text}");
        }
        assert!(error("tap:a name that is too long")
            .unwrap()
            .contains("a name that"));
        assert!(error("pcap:/nonexistent/file")
            .unwrap()
            .contains("/nonexistent/file"));

        // Only who may make interfaces gets further.
        let name = "tap:mlx5-model-test";
        match open(name) {
            Ok(_first) => assert!(error(name).unwrap().contains("another program")),
            Err(error) => assert!(error.to_string().contains("mlx5-model-test")),
        }
    }
}
