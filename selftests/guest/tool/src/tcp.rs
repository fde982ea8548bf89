// SPDX-License-Identifier: GPL-2.0
//! TCP both ways at once, every byte checked.
//!
//! The client opens with four little-endian u64: a magic number, the bytes it
//! will send (`u64::MAX`: until it closes its half), the bytes it wants, and
//! a seed.  Both directions then run at the same time.  The server ends with
//! two u64: how many bytes it took, and how many of them were wrong (0 or 1:
//! it stops at the first).

use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::pattern::Pattern;

const MAGIC: u64 = u64::from_le_bytes(*b"vdpatest");

/// A connection on which nothing moves for so long is lost.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes moved by one system call.
const CHUNK: usize = 64 << 10;

/// What a client does.
pub(crate) struct Job {
    up: Amount,
    down: u64,
}

enum Amount {
    Bytes(u64),
    /// As much as goes until there is a file of that name.
    Until(PathBuf),
}

impl Job {
    /// Reads the options of `send`.
    pub(crate) fn parse(options: &[&str]) -> Option<Job> {
        let mut job = Job {
            up: Amount::Bytes(0),
            down: 0,
        };
        for pair in options.chunks(2) {
            let [name, value] = pair else { return None };
            match *name {
                "--up" => job.up = Amount::Bytes(value.parse().ok()?),
                "--until" => job.up = Amount::Until(value.into()),
                "--down" => job.down = value.parse().ok()?,
                _ => return None,
            }
        }
        Some(job)
    }
}

/// What one direction has seen.
struct Direction {
    bytes: u64,
    /// The longest time in which nothing moved.
    stall: Duration,
}

/// Serves any number of clients, for ever.
///
/// # Errors
///
/// What listening at `address` fails with.
pub(crate) fn serve(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || {
            if let Err(error) = serve_one(stream) {
                eprintln!("guest-tool: connection: {error}");
            }
        });
    }
    Ok(())
}

fn serve_one(mut stream: TcpStream) -> io::Result<()> {
    prepare(&stream)?;
    let [magic, up, down, seed] = read_words(&mut stream)?;
    if magic != MAGIC {
        return Err(ErrorKind::InvalidData.into());
    }
    let sender = {
        let stream = stream.try_clone()?;
        thread::spawn(move || produce(stream, Amount::Bytes(down), !seed))
    };
    let up = (up != u64::MAX).then_some(up);
    let (bytes, wrong) = match consume(stream.try_clone()?, up, seed) {
        Ok(direction) => (direction.bytes, 0),
        Err(error) if error.kind() == ErrorKind::InvalidData => (0, 1),
        Err(error) => return Err(error),
    };
    sender.join().map_err(|_| Error::other("sender died"))??;
    write_words(&mut stream, &[bytes, wrong])
}

/// Does `job` with the server at `address` and prints one line about it.
///
/// # Errors
///
/// What the connection fails with, and `InvalidData` when a byte arrived
/// wrong at either end or not at all.
pub(crate) fn send(address: &str, job: Job) -> io::Result<()> {
    let start = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    prepare(&stream)?;
    let seed = 0x5eed_0000 + u64::from(std::process::id());
    let up = match job.up {
        Amount::Bytes(bytes) => bytes,
        Amount::Until(_) => u64::MAX,
    };
    write_words(&mut stream, &[MAGIC, up, job.down, seed])?;

    let sender = {
        let stream = stream.try_clone()?;
        thread::spawn(move || -> io::Result<Direction> {
            let direction = produce(stream.try_clone()?, job.up, seed)?;
            stream.shutdown(Shutdown::Write)?;
            Ok(direction)
        })
    };
    let down = consume(stream.try_clone()?, Some(job.down), !seed)?;
    let up = sender.join().map_err(|_| Error::other("sender died"))??;
    let [taken, wrong] = read_words(&mut stream)?;
    let seconds = start.elapsed().as_secs_f64();

    let rate = (up.bytes + down.bytes) as f64 * 8.0 / seconds / 1e6;
    let stall = up.stall.max(down.stall).as_millis();
    println!(
        "up={} down={} seconds={seconds:.2} mbit={rate:.1} stall_ms={stall}",
        up.bytes, down.bytes
    );
    if wrong != 0 || taken != up.bytes || down.bytes != job.down {
        return Err(Error::new(
            ErrorKind::InvalidData,
            format!(
                "the server took {taken} of {} bytes, {wrong} wrong",
                up.bytes
            ),
        ));
    }
    Ok(())
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)
}

