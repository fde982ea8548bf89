// SPDX-License-Identifier: GPL-2.0

//! Structures of the reference as JSON objects: a member for each field that is not 0.

use std::fmt::Write;

use prm::{
    cap::{
        CapType,
        CmdHcaCap,
        FlowTableNicCap,
        VirtioEmulationCap, //
    },
    command::{
        Delivery,
        InputHeader,
        OutputHeader, //
    },
    layout::{
        bits,
        Info,
        Shape, //
    },
    Layout,
    ObjectType,
    Opcode, //
};
use serde_json::{
    json,
    Map,
    Value, //
};

use super::{
    micros,
    CommandRecord,
    Message, //
};

/// How much of what follows the fixed part of an input or output is shown, in bytes.
const TAIL: usize = 512;

/// A command as a line of the trace.
pub(super) fn command(command: &CommandRecord) -> Value {
    let mut line = json!({
        "type": "command",
        "dur": micros(command.start, command.end),
        "slot": command.slot,
        "opcode": opcode(command.opcode),
    });
    if let Some(object) = command.object {
        line["object"] = self::object(object).into();
    }
    if command.delivery != Delivery::OK {
        line["delivery"] = command.delivery.name().into();
    }
    match command.handler {
        Some(handler) => {
            line["input"] = message(handler.input, &command.input);
            line["output"] = message(handler.output, &command.output);
            if let Some(group) = capabilities(handler.opcode, &command.input.bytes) {
                for (way, info, bytes) in [
                    ("input", handler.input, &command.input.bytes),
                    ("output", handler.output, &command.output.bytes),
                ] {
                    let field = info.field("capability").map(|field| field.offset / 8);
                    if let Some(bytes) = field.and_then(|start| bytes.get(start..)) {
                        line[way]["capability"] = structure(group, bytes).into();
                    }
                }
            }
        }
        None => line["input"] = json!({ "bytes": hex(&command.input.bytes, TAIL) }),
    }
    if let Some((header, _)) = OutputHeader::split(&command.output.bytes) {
        line["status"] = match header.status() {
            Ok(status) => status.name().into(),
            Err(other) => format!("{:#x}", other.0).into(),
        };
        if header.syndrome() != 0 {
            line["syndrome"] = format!("{:#x}", header.syndrome()).into();
        }
    }
    if let Some(refusal) = &command.refusal {
        line["refusal"] = refusal.as_str().into();
    }
    if !command.faults.is_empty() {
        line["faults"] = command.faults.as_slice().into();
    }
    line
}

/// The layout of the capabilities that a command is about, if it is about some.
fn capabilities(opcode: Opcode, input: &[u8]) -> Option<&'static Info> {
    if !matches!(opcode, Opcode::QUERY_HCA_CAP | Opcode::SET_HCA_CAP) {
        return None;
    }
    let (input, _) = InputHeader::split(input)?;
    match CapType::try_from(input.op_mod() >> 1).ok()? {
        CapType::GENERAL => Some(&CmdHcaCap::INFO),
        CapType::FLOW_TABLE => Some(&FlowTableNicCap::INFO),
        CapType::VDPA_EMULATION => Some(&VirtioEmulationCap::INFO),
        _ => None,
    }
}

/// The name of an opcode, or its number.
pub(super) fn opcode(opcode: u16) -> String {
    Opcode::try_from(opcode).map_or_else(
        |_| format!("{opcode:#x}"),
        |opcode| opcode.name().to_owned(),
    )
}

/// The name of a type of general object, or its number.
pub(super) fn object(object: u16) -> String {
    ObjectType::try_from(object).map_or_else(
        |_| format!("{object:#x}"),
        |object| object.name().to_owned(),
    )
}

/// An input or output, without what stands in the line anyway.
fn message(info: &Info, Message { bytes, len }: &Message) -> Value {
    let mut fields = structure(info, bytes);
    for name in ["opcode", "obj_type", "status", "syndrome"] {
        fields.remove(name);
    }
    if let Some(tail) = bytes.get(info.bytes..).filter(|tail| !tail.is_empty()) {
        fields.insert("tail".to_owned(), hex(tail, TAIL).into());
        fields.insert(
            "tail_bytes".to_owned(),
            len.saturating_sub(info.bytes).into(),
        );
    }
    fields.into()
}

/// One structure, as far as it is there.
fn structure(info: &Info, bytes: &[u8]) -> Map<String, Value> {
    let mut fields = Map::new();
    for field in info.fields {
        let start = field.offset / 8;
        let end = (field.offset + field.width).div_ceil(8);
        let Some(window) = bytes.get(start..end) else {
            break;
        };
        let value = match field.shape {
            Shape::Bits(names) => {
                let value = bits(bytes, field.offset, field.width);
                match names(value) {
                    Some(name) if value != 0 => name.into(),
                    _ if value != 0 => value.into(),
                    _ => continue,
                }
            }
            Shape::Bytes | Shape::Part(_) if window.iter().all(|byte| *byte == 0) => continue,
            Shape::Bytes => hex(window, window.len()).into(),
            Shape::Part(part) => structure(part, window).into(),
        };
        fields.insert(field.name.to_owned(), value);
    }
    fields
}

/// Bytes in hexadecimal, without the zeroes at the end and with no more than `most` of them.
fn hex(bytes: &[u8], most: usize) -> String {
    let used = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1);
    let mut text = String::with_capacity(2 * used.min(most) + 3);
    for byte in &bytes[..used.min(most)] {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    if used > most {
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::{
        Duration,
        Instant, //
    };

    use prm::{
        eq::{
            CreateEqIn,
            CreateEqOut, //
        },
        Status, //
    };
    use zerocopy::IntoBytes;

    #[test]
    fn a_command_is_decoded_by_name() {
        let mut input = CreateEqIn::new();
        input.set_opcode(Opcode::CREATE_EQ);
        input.eq_context_entry_mut().set_log_eq_size(7).set_intr(3);
        let mut bytes = input.as_bytes().to_vec();
        bytes.extend_from_slice(&0xabcd_e000u64.to_be_bytes());
        bytes.resize(bytes.len() + (1 << 20), 0);
        let mut output = CreateEqOut::new();
        output.set_eq_number(5).set_status(Status::OK);
        let start = Instant::now();
        let line = command(&CommandRecord {
            start,
            end: start + Duration::from_micros(12),
            slot: 4,
            opcode: Opcode::CREATE_EQ as u16,
            object: None,
            handler: crate::command::find(Opcode::CREATE_EQ as u16, 0).ok(),
            input: bytes.into(),
            output: output.as_bytes().to_vec().into(),
            delivery: Delivery::OK,
            refusal: None,
            faults: vec![2],
        });
        assert_eq!(line["opcode"], "CREATE_EQ");
        assert_eq!(line["dur"], 12);
        assert_eq!(line["input"]["eq_context_entry"]["log_eq_size"], 7);
        assert_eq!(line["input"]["tail"], "00000000abcde0");
        assert_eq!(line["input"]["tail_bytes"], (1 << 20) + 8);
        assert_eq!(line["input"].get("uid"), None);
        assert_eq!(line["output"]["eq_number"], 5);
        assert_eq!(line["status"], "OK");
        assert_eq!(line["faults"], json!([2]));
    }
}
