// SPDX-License-Identifier: GPL-2.0

//! The functions of one process, with what they share and how they are reached.

use std::{
    io,
    path::PathBuf,
    sync::{
        mpsc::Sender,
        Arc, //
    },
    thread,
};

use serde_json::json;
use thiserror::Error;

use crate::{
    config::{
        self,
        Config, //
    },
    control::{
        self,
        Functions, //
    },
    eswitch::{
        Eswitch,
        Uplink,
        UplinkError, //
    },
    fault::FaultError,
    function::{
        Function,
        Settings,
        Surroundings, //
    },
    memory::DmaSpace,
    profile::{
        Profile,
        ProfileError, //
    },
    socket::Socket,
    trace::Trace,
    vfio::{
        self,
        Msix, //
    },
    virtq::Workers,
};

/// Why a process cannot be what its configuration says.
#[derive(Debug, Error)]
pub enum Error {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// A function has a profile that is none.
    #[error("{function}: {error}")]
    Profile {
        /// The function.
        function: String,
        /// What is wrong.
        error: ProfileError,
    },
    /// A function has a fault that it cannot have.
    #[error("{function}: {error}")]
    Fault {
        /// The function.
        function: String,
        /// What is wrong.
        error: FaultError,
    },
    /// There is no such uplink.
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    /// Something of the system is not to be had.
    #[error("{what}: {error}")]
    System {
        /// What.
        what: String,
        /// What is wrong.
        error: io::Error,
    },
}

impl Error {
    fn system(what: impl ToString) -> impl FnOnce(io::Error) -> Self {
        let what = what.to_string();
        |error| Self::System { what, error }
    }
}

/// The functions of one process. Dropping it takes their sockets away.
pub struct Board {
    members: Vec<Member>,
    control: Option<Socket>,
    trace: Arc<Trace>,
    _uplink: Uplink,
}

struct Member {
    config: config::Function,
    settings: Settings,
    function: Arc<Function>,
    memory: Arc<DmaSpace>,
    msix: Arc<Msix>,
    socket: Socket,
}

