#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Devices of rust_mlx5_vdpa on functions of every profile of the model, with a
driver in this process: which drivers are served, and how those are told of
buffers that were used, where virtqueues interrupt and where they do not.
"""

import contextlib
import errno
import functools
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

# pylint: disable=wrong-import-position
import iperf
import ktap
import mlx5
import nic
import pairs
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
def joined(model, name, **attributes):
    """A device of a function that is ours, a driver behind the switch, and the
    function.
    """
    functions = mlx5.functions()
    with contextlib.ExitStack() as stack:
        stack.enter_context(vhost.huge_pages_kept(4))
        for function in (functions["new1"], functions[name]):
            stack.enter_context(rust_mlx5.bound(model, function))
        there = stack.enter_context(nic.driver(functions["new1"], "peer"))
        there.start()
        here = stack.enter_context(nic.driver(functions[name], **attributes))
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
                left = here.rings[1].pending()
                # In any case: what a queue tells by may be late.
                assert calls.take(0) and calls.take(1)
                stops[left < 30] += 1
                time.sleep(QUIET)
                assert here.rings[1].pending() == left
                # What was late has come by now, once.
                assert calls.take(0) <= 1 and calls.take(1) <= 1
                here.kick(1)
                there.look()
                time.sleep(QUIET)
                assert here.rings[1].pending() == left
                assert not calls.take(0) and not calls.take(1)
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


@contextlib.contextmanager
def needs_reset(here, words):
    """What happens in the context has the device tell of used buffers no more: the
    log says why, and it needs a reset, which it gets.
    """
    with mlx5.KernelLog() as log:
        yield
        log.wait(f"does not tell of used buffers: {words}", 5)
    assert here.vhost.status() & vhost.NEEDS_RESET
    here.reset()


@suite.test()
def broken(model):
    """What virtqueues tell by is taken out of service: the device needs a reset, and goes on."""
    for part, words in (("pair", "queue pair"), ("completions", "completion queue")):
        with joined(model, "old0") as (here, there, function), Calls() as calls:
            calls.start(here)
            ticks(here, there, calls)
            failing = model.queues(function)[0]
            with (needs_reset(here, f"its {words} failed"),
                  model.fault(function, "event_error", queue=failing, part=part)):
                here.config_changed()
            for _ in range(2):
                calls.start(here)
                ticks(here, there, calls, 5)
                here.reset()


@suite.test()
def messages(model):
    """A message of whatever kind will do; one that says that it failed has the device need a reset."""
    with joined(model, "old0") as (here, there, function), Calls() as calls:
        calls.start(here)
        with model.fault(function, "completion_opcode", opcode=3) as hits:
            ticks(here, there, calls, 5)
            assert hits()
        with (needs_reset(here, "its queue pair received nothing"),
              model.fault(function, "completion_opcode", opcode="RESP_ERR", count=1)):
            here.send(nic.ethernet(there.mac, here.mac))
            here.config_changed()
        calls.start(here)
        ticks(here, there, calls, 5)
        here.reset()


@suite.test()
def mended(model):
    """What failed while nobody drove the device is made anew for who does, at the second try."""
    with joined(model, "old0") as (here, there, function), Calls() as calls:
        failing = model.queues(function)[0]
        with model.fault(function, "event_error", queue=failing, part="pair"):
            pass
        with mlx5.KernelLog() as log:
            with model.fault(function, "fail", command=mlx5.which("CREATE_CQ"),
                             status="LIM_ERR", syndrome=0x1234) as hits:
                here.map()
                here.set_up(nic.MAC)
                here.enable()
                assert not here.ready()
                assert hits() == 1
            log.wait("CREATE_CQ", 5)
            here.reset()
            calls.start(here)
            log.wait("tells by something else: its queue pair failed", 5)
            ticks(here, there, calls, 5)
            here.reset()
            assert "started anew" not in log.read()


@suite.test()
def untold(model):
    """Events of completion queues that are lost are made up for, though firmware counts them."""
    with joined(model, "old0") as (here, there, function), Calls() as calls:
        calls.start(here)
        ticks(here, there, calls)
        with model.fault(function, "lose_events", vector=2, count=1) as hits:
            nic.talk(here, there)
            vdpa.wait_until(hits, "an event to be lost", 3)
            # Every second, until the firmware listens again.
            for _ in range(3):
                ticks(here, there, calls)
        # Which is told at once then, and of each.
        before = model.ask("stats", function.name)["events"]
        ticks(here, there, calls, 20)
        assert model.ask("stats", function.name)["events"] - before >= 20
        here.reset()


@suite.test()
def many(model):
    """More messages than there are entries for: none is lost, and nothing stands still."""
    with joined(model, "old0") as (here, there, function), Calls() as calls, model.clean():
        calls.start(here)
        frame = nic.ethernet(there.mac, here.mac, bytes(100))

        def waits():
            return model.ask("stats", function.name)["waits"]

        def burst():
            for _ in range(400):
                here.send(frame)
                while not here.is_sent():
                    pass
            there.look()
            return waits() > before

        before = waits()
        # Nobody reads but who looks every second.
        with model.fault(function, "lose_interrupts", vector=2):
            vdpa.wait_until(burst, "a message that finds no entry", 30)
        ticks(here, there, calls, 20)
        here.reset()


@suite.test(timeout=120)
def several(model):
    """Two pairs of queues that do not interrupt, with TCP of several flows both ways."""
    bound = functools.partial(rust_mlx5.bound, model)
    with pairs.pair(model, bound, "old0", "new0", max_vqp=2) as (here, there):
        for port in (here, there):
            port.run("ethtool", "-L", port.netdev, "combined", 2)
        for one, other in ((here, there), (there, here)):
            iperf.tcp(*one.towards(other), "-P", "4")
            one.ping(other.address, count=50, size=1400)
        for number in (1, 2):
            here.run("ethtool", "-L", here.netdev, "combined", number)
            here.ping(there.address, count=20)


@suite.test()
def kept(model):
    """What virtqueues tell by goes from one device to the next, and more is made for more."""
    function = mlx5.functions()["old0"]
    with model.clean(), rust_mlx5.bound(model, function):
        most = 0
        for count in (1, 1, 3, 2, 32, 32, 1):
            before = model.commands(function)
            with vdpa.Device(function.mgmtdev, "kept", max_vqp=count):
                made = (model.commands(function) - before)["CREATE_CQ"]
            assert made == max(0, 2 * count - most), f"{count} pairs: {made}"
            most = max(most, 2 * count)
            assert model.objects(function)["completion queue"] == most, model.objects(function)


@suite.test(timeout=200)
def refused(model):
    """Each command that makes what virtqueues tell by may fail: the next device is whole."""
    function = mlx5.functions()["old0"]
    # Pages that event queues were given are not said to be too few.
    with rust_mlx5.bound(model, function):
        before = model.commands(function)
        events = model.objects(function)["event queue"]
        with vdpa.Device(function.mgmtdev, "whole"):
            took = model.commands(function) - before
    steps = [(name, after) for name in CHANNEL for after in range(took[name])]
    assert len(steps) == 20, steps
    for name, after in steps:
        with rust_mlx5.bound(model, function):
            with model.fault(function, "fail", command=mlx5.which(name, after),
                             status="LIM_ERR", syndrome=0x1234) as hits, mlx5.KernelLog() as log:
                if (name, after) == ("CREATE_EQ", 1):
                    # All complete in the one there is.
                    with vdpa.Device(function.mgmtdev, "one"):
                        assert hits() == 1 and model.objects(function)["event queue"] == events + 1
                    continue
                failed = vdpa.vdpa("dev", "add", "name", "no", "mgmtdev", function.mgmtdev,
                                   check=False)
                assert failed.returncode, f"{name} {after}"
                log.wait(f"not made: {name}", 5)
            with model.clean(), vdpa.Device(function.mgmtdev, "whole"):
                pass


if __name__ == "__main__":
    rust_mlx5.main(suite, __doc__)
