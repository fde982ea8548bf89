// SPDX-License-Identifier: GPL-2.0

//! Faults of commands: which ones they are for, and what they do to them.

use std::time::Duration;

use prm::{
    layout::{
        set_bits,
        Info,
        Shape, //
    },
    ObjectType,
    Opcode, //
};
use serde::{
    Deserialize,
    Serialize, //
};

use super::{
    status,
    Fault,
    FaultError,
    Name, //
};
use crate::command;

/// Which commands a fault is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Which {
    /// The opcode, by name or number.
    pub opcode: Name,
    /// The type of general object, by name or number; any if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<Name>,
    /// How many of them are spared first.
    #[serde(default)]
    pub after: u64,
    /// How many of them are struck then; all if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// What a fault does to a command.
#[derive(Clone, Copy)]
enum Effect {
    Delay(Duration),
    Lose,
    Fail { status: u8, syndrome: u32 },
    Garbage(Garbage),
}

/// Bits of an output and what they are to be.
#[derive(Clone, Copy, Debug)]
struct Garbage {
    offset: usize,
    width: usize,
    value: Option<u64>,
}

/// A fault that lies in wait for commands.
pub(super) struct Rule {
    opcode: u16,
    object: Option<u16>,
    after: u64,
    left: Option<u64>,
    effect: Effect,
}

impl Rule {
    /// The rule of a fault, if it is one of commands.
    pub(super) fn of(fault: &Fault) -> Result<Option<Self>, FaultError> {
        let (which, effect) = match fault {
            Fault::Delay { command, ms } => (command, Effect::Delay(Duration::from_millis(*ms))),
            Fault::Lose { command } => (command, Effect::Lose),
            Fault::Fail {
                command,
                status: name,
                syndrome,
            } => {
                let status = status(name)?;
                let syndrome = *syndrome;
                (command, Effect::Fail { status, syndrome })
            }
            Fault::Garbage {
                command,
                field,
                value,
            } => (command, Effect::Garbage(garbage(command, field, *value)?)),
            _ => return Ok(None),
        };
        Ok(Some(Self {
            opcode: which.opcode()?,
            object: which.object()?,
            after: which.after,
            left: which.count,
            effect,
        }))
    }

    /// Returns whether a command is struck, and counts it.
    pub(super) fn applies(&mut self, opcode: u16, object: Option<u16>) -> bool {
        if opcode != self.opcode || self.object.is_some_and(|wanted| object != Some(wanted)) {
            return false;
        }
        if self.after > 0 {
            self.after -= 1;
            return false;
        }
        match &mut self.left {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }
}

impl Which {
    fn opcode(&self) -> Result<u16, FaultError> {
        self.opcode
            .resolve_u16("command", Opcode::ALL, Opcode::name)
    }

