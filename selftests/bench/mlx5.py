#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Benchmarks of rust_mlx5_vdpa against the C driver mlx5_vdpa, on the same
functions of the model, in one run.

One driver has a function at a time, in turn. What is asked of a device is the
same calls for both, by netlink and by vhost-vdpa.

Writes JSON lines (name, ours, peer, ratio) and prints a table. The ratio is
above 1 where ours is better; a value is null where a driver cannot do it.
"""

import argparse
import contextlib
import ctypes
import json
import os
import statistics
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.join(HERE, "..", "..")
sys.path[:0] = [os.path.join(HERE, "..", "lib"), os.path.join(HERE, "..", "mlx5"),
                os.path.join(HERE, "..", "guest")]

# pylint: disable=wrong-import-position
import calls
import iperf
import joined
import mlx5
import netlink
import pairs
import qemu
import rust_mlx5
import traffic
import vdpa
from drive import BASE, RAM, memory, opened
from vhost import HUGE

OURS, PEER = "ours", "peer"

# With MSI-X and with queue pairs for events: those that devices are made of,
# and what traffic comes from.
MODES = {"msix": ("new0", "new1"), "qp": ("old0", "old1")}
PAIRS = (1, 8, 16)
GIB = 1 << 30
SIZES = (1, 16, 64)

MRG_RXBUF = 1 << 15

# Guests that migrate: what both drivers offer them. They are stopped when the
# rest of their memory takes so many milliseconds.
CARD = f"{joined.MODERN},{qemu.SHADOWED},guest_tso4=off,guest_tso6=off,guest_ecn=off"
DOWNTIME_LIMIT = 50

# Units of which less is better; of others more is.
COSTS = ("ms", "commands", "ns", "bytes")

# What is loaded for a driver: by itself, and with what is there for it alone.
MODULES = {
    "module/driver": {OURS: ["rust_mlx5_vdpa"], PEER: ["mlx5_vdpa"]},
    "module/all": {OURS: ["rust_mlx5_vdpa"], PEER: ["mlx5_vdpa", "vringh", "mlx5_core"]},
    "module/vdpa_net": {OURS: ["rust_vdpa_net"]},
}


class Report:
    """Collects values of both drivers; writes rows, and prints them."""

    def __init__(self, path, words):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.file = open(path, "w", encoding="ascii")  # pylint: disable=consider-using-with
        self.words = words
        self.values = {}
        self.worse = []
        print(f"  {'name':<48} {'ours':>14} {'peer':>14} {'ratio':>8}", flush=True)

    def wants(self, name):
        """Whether rows whose names begin so were asked for."""
        return not self.words or any(word in name for word in self.words)

    def add(self, driver, name, value):
        """What a driver reaches."""
        self.values.setdefault(name, {})[driver] = round(value, 2)

    def flush(self):
        """Writes what there is of both drivers."""
        for name, both in self.values.items():
            ours, peer = both.get(OURS), both.get(PEER)
            better, worse = (ours, peer) if name.endswith(COSTS) else (peer, ours)
            ratio = round(worse / better, 2) if better and worse is not None else None
            row = {"name": f"mlx5/{name}", "ours": ours, "peer": peer, "ratio": ratio}
            self.file.write(json.dumps(row) + "\n")
            if ratio is not None and ratio < 1:
                self.worse.append(f"{row['name']} ({ratio})")
            cells = ["-" if value is None else value for value in (ours, peer, ratio)]
            print("  {:<48} {:>14} {:>14} {:>8}".format(row["name"], *cells), flush=True)
        self.file.flush()
        self.values.clear()


class Steps:
    """What each step of a device's life costs: time and commands."""

    def __init__(self, model, function):
        self.model = model
        self.function = function
        self.costs = {}

    def _commands(self):
        return self.model.commands(self.function).total()

    @contextlib.contextmanager
    def step(self, name, more=False):
        """Measures what happens in the context; with `more` it belongs to the
        step of that name that was measured last.
        """
        before = self._commands()
        start = time.monotonic()
        yield
        elapsed = time.monotonic() - start
        cost = elapsed, self._commands() - before
        costs = self.costs.setdefault(name, [])
        if more:
            cost = tuple(map(sum, zip(costs.pop(), cost)))
        costs.append(cost)

    def report(self, report, driver, prefix):
        """The middle one of each."""
        for name, costs in self.costs.items():
            elapsed, commands = (statistics.median(values) for values in zip(*costs))
            report.add(driver, f"{prefix}/{name}/ms", elapsed * 1e3)
            report.add(driver, f"{prefix}/{name}/commands", commands)


