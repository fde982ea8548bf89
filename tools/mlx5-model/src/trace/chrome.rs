// SPDX-License-Identifier: GPL-2.0

//! The trace as a timeline: the Chrome trace event format, which trace viewers read.
//!
//! A function becomes a process and a slot of its command queue a thread; a command is a bar, an
//! event or a note a mark.

use std::{
    collections::BTreeMap,
    io::{
        self,
        BufRead,
        Write, //
    },
};

use serde_json::{
    json,
    Value, //
};

/// The row of what does not belong to a slot; above those that do.
const OTHERS: u32 = 1000;

/// Turns a trace, line by line, into one for a viewer. A last line without an end is being written
/// and is left out.
///
/// # Errors
///
/// If reading or writing fails, or a line is none of a trace: which one is said.
pub fn chrome(mut reader: impl BufRead, mut writer: impl Write) -> io::Result<()> {
    let mut functions = BTreeMap::new();
    let mut text = String::new();
    let mut number = 0u64;
    let mut separator = "";
    writer.write_all(b"{\"displayTimeUnit\":\"ms\",\"traceEvents\":[")?;
    loop {
        text.clear();
        reader.read_line(&mut text)?;
        number += 1;
        if !text.ends_with('\n') {
            break;
        }
        let wrong = |what: &str| {
            let message = format!("line {number} is not a line of a trace: {what}");
            io::Error::new(io::ErrorKind::InvalidData, message)
        };
        let line: Value = serde_json::from_str(&text).map_err(|e| wrong(&e.to_string()))?;
        let name = line["function"]
            .as_str()
            .ok_or_else(|| wrong("it has no `function`"))?;
        let next = functions.len() + 1;
        let fresh = !functions.contains_key(name);
        let process = *functions.entry(name.to_owned()).or_insert(next);
        let mut entries = Vec::new();
        if fresh {
            entries.push(metadata("process_name", process, 0, name));
            entries.push(metadata("thread_name", process, OTHERS, "events and notes"));
        }
        entries.push(entry(&line, process).ok_or_else(|| wrong("its `type` is not known"))?);
        for entry in entries {
            writer.write_all(separator.as_bytes())?;
            serde_json::to_writer(&mut writer, &entry)?;
            separator = ",\n";
        }
    }
    writer.write_all(b"]}\n")?;
    writer.flush()
}

/// What a row is called.
fn metadata(what: &str, process: usize, thread: u32, name: &str) -> Value {
    json!({ "ph": "M", "name": what, "pid": process, "tid": thread, "args": { "name": name } })
}

/// One line of a trace as one entry.
fn entry(line: &Value, process: usize) -> Option<Value> {
    let kind = line["type"].as_str()?;
    let mark = |name: &Value| {
        json!({
            "ph": "i", "s": "t", "cat": kind, "name": name, "pid": process, "tid": OTHERS,
            "ts": line["ts"], "args": line,
        })
    };
    match kind {
        "command" => {
            let opcode = line["opcode"].as_str().unwrap_or_default();
            let name = match line["object"].as_str() {
                Some(object) => format!("{opcode} {object}"),
                None => opcode.to_owned(),
            };
            Some(json!({
                "ph": "X", "cat": kind, "name": name, "pid": process, "tid": line["slot"],
                "ts": line["ts"], "dur": line["dur"], "args": line,
            }))
        }
        "event" => Some(mark(&line["event"])),
        "note" => Some(mark(&line["text"])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(trace: &str) -> io::Result<Value> {
        let mut out = Vec::new();
        chrome(trace.as_bytes(), &mut out)?;
        Ok(serde_json::from_slice(&out)?)
    }

    #[test]
    fn a_viewer_gets_bars_and_marks() {
        let trace = concat!(
            r#"{"type":"command","ts":5,"dur":2,"slot":3,"function":"a","opcode":"NOP"}"#,
            "\n",
            r#"{"type":"note","ts":6,"function":"b","text":"reset"}"#,
            "\n",
            r#"{"type":"ev"#,
        );
        let out = convert(trace).unwrap();
        let entries = out["traceEvents"].as_array().unwrap();
        let bar = entries.iter().find(|entry| entry["ph"] == "X").unwrap();
        assert_eq!(
            (&bar["name"], &bar["ts"], &bar["dur"]),
            (&json!("NOP"), &json!(5), &json!(2))
        );
        assert_eq!(bar["tid"], 3);
        let mark = entries.iter().find(|entry| entry["ph"] == "i").unwrap();
        assert_eq!(mark["name"], "reset");
        assert_ne!(mark["pid"], bar["pid"]);
    }

    #[test]
    fn an_empty_trace_is_a_timeline_too() {
        assert_eq!(convert("").unwrap()["traceEvents"], json!([]));
    }

    #[test]
    fn a_wrong_line_is_named() {
        let error = convert("{\"type\":\"note\",\"function\":\"a\"}\n{}\n").unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        let error = convert("{\"type\":\"pear\",\"function\":\"a\"}\n").unwrap_err();
        assert!(error.to_string().contains("type"), "{error}");
    }
}
