// SPDX-License-Identifier: GPL-2.0
//! Runs shell commands for the host.
//!
//! The host writes `ID LENGTH\n` and LENGTH bytes of shell; the agent answers
//! `ID STATUS LENGTH\n` and LENGTH bytes of what the command printed.  The
//! first thing the agent writes is `0 0 0\n`: the guest is up.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Longest command that is accepted, in bytes.
const MAX_COMMAND: usize = 1 << 20;

/// Serves the port at `path` until it is gone.
///
/// # Errors
///
/// What opening, reading or writing the port fails with, and `InvalidData`
/// when the host breaks the protocol.
pub(crate) fn run(path: &str) -> io::Result<()> {
    let mut port = OpenOptions::new().read(true).write(true).open(path)?;
    port.write_all(b"0 0 0\n")?;
    loop {
        let line = read_line(&mut port)?;
        let mut words = line.split(' ');
        let (Some(id), Some(Ok(length))) = (words.next(), words.next().map(str::parse::<usize>))
        else {
            return Err(ErrorKind::InvalidData.into());
        };
        if length > MAX_COMMAND {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut command = vec![0; length];
        read_exact(&mut port, &mut command)?;
        let (status, output) = execute(&String::from_utf8_lossy(&command));
        let mut answer = format!("{id} {status} {}\n", output.len()).into_bytes();
        answer.extend_from_slice(&output);
        port.write_all(&answer)?;
    }
}

/// Runs `command` in a shell: its exit status (128 and more for a signal,
/// 127 when there is no shell) and everything it printed.
fn execute(command: &str) -> (i32, Vec<u8>) {
    // The redirection is the outer shell's, so that standard error lands in
    // order among standard output.
    let result = Command::new("/bin/sh")
        .args(["-c", "exec 2>&1; eval \"$1\"", "sh", command])
        .stdin(Stdio::null())
        .output();
    match result {
        Ok(output) => (output.status.code().unwrap_or(128), output.stdout),
        Err(error) => (127, error.to_string().into_bytes()),
    }
}

/// Reads some bytes.  A port reads as ended while the host is away, which is
/// so for a moment after a migration.
fn read_some(port: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match port.read(buffer) {
            Ok(0) => std::thread::sleep(Duration::from_millis(50)),
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn read_exact(port: &mut File, buffer: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        done += read_some(port, &mut buffer[done..])?;
    }
    Ok(())
}

fn read_line(port: &mut File) -> io::Result<String> {
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        read_exact(port, &mut byte)?;
        match byte[0] {
            b'\n' => return String::from_utf8(line).map_err(|_| ErrorKind::InvalidData.into()),
            _ if line.len() == 64 => return Err(ErrorKind::InvalidData.into()),
            byte => line.push(byte),
        }
    }
}
