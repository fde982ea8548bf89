// SPDX-License-Identifier: GPL-2.0

//! Faults of commands: which ones they are for, and what they do to them.

use std::time::Duration;

use prm::{
    cap::{
        CapType,
        QueryHcaCapOut, //
    },
    command::InputHeader,
    layout::{
        set_bits,
        FieldInfo,
        Info,
        Shape, //
    },
    Layout,
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
use crate::{
    capability,
    command, //
};

/// The longest tail in bytes that can be spoiled: more than any output has.
const LONGEST_TAIL: usize = 16 << 20;

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

/// A piece of what follows the fixed part of an output, such as a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tail {
    /// The bytes of the tail before it.
    #[serde(default)]
    pub offset: usize,
    /// Its bytes.
    pub width: usize,
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
    /// The group of capabilities it is for, if it is for one of them.
    group: Option<CapType>,
    after: u64,
    left: Option<u64>,
    effect: Effect,
}

impl Rule {
    /// The rule of a fault, if it is one of commands.
    pub(super) fn of(fault: &Fault) -> Result<Option<Self>, FaultError> {
        let mut group = None;
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
                tail,
                value,
            } => {
                let garbage = match (field, tail) {
                    (Some(path), None) => {
                        let (in_group, garbage) = in_field(command, path, *value)?;
                        group = in_group;
                        garbage
                    }
                    (None, Some(tail)) => in_tail(command, *tail, *value)?,
                    _ => return Err(FaultError::NoPlace),
                };
                (command, Effect::Garbage(garbage))
            }
            _ => return Ok(None),
        };
        Ok(Some(Self {
            opcode: which.opcode()?,
            object: which.object()?,
            group,
            after: which.after,
            left: which.count,
            effect,
        }))
    }

    /// Returns whether a command of that input is struck, and counts it.
    pub(super) fn applies(&mut self, input: &[u8]) -> bool {
        let (opcode, object) = command::identify(input);
        let op_mod = InputHeader::split(input).map(|(header, _)| header.op_mod());
        if opcode != self.opcode
            || self.object.is_some_and(|wanted| object != Some(wanted))
            || self
                .group
                .is_some_and(|wanted| op_mod.map(capability::group) != Some(Ok(wanted)))
        {
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

/// The fixed part of a command's output.
fn output(which: &Which) -> Result<&'static Info, FaultError> {
    let object = which.object()?.unwrap_or_default();
    command::find(which.opcode()?, object)
        .map(|handler| handler.output)
        .map_err(|_| FaultError::NoOutput(which.opcode.to_string()))
}

/// Finds the bits of a field of the output, and the group if it is a capability.
fn in_field(
    which: &Which,
    path: &str,
    value: Option<u64>,
) -> Result<(Option<CapType>, Garbage), FaultError> {
    let output = output(which)?;
    let unknown = |known| FaultError::Unknown {
        what: "field",
        name: path.to_owned(),
        known,
    };
    let (group, (offset, field)) = match path.split_once('.') {
        Some(("capability", inner)) if output.name == QueryHcaCapOut::INFO.name => {
            let base = output.field("capability").map_or(0, |field| field.offset);
            let found = capability::GROUPS
                .iter()
                .find_map(|(group, info)| Some((*group, find(info, inner)?)));
            let Some((group, (offset, field))) = found else {
                let groups = capability::GROUPS.iter();
                let known = groups.map(|(_, info)| fields(info, "capability."));
                return Err(unknown(known.collect::<Vec<_>>().join(", ")));
            };
            (Some(group), (base + offset, field))
        }
        _ => (
            None,
            find(output, path).ok_or_else(|| unknown(fields(output, "")))?,
        ),
    };
    if value.is_some() && field.width > 64 {
        return Err(FaultError::NotANumber(path.to_owned()));
    }
    fits(value, field.width)?;
    let garbage = Garbage {
        offset,
        width: field.width,
        value,
    };
    Ok((group, garbage))
}

/// Finds the bits of a piece of the output's tail.
fn in_tail(which: &Which, tail: Tail, value: Option<u64>) -> Result<Garbage, FaultError> {
    let start = output(which)?.bytes;
    for (what, number, most) in [
        ("tail.offset", tail.offset, LONGEST_TAIL),
        ("tail.width", tail.width, LONGEST_TAIL),
    ] {
        if number > most {
            let (number, most) = (number as u64, most as u64);
            return Err(FaultError::TooLarge { what, number, most });
        }
    }
    if tail.width == 0 {
        return Err(FaultError::NoPlace);
    }
    let width = 8 * tail.width;
    if value.is_some() && width > 64 {
        return Err(FaultError::NotANumber("tail".to_owned()));
    }
    fits(value, width)?;
    Ok(Garbage {
        offset: 8 * (start + tail.offset),
        width,
        value,
    })
}

/// Finds a field by the names of the parts it is in and its own: its first bit, and what it is.
fn find(info: &Info, path: &str) -> Option<(usize, &'static FieldInfo)> {
    let (name, rest) = match path.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    };
    let field = info.field(name)?;
    match (rest, field.shape) {
        (None, _) => Some((field.offset, field)),
        (Some(rest), Shape::Part(part)) => {
            find(part, rest).map(|(offset, inner)| (field.offset + offset, inner))
        }
        (Some(_), _) => None,
    }
}

