// SPDX-License-Identifier: GPL-2.0

//! Faults on request: what is to go wrong, when, and how often.
//!
//! A [`Fault`] is what is asked for, in the configuration or on the control socket; [`Faults`] are
//! those of one function. Faults of commands, interrupts and completions lie in wait until what they
//! are for comes by. The others happen at once, and are put right when they are cleared.

mod command;
mod completions;
mod interrupts;
mod name;

pub use self::{
    command::{
        Effects,
        Tail,
        Which, //
    },
    interrupts::Guarded,
    name::Name, //
};

use std::{
    collections::BTreeMap,
    sync::{
        atomic::{
            AtomicBool,
            Ordering, //
        },
        Mutex,
        MutexGuard,
        PoisonError, //
    },
};

use prm::{
    init_segment::HealthSyndrome,
    Status, //
};
use serde::{
    Deserialize,
    Serialize, //
};

use self::command::Rule;

/// What is to go wrong. Each kind is a table of its own in the configuration, and an object on the
/// control socket: `{"kind": "delay", "command": {"opcode": "CREATE_EQ", "count": 1}, "ms": 200}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Commands are executed late.
    Delay {
        /// Which commands.
        command: Which,
        /// How late, in milliseconds. Those that wait are executed at once when the fault is
        /// cleared.
        ms: u64,
    },
    /// Commands are never executed, and never complete.
    Lose {
        /// Which commands.
        command: Which,
    },
    /// Commands are not executed and end with a status.
    Fail {
        /// Which commands.
        command: Which,
        /// The status, by name or number.
        status: Name,
        /// The syndrome.
        #[serde(default)]
        syndrome: u32,
    },
    /// A field of the output, or a piece of what follows its fields, is not what it should be.
    Garbage {
        /// Which commands.
        command: Which,
        /// The field: its name in the reference, after those of the parts it is in and dots. A
        /// capability is a field of `capability` of QUERY_HCA_CAP: it strikes commands that ask
        /// for the group the capability is in.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        field: Option<String>,
        /// The piece, if it is no field. Bytes that an output does not have are left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tail: Option<Tail>,
        /// What it is instead, for a place of up to 64 bits; anything if nothing is said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<u64>,
    },
    /// Interrupts are not raised.
    LoseInterrupts {
        /// Of which vector; of every one if nothing is said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vector: Option<u16>,
        /// How many; every one if nothing is said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        count: Option<u64>,
    },
    /// Events of completion queues are not written, although the queue counts them as sent.
    LoseEvents {
        /// Of queues that interrupt by which vector; of every one if nothing is said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vector: Option<u16>,
        /// How many; every one if nothing is said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        count: Option<u64>,
    },
    /// What virtqueues tell in QP mode completes with another opcode.
    CompletionOpcode {
        /// The opcode, by name or number.
        opcode: Name,
        /// In queues that interrupt by which vector; in every one if nothing is said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vector: Option<u16>,
        /// How often; always if nothing is said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        count: Option<u64>,
    },
    /// Interrupts are raised for nothing, at once.
    SpuriousInterrupt {
        /// Of which vector.
        vector: u16,
        /// How many.
        #[serde(default = "one")]
        count: u16,
    },
    /// A virtqueue goes to the error state, at once.
    QueueError {
        /// The id of the virtqueue object.
        queue: u32,
    },
    /// What a virtqueue tells its driver by in QP event mode goes to error, at once.
    EventError {
        /// The id of the virtqueue object.
        queue: u32,
        /// Which part of it.
        part: EventPart,
    },
    /// The link of the port changes, at once.
    Link {
        /// How.
        state: Link,
    },
    /// The firmware wants pages, or gives them back, at once.
    PageRequest {
        /// How many it wants; negative if it gives them back.
        pages: i32,
    },
    /// The firmware is not well, at once.
    Health {
        /// What is wrong, by name or number.
        syndrome: Name,
        /// Whether it stops: no command is executed, the health counter stands still and a reset
        /// is asked for.
        #[serde(default = "yes")]
        fatal: bool,
    },
    /// The device does not answer any more, at once: its BAR reads as all ones, and it neither
    /// reaches the driver's memory nor interrupts. When the fault is cleared it is as after a
    /// reset.
    Gone {},
}

