// SPDX-License-Identifier: GPL-2.0

//! The control socket: what a person or a test asks of a running model.
//!
//! A line of JSON asks and a line of JSON answers, in order, as often as the client likes. A
//! request is an object with one field, named by what is asked. The answer has the same field, or
//! `error`:
//!
//! ```text
//!   > {"list":{}}
//!   < {"list":[{"name":"vf0","socket":"/run/vf0","profile":"cx7","mac":"02:…","vectors":64}]}
//!   > {"fault":{"function":"vf0","kind":"link","state":"down"}}
//!   < {"fault":{"vf0":1}}
//!   > {"stats":{}}
//!   < {"stats":{"vf0":{…},"vf1":{…}}}
//!   > {"clear":{"function":"vf9"}}
//!   < {"error":"there is no function \"vf9\": vf0, vf1 are there"}
//! ```
//!
//! What only looks may leave `function` out and gets every function. What is not a request is
//! answered with an error, so that a client behind a serial line finds back.

mod client;
mod server;

use serde::{
    Deserialize,
    Serialize, //
};
use serde_json::{
    json,
    Map,
    Value, //
};

pub use client::ask;
pub use server::serve;

use crate::{
    fault::{
        Fault,
        FaultError, //
    },
    function::Function, //
};

/// What can be asked of one function.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// What it has counted: commands, refusals, events, interrupts, traffic, pages and objects.
    Stats {},
    /// Something is to go wrong. The answer is the number of the fault.
    Fault(Fault),
    /// The faults there are.
    Faults {},
    /// A fault is to go, or all of them.
    Clear {
        /// Its number; all of them if nothing is said.
        #[serde(default)]
        fault: Option<u32>,
    },
}

impl Request {
    /// Whether the function is only looked at.
    fn only_looks(&self) -> bool {
        matches!(self, Self::Stats {} | Self::Faults {})
    }
}

/// What the request for the list of functions says: nothing. It is answered before a function is
/// looked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {}

/// A function, as far as the control socket is concerned.
pub trait Control: Send + Sync {
    /// Does what is asked, and returns the answer.
    ///
    /// # Errors
    ///
    /// If the function cannot do it now. The text says why.
    fn control(&self, request: &Request) -> Result<Value, String>;
}

impl Control for Function {
    fn control(&self, request: &Request) -> Result<Value, String> {
        match request {
            Request::Stats {} => Ok(json!(self.report())),
            Request::Fault(fault) => match self.inject(fault.clone()) {
                Ok(id) => Ok(json!(id)),
                Err(e) => Err(e.to_string()),
            },
            Request::Faults {} => Ok(json!(self.faults())),
            Request::Clear { fault } => {
                let clear = |id| match self.clear_fault(id) {
                    // Another client may be quicker: then that one is cleared, too.
                    Err(FaultError::NoFault { .. }) if fault.is_none() => Ok(()),
                    result => result.map_err(|e| e.to_string()),
                };
                match fault {
                    Some(id) => clear(*id)?,
                    None => self.faults().iter().try_for_each(|one| clear(one.id))?,
                }
                Ok(Value::Null)
            }
        }
    }
}

/// The functions of a process, as a client of the control socket finds them.
#[derive(Default)]
pub struct Functions {
    functions: Vec<Entry>,
}

struct Entry {
    name: String,
    about: Value,
    function: std::sync::Arc<dyn Control>,
}

impl Functions {
    /// Adds a function. A list of the functions has `about` for it.
    pub fn add(&mut self, name: &str, about: Value, function: std::sync::Arc<dyn Control>) {
        self.functions.push(Entry {
            name: name.to_owned(),
            about,
            function,
        });
    }

    /// Answers the request in one line.
    pub fn answer(&self, line: &[u8]) -> Value {
        self.try_answer(line)
            .unwrap_or_else(|e| json!({ "error": e }))
    }

