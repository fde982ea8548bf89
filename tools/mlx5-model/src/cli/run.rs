// SPDX-License-Identifier: GPL-2.0

//! Serving functions.

use std::{
    io::{
        self,
        Write, //
    },
    path::PathBuf,
    sync::mpsc::{
        self,
        Sender, //
    },
    thread, //
};

use clap::Args;
use mlx5_model::{
    board::Board,
    config::{
        Config,
        Function, //
    },
    eswitch::UplinkKind,
};
use signal_hook::{
    consts::{
        SIGINT,
        SIGTERM, //
    },
    iterator::Signals, //
};
use tracing::info;

use super::Outcome;

/// What is to be served. Options win over the file; functions are added to it.
#[derive(Args)]
pub(crate) struct Options {
    /// A file in TOML with the same fields, functions as [[function]] and faults of theirs as
    /// [[function.fault]]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A function; more of them if repeated. Fields: name, socket and profile; mac, mtu (1500)
    /// and vectors (64) if they are to be others
    #[arg(long = "function", value_name = "KEY=VALUE,...")]
    functions: Vec<Function>,
    /// Where frames go that are for none of the functions: none, tap:NAME or pcap:FILE
    #[arg(long, value_name = "KIND")]
    uplink: Option<UplinkKind>,
    /// How many threads move traffic; by default one for each processor
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Write commands and events into a file, as lines of JSON
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Answer requests on a socket
    #[arg(long, value_name = "SOCKET")]
    control: Option<PathBuf>,
}

impl Options {
    /// The configuration that file and options are together, checked.
    fn merge(self) -> Result<Config, Box<dyn std::error::Error>> {
        let mut config = match self.config {
            Some(path) => Config::read(&path)?,
            None => Config::default(),
        };
        config.functions.extend(self.functions);
        config.uplink = self.uplink.unwrap_or(config.uplink);
        config.workers = self.workers.or(config.workers);
        config.trace = self.trace.or(config.trace);
        config.control = self.control.or(config.control);
        config.check()?;
        Ok(config)
    }
}

/// Serves until a signal ends it.
pub(crate) fn run(options: Options) -> Outcome {
    let config = options.merge()?;
    let (ends, end) = mpsc::channel();
    // From here on a signal does not leave sockets behind.
    watch_signals(ends.clone())?;
    let (broken, breaks) = mpsc::channel();
    let board = Board::new(&config)?;
    board.serve(&broken)?;
    thread::Builder::new().spawn(move || {
        if let Ok(what) = breaks.recv() {
            let _ = ends.send(Err(what));
        }
    })?;
    let mut out = io::stdout();
    writeln!(out, "ready: {}", board.summary())?;
    out.flush()?;
    // One of the threads that send is always there.
    end.recv()??;
    Ok(())
}

/// Prints the paths of the sockets of the functions.
pub(crate) fn sockets(options: Options) -> Outcome {
    let mut out = io::stdout().lock();
    for function in options.merge()?.functions {
        writeln!(out, "{}", function.socket.display())?;
    }
    Ok(())
}

fn watch_signals(ends: Sender<Result<(), String>>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                info!("signal {signal}: the end");
                if ends.send(Ok(())).is_err() {
                    break;
                }
            }
        })?;
    Ok(())
}