/// A part of what a virtqueue tells its driver by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventPart {
    /// The driver's queue pair.
    Pair,
    /// Its completion queue.
    Completions,
}

/// What happens to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// It goes down, until the fault is cleared.
    Down,
    /// It comes up, if it was down.
    Up,
    /// It goes down and comes up again.
    Flap,
}

fn one() -> u16 {
    1
}

fn yes() -> bool {
    true
}

/// A fault that there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its number, by which it is cleared.
    pub id: u32,
    /// How often it happened.
    pub hits: u64,
    /// What was asked for.
    pub fault: Fault,
}

/// Why a fault cannot be asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// Something has no such name.
    #[error("there is no {what} `{name}`; there are: {known}")]
    Unknown {
        /// What it should name.
        what: &'static str,
        /// What was said.
        name: String,
        /// What can be said.
        known: String,
    },
    /// A number is too large for what it stands for.
    #[error("{what} {number:#x} is too large; {most:#x} is the largest")]
    TooLarge {
        /// What it stands for.
        what: &'static str,
        /// The number.
        number: u64,
        /// The largest.
        most: u64,
    },
    /// The model does not execute the command, so that its output has no fields.
    #[error("the model does not execute {0}: its output has no fields (say `object` too if it is for general objects)")]
    NoOutput(String),
    /// It is not said, or said twice, what of an output is to be garbage.
    #[error(
        "garbage is in a `field`, or in a piece of the `tail` with a `width` of 1 byte at least"
    )]
    NoPlace,
    /// A field is too wide to be a number.
    #[error("`{0}` has more than 64 bits: leave `value` out")]
    NotANumber(String),
    /// There is no such fault.
    #[error("there is no fault {id}; there are: {known}")]
    NoFault {
        /// What was said.
        id: u32,
        /// What can be said.
        known: String,
    },
    /// The function is not in a state for it.
    #[error("{0}")]
    NotNow(String),
}

/// What is to go wrong in one function.
#[derive(Default)]
pub struct Faults {
    active: Mutex<Active>,
    /// Whether the device does not answer any more.
    gone: AtomicBool,
    /// Whether a fault may be in the way of an interrupt.
    interrupts: AtomicBool,
    /// Whether a fault may be in the way of a completion.
    completions: AtomicBool,
}

#[derive(Default)]
struct Active {
    last: u32,
    faults: BTreeMap<u32, Entry>,
}

struct Entry {
    fault: Fault,
    hits: u64,
    /// For which commands it lies in wait.
    rule: Option<Rule>,
}

impl Active {
    fn is_dead(&self) -> bool {
        let mut faults = self.faults.values();
        faults.any(|entry| matches!(entry.fault, Fault::Health { fatal: true, .. }))
    }
}

impl Faults {
    fn active(&self) -> MutexGuard<'_, Active> {
        // Nothing panics while it holds the lock.
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a fault and returns its number. What is to happen at once is up to the caller.
    ///
    /// # Errors
    ///
    /// If something in it has no such name, or is too large.
    pub fn add(&self, fault: Fault) -> Result<u32, FaultError> {
        let rule = Rule::of(&fault)?;
        if let Fault::Health { syndrome, .. } = &fault {
            health_syndrome(syndrome)?;
        }
        if let Fault::CompletionOpcode { opcode, .. } = &fault {
            completions::opcode(opcode)?;
        }
        let mut active = self.active();
        active.last = active.last.wrapping_add(1);
        let id = active.last;
        let entry = Entry {
            fault,
            hits: 0,
            rule,
        };
        active.faults.insert(id, entry);
        self.refresh(&active);
        Ok(id)
    }

