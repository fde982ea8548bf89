// SPDX-License-Identifier: GPL-2.0

//! Unix sockets that clients find by their path.

use std::{
    fs,
    io,
    ops::Deref,
    os::unix::{
        fs::FileTypeExt,
        net::{
            UnixListener,
            UnixStream, //
        },
    },
    path::{
        Path,
        PathBuf, //
    },
    thread,
    time::Duration, //
};

use libc::{
    ECONNABORTED,
    EMFILE,
    ENFILE,
    ENOBUFS,
    ENOMEM, //
};
use tracing::warn;

/// How long to wait before another client is let in, if there was nothing left for one.
const PAUSE: Duration = Duration::from_millis(200);

/// Returns whether a client that could not be let in may be later: the process has no descriptor
/// or memory left for it, which others may give back, or the client is gone again.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(ECONNABORTED | EMFILE | ENFILE | ENOBUFS | ENOMEM)
    )
}

/// Patience with what goes by: those who are served must not go because another cannot come.
#[derive(Debug, Default)]
pub struct Patience {
    told: bool,
}

impl Patience {
    /// Waits a little after `error`, with which a client of `whom` was not let in, and says so if
    /// it is the first in a row. Returns false at once if waiting does not help.
    pub fn wait(&mut self, whom: &str, error: &io::Error) -> bool {
        if !is_passing(error) {
            return false;
        }
        if !self.told {
            warn!("{whom}: a client has to wait: {error}");
        }
        self.told = true;
        thread::sleep(PAUSE);
        true
    }

    /// A client came.
    pub fn end(&mut self) {
        self.told = false;
    }
}

/// A socket that is listened on. Its file goes when this is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Makes a socket at `path`. One that a process left behind when it died is replaced.
    ///
    /// # Errors
    ///
    /// If another process listens there, something else than a socket is there, or the directory
    /// does not take it. The message has no path.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "there is something else than a socket",
                ));
            }
            Ok(_) => match UnixStream::connect(path) {
                Ok(_) => {
                    return Err(io::Error::new(
                        io::ErrorKind::AddrInUse,
                        "another process listens there",
                    ));
                }
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
                Err(e) => return Err(e),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        Ok(Self {
            listener: UnixListener::bind(path)?,
            path: path.to_owned(),
        })
    }
}

impl Deref for Socket {
    type Target = UnixListener;

    fn deref(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // It may have been removed by hand, and nothing can be done if it cannot.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::tempdir::TempDir;

    use super::*;

    #[test]
    fn stale_in_use_and_something_else() {
        let dir = TempDir::new().unwrap();
        let path = dir.as_path().join("socket");
        // A listener of the standard library leaves its file behind.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let socket = Socket::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        assert_eq!(
            Socket::bind(&path).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        drop(socket);
        assert!(!path.exists());
        fs::write(&path, "kept").unwrap();
        assert_eq!(
            Socket::bind(&path).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(fs::read(&path).unwrap(), b"kept");
        assert!(Socket::bind(&dir.as_path().join("none/socket")).is_err());
    }

    #[test]
    fn waiting_helps_against_want_only() {
        let mut patience = Patience::default();
        let error = io::Error::from_raw_os_error;
        assert!(!patience.wait("x", &error(libc::EBADF)));
        assert!(!patience.told);
        assert!(patience.wait("x", &error(EMFILE)));
        assert!(patience.told);
        patience.end();
        assert!(!patience.told);
    }
}
