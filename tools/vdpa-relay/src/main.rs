// SPDX-License-Identifier: GPL-2.0

//! The command line of the relay.

use std::{
    io,
    os::unix::net::UnixStream,
    path::{
        Path,
        PathBuf, //
    },
    process::ExitCode,
    str::FromStr, //
};

use clap::Parser;
use rustix::process::{
    getrlimit,
    setrlimit,
    Resource,
    Rlimit, //
};
use signal_hook::{
    consts::{
        SIGINT,
        SIGTERM, //
    },
    low_level::pipe, //
};
use tracing::{
    info,
    warn, //
};
use tracing_subscriber::EnvFilter;
use vdpa_relay::{
    serve::{
        self,
        Options, //
    },
    sysfs, //
};

/// A vhost-user back end that drives a vDPA device: for VMMs that speak vhost-user and not
/// vhost-vdpa, and for legacy guests of the other byte order.
///
/// QEMU, with guest memory that is shared:
///
///   -object memory-backend-memfd,id=mem,size=2G,share=on -machine memory-backend=mem
///   -chardev socket,id=relay,path=PATH,reconnect-ms=1000
///   -netdev vhost-user,id=net,chardev=relay -device virtio-net-pci,netdev=net
#[derive(Parser)]
#[command(version, verbatim_doc_comment)]
struct Arguments {
    /// The device: a name that 'vdpa dev show' lists, or a path such as /dev/vhost-vdpa-0
    #[arg(long, value_name = "NAME|PATH")]
    device: String,
    /// The Unix socket; a line "ready: ..." on standard output tells when it is listened on
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Connect to the socket, where the VMM listens, instead of listening on it
    #[arg(long)]
    connect: bool,
    /// End when the VMM is gone, instead of waiting for the next one
    #[arg(long)]
    once: bool,
    /// What is logged to standard error: a level (error, warn, info, debug, trace), or one for
    /// each part of the program, such as "info,vdpa_relay::front=debug"
    #[arg(long, value_name = "FILTER", default_value = "info", value_parser = EnvFilter::from_str)]
    log: EnvFilter,
}

/// Lets as much memory be locked as this process may.
fn raise_limit() {
    let limit = getrlimit(Resource::Memlock);
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    let most = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if setrlimit(Resource::Memlock, unlimited).is_ok() {
        return;
    }
    // The guest's memory shows whether it is enough.
    if let Err(error) = setrlimit(Resource::Memlock, most) {
        warn!("the limit of locked memory stays as it is: {error}");
    }
}

/// Returns a socket that has something to read when the process is told to end.
fn signals() -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        pipe::register(signal, write.try_clone()?)?;
    }
    Ok(read)
}

fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let stop = signals()?;
    raise_limit();
    let options = Options {
        device: sysfs::find(&arguments.device, Path::new(sysfs::DEVICES))?,
        socket: arguments.socket,
        connect: arguments.connect,
        once: arguments.once,
    };
    let (device, socket) = (options.device.path.display(), options.socket.display());
    serve::run(&options, &stop, || {
        if options.connect {
            println!("ready: {device} for the VMM at {socket}");
        } else {
            println!("ready: {device}, listening at {socket}");
        }
    })?;
    info!("ended");
    Ok(())
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    let filter = std::mem::take(&mut arguments.log);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .init();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
