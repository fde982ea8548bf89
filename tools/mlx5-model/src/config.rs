// SPDX-License-Identifier: GPL-2.0

//! What a process is to be: functions, uplink, workers, and where it is spoken to.
//!
//! The same fields come from a file in TOML or from options of the command line:
//!
//! ```toml
//! control = "/run/mlx5-model/control"   # optional
//! trace = "trace.jsonl"                 # optional
//! workers = 2                           # optional
//!
//! [uplink]                              # optional
//! tap = "tap0"                          # or: pcap = "frames.pcap"
//!
//! [[function]]
//! name = "vf0"
//! socket = "/run/mlx5-model/vf0"
//! profile = "cx7"
//! mac = "02:00:00:00:00:01"             # optional
//! mtu = 1500                            # optional
//! vectors = 64                          # optional
//! in_order = true                       # optional
//!
//! [[function.fault]]                    # optional, of the function above
//! kind = "delay"
//! command.opcode = "CREATE_EQ"
//! ms = 200
//! ```

use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{
        Path,
        PathBuf, //
    },
    str::FromStr,
};

use serde::{
    Deserialize,
    Serialize, //
};
use thiserror::Error;

use crate::{
    eswitch::UplinkKind,
    fault::Fault,
    vfio, //
};

/// The largest frames that a port may be set to, in bytes without the Ethernet header: the
/// smallest that IPv4 allows, and what the hardware takes.
const MTU: std::ops::RangeInclusive<u16> = 68..=9978;

/// How many threads may move traffic.
const WORKERS: std::ops::RangeInclusive<usize> = 1..=64;

/// How many functions a process may have: their numbers are part of default addresses.
const FUNCTIONS: usize = 128;

/// Why a configuration is refused.
#[derive(Debug, Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{0}: {1}")]
    File(PathBuf, std::io::Error),
    /// It is not what a configuration looks like.
    #[error("{0}: {1}")]
    Syntax(PathBuf, toml::de::Error),
    /// An option is not what it must be.
    #[error("{0}")]
    Option(String),
    /// There is nothing to do.
    #[error("there is no function: one is described by [[function]] or --function")]
    NoFunction,
    /// There is too much to do.
    #[error("{0} functions, but there can be {FUNCTIONS} at most")]
    TooMany(usize),
    /// A value is out of its range.
    #[error("{place}: {field} = {value}, but it must be from {from} to {to}")]
    Range {
        /// Where it is: the name of a function, or nothing.
        place: String,
        /// The field.
        field: &'static str,
        /// The value.
        value: usize,
        /// The smallest allowed.
        from: usize,
        /// The largest allowed.
        to: usize,
    },
    /// A name has letters that are hard to type or to show.
    #[error("function name {0:?}: 1 to 32 letters, digits, '-', '_' or '.' are allowed")]
    Name(String),
    /// Two functions have the same name, address or socket.
    #[error("{field} {value} is used twice")]
    Twice {
        /// The field.
        field: &'static str,
        /// The value.
        value: String,
    },
}

/// The address of a port: a unicast Ethernet address, as six pairs of hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no address of a port: six pairs of hexadecimal digits with ':' \
                 between them are, such as 02:00:00:00:00:01, not all zero and not a group's"
            )
        };
        let mut mac = [0; 6];
        let mut pairs = text.split(':');
        for byte in &mut mac {
            let pair = pairs
                .next()
                .filter(|pair| pair.len() == 2)
                .ok_or_else(wrong)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        if pairs.next().is_some() || mac == [0; 6] || mac[0] & 1 != 0 || text.contains('+') {
            return Err(wrong());
        }
        Ok(Self(mac))
    }
}

impl TryFrom<String> for Mac {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

const fn default_mtu() -> u16 {
    1500
}

const fn default_vectors() -> u16 {
    64
}

/// What one function is to be.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Function {
    /// Its name in messages, traces and on the control socket.
    pub name: String,
    /// The path of its vfio-user socket.
    pub socket: PathBuf,
    /// The name of its profile, or the path of a file that has one.
    pub profile: String,
    /// The permanent address of its port. By default one that tells its number.
    pub mac: Option<Mac>,
    /// The largest frame of its port without the Ethernet header, in bytes.
    #[serde(default = "default_mtu")]
    pub mtu: u16,
    /// How many interrupt vectors it has.
    #[serde(default = "default_vectors")]
    pub vectors: u16,
    /// Whether commands that are rung together are executed in the order of their slots.
    #[serde(default)]
    pub in_order: bool,
    /// What is to go wrong from the beginning.
    #[serde(rename = "fault", default)]
    pub faults: Vec<Fault>,
}

