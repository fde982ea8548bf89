// SPDX-License-Identifier: GPL-2.0

//! The end of the control socket that asks.

use std::{
    io::{
        self,
        BufRead,
        BufReader,
        Write, //
    },
    os::unix::net::UnixStream,
    path::Path, //
};

use serde_json::Value;

/// Asks `request` of the model whose control socket is at `path`, and returns what the answer has
/// under the same name.
///
/// # Errors
///
/// If nobody answers there, or the answer is an error. The text is for a person.
pub fn ask(path: &Path, request: &Value) -> Result<Value, String> {
    let answer = exchange(path, request).map_err(|e| format!("{}: {e}", path.display()))?;
    let Value::Object(mut fields) = answer else {
        return Err(format!("{} answers strangely: {answer}", path.display()));
    };
    match fields.remove("error") {
        Some(Value::String(error)) => Err(error),
        _ => Ok(fields
            .into_iter()
            .next()
            .map_or(Value::Null, |(_, answer)| answer)),
    }
}

fn exchange(path: &Path, request: &Value) -> io::Result<Value> {
    let mut stream = UnixStream::connect(path)?;
    let asked = stream.write_all(format!("{request}\n").as_bytes());
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    // Who is turned away is told so, whether or not it could ask.
    if line.is_empty() {
        asked?;
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&line)?)
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::net::UnixListener,
        sync::Arc,
        thread, //
    };

    use serde_json::json;
    use vmm_sys_util::tempdir::TempDir;

    use super::*;
    use crate::control::{
        serve,
        tests::functions, //
    };

    #[test]
    fn both_ends() {
        let dir = TempDir::new().unwrap();
        let path = dir.as_path().join("control");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || serve(&listener, &Arc::new(functions())));
        // A client that stays and says nothing is in nobody's way.
        let _silent = UnixStream::connect(&path).unwrap();
        let list = ask(&path, &json!({"list": {}})).unwrap();
        assert_eq!(list, json!([{"name": "vf0"}, {"name": "vf1"}]));
        let error = ask(&path, &json!({"clear": {}})).unwrap_err();
        assert!(error.contains("vf0, vf1"));
        // Nor are many of them.
        let many: Vec<_> = (0..100)
            .map(|_| UnixStream::connect(&path).unwrap())
            .collect();
        let error = ask(&path, &json!({"list": {}})).unwrap_err();
        assert!(error.contains("others"), "{error}");
        drop(many);
        while ask(&path, &json!({"list": {}})).is_err() {
            thread::yield_now();
        }
        assert!(ask(&dir.as_path().join("none"), &json!({}))
            .unwrap_err()
            .contains("none"));
    }
}
