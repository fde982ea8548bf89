// SPDX-License-Identifier: GPL-2.0

//! The uplink: what hangs on the switch besides functions.

use std::{
    io,
    path::PathBuf,
    str::FromStr,
    sync::Arc, //
};

use serde::Deserialize;
use thiserror::Error;

use super::{
    pcap::Capture,
    tap::Tap,
    Eswitch, //
};

/// What the uplink is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UplinkKind {
    /// Nothing.
    #[default]
    None,
    /// A network interface of this host, by its name. It is made if there is none.
    Tap(String),
    /// A file that everything is written to that passes the switch.
    Pcap(PathBuf),
}

impl FromStr for UplinkKind {
    type Err = UplinkError;

    fn from_str(text: &str) -> Result<Self, UplinkError> {
        match text.split_once(':') {
            None if text == "none" => Ok(Self::None),
            Some(("tap", name)) if !name.is_empty() => Ok(Self::Tap(name.into())),
            Some(("pcap", file)) if !file.is_empty() => Ok(Self::Pcap(file.into())),
            _ => Err(UplinkError::Kind(text.into())),
        }
    }
}

/// Why there is no uplink.
#[derive(Debug, Error)]
pub enum UplinkError {
    /// It is of no known kind.
    #[error("uplink `{0}`: it is `none`, `tap:NAME` or `pcap:FILE`")]
    Kind(String),
    /// The network interface cannot be had.
    #[error("tap interface `{name}`: {}", explain(.error))]
    Tap {
        /// Its name.
        name: String,
        /// Why.
        error: io::Error,
    },
    /// The file cannot be written.
    #[error("capture file `{}`: {error}", .file.display())]
    Pcap {
        /// Its name.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// What a person can do about it.
fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("{error}; it takes CAP_NET_ADMIN, or an interface that belongs to this user")
        }
        io::ErrorKind::ResourceBusy => {
            format!("{error}; another program uses it")
        }
        io::ErrorKind::InvalidInput => {
            format!("{error}; it is no name for an interface, or one that is no tap")
        }
        io::ErrorKind::NotFound => format!("{error}; is there a /dev/net/tun?"),
        _ => error.to_string(),
    }
}

/// The uplink. It ends when this is dropped.
pub struct Uplink {
    _connected: Connected,
}

#[expect(dead_code, reason = "they are only dropped")]
enum Connected {
    None,
    Tap(Tap),
    Capture(Capture),
}

impl Uplink {
    /// Hangs an uplink on the switch. Frames from and to it may have `mtu` bytes without Ethernet
    /// header and VLAN tags.
    ///
    /// # Errors
    ///
    /// An [`UplinkError`] that says what is missing.
    pub fn open(kind: &UplinkKind, eswitch: &Arc<Eswitch>, mtu: u16) -> Result<Self, UplinkError> {
        let connected = match kind {
            UplinkKind::None => Connected::None,
            UplinkKind::Tap(name) => {
                let tap = Tap::open(name, eswitch, mtu).map_err(|error| UplinkError::Tap {
                    name: name.clone(),
                    error,
                })?;
                Connected::Tap(tap)
            }
            UplinkKind::Pcap(file) => {
                let capture =
                    Capture::create(file, eswitch).map_err(|error| UplinkError::Pcap {
                        file: file.clone(),
                        error,
                    })?;
                Connected::Capture(capture)
            }
        };
        Ok(Self {
            _connected: connected,
        })
    }
}