    /// Takes a fault away and returns it.
    ///
    /// # Errors
    ///
    /// [`FaultError::NoFault`] if there is none of that number.
    pub fn remove(&self, id: u32) -> Result<Fault, FaultError> {
        let mut active = self.active();
        let Some(entry) = active.faults.remove(&id) else {
            let known: Vec<_> = active.faults.keys().map(u32::to_string).collect();
            return Err(FaultError::NoFault {
                id,
                known: if known.is_empty() {
                    "none".to_owned()
                } else {
                    known.join(", ")
                },
            });
        };
        self.refresh(&active);
        Ok(entry.fault)
    }

    /// The faults there are, in the order they were asked for.
    pub fn list(&self) -> Vec<Listed> {
        let active = self.active();
        let listed = active.faults.iter().map(|(id, entry)| Listed {
            id: *id,
            hits: entry.hits,
            fault: entry.fault.clone(),
        });
        listed.collect()
    }

    /// Counts that a fault happened.
    pub fn hit(&self, id: u32) {
        if let Some(entry) = self.active().faults.get_mut(&id) {
            entry.hits = entry.hits.saturating_add(1);
        }
    }

    /// Returns whether there is a fault of that number.
    pub fn is_there(&self, id: u32) -> bool {
        self.active().faults.contains_key(&id)
    }

    /// Returns whether the device does not answer any more.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Returns whether the firmware has stopped.
    pub fn is_dead(&self) -> bool {
        self.is_gone() || self.active().is_dead()
    }

    /// What happens to a command of that input; nothing, not even a fault, if the firmware has
    /// stopped.
    pub fn command(&self, input: &[u8]) -> Option<Effects> {
        let mut active = self.active();
        if self.is_gone() || active.is_dead() {
            return None;
        }
        let mut effects = Effects::default();
        for (id, entry) in &mut active.faults {
            if let Some(rule) = &mut entry.rule {
                if rule.applies(input) {
                    entry.hits = entry.hits.saturating_add(1);
                    effects.take(*id, rule);
                }
            }
        }
        Some(effects)
    }

    /// Brings up to date what is asked on every interrupt.
    fn refresh(&self, active: &Active) {
        let any = |is: fn(&Fault) -> bool| active.faults.values().any(|entry| is(&entry.fault));
        let gone = any(|fault| matches!(fault, Fault::Gone {}));
        let lost = any(|fault| matches!(fault, Fault::LoseInterrupts { .. }));
        self.gone.store(gone, Ordering::Relaxed);
        self.interrupts.store(gone || lost, Ordering::Relaxed);
        let completions = any(completions::is_one);
        self.completions.store(completions, Ordering::Relaxed);
    }
}

/// The syndrome of a health fault.
///
/// # Errors
///
/// If there is none of that name, or it is too large.
pub fn health_syndrome(name: &Name) -> Result<u8, FaultError> {
    name.resolve_u8("syndrome", HealthSyndrome::ALL, HealthSyndrome::name)
}

