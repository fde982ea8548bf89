// SPDX-License-Identifier: GPL-2.0

//! The program as a person or a script meets it.

use std::{
    fs,
    io::{
        BufRead,
        BufReader, //
    },
    path::Path,
    process::{
        Child,
        ChildStdout,
        Command,
        Output,
        Stdio, //
    },
    thread,
    time::Duration, //
};

use serde_json::{
    json,
    Value, //
};
use vmm_sys_util::tempdir::TempDir;

fn model(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mlx5-model"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn output(arguments: &[&str]) -> Output {
    model(arguments).output().unwrap()
}

/// What is printed by a command that works.
fn printed(arguments: &[&str]) -> String {
    let output = output(arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a person reads when a command does not work.
fn error(arguments: &[&str]) -> String {
    let output = output(arguments);
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    /// Starts a model and waits until it is ready.
    fn start(arguments: &[&str]) -> (Self, String) {
        let mut child = model(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        (Self { child, out }, line)
    }

    /// Ends it as a person would; whether it ended well.
    fn end(mut self) -> bool {
        let pid = self.child.id().to_string();
        Command::new("kill").arg(pid).status().unwrap();
        let mut rest = String::new();
        self.out.read_line(&mut rest).unwrap();
        rest.is_empty() && self.child.wait().unwrap().success()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only a test that failed leaves it running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn from_start_to_end() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.as_path().join(name);
    let (control, first, second) = (at("control"), at("vf0"), at("vf1"));
    let (config, trace, timeline) = (at("config.toml"), at("trace"), at("timeline"));
    let file = json!({
        "control": control,
        "trace": trace,
        "function": [{"name": "vf0", "socket": first, "profile": "cx7"}],
    });
    fs::write(&config, toml::to_string(&file).unwrap()).unwrap();
    let more = format!("name=vf1,socket={},profile=minimal,mtu=9000", text(&second));
    let run = ["run", "--config", text(&config), "--function", &more];
    let control = ["--control", text(&control)];

    let (running, ready) = Running::start(&run);
    let place = |path: &Path| path.display().to_string();
    assert_eq!(
        ready,
        format!(
            "ready: vf0 on {} (cx7), vf1 on {} (minimal)\n",
            place(&first),
            place(&second)
        )
    );
    let list = printed(&[&["ask", r#"{"list":{}}"#], &control[..]].concat());
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list[1]["name"], "vf1");
    assert_eq!(list[1]["mtu"], 9000);
    assert!(printed(&[&["stats"], &control[..]].concat()).contains("vf0"));
    fn fault<'a>(words: &[&'a str], control: &[&'a str]) -> Vec<&'a str> {
        [&["fault"], words, control].concat()
    }
    let fields = ["add", "vf1", "delay", "command.opcode=CREATE_EQ", "ms=5"];
    let number = printed(&fault(&fields, &control));
    assert!(printed(&fault(&["list"], &control)).contains("CREATE_EQ"));
    let kinds = error(&fault(&["add", "vf1", "pear"], &control));
    let help = printed(&["fault", "add", "--help"]);
    let kinds: Vec<_> = kinds.split('`').skip(3).step_by(2).collect();
    assert!(kinds.contains(&"delay"));
    for kind in kinds {
        assert!(
            help.contains(&format!("  {kind}")),
            "{kind} is not in the help"
        );
    }
    printed(&fault(&["clear", "vf1", number.trim()], &control));
    assert_eq!(printed(&fault(&["list"], &control)), "");

    // Another one cannot have the same sockets, and leaves them alone.
    assert!(error(&run).contains("another process listens"));
    assert!(first.exists());

    assert!(running.end());
    for path in [&first, &second, &at("control")] {
        assert!(!path.exists());
    }
    let arguments = [
        "trace",
        "--chrome",
        text(&trace),
        "--output",
        text(&timeline),
    ];
    printed(&arguments);
    // The trace is not written over, whatever it is called.
    let (before, link) = (fs::read(&trace).unwrap(), at("link"));
    std::os::unix::fs::symlink(&trace, &link).unwrap();
    for output in [&trace, &link] {
        let arguments = ["trace", "--chrome", text(&trace), "--output", text(output)];
        assert!(error(&arguments).contains("the trace itself"));
        assert_eq!(fs::read(&trace).unwrap(), before);
    }
    let timeline: Value = serde_json::from_slice(&fs::read(&timeline).unwrap()).unwrap();
    assert!(timeline["traceEvents"].is_array());
}

#[test]
fn who_cannot_be_let_in_waits() {
    let dir = TempDir::new().unwrap();
    let socket = dir.as_path().join("vf0");
    let function = format!("name=vf0,socket={},profile=cx7", text(&socket));
    let (mut running, _) = Running::start(&["run", "--function", &function]);
    let pid = running.child.id().to_string();
    let limit = |descriptors: u32| {
        let limit = format!("--nofile={descriptors}:");
        let status = Command::new("prlimit")
            .args(["--pid", &pid, &limit])
            .status();
        assert!(status.unwrap().success());
    };
    let client = vfio_user::Client::new(&socket).unwrap();
    // From here on there is no descriptor for another one.
    limit(3);
    drop(client);
    thread::sleep(Duration::from_millis(500));
    assert!(running.child.try_wait().unwrap().is_none());
    limit(1024);
    let mut client = vfio_user::Client::new(&socket).unwrap();
    let mut id = [0; 2];
    client.region_read(7, 0, &mut id).unwrap();
    assert_eq!(id, [0xb3, 0x15]);
    drop(client);
    assert!(running.end());
}

#[test]
fn nothing_is_left_of_what_does_not_start() {
    let dir = TempDir::new().unwrap();
    let socket = dir.as_path().join("vf0");
    let good = format!("name=vf0,socket={},profile=cx7", text(&socket));
    for (wrong, word) in [
        (
            "name=vf1,socket=/nonexistent/vf1,profile=cx7",
            "/nonexistent/vf1",
        ),
        ("name=vf1,socket=x,profile=pear", "pear"),
        ("name=vf0,socket=x,profile=cx7", "twice"),
    ] {
        let message = error(&["run", "--function", &good, "--function", wrong]);
        assert!(message.contains(word), "{message:?} does not say {word:?}");
        assert!(!socket.exists());
    }
    assert!(error(&["run"]).contains("no function"));
    assert!(error(&["run", "--uplink", "eth0"]).contains("tap:NAME"));
    assert!(error(&["ask", "--control", "/nonexistent", "{}"]).contains("/nonexistent"));
}

#[test]
fn what_needs_no_model() {
    let profiles = printed(&["profiles"]);
    for name in ["cx7", "cx6dx-old", "minimal"] {
        assert!(profiles.lines().any(|line| line.starts_with(name)));
    }
    let function = |name: &str| format!("name={name},socket=/run/{name},profile=cx7");
    let sockets = printed(&[
        "sockets",
        "--function",
        &function("a"),
        "--function",
        &function("b"),
    ]);
    assert_eq!(sockets, "/run/a\n/run/b\n");
    assert!(printed(&["run", "--help"]).contains("--function"));
}
