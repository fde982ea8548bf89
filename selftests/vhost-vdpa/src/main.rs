// SPDX-License-Identifier: GPL-2.0
//! Tests of a vDPA network device through `/dev/vhost-vdpa-N`: every call of
//! vhost-vdpa used rightly and wrongly, drivers old and new, and hostile ones.
//!
//! `vhost-vdpa-test [--mgmtdev NAME] [WORD...]` runs the tests whose title
//! holds one of the words (all of them, without any) on devices it makes. NAME
//! may be several, with commas between them, for hardware that makes one device
//! a function.
//!
//! `vhost-vdpa-test --bench PAIRS SIZE SECONDS` measures instead how many
//! frames of SIZE bytes go from one device to another (with `--loopback`,
//! from one device back to itself) and prints frames and bits a second.

mod bench;
mod device;
mod ktap;
mod log;
mod memory;
mod notes;
mod rig;
mod tests;
mod uapi;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "usage: vhost-vdpa-test [--list] [--mgmtdev NAME] [WORD...]
       vhost-vdpa-test [--mgmtdev NAME] --bench [--loopback] PAIRS SIZE SECONDS";

fn main() -> ExitCode {
    let mut mgmtdev = String::from("rust_vdpa_net");
    let mut words = Vec::new();
    let mut list = false;
    let mut bench = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), argument.starts_with('-')) {
            ("--list", _) => list = true,
            ("--bench", _) => bench = Some(arguments.by_ref().collect::<Vec<_>>()),
            ("--mgmtdev", _) => match arguments.next() {
                Some(name) => mgmtdev = name,
                None => return usage(),
            },
            (_, true) => return usage(),
            (_, false) => words.push(argument),
        }
    }
    let mut tests = tests::all();
    tests.retain(|test| words.is_empty() || words.iter().any(|word| test.title.contains(word)));
    if list {
        for test in tests {
            println!("{}", test.title);
        }
        return ExitCode::SUCCESS;
    }
    if !Path::new("/sys/bus/vdpa/drivers/vhost_vdpa").exists() {
        println!("1..0 # SKIP vhost_vdpa is not loaded");
        return ExitCode::from(4);
    }
    lift_memory_limit();
    if let Some(words) = bench {
        let Some(job) = bench::Job::parse(&words) else {
            return usage();
        };
        return match bench::run(&mgmtdev, &job) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("vhost-vdpa-test: {error}");
                ExitCode::FAILURE
            }
        };
    }
    ktap::run(tests::Context { mgmtdev }, tests)
}

/// vhost-vdpa counts the pages it pins against this limit, whoever asks.
fn lift_memory_limit() {
    let limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: The structure is valid. If it fails, mapping will, and say so.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
