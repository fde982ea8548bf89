// SPDX-License-Identifier: GPL-2.0

//! How fast the model is by itself, with a driver in the same process: commands, and frames from
//! function to function on one worker thread, which has a processor for itself if there are two.
//!
//! Prints a table and writes JSON lines (name, ours). The time of the worker is what its processor
//! spent on it, so that a busy machine does not change it much.

use std::{
    error::Error,
    fs,
    io::Write,
    path::Path,
    time::{
        Duration,
        Instant, //
    },
};

use driver::{
    Buffer,
    Shape, //
};
use mlx5_host::{
    net::{
        Header,
        Options, //
    },
    packet::{
        payload,
        Flow, //
    },
    pair::Side,
    vectors::PATIENCE,
    Board,
    Host, //
};
use nix::{
    sched::{
        sched_getaffinity,
        sched_setaffinity,
        CpuSet, //
    },
    unistd::Pid, //
};
use prm::{
    cap::{
        virtio_feature,
        CapType, //
    },
    hca::Nop, //
};
use serde_json::json;

/// How many commands are timed, and how often the function is brought up.
const COMMANDS: usize = 2000;
const STARTS: usize = 20;

/// How long frames are sent for one row, and how often.
const SECONDS: f64 = 2.0;
const ROUNDS: usize = 3;

/// Frames on their way at once: fewer than there are receive buffers, so that none is lost.
const ON_THE_WAY: usize = 224;

/// Entries of a ring.
const RING: u16 = 256;

/// Where the lines go.
const OUTPUT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../build/bench/mlx5_model.jsonl"
);

type Outcome<T> = Result<T, Box<dyn Error>>;

struct Report(fs::File);

impl Report {
    fn new() -> Outcome<Self> {
        let path = Path::new(OUTPUT);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        Ok(Self(fs::File::create(path)?))
    }

    fn add(&mut self, name: &str, ours: f64) -> Outcome<()> {
        println!("  {name:<52} {ours:>14.0}");
        let row = json!({"name": format!("mlx5_model/{name}"), "ours": ours.round()});
        Ok(writeln!(self.0, "{row}")?)
    }
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The time that processors spent on the threads whose name begins so.
fn time_of(name: &str) -> Outcome<Duration> {
    let mut total = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        if fs::read_to_string(path.join("comm"))?.starts_with(name) {
            let schedule = fs::read_to_string(path.join("schedstat"))?;
            let spent = schedule.split(' ').next().unwrap_or_default();
            total += spent.parse::<u64>()?;
        }
    }
    Ok(Duration::from_nanos(total))
}

/// The processors this process may use.
fn processors() -> Outcome<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    let all = 0..CpuSet::count();
    Ok(all.filter(|&cpu| set.is_set(cpu) == Ok(true)).collect())
}

/// Keeps this thread, and those it starts, on one processor.
fn keep_to(cpu: usize) -> Outcome<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// A board with one worker, that has a processor for itself if there are two.
fn board() -> Outcome<Board> {
    let cpus = processors()?;
    let (Some(&first), Some(&last)) = (cpus.first(), cpus.last()) else {
        return Err("there is no processor".into());
    };
    keep_to(last)?;
    let board = Board::new(1)?;
    keep_to(first)?;
    Ok(board)
}

fn commands(report: &mut Report) -> Outcome<()> {
    let mut host: Host = Board::new(1)?.host("cx7", 0)?;
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let start = Instant::now();
        host.start()?;
        starts.push(start.elapsed().as_secs_f64() * 1e6);
        host.stop()?;
    }
    host.start()?;
    report.add("bring-up/us", middle(starts))?;
    let mut timed = |name: &str, command: &mut dyn FnMut(&mut Host) -> Outcome<()>| {
        let mut times = Vec::new();
        let before = time_of("cmd")?;
        for _ in 0..COMMANDS {
            let start = Instant::now();
            command(&mut host)?;
            times.push(start.elapsed().as_secs_f64() * 1e9);
        }
        let model = (time_of("cmd")? - before).as_secs_f64() * 1e9 / COMMANDS as f64;
        report.add(&format!("command/{name}/round-trip-ns"), middle(times))?;
        report.add(&format!("command/{name}/model-cpu-ns"), model)
    };
    timed("nop", &mut |host| {
        host.call::<Nop>(|_| {})?;
        Ok(())
    })?;
    timed("query-hca-cap", &mut |host| {
        host.capability(CapType::GENERAL, true)?;
        Ok(())
    })
}