impl FromStr for Function {
    type Err = String;

    /// Reads `name=vf0,socket=/run/vf0,profile=cx7,…`: the fields of the file, without quotes.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut fields = toml::Table::new();
        for pair in text.split(',') {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| format!("{pair:?} is no field: KEY=VALUE is"))?;
            let value = match key {
                "mtu" | "vectors" => toml::Value::Integer(
                    value
                        .parse()
                        .map_err(|_| format!("{key} = {value:?} is no number"))?,
                ),
                "in_order" => toml::Value::Boolean(
                    value
                        .parse()
                        .map_err(|_| format!("{key} = {value:?}: true or false is"))?,
                ),
                _ => toml::Value::String(value.to_owned()),
            };
            if fields.insert(key.to_owned(), value).is_some() {
                return Err(format!("{key} is given twice"));
            }
        }
        Self::deserialize(fields).map_err(|e| e.message().to_owned())
    }
}

impl Function {
    /// The permanent address of the port of this function, the one with `number`.
    pub fn address(&self, number: u16) -> Mac {
        let [high, low] = number.to_be_bytes();
        self.mac.unwrap_or(Mac([0x02, 0x6d, 0x6c, 0x78, high, low]))
    }

    fn check(&self) -> Result<(), Error> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !(1..=32).contains(&self.name.len()) || !self.name.chars().all(allowed) {
            return Err(Error::Name(self.name.clone()));
        }
        range(&self.name, "mtu", self.mtu, MTU)?;
        range(&self.name, "vectors", self.vectors, vfio::VECTORS)
    }
}

/// What a process is to be.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The functions, in the order of their numbers.
    #[serde(rename = "function", default)]
    pub functions: Vec<Function>,
    /// Where frames go that are for none of them.
    #[serde(default)]
    pub uplink: UplinkKind,
    /// How many threads move traffic. By default as many as there are processors.
    pub workers: Option<usize>,
    /// The file that commands and events are written to.
    pub trace: Option<PathBuf>,
    /// The path of the control socket.
    pub control: Option<PathBuf>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or a field is unknown, missing or not what it must be.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(|e| Error::File(path.to_owned(), e))?;
        toml::from_str(&text).map_err(|e| Error::Syntax(path.to_owned(), e))
    }

    /// Checks what one field alone does not tell.
    ///
    /// # Errors
    ///
    /// If a number is out of its range, something is used twice, or there is no function.
    pub fn check(&self) -> Result<(), Error> {
        if self.functions.is_empty() {
            return Err(Error::NoFunction);
        }
        if self.functions.len() > FUNCTIONS {
            return Err(Error::TooMany(self.functions.len()));
        }
        if let Some(workers) = self.workers {
            range("the process", "workers", workers, WORKERS)?;
        }
        let mut names = BTreeSet::new();
        let mut macs = BTreeSet::new();
        let mut sockets: BTreeSet<&Path> = self.control.iter().map(PathBuf::as_path).collect();
        for (function, number) in self.functions.iter().zip(0..) {
            function.check()?;
            let twice = |field, value: String| Err(Error::Twice { field, value });
            if !names.insert(&function.name) {
                return twice("name", function.name.clone());
            }
            let mac = function.address(number);
            if !macs.insert(mac) {
                return twice("mac", mac.to_string());
            }
            if !sockets.insert(&function.socket) {
                return twice("socket", function.socket.display().to_string());
            }
        }
        Ok(())
    }

    /// The largest frame that the uplink takes, as functions measure theirs: what the largest of
    /// them sends.
    pub fn uplink_mtu(&self) -> u16 {
        self.functions
            .iter()
            .map(|function| function.mtu)
            .max()
            .unwrap_or(*MTU.start())
    }

    /// How many threads move traffic.
    pub fn worker_count(&self) -> usize {
        self.workers.unwrap_or_else(|| {
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            processors.min(*WORKERS.end())
        })
    }
}

