// SPDX-License-Identifier: GPL-2.0

//! Looking at a trace.

use std::{
    fs::{
        self,
        File, //
    },
    io::{
        self,
        BufReader,
        BufWriter,
        Write, //
    },
    os::unix::fs::MetadataExt,
    path::PathBuf, //
};

use clap::Args;
use mlx5_model::trace;

use super::Outcome;

/// What is turned into what.
#[derive(Args)]
pub(crate) struct Options {
    /// The trace, as "run --trace FILE" writes it; it may still be written
    #[arg(long, value_name = "FILE")]
    chrome: PathBuf,
    /// Where the timeline goes, in the Chrome trace event format; by default to standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Turns a trace into a timeline.
pub(crate) fn run(options: &Options) -> Outcome {
    let about = |path: &PathBuf, e: io::Error| format!("{}: {e}", path.display());
    let path = &options.chrome;
    let trace = File::open(path).map_err(|e| about(path, e))?;
    if let Some(output) = &options.output {
        // The trace may be all that is left of a run, and to open it for writing empties it.
        let read = trace.metadata().map_err(|e| about(path, e))?;
        let is_same =
            |written: fs::Metadata| (written.dev(), written.ino()) == (read.dev(), read.ino());
        if fs::metadata(output).is_ok_and(is_same) {
            return Err(format!("{}: it is the trace itself", output.display()).into());
        }
    }
    let trace = BufReader::new(trace);
    let mut timeline: BufWriter<Box<dyn Write>> = BufWriter::new(match &options.output {
        Some(path) => Box::new(File::create(path).map_err(|e| about(path, e))?),
        None => Box::new(io::stdout().lock()),
    });
    trace::chrome(trace, &mut timeline).map_err(|e| about(path, e))?;
    timeline.flush()?;
    Ok(())
}
