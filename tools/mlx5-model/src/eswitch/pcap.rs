// SPDX-License-Identifier: GPL-2.0

//! A capture file: everything that passes the switch, written live.

use std::{
    fs::File,
    io::{
        self,
        Write, //
    },
    mem,
    path::Path,
    sync::{
        Arc,
        Condvar,
        Mutex,
        MutexGuard,
        PoisonError, //
    },
    thread::{
        self,
        JoinHandle, //
    },
    time::SystemTime, //
};

use byteorder_slice::LittleEndian;
use pcap_file::{
    pcap::{
        PcapHeader,
        PcapPacket, //
    },
    DataLink,
    Endianness,
    TsResolution, //
};

use crate::{
    eswitch::{
        Eswitch,
        Port,
        Watch, //
    },
    frame::Frame, //
};

/// The resolution of time stamps.
const RESOLUTION: TsResolution = TsResolution::NanoSecond;

/// The longest frame that is written whole, in bytes.
const LONGEST: u32 = 1 << 17;

/// How much waits to be written at most, in bytes: the switch does not wait for a disk.
const ROOM: usize = 64 << 20;

/// What waits to be written.
#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Frames that found no room.
    lost: u64,
    /// There is no more to come.
    ended: bool,
    /// The file cannot be written any more.
    failed: bool,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes to `file` whenever something waits for it. Returns when there is no more to come.
    fn write(&self, mut file: impl Write) {
        loop {
            let waiting = self.changed.wait_while(self.waiting(), |waiting| {
                waiting.bytes.is_empty() && !waiting.ended
            });
            let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
            if waiting.bytes.is_empty() {
                if waiting.lost != 0 {
                    tracing::warn!("the capture lacks {} frames", waiting.lost);
                }
                return;
            }
            let bytes = mem::take(&mut waiting.bytes);
            drop(waiting);
            if let Err(error) = file.write_all(&bytes).and_then(|()| file.flush()) {
                tracing::error!("the capture ends: {error}");
                self.waiting().failed = true;
                return;
            }
        }
    }
}

impl Port for Shared {
    fn receive(&self, frames: &[&Frame]) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default();
        let mut waiting = self.waiting();
        for frame in frames {
            if waiting.failed || waiting.bytes.len() >= ROOM {
                waiting.lost += 1;
                continue;
            }
            // A frame of 4 GiB would not have passed the switch.
            let packet = PcapPacket::new(now, frame.bytes.len() as u32, &frame.bytes);
            let bytes = &mut waiting.bytes;
            let written = packet.write_to::<_, LittleEndian>(bytes, RESOLUTION, LONGEST);
            // Only fails for times that do not fit: those after 2106.
            waiting.lost += u64::from(written.is_err());
        }
        self.changed.notify_one();
    }
}

/// A capture file. What passed the switch before this is dropped is in it afterwards.
pub(super) struct Capture {
    watch: Option<Watch>,
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

impl Capture {
    /// Makes the file, or empties it, and begins to write.
    pub(super) fn create(file: &Path, eswitch: &Arc<Eswitch>) -> io::Result<Self> {
        Self::start(File::create(file)?, eswitch)
    }

    /// Begins to write everything that passes `eswitch` to `file`.
    pub(super) fn start(
        mut file: impl Write + Send + 'static,
        eswitch: &Arc<Eswitch>,
    ) -> io::Result<Self> {
        let header = PcapHeader {
            datalink: DataLink::ETHERNET,
            endianness: Endianness::Little,
            ts_resolution: RESOLUTION,
            snaplen: LONGEST,
            ..PcapHeader::default()
        };
        header.write_to(&mut file).map_err(io::Error::other)?;
        let shared = Arc::<Shared>::default();
        let writer = {
            let shared = shared.clone();
            let thread = thread::Builder::new().name("capture".into());
            thread.spawn(move || shared.write(file))?
        };
        Ok(Self {
            watch: Some(eswitch.watch(shared.clone())),
            shared,
            writer: Some(writer),
        })
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.watch = None;
        self.shared.waiting().ended = true;
        self.shared.changed.notify_one();
        if let Some(writer) = self.writer.take() {
            // It does not panic; if it did, it told so.
            let _ = writer.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use pcap_file::pcap::PcapReader;

    use super::*;
    use crate::eswitch::tests::{
        frame,
        Sink, //
    };

    /// A file that says when it is written to.
    struct Told(mpsc::Sender<Vec<u8>>);

    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
            self.0.send(bytes.to_vec()).map_err(gone)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn read(file: &[u8]) -> Vec<Vec<u8>> {
        let mut reader = PcapReader::new(file).unwrap();
        assert_eq!(reader.header().ts_resolution, TsResolution::NanoSecond);
        assert_eq!(reader.header().datalink, DataLink::ETHERNET);
        let packet = |packet: PcapPacket<'_>| {
            assert_eq!(packet.orig_len as usize, packet.data.len());
            packet.data.into_owned()
        };
        std::iter::from_fn(|| Some(packet(reader.next_packet()?.unwrap()))).collect()
    }

    #[test]
    fn what_passes_the_switch_is_in_the_file() {
        let eswitch = Arc::<Eswitch>::default();
        let (one, other) = (Arc::<Sink>::default(), Arc::<Sink>::default());
        let one = eswitch.attach(one, 1500);
        let other = eswitch.attach(other, 1500);
        let (told, written) = mpsc::channel();
        let capture = Capture::start(Told(told), &eswitch).unwrap();

        // It is written while the switch is idle, not only at the end.
        let mut file = Vec::new();
        let frames = [frame(1, 2, None, 60), frame(0xff, 2, Some(7), 1500)];
        one.send(&frames);
        while file.len() < 24 + 2 * 16 + frames[0].bytes.len() + frames[1].bytes.len() {
            file.extend(written.recv().unwrap());
        }
        assert_eq!(read(&file), frames.clone().map(|frame| frame.bytes));

        other.send(&[frame(2, 1, None, 0), frame(2, 1, None, 1501)]);
        drop(capture);
        other.send(&[frame(2, 1, None, 0)]);
        file.extend(written.iter().flatten());
        let mut expected = frames.map(|frame| frame.bytes).to_vec();
        expected.push(frame(2, 1, None, 0).bytes);
        assert_eq!(read(&file), expected);
    }

    #[test]
    fn a_file_that_cannot_be_written_holds_nobody_up() {
        let eswitch = Arc::<Eswitch>::default();
        let port = eswitch.attach(Arc::<Sink>::default(), 1500);
        let (told, written) = mpsc::channel();
        let capture = Capture::start(Told(told), &eswitch).unwrap();
        drop(written);
        for _ in 0..100 {
            port.send(&[frame(1, 2, None, 60)]);
        }
        drop(capture);
    }
}
