// SPDX-License-Identifier: GPL-2.0

//! The command line of the model.

mod cli;

use std::{
    path::PathBuf,
    process::ExitCode,
    str::FromStr, //
};

use clap::{
    Parser,
    Subcommand, //
};
use serde_json::Value;
use tracing_subscriber::EnvFilter;

/// ConnectX virtual functions in user space, for drivers in virtual machines.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// What is logged to standard error: a level (error, warn, info, debug, trace), or one for
    /// each part of the program, such as "warn,mlx5_model::vfio=debug"
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        default_value = "info,vfio_user=warn",
        value_parser = EnvFilter::from_str
    )]
    log: EnvFilter,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve functions until SIGINT or SIGTERM; a line that begins with "ready:" tells when
    Run(cli::run::Options),
    /// Print the path of the socket of each function, a line each
    Sockets(cli::run::Options),
    /// Print the profiles that are part of the program
    Profiles,
    /// Print what a running model has counted
    Stats(cli::stats::Options),
    /// Let something go wrong in a running model
    #[command(subcommand)]
    Fault(cli::fault::Action),
    /// Ask a running model something in JSON, and print the answer
    Ask {
        /// The control socket of the model
        #[arg(long, value_name = "SOCKET")]
        control: PathBuf,
        /// The request, such as '{"list":{}}'
        #[arg(value_parser = Value::from_str)]
        request: Value,
    },
    /// Turn a trace into one that trace viewers show as a timeline
    Trace(cli::trace::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(arguments.log)
        .with_writer(std::io::stderr)
        .init();
    let result = match arguments.command {
        Command::Run(options) => cli::run::run(options),
        Command::Sockets(options) => cli::run::sockets(options),
        Command::Profiles => cli::profiles(),
        Command::Stats(options) => cli::stats::run(&options),
        Command::Fault(action) => cli::fault::run(action),
        Command::Ask { control, request } => cli::ask(&control, &request),
        Command::Trace(options) => cli::trace::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