    fn object(&self) -> Result<Option<u16>, FaultError> {
        let object = self.object.as_ref();
        object
            .map(|name| name.resolve_u16("type of object", ObjectType::ALL, ObjectType::name))
            .transpose()
    }
}

/// Finds the bits of a field of the output.
fn garbage(which: &Which, path: &str, value: Option<u64>) -> Result<Garbage, FaultError> {
    let object = which.object()?.unwrap_or_default();
    let handler = command::find(which.opcode()?, object)
        .map_err(|_| FaultError::NoOutput(which.opcode.to_string()))?;
    let mut info: &Info = handler.output;
    let mut base = 0;
    let mut names = path.split('.').peekable();
    while let Some(name) = names.next() {
        let field = info.field(name).ok_or_else(|| FaultError::Unknown {
            what: "field",
            name: path.to_owned(),
            known: fields(info, ""),
        })?;
        match field.shape {
            Shape::Part(part) if names.peek().is_some() => {
                base += field.offset;
                info = part;
            }
            _ if names.peek().is_some() => {
                return Err(FaultError::Unknown {
                    what: "field",
                    name: path.to_owned(),
                    known: fields(handler.output, ""),
                });
            }
            _ if value.is_some() && field.width > 64 => {
                return Err(FaultError::NotANumber(path.to_owned()));
            }
            _ => {
                let most = u64::MAX >> 64usize.saturating_sub(field.width);
                if let Some(number) = value.filter(|value| *value > most) {
                    let what = "value";
                    return Err(FaultError::TooLarge { what, number, most });
                }
                return Ok(Garbage {
                    offset: base + field.offset,
                    width: field.width,
                    value,
                });
            }
        }
    }
    // Splitting gives one piece at least, and the last piece ends the loop.
    Err(FaultError::NoOutput(path.to_owned()))
}

/// The fields of a structure, as they can be asked for.
fn fields(info: &Info, prefix: &str) -> String {
    let mut names = Vec::new();
    for field in info.fields {
        names.push(format!("{prefix}{}", field.name));
        if let Shape::Part(part) = field.shape {
            names.push(fields(part, &format!("{prefix}{}.", field.name)));
        }
    }
    names.join(", ")
}

/// What happens to one command.
#[derive(Debug, Default)]
pub struct Effects {
    /// It waits that long, or until the fault of that number is cleared.
    pub delay: Option<(u32, Duration)>,
    /// It is never executed.
    pub lost: bool,
    /// It is not executed and ends with this status and syndrome.
    pub failed: Option<(u8, u32)>,
    /// The numbers of the faults it met.
    pub faults: Vec<u32>,
    garbage: Vec<Garbage>,
}

impl Effects {
    pub(super) fn take(&mut self, id: u32, rule: &Rule) {
        self.faults.push(id);
        match rule.effect {
            Effect::Delay(time) => self.delay = Some((id, time)),
            Effect::Lose => self.lost = true,
            Effect::Fail { status, syndrome } => self.failed = Some((status, syndrome)),
            Effect::Garbage(garbage) => self.garbage.push(garbage),
        }
    }

    /// Puts garbage into an output.
    pub fn spoil(&self, output: &mut [u8]) {
        for garbage in &self.garbage {
            let end = garbage.offset + garbage.width;
            for start in (garbage.offset..end).step_by(64) {
                // Alternating bits are unlikely to be what was there.
                let value = garbage.value.unwrap_or(0xa5a5_a5a5_a5a5_a5a5);
                set_bits(output, start, (end - start).min(64), value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn which(opcode: &str) -> Which {
        Which {
            opcode: opcode.into(),
            object: None,
            after: 0,
            count: None,
        }
    }

    #[test]
    fn a_rule_spares_strikes_and_ends() {
        let fault = Fault::Lose {
            command: Which {
                after: 1,
                count: Some(2),
                ..which("NOP")
            },
        };
        let mut rule = Rule::of(&fault).unwrap().unwrap();
        let nop = Opcode::NOP as u16;
        let struck: Vec<_> = (0..5).map(|_| rule.applies(nop, None)).collect();
        assert_eq!(struck, [false, true, true, false, false]);
    }

    #[test]
    fn a_rule_is_for_its_type_of_object() {
        let fault = Fault::Lose {
            command: Which {
                object: Some("VIRTIO_NET_Q".into()),
                ..which("CREATE_GENERAL_OBJECT")
            },
        };
        let mut rule = Rule::of(&fault).unwrap().unwrap();
        let opcode = Opcode::CREATE_GENERAL_OBJECT as u16;
        assert!(!rule.applies(opcode, Some(ObjectType::VIRTIO_Q_COUNTERS as u16)));
        assert!(!rule.applies(opcode, None));
        assert!(rule.applies(opcode, Some(ObjectType::VIRTIO_NET_Q as u16)));
    }

    #[test]
    fn garbage_stays_in_its_field() {
        let fault = Fault::Garbage {
            command: which("CREATE_EQ"),
            field: "eq_number".to_owned(),
            value: None,
        };
        let rule = Rule::of(&fault).unwrap().unwrap();
        let mut effects = Effects::default();
        effects.take(1, &rule);
        let mut output = [0; 16];
        effects.spoil(&mut output);
        assert_eq!(output[11], 0xa5);
        output[11] = 0;
        assert_eq!(output, [0; 16]);
    }
}
