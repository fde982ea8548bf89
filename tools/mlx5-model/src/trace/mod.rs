// SPDX-License-Identifier: GPL-2.0

//! The trace: what happened, as lines of JSON.
//!
//! Each line is an object. Its `type` says what it is; `ts` is when it began, in microseconds since
//! the trace was opened; `function` is who it happened to.
//!
//! | type | more of it |
//! |---|---|
//! | `command` | `dur`, `slot`, `opcode`, `object`, `input`, `output`, `status`, `syndrome`, `refusal`, `faults` |
//! | `event` | `event`, as it was put into an event queue |
//! | `note` | `text` and `fields`: a reset, what a driver left behind, a doorbell that was ignored |
//!
//! Fields of an input or output that are 0 are left out. Who has something to say hands it to a
//! thread, which decodes and writes it; a trace that is off costs one comparison.

mod chrome;
mod decode;
mod journal;

pub use self::{
    chrome::chrome,
    journal::Journal, //
};

use std::{
    fs::File,
    io::{
        self,
        BufWriter,
        Write, //
    },
    path::Path,
    sync::{
        atomic::{
            AtomicU64,
            Ordering, //
        },
        mpsc::{
            sync_channel,
            Receiver,
            SyncSender,
            TryRecvError, //
        },
        Arc,
        Mutex,
        PoisonError, //
    },
    thread::{
        self,
        JoinHandle, //
    },
    time::Instant,
};

use prm::command::Delivery;
use serde_json::{
    json,
    Value, //
};

use crate::{
    command::Handler,
    eq::Event, //
};

/// How many records may wait to be written. What comes while that many do is counted, not kept.
const BACKLOG: usize = 16384;

/// How much of an input or output is kept, in bytes: the longest fixed part, and of what follows it
/// more than is shown.
const LONGEST: usize = 8192;

/// Where what happens to functions is written down.
pub struct Trace {
    started: Instant,
    /// Gone once the trace is closed; none if there is no trace.
    sink: Option<Sink>,
}

struct Sink {
    records: Mutex<Option<SyncSender<Record>>>,
    lost: Arc<AtomicU64>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// An input or output, as much of it as can be shown: those that wait to be written must not take
/// as much memory as a driver likes.
pub struct Message {
    bytes: Vec<u8>,
    /// How long the whole was.
    len: usize,
}

impl From<Vec<u8>> for Message {
    fn from(mut bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        bytes.truncate(LONGEST);
        bytes.shrink_to_fit();
        Self { bytes, len }
    }
}

/// A command that is complete, as it is to be written down.
pub struct CommandRecord {
    /// When the driver rang for it.
    pub start: Instant,
    /// When the driver was told.
    pub end: Instant,
    /// Its slot.
    pub slot: u32,
    /// Its opcode, as the driver put it.
    pub opcode: u16,
    /// Its type of general object, if it is for one.
    pub object: Option<u16>,
    /// How to decode it.
    pub handler: Option<&'static Handler>,
    /// Its input.
    pub input: Message,
    /// Its output.
    pub output: Message,
    /// Whether it was delivered.
    pub delivery: Delivery,
    /// Why it was refused.
    pub refusal: Option<String>,
    /// The numbers of the faults it met.
    pub faults: Vec<u32>,
}

enum What {
    Command(Box<CommandRecord>),
    Event(Event),
    Note(&'static str, Value),
}

struct Record {
    function: Arc<str>,
    when: Instant,
    what: What,
}

impl Default for Trace {
    /// No trace.
    fn default() -> Self {
        Self {
            started: Instant::now(),
            sink: None,
        }
    }
}

impl Trace {
    /// Writes the trace into a file, which is made or emptied first.
    ///
    /// # Errors
    ///
    /// If the file cannot be made, or there can be no thread to write it.
    pub fn to_file(path: &Path) -> io::Result<Self> {
        Self::to_writer(BufWriter::new(File::create(path)?))
    }

    /// Writes the trace to `writer`, which is flushed whenever nothing more waits to be written.
    ///
    /// # Errors
    ///
    /// If there can be no thread to write it.
    pub fn to_writer(writer: impl Write + Send + 'static) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(BACKLOG);
        let started = Instant::now();
        let lost = Arc::new(AtomicU64::new(0));
        let counter = lost.clone();
        let thread = thread::Builder::new()
            .name("trace".to_owned())
            .spawn(move || {
                if let Err(error) = write(writer, &receiver, &counter, started) {
                    tracing::error!("the trace ends here: {error}");
                }
            })?;
        Ok(Self {
            started,
            sink: Some(Sink {
                records: Mutex::new(Some(sender)),
                lost,
                thread: Mutex::new(Some(thread)),
            }),
        })
    }

    /// Returns whether anything is written down.
    pub fn is_on(&self) -> bool {
        self.sink.is_some()
    }