def life(family, steps, count, driver):
    """What a device does from its begin to its end, twice: the first one finds
    a function on which there was none before.
    """
    function = steps.function
    resumes = function.profile != "cx6dx-old"
    with memory(RAM) as ram:
        for is_first in (True, False):
            def step(name, is_first=is_first):
                is_other = is_first and name == "device-add"
                return steps.step("first-device-add" if is_other else name)

            with opened(family, function, ram, count, step) as drive:
                dev = drive.vhost
                # As QEMU does it: the data queues are enabled one by one, last.
                drive.map()
                drive.prepare(enabled=False)
                with steps.step("first-start"):
                    drive.start()
                    drive.use_pairs()
                    drive.enable()
                for _ in range(3 if resumes else 0):
                    with steps.step("suspend"):
                        dev.suspend()
                    with steps.step("get-base"):
                        drive.bases()
                    with steps.step("resume"):
                        dev.resume()
                # A migration within the host, or stop and cont.
                with steps.step("stop-to-start"):
                    dev.suspend()
                    bases = drive.bases()
                    drive.unmap()
                    drive.reset()
                    drive.map()
                    drive.prepare(bases, enabled=False)
                    drive.start()
                    drive.use_pairs()
                    drive.enable()
                with steps.step("reset"):
                    drive.reset()
                drive.unmap()
                # Each finds what a driver of one pair left.
                for name in (None, "modern", *(["legacy"] if driver == OURS else [])):
                    drive.map()
                    drive.prepare(legacy=name == "legacy")
                    with steps.step(f"driver-ok-{name}") if name else contextlib.nullcontext():
                        drive.start()
                    drive.reset()
                    drive.unmap()
                if count > 1:
                    drive.map()
                    drive.prepare()
                    drive.start()
                    with steps.step("all-pairs"):
                        drive.use_pairs()
                    drive.reset()


def maps(family, steps, ram, more):
    """Maps of a size, of which each GiB is the same memory, and some more."""
    for size in SIZES:
        with opened(family, steps.function, ram, 1) as drive:
            dev = drive.vhost

            def all_of_it(dev=dev, size=size):
                dev.begin()
                for at in range(size):
                    dev.map(BASE + at * GIB, ram)

            all_of_it()
            drive.prepare()
            with steps.step(f"{size}-GiB/first"):
                drive.start()
            for _ in range(3):
                with steps.step(f"{size}-GiB/2-MiB-more"):
                    dev.map(BASE + (size + 1) * GIB, more)
                with steps.step(f"{size}-GiB/2-MiB-less"):
                    dev.unmap(BASE + (size + 1) * GIB, HUGE)
            dev.suspend()
            dev.begin()
            dev.unmap(BASE, size * GIB)
            with steps.step(f"{size}-GiB/again"):
                dev.end()
                drive.reset()
            all_of_it()
            drive.prepare()
            with steps.step(f"{size}-GiB/again", more=True):
                drive.start()


