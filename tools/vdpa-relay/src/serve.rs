// SPDX-License-Identifier: GPL-2.0

//! One monitor after the other: the socket, and what is waited for.

use std::{
    fs,
    io,
    os::{
        fd::AsFd,
        unix::{
            fs::FileTypeExt,
            net::{
                UnixListener,
                UnixStream, //
            },
        }, //
    },
    path::{
        Path,
        PathBuf, //
    },
    time::Duration, //
};

use rustix::event::{
    poll,
    PollFd,
    PollFlags,
    Timespec, //
};
use thiserror::Error;
use tracing::{
    error,
    info,
    warn, //
};

use crate::{
    device::{
        Device,
        Refused, //
    },
    failure::Failure,
    front::Front,
    session::Session,
    sysfs::Place,
    vhost_vdpa::Vdpa, //
};

/// How long to wait before another try to connect to a socket that nobody listens on.
const RETRY: Duration = Duration::from_millis(200);

/// Why nothing can be served at all.
#[derive(Debug, Error)]
pub enum Error {
    /// The device cannot be used.
    #[error("{path}: {source}", path = .path.display())]
    Device {
        /// Its path.
        path: PathBuf,
        /// What it said.
        source: Refused,
    },
    /// The socket cannot be.
    #[error("{path}: {source}", path = .path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing can be waited for.
    #[error("poll: {0}")]
    Poll(io::Error),
}

/// What is served, and to whom.
#[derive(Clone, Debug)]
pub struct Options {
    /// The device.
    pub device: Place,
    /// The socket.
    pub socket: PathBuf,
    /// Whether the monitor listens on it.
    pub connect: bool,
    /// Whether one monitor is all.
    pub once: bool,
}

/// Waits until one of `files` has something to read, or `timeout` has passed; says which have.
fn wait(files: &[&dyn AsFd], timeout: Option<Duration>) -> Result<Vec<bool>, Error> {
    let mut polled: Vec<_> = files
        .iter()
        .map(|file| PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN))
        .collect();
    let limit = timeout.map(|timeout| Timespec {
        tv_sec: timeout.as_secs() as i64,
        tv_nsec: timeout.subsec_nanos().into(),
    });
    match poll(&mut polled, limit.as_ref()) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Ok(vec![false; files.len()]),
        Err(error) => return Err(Error::Poll(error.into())),
    }
    Ok(polled.iter().map(|fd| !fd.revents().is_empty()).collect())
}

/// A socket that is listened on. Its file goes when this is dropped.
struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Listens at `path`, where one that died may have left a socket.
    fn bind(path: &Path) -> io::Result<Self> {
        let socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
        if socket {
            match UnixStream::connect(path) {
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
                Err(e) => return Err(e),
                Ok(_) => {
                    return Err(io::Error::new(
                        io::ErrorKind::AddrInUse,
                        "another process listens there (if it is the VMM: --connect)",
                    ))
                }
            }
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        let path = path.to_owned();
        Ok(Self { listener, path })
    }

    /// Lets who waits in, if somebody does.
    fn accept(&self) -> io::Result<Option<UnixStream>> {
        match self.listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                Ok(Some(stream))
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // It may have been removed by hand, and nothing can be done if it cannot.
        let _ = fs::remove_file(&self.path);
    }
}

/// Where monitors come from.
enum Source {
    Listener(Listener),
    Path(PathBuf),
}

impl Source {
    /// Waits for a monitor. Returns `None` if `stop` has something to read before.
    fn next(&self, stop: &UnixStream) -> Result<Option<UnixStream>, Error> {
        let mut told = false;
        loop {
            let found = match self {
                Self::Listener(listener) => {
                    if wait(&[stop, &listener.listener], None)?[0] {
                        return Ok(None);
                    }
                    listener.accept()
                }
                Self::Path(path) => match UnixStream::connect(path) {
                    Ok(stream) => Ok(Some(stream)),
                    Err(e) => match e.kind() {
                        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                        _ => Err(e),
                    },
                },
            };
            let path = match self {
                Self::Listener(listener) => &listener.path,
                Self::Path(path) => path,
            };
            let found = found.map_err(|source| Error::Socket {
                path: path.clone(),
                source,
            })?;
            if found.is_some() {
                return Ok(found);
            }
            if let Self::Path(path) = self {
                if !told {
                    info!("waiting for a VMM to listen at {}", path.display());
                    told = true;
                }
                // Nothing tells when somebody listens.
                if wait(&[stop], Some(RETRY))?[0] {
                    return Ok(None);
                }
            }
        }
    }

