// SPDX-License-Identifier: GPL-2.0

//! Faults of a running model.

use std::{
    io::{
        self,
        Write, //
    },
    path::PathBuf, //
};

use clap::{
    Args,
    Subcommand, //
};
use mlx5_model::{
    control,
    fault::Listed, //
};
use serde::Deserialize;
use serde_json::{
    json,
    Map,
    Value, //
};

use super::Outcome;

/// What is to be done.
#[derive(Subcommand)]
pub(crate) enum Action {
    /// Let something go wrong, and print the number of the fault
    ///
    /// Kinds, with their fields; what is in brackets may be left out:
    ///
    ///   delay COMMAND ms=N
    ///   lose COMMAND
    ///   fail COMMAND status=STATUS [syndrome=N]
    ///   garbage COMMAND field=FIELD [value=N]
    ///   garbage COMMAND tail.width=BYTES [tail.offset=BYTES] [value=N]
    ///   lose_interrupts [vector=N] [count=N]
    ///   lose_events [vector=N] [count=N]
    ///   completion_opcode opcode=OPCODE [vector=N] [count=N]
    ///   spurious_interrupt vector=N [count=N]
    ///   queue_error queue=ID
    ///   event_error queue=ID part=pair|completions
    ///   link state=down|up|flap
    ///   page_request pages=N
    ///   health syndrome=SYNDROME [fatal=false]
    ///   gone
    ///
    /// COMMAND is command.opcode=OPCODE [command.object=TYPE] [command.after=N]
    /// [command.count=N]. Opcodes, types, states and fields have their names in the
    /// reference, or numbers. A capability is a field of QUERY_HCA_CAP, such as
    /// capability.log_max_mkey: it strikes those commands that ask for the group it is in. The
    /// tail is what follows the fields of an output, such as the list of MANAGE_PAGES. For
    /// example:
    ///
    ///   mlx5-model fault add --control SOCKET vf0 \
    ///     fail command.opcode=CREATE_EQ command.count=1 status=LIM_ERR
    #[command(verbatim_doc_comment)]
    Add {
        #[command(flatten)]
        model: Model,
        /// The function
        function: String,
        /// What goes wrong
        kind: String,
        /// Its fields; "." is between the name of a part and of a field in it
        #[arg(value_name = "FIELD=VALUE", value_parser = field)]
        fields: Vec<(String, Value)>,
    },
    /// Print the faults there are
    List {
        #[command(flatten)]
        model: Model,
        /// The function; all of them if it is left out
        function: Option<String>,
    },
    /// Take a fault away
    Clear {
        #[command(flatten)]
        model: Model,
        /// The function
        function: String,
        /// The number of the fault; all of them if it is left out
        fault: Option<u32>,
    },
}

/// Which model is asked.
#[derive(Args)]
pub(crate) struct Model {
    /// The control socket of the model
    #[arg(long, value_name = "SOCKET")]
    control: PathBuf,
}

/// Reads `name=value`. What is no number nor true or false is a text.
fn field(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("a field is NAME=VALUE")?;
    let number = match value.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok().map(Value::from),
        None => value
            .parse::<u64>()
            .map(Value::from)
            .or_else(|_| value.parse::<i64>().map(Value::from))
            .ok(),
    };
    let value = number
        .or_else(|| value.parse::<bool>().ok().map(Value::from))
        .unwrap_or_else(|| value.into());
    Ok((name.to_owned(), value))
}

/// Puts fields whose names have dots where they belong.
fn nest(fields: &[(String, Value)]) -> Result<Map<String, Value>, String> {
    let mut nested = Map::new();
    for (name, value) in fields {
        let (place, last) = match name.rsplit_once('.') {
            Some((parts, last)) => {
                let mut place = &mut nested;
                for part in parts.split('.') {
                    place = place
                        .entry(part)
                        .or_insert_with(|| json!({}))
                        .as_object_mut()
                        .ok_or_else(|| format!("{part} is a value and has parts"))?;
                }
                (place, last)
            }
            None => (&mut nested, name.as_str()),
        };
        if place.insert(last.to_owned(), value.clone()).is_some() {
            return Err(format!("{name} is given twice"));
        }
    }
    Ok(nested)
}

/// Does it.
pub(crate) fn run(action: Action) -> Outcome {
    let mut out = io::stdout().lock();
    match action {
        Action::Add {
            model,
            function,
            kind,
            fields,
        } => {
            let mut fault = nest(&fields)?;
            fault.insert("kind".to_owned(), kind.into());
            fault.insert("function".to_owned(), function.clone().into());
            let answer = control::ask(&model.control, &json!({ "fault": fault }))?;
            writeln!(out, "{}", answer[&function])?;
        }
        Action::List { model, function } => {
            let request = match function {
                Some(function) => json!({ "faults": { "function": function } }),
                None => json!({ "faults": {} }),
            };
            let answer = control::ask(&model.control, &request)?;
            for (function, faults) in answer.as_object().into_iter().flatten() {
                for Listed { id, hits, fault } in Vec::<Listed>::deserialize(faults)? {
                    writeln!(out, "{function} {id}: {hits} hits: {}", json!(fault))?;
                }
            }
        }
        Action::Clear {
            model,
            function,
            fault,
        } => {
            let request = json!({ "clear": { "function": function, "fault": fault } });
            control::ask(&model.control, &request)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_command_line() {
        let fields = [
            "command.opcode=CREATE_EQ",
            "command.count=0x10",
            "ms=-1",
            "value=18446744073709551615",
            "fatal=false",
        ];
        let fields: Vec<_> = fields.iter().map(|text| field(text).unwrap()).collect();
        assert_eq!(
            Value::from(nest(&fields).unwrap()),
            json!({"command": {"opcode": "CREATE_EQ", "count": 16}, "ms": -1, "value": u64::MAX,
                "fatal": false})
        );
        assert!(field("ms").is_err());
        for pair in [["ms=1", "ms=2"], ["ms=1", "ms.a=2"]] {
            assert!(nest(&pair.map(|text| field(text).unwrap())).is_err());
        }
    }
}
