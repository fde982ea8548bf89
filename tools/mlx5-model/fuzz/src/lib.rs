// SPDX-License-Identifier: GPL-2.0

//! What a fuzzer does to the model, from the bytes it makes up.
//!
//! Each module is one target: `run` takes any bytes, and panics if the model does what it must
//! not. `fuzz.py` runs them under libFuzzer; the inputs worth keeping are in `corpus/`, one in
//! hexadecimal on each line, and are run again by `cargo test`.

pub mod command;
pub mod input;
pub mod mkey;
pub mod ring;
