// SPDX-License-Identifier: GPL-2.0

//! What happens to one function: counted always, written down if there is a trace.

use std::sync::Arc;

use serde_json::Value;

use super::{
    CommandRecord,
    Trace, //
};
use crate::{
    eq::Event,
    stats::Stats, //
};

/// Who is told what happens to one function.
#[derive(Default)]
pub struct Journal {
    /// The function's name.
    name: Arc<str>,
    trace: Arc<Trace>,
    /// The function's counters.
    pub stats: Stats,
}

impl Journal {
    /// The journal of the function `name`, which writes into `trace`.
    pub fn new(name: &str, trace: Arc<Trace>) -> Self {
        Self {
            name: name.into(),
            trace,
            stats: Stats::default(),
        }
    }

    /// Returns whether anything is written down.
    pub fn is_traced(&self) -> bool {
        self.trace.is_on()
    }

    /// A command is complete.
    pub fn command(&self, command: CommandRecord) {
        self.trace.command(&self.name, command);
    }

    /// An event was written into an event queue. Those of completion queues are many, and only
    /// counted.
    pub fn event(&self, event: Event) {
        self.stats.events.add(1);
        if !matches!(event, Event::Completion { .. }) {
            self.trace.event(&self.name, event);
        }
    }

    /// Something else happened; `fields` is only asked for if there is a trace.
    pub fn note(&self, text: &'static str, fields: impl FnOnce() -> Value) {
        self.trace.note(&self.name, text, fields);
    }
}