/// The status of a command.
fn status(name: &Name) -> Result<u8, FaultError> {
    name.resolve_u8("status", Status::ALL, Status::name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Result<Fault, String> {
        serde_json::from_str(text).map_err(|e| e.to_string())
    }

    #[test]
    fn faults_read_as_they_are_written() {
        for text in [
            r#"{"kind":"delay","command":{"opcode":"CREATE_EQ","count":1},"ms":200}"#,
            r#"{"kind":"lose","command":{"opcode":769}}"#,
            r#"{"kind":"fail","command":{"opcode":"NOP"},"status":"LIM_ERR","syndrome":7}"#,
            r#"{"kind":"garbage","command":{"opcode":"CREATE_EQ"},"field":"eq_number","value":9}"#,
            r#"{"kind":"garbage","command":{"opcode":"MANAGE_PAGES"},"tail":{"width":8}}"#,
            r#"{"kind":"lose_interrupts","vector":2}"#,
            r#"{"kind":"lose_events","vector":2,"count":1}"#,
            r#"{"kind":"completion_opcode","opcode":"RESP_ERR","count":1}"#,
            r#"{"kind":"spurious_interrupt","vector":2,"count":1}"#,
            r#"{"kind":"queue_error","queue":1}"#,
            r#"{"kind":"link","state":"flap"}"#,
            r#"{"kind":"page_request","pages":-4}"#,
            r#"{"kind":"health","syndrome":"HW_FATAL_ERR","fatal":true}"#,
            r#"{"kind":"gone"}"#,
        ] {
            let parsed = fault(text).unwrap();
            let again = serde_json::to_string(&parsed).unwrap();
            assert_eq!(fault(&again).unwrap(), parsed, "{text}");
            let faults = Faults::default();
            let id = faults.add(parsed.clone()).unwrap();
            assert_eq!(faults.list()[0].fault, parsed);
            assert_eq!(faults.remove(id).unwrap(), parsed);
            assert_eq!(faults.list(), []);
        }
    }

    #[test]
    fn what_cannot_be_is_answered_with_what_can() {
        let wrong = |text: &str| {
            Faults::default()
                .add(fault(text).unwrap())
                .unwrap_err()
                .to_string()
        };
        assert!(fault(r#"{"kind":"pear"}"#).unwrap_err().contains("`delay`"));
        assert!(fault(r#"{"kind":"gone","for":1}"#).is_err());
        assert!(
            wrong(r#"{"kind":"lose","command":{"opcode":"CREATE_PEAR"}}"#).contains("CREATE_EQ")
        );
        assert!(wrong(r#"{"kind":"lose","command":{"opcode":65536}}"#).contains("0xffff"));
        assert!(wrong(r#"{"kind":"health","syndrome":"TIRED"}"#).contains("HIGH_TEMP_ERR"));
        assert!(wrong(r#"{"kind":"completion_opcode","opcode":"SENT"}"#).contains("RESP_SEND"));
        assert!(wrong(r#"{"kind":"completion_opcode","opcode":16}"#).contains("0xf is"));
        let text = r#"{"kind":"garbage","command":{"opcode":"CREATE_EQ"},"field":"pear"}"#;
        assert!(wrong(text).contains("eq_number"));
        let text = r#"{"kind":"garbage","command":{"opcode":"CREATE_EQ"},"field":"eq_number",
            "value":256}"#;
        assert!(wrong(text).contains("0xff is the largest"));
        let text = r#"{"kind":"garbage","command":{"opcode":"SET_DRIVER_VERSION"},"field":"x"}"#;
        let message = wrong(text);
        assert!(!message.is_empty());
        let garbage = |opcode: &str, place: &str| {
            wrong(&format!(
                r#"{{"kind":"garbage","command":{{"opcode":"{opcode}"}}{place}}}"#
            ))
        };
        let message = garbage("QUERY_HCA_CAP", r#","field":"capability.log_max_pear""#);
        assert!(message.contains("`capability.log_max_pear`"), "{message}");
        for field in [
            "log_max_mkey",
            "max_num_virtio_queues",
            "flow_table_properties_nic_receive.ft_support",
        ] {
            assert!(
                message.contains(&format!("capability.{field}")),
                "{message}"
            );
        }
        // Six bits.
        let place = r#","field":"capability.log_max_mkey","value":64"#;
        assert!(garbage("QUERY_HCA_CAP", place).contains("0x3f is the largest"));
        // SET_HCA_CAP answers nothing.
        assert!(garbage("SET_HCA_CAP", r#","field":"capability.roce""#).contains("syndrome"));
        for place in [
            "",
            r#","field":"status","tail":{"width":1}"#,
            r#","tail":{"width":0}"#,
        ] {
            assert!(
                garbage("MANAGE_PAGES", place).contains("`field`"),
                "{place}"
            );
        }
        let place = r#","tail":{"offset":16777217,"width":1}"#;
        assert!(garbage("MANAGE_PAGES", place).contains("tail.offset"));
        let place = r#","tail":{"width":9},"value":1"#;
        assert!(garbage("MANAGE_PAGES", place).contains("64 bits"));
        let place = r#","tail":{"width":1},"value":256"#;
        assert!(garbage("MANAGE_PAGES", place).contains("0xff is the largest"));
        let none = Faults::default().remove(3).unwrap_err().to_string();
        assert!(none.contains("none"), "{none}");
    }
}