def kicks(family, function, times):
    """What kicks cost who kicks, in nanoseconds, by their kind. At best, for
    most of it is how soon an emulated processor is let do a store.
    """
    number, queue = 500, 1
    with memory(RAM) as ram, opened(family, function, ram, 1) as drive:
        drive.map()
        drive.prepare()
        eventfd = os.eventfd(0)
        drive.vhost.set_kick(queue, eventfd)
        drive.start()

        def measure(name, kick):
            for _ in range(10):
                start = time.monotonic_ns()
                for _ in range(number):
                    kick()
                elapsed = (time.monotonic_ns() - start) / number
                times[name] = min(elapsed, times.get(name, elapsed))

        measure("eventfd", lambda: os.eventfd_write(eventfd, 1))
        os.close(eventfd)
        with contextlib.suppress(OSError), drive.vhost.doorbell(queue) as page:
            word = ctypes.c_uint16.from_buffer(page)

            def ring():
                word.value = queue

            measure("doorbell-page", ring)
            del word, ring


def migrations(model, bound, names, number):
    """A guest moves from one function to another and back, while it is pinged:
    the downtime of each move as QEMU has it, the longest time without an answer,
    and the time in calls of vhost-vdpa since the SUSPEND, in milliseconds.
    """
    with joined.joined(model, bound, "new2", *names) as (port, *devices):
        with contextlib.ExitStack() as stack:
            guest = stack.enter_context(qemu.Guest(devices[0], card=CARD))
            guest.wait_boot()
            traffic.prepare(guest)
            for _ in range(number):
                devices.reverse()
                target = qemu.Guest(devices[0], card=CARD, incoming=True)
                stack.enter_context(target)
                with traffic.Pings(port, interval=0.01) as pings, calls.Calls() as made:
                    account = qemu.migrate(guest, target, limit=DOWNTIME_LIMIT)
                    pings.finish()
                    yield account["downtime"], pings.silence() * 1e3, made.since_suspend() * 1e3
                guest.__exit__()
                guest = target


def streams(model, bound, names, attributes, seconds):
    """From one function to another, under virtio_vdpa: frames and bits a second."""
    with pairs.pair(model, bound, *names, **attributes) as (here, there):
        end = iperf.measure(*here.towards(there), "-u", "-b", "0", "-l", "64",
                            seconds=seconds)["sum"]
        frames = (end["packets"] - end["lost_packets"]) / end["seconds"]
        end = iperf.measure(*here.towards(there), seconds=seconds)["sum_received"]
        return frames, end["bits_per_second"]


def sizes(report):
    """What modules take of memory."""
    for name, both in MODULES.items():
        for driver, modules in both.items():
            size = sum(int(vdpa.read(f"/sys/module/{module}/coresize")) for module in modules)
            report.add(driver, f"{name}/bytes", size)
    report.flush()


