// SPDX-License-Identifier: GPL-2.0

//! The end of the control socket that answers.

use std::{
    io::{
        self,
        BufRead,
        BufReader,
        Read,
        Write, //
    },
    os::unix::net::{
        UnixListener,
        UnixStream, //
    },
    sync::Arc,
    thread, //
};

use serde_json::json;
use tracing::{
    debug,
    warn, //
};

use super::Functions;
use crate::socket::Patience;

/// The longest line in bytes, with its end. More is no request.
const LONGEST: usize = 64 << 10;

/// How many clients are answered at a time. Each has a thread and a file descriptor.
const CLIENTS: usize = 64;

/// Answers all clients of `listener`, each in a thread of its own.
///
/// # Errors
///
/// Returns only if no more client can come.
pub fn serve(listener: &UnixListener, functions: &Arc<Functions>) -> io::Result<()> {
    let clients = Arc::new(());
    let mut patience = Patience::default();
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(e) if patience.wait("control socket", &e) => continue,
            Err(e) => return Err(e),
        };
        patience.end();
        let client = clients.clone();
        if Arc::strong_count(&clients) > CLIENTS + 1 {
            let error = format!("{CLIENTS} others are asking already");
            // It may be gone again.
            let _ = stream.write_all(format!("{}\n", json!({ "error": error })).as_bytes());
            continue;
        }
        let functions = functions.clone();
        let started = thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                if let Err(e) = converse(&stream, &functions) {
                    debug!("a client of the control socket is gone: {e}");
                }
                drop(client);
            });
        if let Err(e) = started {
            warn!("a client of the control socket is turned away: {e}");
        }
    }
}

/// Answers line by line until the client has no more.
fn converse(stream: &UnixStream, functions: &Functions) -> io::Result<()> {
    let mut answers = stream;
    let mut requests = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = LONGEST as u64;
        requests.by_ref().take(limit).read_until(b'\n', &mut line)?;
        let answer = if line.ends_with(b"\n") {
            if line.trim_ascii().is_empty() {
                continue;
            }
            functions.answer(&line)
        } else if line.len() == LONGEST {
            requests.skip_until(b'\n')?;
            json!({ "error": format!("a request has {LONGEST} bytes at most") })
        } else {
            // The rest of the line will not come.
            return Ok(());
        };
        // In one piece: clients may share a line with others.
        answers.write_all(format!("{answer}\n").as_bytes())?;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::control::tests::functions;

    /// A client, at whose other end a thread answers.
    fn client() -> (UnixStream, thread::JoinHandle<io::Result<()>>) {
        let (here, there) = UnixStream::pair().unwrap();
        (here, thread::spawn(move || converse(&there, &functions())))
    }

    fn answer(reader: &mut impl BufRead) -> Value {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn lines_come_in_pieces_and_several_at_once() {
        let (mut stream, thread) = client();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        for piece in [
            &b"{\"li"[..],
            b"st\":{}",
            b"}\n{\"list\":{}}\n\r\n{\"stats\":{}}\n{\"x\"",
        ] {
            stream.write_all(piece).unwrap();
        }
        assert!(answer(&mut reader)["list"].is_array());
        assert!(answer(&mut reader)["list"].is_array());
        assert!(answer(&mut reader)["stats"].is_object());
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn garbage_is_answered_and_left_behind() {
        let (mut stream, thread) = client();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        stream.write_all(b"login: \xff\xfe\x00\n").unwrap();
        assert!(answer(&mut reader)["error"].is_string());
        stream.write_all(&vec![b'x'; 3 * LONGEST]).unwrap();
        stream.write_all(b"\n{\"list\":{}}\n").unwrap();
        assert!(answer(&mut reader)["error"]
            .as_str()
            .unwrap()
            .contains("65536"));
        assert!(answer(&mut reader)["list"].is_array());
        drop((stream, reader));
        thread.join().unwrap().unwrap();
    }
}