    /// Sends away who comes while another is served. Somebody who waits would not know for what.
    fn send_away(&self) {
        if let Self::Listener(listener) = self {
            if let Ok(Some(_)) = listener.accept() {
                warn!("another VMM is sent away: the device serves one at a time");
            }
        }
    }
}

/// Why a monitor is no longer served.
enum End {
    /// It went.
    Gone,
    /// The relay is to end.
    Stop,
}

/// Serves one monitor until it is gone.
fn serve(
    options: &Options,
    source: &Source,
    stop: &UnixStream,
    socket: UnixStream,
) -> Result<End, Error> {
    let device = match Vdpa::open(&options.device) {
        Ok(device) => device,
        Err(error) => {
            error!(
                "{}: {error}; the VMM is sent away",
                options.device.path.display()
            );
            return Ok(End::Gone);
        }
    };
    let mut front = Front::new(socket, Session::new(device));
    loop {
        let config_call = front.session().device().config_call();
        let mut files: Vec<&dyn AsFd> = vec![stop, front.socket(), config_call];
        if let Source::Listener(listener) = source {
            files.push(&listener.listener);
        }
        let ready = wait(&files, None)?;
        if ready[0] {
            return Ok(End::Stop);
        }
        if ready[2] {
            // What it counts does not matter; it is empty then.
            let _ = rustix::io::read(config_call, &mut [0; 8]);
            report(front.session());
            front.config_changed();
        }
        if ready.get(3) == Some(&true) {
            source.send_away();
        }
        if ready[1] {
            match front.serve_one() {
                Ok(true) => {}
                Ok(false) => return Ok(End::Gone),
                Err(Failure::Message(error)) => {
                    warn!("what the VMM says is not vhost-user: {error}");
                    return Ok(End::Gone);
                }
                Err(error) => {
                    error!("{error}; the VMM is sent away");
                    return Ok(End::Gone);
                }
            }
        }
    }
}

/// Says what an administrator should know when the device has called.
fn report<D: Device>(session: &Session<D>) {
    match session.status() {
        Ok(status) if status & crate::device::status::NEEDS_RESET != 0 => {
            error!("the device has failed, and works again when the guest resets it");
        }
        Ok(_) => info!("the device's configuration has changed"),
        Err(error) => error!("{error}"),
    }
}

/// Serves monitors, one after the other, until `stop` has something to read. `ready` is called
/// once when a monitor may come.
///
/// # Errors
///
/// If the device cannot be opened, or the socket cannot be made.
pub fn run(options: &Options, stop: &UnixStream, ready: impl FnOnce()) -> Result<(), Error> {
    // Whoever is to be told that the device is not there is at the keyboard now.
    let tried = Vdpa::open(&options.device).map(drop);
    tried.map_err(|source| Error::Device {
        path: options.device.path.clone(),
        source,
    })?;
    let source = if options.connect {
        Source::Path(options.socket.clone())
    } else {
        let listener = Listener::bind(&options.socket);
        Source::Listener(listener.map_err(|source| Error::Socket {
            path: options.socket.clone(),
            source,
        })?)
    };
    ready();
    while let Some(socket) = source.next(stop)? {
        info!("a VMM is there");
        let end = serve(options, &source, stop, socket)?;
        info!("the device is reset and free again");
        if options.once || matches!(end, End::Stop) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::tempdir::TempDir;

    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_nothing_else() {
        let dir = TempDir::new().unwrap();
        let path = dir.as_path().join("socket");
        // A listener of the standard library leaves its file behind.
        drop(UnixListener::bind(&path).unwrap());
        let listener = Listener::bind(&path).unwrap();
        assert!(listener.accept().unwrap().is_none());
        let error = Listener::bind(&path).map(drop).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(listener.accept().unwrap().is_some());
        drop(listener);
        assert!(!path.exists());
        fs::write(&path, "kept").unwrap();
        assert!(Listener::bind(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"kept");
    }

    #[test]
    fn waiting_for_a_monitor_ends_when_told() {
        let dir = TempDir::new().unwrap();
        let path = dir.as_path().join("socket");
        let (stop, teller) = UnixStream::pair().unwrap();
        drop(teller);
        for source in [
            Source::Path(path.clone()),
            Source::Listener(Listener::bind(&dir.as_path().join("other")).unwrap()),
        ] {
            assert!(source.next(&stop).unwrap().is_none());
        }
        let (stop, _teller) = UnixStream::pair().unwrap();
        let _listener = UnixListener::bind(&path).unwrap();
        assert!(Source::Path(path).next(&stop).unwrap().is_some());
    }
}