class Mode:
    """One mode of virtqueues, which both drivers are measured in."""

    def __init__(self, family, model, mode, report, options, ram):
        self.family = family
        self.ram = ram
        self.model = model
        self.mode = mode
        self.names = MODES[mode]
        self.function = mlx5.functions()[self.names[0]]
        self.report = report
        self.options = options
        self.bounds = {PEER: model.bound,
                       OURS: lambda function: rust_mlx5.bound(model, function)}
        # Who makes no device of it has no rows. This is what is done once, too:
        # pages are given to the firmware.
        for driver, bound in list(self.bounds.items()):
            with bound(self.function):
                if not vdpa.exists(self.function.address):
                    del self.bounds[driver]

    def _rounds(self, steps=None):
        """Binds the function to each driver in turn, so that a busy moment of
        the machine hits both.
        """
        for _ in range(self.options.rounds):
            for driver, bound in self.bounds.items():
                with contextlib.ExitStack() as stack:
                    if steps:
                        with steps[driver].step("bind"):
                            stack.enter_context(bound(self.function))
                    else:
                        stack.enter_context(bound(self.function))
                    yield driver

    def _steps(self):
        return {driver: Steps(self.model, self.function) for driver in self.bounds}

    def _report(self, steps, prefix):
        for driver, one in steps.items():
            one.report(self.report, driver, prefix)

    def run(self):
        """Everything that is asked for."""
        if self.report.wants(f"{self.mode}/bind"):
            steps = self._steps()
            for _ in self._rounds(steps):
                pass
            self._report(steps, self.mode)
        for count in PAIRS:
            prefix = f"{self.mode}/{count}-pair"
            if self.report.wants(prefix):
                steps = self._steps()
                for driver in self._rounds():
                    life(self.family, steps[driver], count, driver)
                self._report(steps, prefix)
        if self.report.wants(f"{self.mode}/map"):
            steps = self._steps()
            with memory(HUGE) as more:
                for driver in self._rounds():
                    maps(self.family, steps[driver], self.ram, more)
            self._report(steps, f"{self.mode}/map")
        if self.report.wants(f"{self.mode}/kick"):
            times = {driver: {} for driver in self.bounds}
            for driver in self._rounds():
                kicks(self.family, self.function, times[driver])
            for driver, one in times.items():
                for kind, best in one.items():
                    self.report.add(driver, f"{self.mode}/kick/{kind}/ns", best)
        if self.report.wants(f"{self.mode}/migration"):
            for driver, bound in self.bounds.items():
                moves = migrations(self.model, bound, self.names, 2 * self.options.rounds)
                downtime, silence, called = map(statistics.median, zip(*moves))
                prefix = f"{self.mode}/migration"
                self.report.add(driver, f"{prefix}/calls/ms", called)
                self.report.add(driver, f"{prefix}/downtime/ms", downtime)
                self.report.add(driver, f"{prefix}/longest-silence/ms", silence)
        if self.report.wants(f"{self.mode}/traffic"):
            self._traffic()
        self.report.flush()

    def _traffic(self):
        kinds = [(driver, "", {}) for driver in self.bounds]
        if OURS in self.bounds:
            # The C driver does not offer it unless it is asked to.
            with self.bounds[OURS](self.function):
                features = vdpa.default_features(self.function.mgmtdev)
            attributes = {"device_features": hex(features & ~MRG_RXBUF)}
            kinds.append((OURS, "-without-mrg-rxbuf", attributes))
        rates = {}
        for _ in range(self.options.rounds):
            for driver, suffix, attributes in kinds:
                rates.setdefault((driver, suffix), []).append(
                    streams(self.model, self.bounds[driver], self.names, attributes,
                            self.options.seconds))
        for (driver, suffix), values in rates.items():
            frames, bits = map(statistics.median, zip(*values))
            self.report.add(driver, f"{self.mode}/udp-64{suffix}/frames-per-s", frames)
            self.report.add(driver, f"{self.mode}/tcp{suffix}/bits-per-s", bits)


def main():
    """Runs all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement of traffic")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of a row")
    parser.add_argument("--output", default=os.path.join(TOP, "build", "bench", "mlx5.jsonl"))
    kinds = [f"{count}-pair" for count in PAIRS] + ["map", "kick", "migration", "traffic", "bind"]
    parser.add_argument("--only", nargs="*", default=[],
                        help=f"only this: module, msix, qp, or of these: {', '.join(kinds)}")
    options = parser.parse_args()
    if not os.path.exists(mlx5.PORT):
        sys.exit("this needs a machine with functions of the model: make bench starts one")
    mlx5.load_vdpa()
    vdpa.write(f"{vdpa.BUS}/drivers_autoprobe", "0")
    report = Report(options.output, options.only)
    if report.wants("module"):
        sizes(report)
    with mlx5.Model() as model, netlink.Vdpa() as family, contextlib.ExitStack() as stack:
        # At once: later there is no piece of memory as large.
        wants_maps = any(report.wants(f"{mode}/map") for mode in MODES)
        ram = stack.enter_context(memory(GIB, GIB)) if wants_maps else None
        for mode in MODES:
            if any(report.wants(f"{mode}/{kind}") for kind in kinds):
                Mode(family, model, mode, report, options, ram).run()
    print(f"  below 1: {', '.join(report.worse) or 'none'}")


if __name__ == "__main__":
    main()