/// Writes the stream of `seed`.
fn produce(mut stream: TcpStream, amount: Amount, seed: u64) -> io::Result<Direction> {
    let mut pattern = Pattern::new(seed);
    let mut buffer = vec![0; CHUNK];
    let mut stall = Duration::ZERO;
    loop {
        let length = match &amount {
            Amount::Bytes(bytes) => (bytes - pattern.offset()).min(CHUNK as u64) as usize,
            Amount::Until(file) if file.exists() => 0,
            Amount::Until(_) => CHUNK,
        };
        if length == 0 {
            return Ok(Direction {
                bytes: pattern.offset(),
                stall,
            });
        }
        pattern.fill(&mut buffer[..length]);
        let before = Instant::now();
        stream.write_all(&buffer[..length])?;
        stall = stall.max(before.elapsed());
    }
}

/// Reads and checks the stream of `seed`: `limit` bytes of it, or all there
/// are.  `InvalidData` if a byte is wrong.
fn consume(mut stream: TcpStream, limit: Option<u64>, seed: u64) -> io::Result<Direction> {
    let mut pattern = Pattern::new(seed);
    let mut buffer = vec![0; CHUNK];
    let mut stall = Duration::ZERO;
    loop {
        let wanted = match limit {
            Some(limit) => (limit - pattern.offset()).min(CHUNK as u64) as usize,
            None => CHUNK,
        };
        let before = Instant::now();
        let length = match wanted {
            0 => 0,
            _ => stream.read(&mut buffer[..wanted])?,
        };
        stall = stall.max(before.elapsed());
        if length == 0 {
            return Ok(Direction {
                bytes: pattern.offset(),
                stall,
            });
        }
        if !pattern.check(&buffer[..length]) {
            return Err(Error::new(
                ErrorKind::InvalidData,
                format!("wrong data after {} bytes", pattern.offset()),
            ));
        }
    }
}

fn read_words<const N: usize>(stream: &mut TcpStream) -> io::Result<[u64; N]> {
    let mut words = [0; N];
    for word in &mut words {
        let mut bytes = [0; 8];
        stream.read_exact(&mut bytes)?;
        *word = u64::from_le_bytes(bytes);
    }
    Ok(words)
}

fn write_words(stream: &mut TcpStream, words: &[u64]) -> io::Result<()> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    stream.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server on a port of its own; its address.
    fn server() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for stream in listener.incoming() {
                thread::spawn(|| serve_one(stream.unwrap()));
            }
        });
        address
    }

    #[test]
    fn both_ways() {
        let job = Job::parse(&["--up", "1000001", "--down", "3000003"]).unwrap();
        send(&server(), job).unwrap();
    }

    #[test]
    fn until_told() {
        let file = std::env::temp_dir().join(format!("until-{}", std::process::id()));
        let job = Job::parse(&["--until", file.to_str().unwrap(), "--down", "10"]).unwrap();
        let server = server();
        let client = thread::spawn(move || send(&server, job));
        thread::sleep(Duration::from_millis(100));
        assert!(!client.is_finished());
        std::fs::write(&file, "").unwrap();
        let result = client.join().unwrap();
        std::fs::remove_file(&file).unwrap();
        result.unwrap();
    }

    #[test]
    fn wrong_data_is_reported() {
        let mut stream = TcpStream::connect(server()).unwrap();
        write_words(&mut stream, &[MAGIC, 100, 0, 1]).unwrap();
        stream.write_all(&[0; 100]).unwrap();
        let [_, wrong] = read_words(&mut stream).unwrap();
        assert_eq!(wrong, 1);
    }

    #[test]
    fn bad_options_are_refused() {
        assert!(Job::parse(&["--up"]).is_none());
        assert!(Job::parse(&["--up", "x"]).is_none());
        assert!(Job::parse(&["--sideways", "1"]).is_none());
    }
}
