#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Devices of rust_mlx5_vdpa on functions of every profile of the model, with a
driver in this process: which drivers are served, and how those are told of
buffers that were used, where virtqueues interrupt and where they do not.
"""

import contextlib
import errno
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

# pylint: disable=wrong-import-position
import ktap
import mlx5
import nic
import rust_mlx5
import vdpa
import vhost

# Functions whose virtqueues do not interrupt.
OLDER = ("old0", "minimal")

# For how long nothing happens where nothing must.
QUIET = 0.2

# What the firmware is asked for what a virtqueue tells by.
CHANNEL = ("ALLOC_PD", "CREATE_EQ", "CREATE_CQ", "CREATE_QP", "RST2INIT_QP", "INIT2RTR_QP",
           "RTR2RTS_QP")

suite = ktap.Suite("mlx5_rust_events")


class Calls:
    """Counts how often a driver is told of buffers that were used, by queue."""

    def __init__(self):
        self.files = {queue: os.eventfd(0, os.EFD_NONBLOCK) for queue in (0, 1)}

    def start(self, here):
        """A driver begins, and is told; a reset forgets that."""
        here.map()
        here.set_up(nic.MAC)
        for queue, file in self.files.items():
            here.vhost.set_call(queue, file)
        here.enable()
        assert here.ready()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for file in self.files.values():
            os.close(file)

    def take(self, queue):
        """How often since this was asked last."""
        try:
            return os.eventfd_read(self.files[queue])
        except BlockingIOError:
            return 0

    def wait(self, queue, seconds=3):
        """Waits until it is told."""
        vdpa.wait_until(lambda: self.take(queue), f"a call of queue {queue}", seconds)


@contextlib.contextmanager
def driver(function, name="subject", **attributes):
    """A device of a function, with nobody who drives it yet."""
    with vdpa.Device(function.mgmtdev, name, driver="vhost_vdpa", **attributes) as device:
        with nic.Nic(device) as here:
            yield here


@contextlib.contextmanager
def joined(model, name, **attributes):
    """A device of a function that is ours, a driver behind the switch, and the
    function.
    """
    functions = mlx5.functions()
    with contextlib.ExitStack() as stack:
        vdpa.write("/proc/sys/vm/nr_hugepages", "4")
        stack.callback(vdpa.write, "/proc/sys/vm/nr_hugepages", "0")
        for function in (functions["new1"], functions[name]):
            stack.enter_context(rust_mlx5.bound(model, function))
        there = stack.enter_context(driver(functions["new1"], "peer"))
        there.start()
        here = stack.enter_context(driver(functions[name], **attributes))
        yield here, there, functions[name]


def ticks(here, there, calls, count=1):
    """Sends frames one by one, and is told of each one sent, and of each received."""
    for _ in range(count):
        calls.take(0)
        calls.take(1)
        nic.talk(here, there)
        for queue in (1, 0):
            calls.wait(queue)


def refuses(here, features):
    """Whether the device refuses features as such."""
    try:
        here.vhost.set_features(features)
    except OSError as error:
        assert error.errno in (errno.EINVAL, errno.EOPNOTSUPP), error
        return True
    return False


@suite.test()
def kinds(model):
    """Legacy drivers and modern ones in turn; a function that serves one kind refuses the other."""
    for profile, function in mlx5.by_profile().items():
        with mlx5.KernelLog() as log, joined(model, function.name) as (here, there, _):
            is_modern = profile != "legacy-only"
            is_legacy = profile != "modern-only"
            assert bool(here.vhost.features() & vhost.VERSION_1) == is_modern, profile
            if not is_legacy:
                log.wait("the firmware serves no legacy drivers", 5)
                assert refuses(here, nic.MAC)
                here.vhost.set_status(0)
            if not is_modern:
                assert refuses(here, nic.MAC | vhost.VERSION_1)
                here.vhost.set_status(0)
            served = [False] * is_modern + [True] * is_legacy
            for legacy in served * 2:
                here.start(legacy=legacy)
                nic.talk(here, there)
                here.reset()
            words = ["legacy" if legacy else "modern" for legacy in served]
            ktap.say(f"{profile}: {', '.join(words)}")


@suite.test()
def told(model):
    """A driver is told of each buffer that is used, however many there are."""
    for name in ("new0", *OLDER):
        with joined(model, name) as (here, there, _), model.clean():
            with Calls() as calls:
                calls.start(here)
                # More than what completes into has room for.
                ticks(here, there, calls, 100)
                # And many at once, of which it need not be told one by one.
                for _ in range(50):
                    frame = nic.ethernet(there.mac, here.mac, bytes(100))
                    here.send(*[frame] * 40)
                    here.wait_sent()
                    there.look()
                ticks(here, there, calls, 10)
                here.reset()


@suite.test()
def stopped(model):
    """Of what was used before SUSPEND it is told before that returns, and of nothing behind it."""
    for name in ("new0", *OLDER):
        with joined(model, name) as (here, there, _), Calls() as calls:
            stops = [0, 0]
            for _ in range(10):
                calls.start(here)
                ticks(here, there, calls)
                frame = nic.ethernet(there.mac, here.mac, bytes(100))
                calls.take(1)
                here.send(*[frame] * 30)
                here.vhost.suspend()
                used = 30 - here.rings[1].pending()
                count = calls.take(1)
                assert bool(count) == bool(used), f"{used} frames, {count} calls"
                stops[bool(used)] += 1
                time.sleep(QUIET)
                assert not calls.take(1) and not calls.take(0)
                here.reset()
            ktap.say(f"{name}: stopped {stops[0]} times before anything was sent, {stops[1]} behind")


@suite.test()
def lost(model):
    """Interrupts that are lost are made up for."""
    with joined(model, "old0") as (here, there, function), Calls() as calls:
        calls.start(here)
        ticks(here, there, calls)
        # Vector 0 is that of the firmware's own events.
        for queue in (0, 1):
            fault = model.fault(function, "lose_interrupts", vector=queue + 1, count=1)
            with fault as hits:
                nic.talk(here, there)
                vdpa.wait_until(hits, "an interrupt to be lost", 3)
                calls.wait(queue, seconds=10)
            ticks(here, there, calls)
        here.reset()


@suite.test()
def broken(model):
    """What virtqueues tell by is taken out of service: the device needs a reset, and goes on."""
    for part, words in (("pair", "queue pair"), ("completions", "completion queue")):
        with joined(model, "old0") as (here, there, function), Calls() as calls:
            calls.start(here)
            ticks(here, there, calls)
            failing = model.queues(function)[0]
            with mlx5.KernelLog() as log:
                with model.fault(function, "event_error", queue=failing, part=part):
                    here.config_changed()
                log.wait(f"does not tell of used buffers: its {words} failed", 5)
            assert here.vhost.status() & vhost.NEEDS_RESET
            here.reset()
            for _ in range(2):
                calls.start(here)
                ticks(here, there, calls, 5)
                here.reset()


@suite.test()
def kept(model):
    """What virtqueues tell by goes from one device to the next, and more is made for more."""
    function = mlx5.functions()["old0"]
    with model.clean(), rust_mlx5.bound(model, function):
        most = 0
        for pairs in (1, 1, 3, 2, 32, 32, 1):
            before = model.commands(function)
            with vdpa.Device(function.mgmtdev, "kept", max_vqp=pairs):
                made = (model.commands(function) - before)["CREATE_CQ"]
            assert made == max(0, 2 * pairs - most), f"{pairs} pairs: {made}"
            most = max(most, 2 * pairs)
            assert model.objects(function)["completion queue"] == most, model.objects(function)


@suite.test(timeout=200)
def refused(model):
    """Each command that makes what virtqueues tell by may fail: the next device is whole."""
    function = mlx5.functions()["old0"]
    # Pages that event queues were given are not said to be too few.
    with rust_mlx5.bound(model, function):
        before = model.commands(function)
        with vdpa.Device(function.mgmtdev, "whole"):
            took = model.commands(function) - before
    steps = [(name, after) for name in CHANNEL for after in range(took[name])]
    assert len(steps) == 20, steps
    for name, after in steps:
        with rust_mlx5.bound(model, function):
            with model.fault(function, "fail", command=mlx5.which(name, after),
                             status="LIM_ERR", syndrome=0x1234), mlx5.KernelLog() as log:
                failed = vdpa.vdpa("dev", "add", "name", "no", "mgmtdev", function.mgmtdev,
                                   check=False)
                assert failed.returncode, f"{name} {after}"
                log.wait(f"not made: {name}", 5)
            with model.clean(), vdpa.Device(function.mgmtdev, "whole"):
                pass


if __name__ == "__main__":
    rust_mlx5.main(suite, __doc__)
