// SPDX-License-Identifier: GPL-2.0

//! Where frames that the switch sends to a function come in.

use std::{
    ptr,
    sync::{
        atomic::{
            AtomicU64,
            Ordering, //
        },
        Arc,
        RwLock, //
    }, //
};

use crate::{
    eswitch::Port,
    frame::Frame,
    steering::{
        change,
        flow_table::{
            FlowTable, //
            Found,
        },
        headers::Headers,
        look,
        ReceiveQueue, //
    }, //
};

/// The receive side of a function, as the switch sees it. It is there as long as the function is;
/// what it steers by comes and goes with the function's [`Steering`](crate::steering::Steering).
#[derive(Default)]
pub struct Receiver {
    /// Held to read while frames are delivered.
    root: RwLock<Option<Arc<FlowTable>>>,
    discarded: AtomicU64,
}

impl Receiver {
    /// Says in which table matching begins: in none, and every frame is discarded. Waits for
    /// frames that are being delivered.
    pub(super) fn set_root(&self, root: Option<Arc<FlowTable>>) {
        *change(&self.root) = root;
    }

    /// Waits for frames that are being delivered by what was true before.
    pub(super) fn settle(&self) {
        drop(change(&self.root));
    }

    /// How many frames no entry was for, or one that drops.
    pub fn discarded(&self) -> u64 {
        self.discarded.load(Ordering::Relaxed)
    }
}

impl Port for Receiver {
    fn receive(&self, frames: &[&Frame]) {
        let root = look(&self.root);
        let mut discarded = 0;
        let mut run = Run::new(frames.len());
        for &frame in frames {
            let delivered = root
                .as_deref()
                .is_some_and(|root| steer(root, frame, &mut run));
            discarded += u64::from(!delivered);
        }
        run.flush();
        if discarded != 0 {
            self.discarded.fetch_add(discarded, Ordering::Relaxed);
        }
    }
}

/// Adds `frame` to the run of each queue it is for. Returns whether there is one.
fn steer<'a>(root: &FlowTable, frame: &'a Frame, run: &mut Run<'a>) -> bool {
    let headers = Headers::of(&frame.bytes);
    let mut found = root.find(&headers);
    // Each table is of a higher level than the one before: this ends.
    loop {
        match found {
            Found::Nothing => return false,
            Found::Table(next) => found = next.find(&headers),
            Found::Entry(entry) => {
                entry.count(frame.bytes.len());
                if let Some(next) = entry.table() {
                    found = next.find(&headers);
                    continue;
                }
                for tir in entry.tirs() {
                    tir.with_queue(&headers, |queue| run.add(queue, frame));
                }
                return !entry.tirs().is_empty();
            }
        }
    }
}

/// Frames in a row that are for the same queue.
struct Run<'a> {
    queue: Option<Arc<dyn ReceiveQueue>>,
    frames: Vec<&'a Frame>,
}

impl<'a> Run<'a> {
    fn new(capacity: usize) -> Self {
        Self {
            queue: None,
            frames: Vec::with_capacity(capacity),
        }
    }

    /// Adds a frame for `queue`; delivers what was for another one.
    fn add(&mut self, queue: &Arc<dyn ReceiveQueue>, frame: &'a Frame) {
        let same =
            |last: &Arc<dyn ReceiveQueue>| ptr::addr_eq(Arc::as_ptr(last), Arc::as_ptr(queue));
        if !self.queue.as_ref().is_some_and(same) {
            self.flush();
            self.queue = Some(queue.clone());
        }
        self.frames.push(frame);
    }

    fn flush(&mut self) {
        if let Some(queue) = self.queue.take() {
            queue.receive(&self.frames);
        }
        self.frames.clear();
    }
}