/// The serial number of a function: the identifier of 64 bits that goes with its address.
fn serial([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from_be_bytes([a, b, c, 0xff, 0xfe, d, e, f])
}

impl Board {
    /// Makes everything that can fail: files, sockets, threads, functions. Nobody is served yet.
    ///
    /// # Errors
    ///
    /// If the configuration is wrong, or something cannot be had. Nothing is left behind but the
    /// files it was to write, empty.
    pub fn new(config: &Config) -> Result<Self, Error> {
        config.check()?;
        // What is most likely to be wrong comes first, what cannot be undone last.
        let profiles = config.functions.iter().map(|function| {
            Profile::load(&function.profile).map_err(|error| Error::Profile {
                function: function.name.clone(),
                error,
            })
        });
        let profiles = profiles.collect::<Result<Vec<_>, _>>()?;
        let bind = |path: &PathBuf| Socket::bind(path).map_err(Error::system(path.display()));
        let control = config.control.as_ref().map(bind).transpose()?;
        let sockets = config
            .functions
            .iter()
            .map(|function| bind(&function.socket));
        let sockets = sockets.collect::<Result<Vec<_>, _>>()?;
        let workers =
            Workers::new(config.worker_count()).map_err(Error::system("worker threads"))?;
        let workers = Arc::new(workers);
        let eswitch = Arc::<Eswitch>::default();
        let uplink = Uplink::open(&config.uplink, &eswitch, config.uplink_mtu())?;
        let open = |path: &PathBuf| Trace::to_file(path).map_err(Error::system(path.display()));
        let trace = Arc::new(
            config
                .trace
                .as_ref()
                .map_or_else(|| Ok(Trace::default()), open)?,
        );

        let mut members = Vec::new();
        let numbered = config.functions.iter().zip(0..);
        for (((config, number), mut profile), socket) in numbered.zip(profiles).zip(sockets) {
            // 0 is the physical function.
            profile.general.set_vhca_id(number + 1);
            let settings = Settings {
                name: config.name.clone(),
                profile: Arc::new(profile),
                mac: config.address(number).0,
                mtu: config.mtu,
            };
            let memory = Arc::<DmaSpace>::default();
            let msix = Arc::new(Msix::new(config.vectors));
            let surroundings = Surroundings {
                eswitch: eswitch.clone(),
                workers: workers.clone(),
                trace: trace.clone(),
                memory: memory.clone(),
                interrupts: msix.clone(),
            };
            let function = Function::new(settings.clone(), surroundings)
                .map_err(Error::system(&config.name))?;
            function.set_in_order(config.in_order);
            for fault in &config.faults {
                function
                    .inject(fault.clone())
                    .map_err(|error| Error::Fault {
                        function: config.name.clone(),
                        error,
                    })?;
            }
            members.push(Member {
                config: config.clone(),
                settings,
                function,
                memory,
                msix,
                socket,
            });
        }
        Ok(Self {
            members,
            control,
            trace,
            _uplink: uplink,
        })
    }

    /// Serves clients in threads. One that cannot go on says why to `broken`.
    ///
    /// # Errors
    ///
    /// If there can be no thread.
    pub fn serve(&self, broken: &Sender<String>) -> Result<(), Error> {
        for member in &self.members {
            let name = &member.config.name;
            let listener = member.socket.try_clone().map_err(Error::system(name))?;
            let server = vfio::Server::new(
                name,
                serial(member.settings.mac),
                listener,
                member.function.clone(),
                member.memory.clone(),
                member.msix.clone(),
            );
            spawn(name, broken, move || {
                server.serve().map_err(|e| e.to_string())
            })?;
        }
        if let Some(socket) = &self.control {
            let listener = socket.try_clone().map_err(Error::system("control"))?;
            let mut functions = Functions::default();
            for member in &self.members {
                functions.add(&member.config.name, member.about(), member.function.clone());
            }
            let functions = Arc::new(functions);
            spawn("control", broken, move || {
                control::serve(&listener, &functions).map_err(|e| e.to_string())
            })?;
        }
        Ok(())
    }

    /// Where the functions are, in one line.
    pub fn summary(&self) -> String {
        let functions = self.members.iter().map(|Member { config, .. }| {
            format!(
                "{} on {} ({})",
                config.name,
                config.socket.display(),
                config.profile
            )
        });
        functions.collect::<Vec<_>>().join(", ")
    }
}

impl Member {
    fn about(&self) -> serde_json::Value {
        json!({
            "name": self.config.name,
            "socket": self.config.socket,
            "profile": self.config.profile,
            "mac": config::Mac(self.settings.mac),
            "mtu": self.settings.mtu,
            "vectors": self.config.vectors,
        })
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // Threads that wait for clients end with the process. What they would leave unwritten is
        // the end of the trace, so nothing must happen any more.
        for member in &self.members {
            member.function.reset();
        }
        self.trace.close();
    }
}

fn spawn(
    name: &str,
    broken: &Sender<String>,
    serve: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> Result<(), Error> {
    let broken = broken.clone();
    let what = name.to_owned();
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            if let Err(e) = serve() {
                // Nobody listens when the process ends.
                let _ = broken.send(format!("{what}: {e}"));
            }
        })
        .map_err(Error::system(name))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::tempdir::TempDir;

    use super::*;

    #[test]
    fn functions_are_numbered() {
        let dir = TempDir::new().unwrap();
        let config = Config {
            functions: ["vf0", "vf1"]
                .map(|name| {
                    let socket = dir.as_path().join(name);
                    let function = format!("name={name},socket={},profile=cx7", socket.display());
                    function.parse().unwrap()
                })
                .into(),
            ..Config::default()
        };
        let board = Board::new(&config).unwrap();
        let numbers = board.members.iter().map(|member| {
            let profile = &member.function.platform.profile;
            profile.general.vhca_id()
        });
        assert_eq!(numbers.collect::<Vec<_>>(), [1, 2]);
    }
}
