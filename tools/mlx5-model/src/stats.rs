// SPDX-License-Identifier: GPL-2.0

//! Counters of one function: what happened to it since the model was started.

use std::{
    collections::BTreeMap,
    sync::{
        atomic::{
            AtomicU64,
            Ordering, //
        },
        Arc,
        Mutex,
        MutexGuard,
        PoisonError, //
    },
    time::Duration,
};

use serde::{
    Deserialize,
    Serialize, //
};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// What it is now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of one virtqueue, filled by who moves its frames.
#[derive(Debug, Default)]
pub struct QueueCounters {
    /// Frames that went from the driver to the switch or from the switch to the driver.
    pub frames: Counter,
    /// The bytes of them.
    pub bytes: Counter,
    /// Frames that the queue dropped: on receive those for which it had no room, on transmit
    /// those that cannot be sent.
    pub dropped: Counter,
    /// Doorbells that were rung for it.
    pub kicks: Counter,
    /// Those of them that were lost, since it was not ready.
    pub lost_kicks: Counter,
    /// How often the driver was told of used buffers.
    pub notifications: Counter,
}

/// Counters of one function.
#[derive(Debug, Default)]
pub struct Stats {
    /// Events that were written into event queues.
    pub events: Counter,
    /// Interrupts that were raised.
    pub interrupts: Counter,
    /// Doorbells of virtqueues that were rung.
    pub kicks: Counter,
    /// How often what virtqueues tell in QP mode had to wait for a receive entry.
    pub waits: Counter,
    /// Commands by name, and refusals by reason.
    commands: Mutex<Commands>,
    queues: Mutex<BTreeMap<u16, Arc<QueueCounters>>>,
}

#[derive(Debug, Default)]
struct Commands {
    times: BTreeMap<String, Times>,
    refusals: BTreeMap<String, u64>,
}

/// How often and how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// How often.
    pub count: u64,
    /// How long all together, in nanoseconds from the moment the model saw the doorbell.
    pub total_ns: u64,
    /// How long at most.
    pub max_ns: u64,
}

/// The counters of one virtqueue at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueReport {
    /// Frames that were moved.
    pub frames: u64,
    /// The bytes of them.
    pub bytes: u64,
    /// Frames that the queue dropped: on receive those for which it had no room, on transmit
    /// those that cannot be sent.
    pub dropped: u64,
    /// Doorbells that were rung for it.
    pub kicks: u64,
    /// Those of them that were lost, since it was not ready.
    pub lost_kicks: u64,
    /// How often the driver was told of used buffers.
    pub notifications: u64,
}

/// The counters of one function at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Commands that were complete, by name.
    pub commands: BTreeMap<String, Times>,
    /// Commands that were refused, by reason: statuses that a driver does not expect.
    pub refusals: BTreeMap<String, u64>,
    /// Events that were written into event queues.
    pub events: u64,
    /// Interrupts that were raised.
    pub interrupts: u64,
    /// Doorbells of virtqueues that were rung.
    pub kicks: u64,
    /// How often what virtqueues tell in QP mode had to wait for a receive entry.
    #[serde(default)]
    pub waits: u64,
    /// Virtqueues by index.
    pub queues: BTreeMap<u16, QueueReport>,
    /// Pages of the driver's memory that the function holds.
    pub pages: u64,
    /// Objects that there are, by type.
    pub objects: BTreeMap<String, u64>,
}

impl Stats {
    /// Counts a command that is complete; `refusal` is why it was not done.
    pub fn command(&self, name: &str, time: Duration, refusal: Option<&str>) {
        let mut commands = self.commands();
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        // A name is only copied when it is seen for the first time.
        if !commands.times.contains_key(name) {
            commands.times.insert(name.to_owned(), Times::default());
        }
        if let Some(times) = commands.times.get_mut(name) {
            times.count = times.count.saturating_add(1);
            times.total_ns = times.total_ns.saturating_add(nanos);
            times.max_ns = times.max_ns.max(nanos);
        }
        if let Some(refusal) = refusal {
            let count = commands.refusals.entry(refusal.to_owned()).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// How many commands were refused.
    pub fn refused(&self) -> u64 {
        self.commands().refusals.values().sum()
    }

    fn commands(&self) -> MutexGuard<'_, Commands> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counters of virtqueue `index`, whoever it belongs to at the moment.
    pub fn queue(&self, index: u16) -> Arc<QueueCounters> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.entry(index).or_default().clone()
    }

    /// The counters of this moment, without pages and objects, of which they know nothing.
    pub fn report(&self) -> Report {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let queues = queues.iter().map(|(index, counters)| {
            let report = QueueReport {
                frames: counters.frames.get(),
                bytes: counters.bytes.get(),
                dropped: counters.dropped.get(),
                kicks: counters.kicks.get(),
                lost_kicks: counters.lost_kicks.get(),
                notifications: counters.notifications.get(),
            };
            (*index, report)
        });
        let commands = self.commands();
        Report {
            commands: commands.times.clone(),
            refusals: commands.refusals.clone(),
            events: self.events.get(),
            interrupts: self.interrupts.get(),
            kicks: self.kicks.get(),
            waits: self.waits.get(),
            queues: queues.collect(),
            ..Report::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_counted_by_name() {
        let stats = Stats::default();
        stats.command("NOP", Duration::from_nanos(5), None);
        stats.command("NOP", Duration::from_nanos(7), Some("NotEnabled"));
        stats.queue(3).frames.add(2);
        assert_eq!(stats.refused(), 1);
        let report = stats.report();
        let times = Times {
            count: 2,
            total_ns: 12,
            max_ns: 7,
        };
        assert_eq!(report.commands["NOP"], times);
        assert_eq!(report.refusals["NotEnabled"], 1);
        assert_eq!(report.queues[&3].frames, 2);
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }
}