/// Refuses a value that has more bits than its place.
fn fits(value: Option<u64>, width: usize) -> Result<(), FaultError> {
    let most = u64::MAX >> 64usize.saturating_sub(width);
    match value.filter(|value| *value > most) {
        Some(number) => Err(FaultError::TooLarge {
            what: "value",
            number,
            most,
        }),
        None => Ok(()),
    }
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
            // The output of a command that was refused has neither fields nor tail.
            let end = (garbage.offset + garbage.width).min(8 * output.len());
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

    use prm::layout::bits;
    use zerocopy::IntoBytes;

    fn which(opcode: &str) -> Which {
        Which {
            opcode: opcode.into(),
            object: None,
            after: 0,
            count: None,
        }
    }

    /// An input. The type of general object is where other commands have their variant.
    fn input(opcode: Opcode, variant: u16) -> Vec<u8> {
        let mut input = InputHeader::new();
        input.set_opcode(opcode).set_op_mod(variant);
        input.as_bytes().to_vec()
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
        let nop = input(Opcode::NOP, 0);
        let struck: Vec<_> = (0..5).map(|_| rule.applies(&nop)).collect();
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
        let create = |object| input(Opcode::CREATE_GENERAL_OBJECT, object);
        assert!(!rule.applies(&create(ObjectType::VIRTIO_Q_COUNTERS as u16)));
        assert!(!rule.applies(&create(0)));
        assert!(rule.applies(&create(ObjectType::VIRTIO_NET_Q as u16)));
    }

    #[test]
    fn garbage_stays_in_its_field() {
        let fault = Fault::Garbage {
            command: which("CREATE_EQ"),
            field: Some("eq_number".to_owned()),
            tail: None,
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
    /// The rule of some garbage, and what it makes of an output of 0s.
    fn spoiled(opcode: &str, place: serde_json::Value, len: usize) -> (Rule, Vec<u8>) {
        let mut fault = serde_json::json!({"kind": "garbage", "command": {"opcode": opcode}});
        let fields = fault.as_object_mut().unwrap();
        fields.extend(place.as_object().unwrap().clone());
        let fault: Fault = serde_json::from_value(fault).unwrap();
        let rule = Rule::of(&fault).unwrap().unwrap();
        let mut effects = Effects::default();
        effects.take(1, &rule);
        let mut output = vec![0; len];
        effects.spoil(&mut output);
        (rule, output)
    }

    #[test]
    fn garbage_in_a_capability_is_for_its_group() {
        let len = QueryHcaCapOut::INFO.bytes;
        let path = "flow_table_properties_nic_receive.ft_field_support.outer_dmac";
        for (group, field, bit) in [
            (CapType::GENERAL, "log_max_mkey", 0xef),
            (CapType::VDPA_EMULATION, "max_num_virtio_queues", 0x9f),
            (CapType::FLOW_TABLE, path, 0x300),
        ] {
            let place = serde_json::json!({"field": format!("capability.{field}"), "value": 1});
            let (mut rule, output) = spoiled("QUERY_HCA_CAP", place, len);
            let set: Vec<_> = (0..8 * len)
                .filter(|bit| bits(&output, *bit, 1) == 1)
                .collect();
            assert_eq!(set, [0x80 + bit], "{field}");
            for (other, _) in capability::GROUPS {
                let query = |mode| input(Opcode::QUERY_HCA_CAP, ((*other as u16) << 1) | mode);
                assert_eq!(rule.applies(&query(0)), *other == group, "{field}");
                assert_eq!(rule.applies(&query(1)), *other == group, "{field}");
            }
        }
    }

    #[test]
    fn garbage_in_the_tail() {
        let fixed = prm::page::ManagePagesOut::INFO.bytes;
        let place = serde_json::json!({"tail": {"offset": 8, "width": 2}, "value": 0x1234});
        let (_, output) = spoiled("MANAGE_PAGES", place.clone(), fixed + 16);
        assert_eq!(output[fixed + 8..][..2], [0x12, 0x34]);
        assert_eq!(output.iter().filter(|byte| **byte != 0).count(), 2);
        // What is not there is not spoiled.
        let (_, output) = spoiled("MANAGE_PAGES", place, fixed + 8);
        assert_eq!(output, vec![0; fixed + 8]);
        let place = serde_json::json!({"tail": {"width": 16}});
        let (_, output) = spoiled("MANAGE_PAGES", place, fixed + 24);
        assert_eq!(output[fixed..], [[0xa5; 8], [0xa5; 8], [0; 8]].concat());
    }
}
