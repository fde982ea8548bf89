#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Fuzzes the model with libFuzzer, one target after the other.

The targets are built with coverage by the stable compiler, whose LLVM has
the pass; debug assertions and overflow checks stay on.  Each starts from the
inputs kept in corpus/.  What makes one fail is left in build/fuzz/TARGET and
said; with --keep, the fewest inputs that reach what all of them reached
replace those in corpus/.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parents[2]
TARGETS = ("command", "mkey", "ring")
TRIPLE = "x86_64-unknown-linux-gnu"
FLAGS = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Cdebug-assertions",
    "-Coverflow-checks",
    "-Cdebuginfo=1",
]
HEAD = "# SPDX-License-Identifier: GPL-2.0\n"
# A run that takes so many seconds hangs.
HANG = 10
# At most so many bytes an input.
LONGEST = 2048
# A line of progress every so many seconds.
EVERY = 30


def build(directory):
    """Builds the targets; where their programs are."""
    # Naming the target keeps the flags away from build scripts.
    environment = dict(os.environ, RUSTFLAGS=" ".join(FLAGS), CARGO_TARGET_DIR=str(directory))
    subprocess.run(
        ["cargo", "build", "--release", "--locked", "--target", TRIPLE,
         "-p", "mlx5-fuzz", "--features", "libfuzzer"],
        env=environment, cwd=TOP, check=True,
    )
    return directory / TRIPLE / "release"


def unpack(name, directory):
    """Writes the kept inputs of a target, each to a file of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    packed = HERE / "corpus" / f"{name}.txt"
    lines = packed.read_text(encoding="ascii").splitlines() if packed.exists() else []
    for number, line in enumerate(line for line in lines if not line.startswith("#")):
        (directory / f"kept-{number:04}").write_bytes(bytes.fromhex(line))


def pack(name, directory):
    """Keeps the inputs in a directory."""
    inputs = {path.read_bytes() for path in directory.iterdir()} - {b""}
    lines = [data.hex() + "\n" for data in sorted(inputs, key=lambda data: (len(data), data))]
    packed = HERE / "corpus" / f"{name}.txt"
    packed.write_text(HEAD + "".join(lines), encoding="ascii")
    print(f"{name}: {len(lines)} inputs kept, {packed.stat().st_size} bytes", flush=True)


def follow(process, log):
    """Copies what the fuzzer says to `log`; prints where it stands now and then."""
    shown, state = time.monotonic(), ""
    for line in process.stderr:
        log.write(line)
        if re.match(r"#\d+\s", line):
            state = re.sub(r"\s+", " ", line).strip()
        if state and time.monotonic() - shown >= EVERY:
            shown = time.monotonic()
            print(f"  {state}", flush=True)
    log.flush()
    return state


def fuzz(name, program, work, seconds):
    """Runs one target; whether nothing was found."""
    corpus = work / "corpus"
    unpack(name, corpus)
    words = [
        str(program), str(corpus), f"-max_total_time={seconds}", f"-timeout={HANG}",
        f"-max_len={LONGEST}", f"-artifact_prefix={work}/", "-use_value_profile=1",
        "-print_final_stats=1", "-rss_limit_mb=2048", "-reload=0",
    ]
    print(f"{name}: {seconds} s from {len(list(corpus.iterdir()))} inputs", flush=True)
    log_path = work / "log.txt"
    with open(log_path, "w", encoding="utf-8", errors="replace") as log:
        with subprocess.Popen(
            words, stderr=subprocess.PIPE, stdout=log, text=True, errors="replace"
        ) as process:
            state = follow(process, log)
    print(f"  {state}", flush=True)
    if process.returncode == 0:
        return True
    print(f"{name}: FAILED; the log is {log_path}", file=sys.stderr)
    print("".join(log_path.read_text(errors="replace").splitlines(True)[-40:]), file=sys.stderr)
    return False


def minimise(name, program, work):
    """Keeps the fewest inputs that reach what all of them reach."""
    fewest = work / "fewest"
    shutil.rmtree(fewest, ignore_errors=True)
    fewest.mkdir()
    subprocess.run(
        [str(program), "-set_cover_merge=1", f"-timeout={HANG}", f"-max_len={LONGEST}",
         str(fewest), str(work / "corpus")],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    pack(name, fewest)


def main():
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=600, help="for each target")
    parser.add_argument("--keep", action="store_true", help="replace the inputs in corpus/")
    options = parser.parse_args()
    unknown = set(options.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    programs = build(TOP / "build" / "fuzz" / "cargo")
    bad = []
    for name in options.targets or TARGETS:
        work = TOP / "build" / "fuzz" / name
        work.mkdir(parents=True, exist_ok=True)
        program = programs / f"fuzz-{name}"
        if not fuzz(name, program, work, options.seconds):
            bad.append(name)
        elif options.keep:
            minimise(name, program, work)
    if bad:
        sys.exit(f"found something: {', '.join(bad)}")


if __name__ == "__main__":
    main()