fn range<T: Into<usize> + PartialOrd + Copy>(
    place: &str,
    field: &'static str,
    value: T,
    allowed: std::ops::RangeInclusive<T>,
) -> Result<(), Error> {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(Error::Range {
        place: place.to_owned(),
        field,
        value: value.into(),
        from: (*allowed.start()).into(),
        to: (*allowed.end()).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"
        control = "/run/control"
        trace = "trace.jsonl"
        workers = 3
        uplink.tap = "tap0"
        [[function]]
        name = "vf0"
        socket = "/run/vf0"
        profile = "cx7"
        mac = "02:00:00:00:00:01"
        mtu = 9000
        vectors = 16
        in_order = true
        [[function]]
        name = "vf1"
        socket = "/run/vf1"
        profile = "minimal"
        [[function.fault]]
        kind = "page_request"
        pages = 3
    "#;

    fn parse(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_file_and_options_say_the_same() {
        let config = parse(FULL);
        config.check().unwrap();
        assert_eq!(config.uplink, UplinkKind::Tap("tap0".to_owned()));
        assert_eq!(config.worker_count(), 3);
        assert_eq!(config.uplink_mtu(), 9000);
        let first = "name=vf0,socket=/run/vf0,profile=cx7,mac=02:00:00:00:00:01,mtu=9000,\
                     vectors=16,in_order=true";
        assert_eq!(config.functions[0], first.parse().unwrap());
        let second: Function = "profile=minimal,name=vf1,socket=/run/vf1".parse().unwrap();
        assert_eq!(
            config.functions[1].faults,
            [Fault::PageRequest { pages: 3 }]
        );
        assert_eq!(
            Function {
                faults: Vec::new(),
                ..config.functions[1].clone()
            },
            second
        );
        assert_eq!((second.mtu, second.vectors), (1500, 64));
        assert_eq!(second.address(0x0102).to_string(), "02:6d:6c:78:01:02");
    }

    #[test]
    fn errors_name_the_value_and_what_is_allowed() {
        let file = |from: &str, to: &str| {
            let text = FULL.replacen(from, to, 1);
            assert_ne!(text, FULL);
            let config: Result<Config, _> = toml::from_str(&text);
            match config {
                Ok(config) => config.check().unwrap_err().to_string(),
                Err(e) => e.to_string(),
            }
        };
        for (from, to, words) in [
            (
                "mtu = 9000",
                "mtu = 67",
                &["vf0", "mtu", "67", "68", "9978"][..],
            ),
            ("mtu = 9000", "mtu = 70000", &["70000", "u16"]),
            (
                "vectors = 16",
                "vectors = 1",
                &["vf0", "vectors", "2", "256"],
            ),
            ("workers = 3", "workers = 0", &["workers", "0", "1", "64"]),
            ("workers", "wokers", &["wokers", "workers"]),
            ("mtu", "mut", &["mut", "mtu"]),
            ("uplink.tap", "uplink.tun", &["tun", "none", "tap", "pcap"]),
            (
                "02:00:00:00:00:01",
                "01:00:00:00:00:01",
                &["01:00", "02:00:00:00:00:01"],
            ),
            (
                "02:00:00:00:00:01",
                "00:00:00:00:00:00",
                &["00:00:00:00:00:00"],
            ),
            ("02:00:00:00:00:01", "02:00:00:00:01", &["02:00:00:00:01"]),
            ("02:00:00:00:00:01", "02:00:00:00:00:+1", &["+1"]),
            ("\"vf0\"", "\"vf1\"", &["vf1", "twice"]),
            ("\"vf0\"", "\"a b\"", &["a b", "letters"]),
            ("/run/vf1", "/run/vf0", &["/run/vf0", "twice"]),
            ("/run/vf1", "/run/control", &["/run/control", "twice"]),
            ("profile = \"cx7\"", "", &["profile"]),
            (
                "page_request",
                "pear",
                &["pear", "page_request", "queue_error"],
            ),
        ] {
            let message = file(from, to);
            for word in words {
                assert!(message.contains(word), "{message:?} does not say {word:?}");
            }
        }
        assert!(matches!(Config::default().check(), Err(Error::NoFunction)));
        assert!(matches!(
            Config::read(Path::new("/none")),
            Err(Error::File(..))
        ));
    }

    #[test]
    fn options_that_are_wrong() {
        for (text, word) in [
            ("", "KEY=VALUE"),
            ("name=a", "socket"),
            ("name=a,socket=b,profile=c,mtu=x", "mtu"),
            ("name=a,socket=b,profile=c,in_order=1", "true or false"),
            ("name=a,name=b", "twice"),
            ("name=a,socket=b,profile=c,speed=1", "speed"),
        ] {
            let message = text.parse::<Function>().unwrap_err();
            assert!(message.contains(word), "{message:?} does not say {word:?}");
        }
    }
}
