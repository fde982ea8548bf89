// SPDX-License-Identifier: GPL-2.0

//! What the commands of the command line do.

pub(crate) mod fault;
pub(crate) mod run;
pub(crate) mod stats;
pub(crate) mod trace;

use std::{
    error::Error,
    io::{
        self,
        Write, //
    },
    path::Path, //
};

use mlx5_model::{
    control,
    profile::{
        Profile,
        BUILT_IN, //
    },
};
use serde_json::Value;

/// What a command ends with. The error is for a person.
pub(crate) type Outcome = Result<(), Box<dyn Error>>;

/// Prints the profiles that are part of the program.
pub(crate) fn profiles() -> Outcome {
    let mut out = io::stdout().lock();
    for (name, text) in BUILT_IN {
        let profile = Profile::parse(name, text)?;
        writeln!(out, "{name:<12} {}", profile.description)?;
    }
    Ok(())
}

/// Asks a running model and prints the answer.
pub(crate) fn ask(control: &Path, request: &Value) -> Outcome {
    let answer = control::ask(control, request)?;
    writeln!(io::stdout(), "{answer}")?;
    Ok(())
}