    /// When the trace was opened: what `ts` counts from.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Writes a command down. Never waits, as the rest of them.
    pub fn command(&self, function: &str, command: CommandRecord) {
        self.put(function, command.start, What::Command(Box::new(command)));
    }

    /// Writes an event down.
    pub fn event(&self, function: &str, event: Event) {
        self.put(function, Instant::now(), What::Event(event));
    }

    /// Writes something else down; `fields` is only asked for if there is a trace.
    pub fn note(&self, function: &str, text: &'static str, fields: impl FnOnce() -> Value) {
        if self.is_on() {
            self.put(function, Instant::now(), What::Note(text, fields()));
        }
    }

    /// Writes down what waits to be written, and nothing after it. For the end of a process, where
    /// not everybody who has the trace goes away.
    pub fn close(&self) {
        let Some(sink) = &self.sink else {
            return;
        };
        // The thread ends when it has written what there is.
        *sink.records.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let thread = sink
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }

    fn put(&self, function: &str, when: Instant, what: What) {
        let Some(sink) = &self.sink else {
            return;
        };
        let record = Record {
            function: function.into(),
            when,
            what,
        };
        let records = sink.records.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = records
            .as_ref()
            .is_some_and(|records| records.try_send(record).is_ok());
        if !kept {
            sink.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.close();
    }
}

/// Writes records until there will be no more.
fn write(
    mut writer: impl Write,
    records: &Receiver<Record>,
    lost: &AtomicU64,
    started: Instant,
) -> io::Result<()> {
    loop {
        let record = match records.try_recv() {
            Ok(record) => record,
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => {
                writer.flush()?;
                match records.recv() {
                    Ok(record) => record,
                    Err(_) => break,
                }
            }
        };
        let missing = lost.swap(0, Ordering::Relaxed);
        let mut line = line(&record, started);
        if missing != 0 {
            line["lost_before"] = missing.into();
        }
        serde_json::to_writer(&mut writer, &line)?;
        writer.write_all(b"\n")?;
    }
    match lost.swap(0, Ordering::Relaxed) {
        0 => {}
        missing => tracing::warn!("the trace lacks {missing} lines at its end"),
    }
    writer.flush()
}

/// The line of one record.
fn line(record: &Record, started: Instant) -> Value {
    let since = |when: Instant| micros(started, when);
    let mut line = match &record.what {
        What::Command(command) => decode::command(command),
        What::Event(event) => json!({ "type": "event", "event": format!("{event:?}") }),
        What::Note(text, fields) => json!({ "type": "note", "text": text, "fields": fields }),
    };
    line["ts"] = since(record.when).into();
    line["function"] = record.function.as_ref().into();
    line
}

/// What a command is called: its opcode and, if it is for one, its type of general object.
pub fn command_name(opcode: u16, object: Option<u16>) -> String {
    let opcode = decode::opcode(opcode);
    match object {
        Some(object) => format!("{opcode} {}", decode::object(object)),
        None => opcode,
    }
}

/// The microseconds between two moments, 0 if they are in the other order.
fn micros(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::mpsc;

    /// Hands over each line as it is flushed.
    struct Lines(mpsc::Sender<String>, Vec<u8>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            for line in self.1.split_inclusive(|byte| *byte == b'\n') {
                let _ = self.0.send(String::from_utf8_lossy(line).into_owned());
            }
            self.1.clear();
            Ok(())
        }
    }

    #[test]
    fn a_reader_sees_lines_while_the_trace_is_open() {
        let (sender, lines) = mpsc::channel();
        let trace = Trace::to_writer(Lines(sender, Vec::new())).unwrap();
        trace.event("vf0", Event::PageRequest(-3));
        let line: Value = serde_json::from_str(&lines.recv().unwrap()).unwrap();
        assert_eq!(line["type"], "event");
        assert_eq!(line["function"], "vf0");
        assert_eq!(line["event"], "PageRequest(-3)");
        trace.note("vf0", "reset", || json!({ "pages": 7 }));
        let line: Value = serde_json::from_str(&lines.recv().unwrap()).unwrap();
        assert_eq!(line["fields"]["pages"], 7);
        drop(trace);
        assert!(lines.recv().is_err());
    }

    #[test]
    fn a_trace_is_closed_for_all_who_have_it() {
        let (sender, lines) = mpsc::channel();
        let trace = Arc::new(Trace::to_writer(Lines(sender, Vec::new())).unwrap());
        let other = trace.clone();
        other.event("vf0", Event::PageRequest(1));
        trace.close();
        other.event("vf0", Event::PageRequest(2));
        assert_eq!(lines.iter().count(), 1);
    }

    #[test]
    fn without_a_trace_nothing_is_asked_for() {
        let trace = Trace::default();
        trace.note("vf0", "reset", || unreachable!());
        assert!(!trace.is_on());
    }
}
