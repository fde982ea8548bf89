// SPDX-License-Identifier: GPL-2.0

//! What a running model has counted, for a person.

use std::{
    fmt::Write as _,
    io::{
        self,
        IsTerminal,
        Write, //
    },
    path::PathBuf,
    thread,
    time::Duration, //
};

use clap::Args;
use mlx5_model::{
    control,
    stats::{
        QueueReport,
        Report, //
    }, //
};
use serde::Deserialize;
use serde_json::json;

use super::Outcome;

/// What is shown.
#[derive(Args)]
pub(crate) struct Options {
    /// The control socket of the model
    #[arg(long, value_name = "SOCKET")]
    control: PathBuf,
    /// Only this function
    #[arg(long)]
    function: Option<String>,
    /// Show it anew every second, until interrupted
    #[arg(long)]
    watch: bool,
}

/// Shows it.
pub(crate) fn run(options: &Options) -> Outcome {
    let request = match &options.function {
        Some(function) => json!({ "stats": { "function": function } }),
        None => json!({ "stats": {} }),
    };
    let mut out = io::stdout();
    loop {
        let answer = control::ask(&options.control, &request)?;
        let mut text = String::new();
        for (function, report) in answer.as_object().into_iter().flatten() {
            view(&mut text, function, &Report::deserialize(report)?);
        }
        if options.watch && out.is_terminal() {
            // To the upper left, and clear what is below.
            out.write_all(b"\x1b[H\x1b[J")?;
        }
        out.write_all(text.as_bytes())?;
        out.flush()?;
        if !options.watch {
            return Ok(());
        }
        thread::sleep(Duration::from_secs(1));
    }
}

/// Appends what one function has counted. What never happened has no lines.
fn view(text: &mut String, function: &str, report: &Report) {
    let mut line = |line: std::fmt::Arguments<'_>| {
        // A string takes everything.
        let _ = writeln!(text, "{line}");
    };
    let Report {
        events,
        interrupts,
        kicks,
        waits,
        pages,
        ..
    } = report;
    line(format_args!("{function}"));
    line(format_args!(
        "  events {events}, interrupts {interrupts}, kicks {kicks}, waits {waits}, pages held \
         {pages}"
    ));
    let heading = |name: &str, empty: bool, columns: [&str; 6]| {
        let [a, b, c, d, e, f] = columns;
        (!empty).then(|| {
            format!("  {name:<38} {a:>12} {b:>14} {c:>12} {d:>12} {e:>12} {f:>12}")
                .trim_end()
                .to_owned()
        })
    };
    if let Some(heading) = heading(
        "commands",
        report.commands.is_empty(),
        ["count", "mean us", "max us", "", "", ""],
    ) {
        line(format_args!("{heading}"));
    }
    for (name, times) in &report.commands {
        let mean = times.total_ns / times.count.max(1) / 1000;
        let (count, max) = (times.count, times.max_ns / 1000);
        line(format_args!(
            "    {name:<36} {count:>12} {mean:>14} {max:>12}"
        ));
    }
    for (what, counts) in [("refusals", &report.refusals), ("objects", &report.objects)] {
        if let Some(heading) = heading(what, counts.is_empty(), ["count", "", "", "", "", ""]) {
            line(format_args!("{heading}"));
        }
        for (name, count) in counts {
            line(format_args!("    {name:<36} {count:>12}"));
        }
    }
    if let Some(heading) = heading(
        "virtqueues",
        report.queues.is_empty(),
        [
            "frames",
            "bytes",
            "dropped",
            "kicks",
            "lost kicks",
            "notified",
        ],
    ) {
        line(format_args!("{heading}"));
    }
    for (index, queue) in &report.queues {
        let QueueReport {
            frames,
            bytes,
            dropped,
            kicks,
            lost_kicks,
            notifications,
        } = queue;
        line(format_args!(
            "    {index:<36} {frames:>12} {bytes:>14} {dropped:>12} {kicks:>12} {lost_kicks:>12} \
             {notifications:>12}"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_happened_has_no_lines() {
        let mut text = String::new();
        view(&mut text, "vf0", &Report::default());
        assert_eq!(text.lines().count(), 2);
        let report = json!({
            "commands": {"CREATE_EQ": {"count": 2, "total_ns": 8000, "max_ns": 5000}},
            "refusals": {}, "events": 1, "interrupts": 2, "kicks": 3,
            "queues": {"1": {"frames": 10, "bytes": 640, "dropped": 0, "kicks": 4, "lost_kicks": 5,
                       "notifications": 6}},
            "pages": 5, "objects": {"UAR": 1},
        });
        text.clear();
        view(&mut text, "vf1", &Report::deserialize(report).unwrap());
        let words: Vec<Vec<_>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert!(words.contains(&vec!["CREATE_EQ", "2", "4", "5"]));
        assert!(words.contains(&vec!["UAR", "1"]));
        assert!(words.contains(&vec!["1", "10", "640", "0", "4", "5", "6"]));
        assert!(!text.contains("refusals"));
    }
}