    fn try_answer(&self, line: &[u8]) -> Result<Value, String> {
        let asked: Map<String, Value> = serde_json::from_slice(line)
            .map_err(|e| format!("a request is {{\"WHAT\":{{…}}}} on a line: {e}"))?;
        let mut fields = asked.into_iter();
        let (Some((what, Value::Object(mut fields))), None) = (fields.next(), fields.next()) else {
            return Err("a request has one field, and an object in it".to_owned());
        };
        if what == "list" {
            List::deserialize(Value::Object(fields)).map_err(|e| e.to_string())?;
            let list: Vec<_> = self.functions.iter().map(|entry| &entry.about).collect();
            return Ok(json!({ "list": list }));
        }
        let name = match fields.remove("function") {
            None => None,
            Some(Value::String(name)) => Some(name),
            Some(other) => return Err(format!("function is a name, not {other}")),
        };
        let request = Request::deserialize(json!({ &what: fields })).map_err(|e| {
            let error = e.to_string();
            match what.as_str() {
                // It lists the kinds of faults.
                "fault" => error,
                _ => error.replace("expected one of", "expected `list`,"),
            }
        })?;
        if name.is_none() && !request.only_looks() {
            return Err(format!(
                "{what} wants a function: {} are there",
                self.names()
            ));
        }
        let mut answers = Map::new();
        for entry in &self.functions {
            if name.as_ref().is_none_or(|name| *name == entry.name) {
                let answer = entry.function.control(&request);
                let answer = answer.map_err(|e| format!("{}: {e}", entry.name))?;
                answers.insert(entry.name.clone(), answer);
            }
        }
        match name {
            Some(name) if answers.is_empty() => Err(format!(
                "there is no function {name:?}: {} are there",
                self.names()
            )),
            _ => Ok(json!({ what: answers })),
        }
    }

    fn names(&self) -> String {
        let names: Vec<_> = self
            .functions
            .iter()
            .map(|entry| entry.name.as_str())
            .collect();
        names.join(", ")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use super::*;

    /// Answers with what was asked; is never gone.
    struct Echo;

    impl Control for Echo {
        fn control(&self, request: &Request) -> Result<Value, String> {
            match request {
                Request::Fault(Fault::Gone {}) => Err("it is here".to_owned()),
                _ => Ok(serde_json::to_value(request).unwrap()),
            }
        }
    }

    pub(crate) fn functions() -> Functions {
        let mut functions = Functions::default();
        functions.add("vf0", json!({ "name": "vf0" }), Arc::new(Echo));
        functions.add("vf1", json!({ "name": "vf1" }), Arc::new(Echo));
        functions
    }

    fn answer(line: &str) -> Value {
        functions().answer(line.as_bytes())
    }

    #[test]
    fn requests_and_answers() {
        for (request, expected) in [
            (
                r#"{"list":{}}"#,
                json!({"list": [{"name": "vf0"}, {"name": "vf1"}]}),
            ),
            (
                r#"{"stats":{}}"#,
                json!({"stats": {"vf0": {"stats": {}}, "vf1": {"stats": {}}}}),
            ),
            (
                r#"{"faults":{"function":"vf1"}}"#,
                json!({"faults": {"vf1": {"faults": {}}}}),
            ),
            (
                r#"{"fault":{"function":"vf1","kind":"page_request","pages":-3}}"#,
                json!({"fault": {"vf1": {"fault": {"kind": "page_request", "pages": -3}}}}),
            ),
            (
                r#"{"clear":{"function":"vf0"}}"#,
                json!({"clear": {"vf0": {"clear": {"fault": null}}}}),
            ),
        ] {
            assert_eq!(answer(request), expected);
        }
    }

    #[test]
    fn what_is_no_request() {
        for (request, words) in [
            ("", &["a request is"][..]),
            ("{\"list\":", &["a request is"]),
            ("[]", &["a request is"]),
            ("{}", &["one field"]),
            (r#"{"list":{},"stats":{}}"#, &["one field"]),
            (r#"{"list":1}"#, &["an object"]),
            (r#"{"list":{"function":"vf0"}}"#, &["function", "unknown"]),
            (r#"{"lits":{}}"#, &["lits", "list", "stats", "clear"]),
            (r#"{"fault":{"function":"vf0"}}"#, &["kind"]),
            (
                r#"{"fault":{"function":"vf0","kind":"pear"}}"#,
                &["pear", "page_request"],
            ),
            (r#"{"clear":{"function":"vf0","fault":"1"}}"#, &["1", "u32"]),
            (r#"{"clear":{"function":"vf0","id":1}}"#, &["id", "fault"]),
            (r#"{"clear":{"function":0}}"#, &["function is a name", "0"]),
            (r#"{"clear":{}}"#, &["clear", "vf0, vf1"]),
            (r#"{"stats":{"function":"vf9"}}"#, &["vf9", "vf0, vf1"]),
            (
                r#"{"fault":{"function":"vf0","kind":"gone"}}"#,
                &["vf0", "it is here"],
            ),
            ("{\"a\":\"\u{0}\"}", &["control character"]),
        ] {
            let answer = answer(request);
            let message = answer["error"].as_str().unwrap();
            for word in words {
                assert!(
                    message.contains(word),
                    "{request}: {message:?} does not say {word:?}"
                );
            }
        }
        assert!(functions().answer(&[0xff, 0xfe])["error"].is_string());
    }
}
