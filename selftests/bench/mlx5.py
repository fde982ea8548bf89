#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Benchmarks of the C driver mlx5_vdpa on functions of the model.

How long a device takes to be added, started and deleted, how many commands
that needs, and which share of the time the model spent on them: a model that
takes long would be what is compared later on, instead of drivers.  Then
traffic between two functions under virtio_vdpa.

Writes JSON lines (name, peer) and prints a table.
"""

import argparse
import contextlib
import json
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.join(HERE, "..", "..")
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
sys.path.insert(0, os.path.join(HERE, "..", "mlx5"))

# pylint: disable=wrong-import-position
import c_vdpa
import iperf
import mlx5
import vdpa

# With MSI-X and with queue pairs for events.
PAIRS = {"msix": ("new0", "new1"), "qp": ("old0", "old1")}


class Report:
    """Collects rows, writes them and prints them."""

    def __init__(self, path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.file = open(path, "w", encoding="ascii")  # pylint: disable=consider-using-with
        print(f"  {'name':<52} {'peer':>14}", flush=True)

    def add(self, name, value):
        """A row of what the C driver reaches."""
        row = {"name": f"mlx5_vdpa/{name}", "peer": round(value, 2)}
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        print(f"  {row['name']:<52} {row['peer']:>14}", flush=True)


def commands(model, function):
    """(how many commands, nanoseconds that the model spent on them)."""
    times = model.ask("stats", function.name)["commands"].values()
    return sum(t["count"] for t in times), sum(t["total_ns"] for t in times)


class Steps:
    """What each step of a device's life costs."""

    def __init__(self, model, function):
        self.model = model
        self.function = function
        self.costs = {}

    @contextlib.contextmanager
    def step(self, name):
        """Measures what happens in the context."""
        count, spent = commands(self.model, self.function)
        start = time.monotonic()
        yield
        elapsed = time.monotonic() - start
        after = commands(self.model, self.function)
        self.costs.setdefault(name, []).append(
            (elapsed, after[0] - count, (after[1] - spent) / 1e9)
        )

    def report(self, report, mode):
        """A step's middle time, with its commands and the model's share."""
        for name, costs in self.costs.items():
            elapsed, count, spent = sorted(costs)[len(costs) // 2]
            report.add(f"{mode}/{name}/ms", elapsed * 1e3)
            report.add(f"{mode}/{name}/commands", count)
            report.add(f"{mode}/{name}/model-percent", 100 * spent / elapsed)


def life(model, function, mode, rounds, report):
    """Adds, starts, stops and deletes a device."""
    steps = Steps(model, function)
    with model.bound(function):
        for _ in range(rounds):
            with contextlib.ExitStack() as stack:
                with steps.step("device-add"):
                    device = stack.enter_context(vdpa.Device(function.mgmtdev, "bench0"))
                with steps.step("driver-ok"):
                    device.bind("virtio_vdpa")
                with steps.step("reset"):
                    device.bind(None)
                with steps.step("device-delete"):
                    stack.close()
    steps.report(report, mode)


def traffic(model, names, mode, seconds, report):
    """From one function to another."""
    with c_vdpa.pair(model, *names) as (here, there):
        end = iperf.measure(*here.towards(there), "-u", "-b", "0", "-l", "64",
                            seconds=seconds)["sum"]
        received = end["packets"] - end["lost_packets"]
        report.add(f"{mode}/udp-64/frames-per-s", received / end["seconds"])
        end = iperf.measure(*here.towards(there), seconds=seconds)["sum_received"]
        report.add(f"{mode}/tcp/bits-per-s", end["bits_per_second"])


def main():
    """Runs all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement of traffic")
    parser.add_argument("--rounds", type=int, default=7, help="how often a device is added")
    parser.add_argument("--output", default=os.path.join(TOP, "build", "bench", "mlx5_vdpa.jsonl"))
    options = parser.parse_args()
    if not os.path.exists(mlx5.PORT):
        sys.exit("this needs a machine with functions of the model: make bench starts one")
    mlx5.load_vdpa()
    report = Report(options.output)
    with mlx5.Model() as model:
        for mode, names in PAIRS.items():
            life(model, mlx5.functions()[names[0]], mode, options.rounds, report)
            traffic(model, names, mode, options.seconds, report)


if __name__ == "__main__":
    main()
