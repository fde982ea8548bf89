// SPDX-License-Identifier: GPL-2.0
//! What a test needs inside a guest, in one static binary that the host uses
//! as well:
//!
//! - `agent PORT` runs shell commands that the host sends over a serial port;
//! - `serve ADDRESS` and `send ADDRESS ...` push data both ways over TCP and
//!   check every byte that arrives;
//! - `blast DEVICE MAC SIZE SECONDS THREADS` sends frames as fast as it can.

mod agent;
mod blast;
mod pattern;
mod tcp;

use std::process::ExitCode;

const USAGE: &str = "usage: guest-tool agent PORT
       guest-tool serve ADDRESS:PORT
       guest-tool send ADDRESS:PORT [--up BYTES] [--down BYTES]
       guest-tool send ADDRESS:PORT --until FILE [--down BYTES]
       guest-tool blast DEVICE MAC SIZE SECONDS THREADS";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["agent", port] => agent::run(port),
        ["serve", address] => tcp::serve(address),
        ["send", address, options @ ..] => match tcp::Job::parse(options) {
            Some(job) => tcp::send(address, job),
            None => return usage(),
        },
        ["blast", words @ ..] => match blast::Job::parse(words) {
            Some(job) => blast::run(&job),
            None => return usage(),
        },
        _ => return usage(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest-tool: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