/// What came of sending for a while.
struct Rate {
    frames: f64,
    seconds: f64,
    /// The seconds of the worker.
    worker: f64,
}

/// Sends one frame over and over from `a` to `b`, and takes it from there.
fn send(a: &mut Side, b: &mut Side, length: u32, parts: usize) -> Outcome<Rate> {
    let data = a.net.queues[1].data.addr();
    let sender = &mut a.net.queues[1].ring;
    let receiver = &mut b.net.queues[0].ring;
    sender.disable_interrupts();
    receiver.disable_interrupts();
    let stride = a.net.options.buffer;
    let room = b.net.options.buffer as u32;
    let mut idle: Vec<u64> = (0..u64::from(RING) / 2)
        .map(|n| data + n * stride)
        .collect();
    let before = time_of("worker")?;
    let start = Instant::now();
    let (mut on_the_way, mut received, mut heard) = (0, 0u32, start);
    loop {
        let now = Instant::now();
        let time_left = (now - start).as_secs_f64() < SECONDS;
        if !time_left && on_the_way == 0 {
            break;
        }
        while time_left && on_the_way + parts <= ON_THE_WAY {
            let Some(addr) = idle.pop() else { break };
            let piece = Buffer { addr, len: length };
            sender.add(&[piece], &[], Shape::Direct, addr)?;
            on_the_way += parts;
        }
        if sender.publish() {
            a.host.kick(1);
        }
        while let Some(used) = receiver.used()? {
            let piece = Buffer {
                addr: used.token,
                len: room,
            };
            receiver.add(&[], &[piece], Shape::Direct, used.token)?;
            on_the_way -= 1;
            received += 1;
            heard = now;
        }
        if receiver.publish() {
            b.host.kick(0);
        }
        while let Some(used) = sender.used()? {
            idle.push(used.token);
        }
        if now - heard > PATIENCE {
            return Err(format!("{on_the_way} frames are lost").into());
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let worker = (time_of("worker")? - before).as_secs_f64();
    Ok(Rate {
        frames: f64::from(received),
        seconds,
        worker,
    })
}

fn frames(report: &mut Report) -> Outcome<()> {
    let options = Options {
        size: RING,
        features: (1 << virtio_feature::CSUM)
            | (1 << virtio_feature::GUEST_CSUM)
            | (1 << virtio_feature::HOST_TSO4),
        buffer: 1 << 16,
        ..Options::default()
    };
    let small = Options {
        buffer: 2048,
        ..options
    };
    for (name, len, segment) in [
        ("64", 64, None),
        ("1500", 1514, None),
        ("64KiB", 60000, Some(1448)),
    ] {
        let board = board()?;
        let mut a = Side::new(&board, "cx7", 0, options);
        let mut b = Side::new(&board, "cx7", 1, small);
        let flow = Flow {
            tcp: true,
            ..Flow::new(a.mac, b.mac)
        };
        let (header, frame) = match segment {
            Some(size) => (flow.segmentation(size), flow.partial(&payload(1, len))),
            None => {
                let data = payload(1, len - flow.payload());
                (Header::default(), flow.frame(&data))
            }
        };
        let parts = segment.map_or(1, |size| len.div_ceil(usize::from(size)));
        // Both addresses are learnt, and the buffers hold what is sent again and again.
        b.send(&Flow::new(b.mac, a.mac).frame(b"here"));
        a.receive();
        let length = a.net.write_all(1, &header, &frame);
        let rates = (0..ROUNDS)
            .map(|_| send(&mut a, &mut b, length, parts))
            .collect::<Outcome<Vec<_>>>()?;
        let each = |value: &dyn Fn(&Rate) -> f64| middle(rates.iter().map(value).collect());
        let name = format!("switch/{name}");
        report.add(
            &format!("{name}/frames-per-s"),
            each(&|rate| rate.frames / rate.seconds),
        )?;
        report.add(
            &format!("{name}/frames-per-worker-s"),
            each(&|rate| rate.frames / rate.worker),
        )?;
        report.add(
            &format!("{name}/worker-ns-per-frame"),
            each(&|rate| rate.worker * 1e9 / rate.frames),
        )?;
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let mut report = Report::new()?;
    println!("  {:<52} {:>14}", "mlx5_model", "ours");
    commands(&mut report)?;
    frames(&mut report)
}
