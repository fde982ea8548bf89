// SPDX-License-Identifier: GPL-2.0
//! Runs tests one after the other and reports them as KTAP.

use std::fmt;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::device::drop_spare;

/// A test that takes longer is taken for hung, which ends the run: a thread
/// that sleeps in the kernel cannot be stopped.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Why a test did not pass.
#[derive(Debug)]
pub(crate) enum Stop {
    /// What was asserted and is not so.
    Fail(String),
    /// Why it cannot be tried here.
    Skip(String),
}

impl<E: std::error::Error> From<E> for Stop {
    fn from(error: E) -> Self {
        Stop::Fail(error.to_string())
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Fail(text) => write!(f, "{text}"),
            Stop::Skip(text) => write!(f, "skipped: {text}"),
        }
    }
}

/// What a test returns.
pub(crate) type Outcome = Result<(), Stop>;

/// Fails the test unless the condition holds.
macro_rules! ensure {
    ($condition:expr $(,)?) => {
        $crate::ktap::ensure!($condition, "{}", stringify!($condition))
    };
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err($crate::ktap::Stop::Fail(format!(
                "{}:{}: {}", file!(), line!(), format_args!($($text)*)
            )));
        }
    };
}

/// Fails the test unless both are equal.
macro_rules! ensure_eq {
    ($left:expr, $right:expr $(,)?) => {
        match (&$left, &$right) {
            (left, right) => $crate::ktap::ensure!(
                left == right,
                "{} is {:x?}, expected {:x?}",
                stringify!($left),
                left,
                right
            ),
        }
    };
}

/// Fails the test unless the call failed with one of these error numbers.
macro_rules! ensure_errno {
    ($call:expr, $($errno:ident)|+) => {
        match $call {
            Err(error) if [$(libc::$errno),+].contains(&error.raw_os_error().unwrap_or(0)) => {}
            Err(error) => $crate::ktap::ensure!(
                false, "{}: {}, expected {}", stringify!($call), error, stringify!($($errno)|+)
            ),
            Ok(_) => $crate::ktap::ensure!(
                false, "{} succeeded, expected {}", stringify!($call), stringify!($($errno)|+)
            ),
        }
    };
}

/// Skips the test unless the condition holds.
macro_rules! require {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err($crate::ktap::Stop::Skip(format!($($text)*)));
        }
    };
}

pub(crate) use {ensure, ensure_eq, ensure_errno, require};

/// One test: its title and what it does.
pub(crate) struct Test<C> {
    pub(crate) title: &'static str,
    pub(crate) run: fn(&C) -> Outcome,
}

/// Runs the tests; the exit status of a kselftest.
pub(crate) fn run<C>(context: C, tests: Vec<Test<C>>) -> ExitCode
where
    C: Clone + Send + 'static,
{
    println!("TAP version 13\n1..{}", tests.len());
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (number, test) in (1..).zip(&tests) {
        let start = Instant::now();
        let (sender, receiver) = mpsc::channel();
        let (function, context) = (test.run, context.clone());
        let thread = thread::spawn(move || {
            // The other end is gone only when the run has been given up.
            let _ = sender.send(function(&context));
        });
        let outcome = match receiver.recv_timeout(TIMEOUT) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Disconnected) => Err(Stop::Fail("the test panicked".into())),
            Err(RecvTimeoutError::Timeout) => {
                println!("not ok {number} {} # hung for {TIMEOUT:?}", test.title);
                println!("Bail out! a test hung");
                failed += tests.len() + 1 - number;
                break;
            }
        };
        // It has panicked or is about to end.
        let _ = thread.join();
        let time = start.elapsed().as_millis();
        match outcome {
            Ok(()) => {
                passed += 1;
                println!("ok {number} {} # {time} ms", test.title);
            }
            Err(Stop::Skip(why)) => {
                skipped += 1;
                println!("ok {number} {} # SKIP {why}", test.title);
            }
            Err(Stop::Fail(why)) => {
                failed += 1;
                // The next one shall not suffer for it.
                drop_spare();
                for line in why.lines() {
                    println!("# {line}");
                }
                println!("not ok {number} {} # {time} ms", test.title);
            }
        }
    }
    drop_spare();
    println!("# totals: pass:{passed} fail:{failed} skip:{skipped}");
    match (passed, failed) {
        (_, 1..) => ExitCode::FAILURE,
        (0, 0) if skipped > 0 => ExitCode::from(4),
        _ => ExitCode::SUCCESS,
    }
}
