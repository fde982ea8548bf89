// SPDX-License-Identifier: GPL-2.0

//! Runs again what the fuzzer found worth keeping.

use std::{
    fs,
    path::Path, //
};

fn replay(name: &str, run: fn(&[u8])) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name)
        .with_extension("txt");
    let text = fs::read_to_string(&path).unwrap();
    let inputs = text.lines().filter(|line| !line.starts_with('#'));
    let mut count = 0;
    for line in inputs {
        let input: Vec<u8> = (0..line.len() / 2)
            .map(|at| u8::from_str_radix(&line[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        // Shown if the run below panics.
        println!("{name}: {line}");
        run(&input);
        count += 1;
    }
    assert!(count > 0, "{} has no inputs", path.display());
}

#[test]
fn command() {
    replay("command", mlx5_fuzz::command::run);
}

#[test]
fn mkey() {
    replay("mkey", mlx5_fuzz::mkey::run);
}

#[test]
fn ring() {
    replay("ring", mlx5_fuzz::ring::run);
}
