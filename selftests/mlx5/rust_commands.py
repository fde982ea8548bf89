#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""How many firmware commands rust_mlx5_vdpa needs for what is asked of a
device, on functions of the model; where that is the aim, beside the C driver
mlx5_vdpa on the same function.

The numbers are the same in every run, and how long it takes is nobody's
business here: make bench measures that.
"""

import contextlib
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

# pylint: disable=wrong-import-position
import drive
import ktap
import mlx5
import netlink
import rust_mlx5
from drive import BASE, RAM
from vhost import HUGE

QUEUE = "VIRTIO_NET_Q"
MODIFY = f"MODIFY_GENERAL_OBJECT {QUEUE}"
QUERY = f"QUERY_GENERAL_OBJECT {QUEUE}"
# What tells the switch what to send to the function.
PORT = "MODIFY_NIC_VPORT_CONTEXT"

suite = ktap.Suite("mlx5_rust_commands")


class Commands:
    """What the firmware was told."""

    def __init__(self, model, function):
        self.model, self.function = model, function
        self.before = model.commands(function)

    def took(self):
        """How often each command, since this was asked last."""
        now, before = self.model.commands(self.function), self.before
        self.before = now
        return dict(now - before)


@contextlib.contextmanager
def driven(model, count=1):
    """A device of our driver's with some pairs, driven, and its commands."""
    function = mlx5.functions()["new0"]
    with drive.memory(RAM) as ram, rust_mlx5.bound(model, function), netlink.Vdpa() as family:
        with model.clean(), drive.opened(family, function, ram, count) as device:
            yield device, Commands(model, function)


@suite.test(timeout=200)
def add(model):
    """Adding a device takes at most half as many as with the C driver."""
    mlx5.load_vdpa()
    function = mlx5.functions()["new0"]
    totals = {}
    drivers = {"C": model.bound, "ours": lambda function: rust_mlx5.bound(model, function)}
    for name, bound in drivers.items():
        with model.clean(), bound(function), netlink.Vdpa() as family:
            for count in (1, 8):
                commands = Commands(model, function)
                attributes = {"max_vqp": count} if count > 1 else {}
                family.add(function.address, "added", bus="pci", **attributes)
                totals[name, count] = sum(commands.took().values())
                family.delete("added")
    for count in (1, 8):
        ours, peer = totals["ours", count], totals["C", count]
        ktap.say(f"{count} pairs: {ours}, the C driver {peer}")
        assert 2 * ours <= peer


@suite.test()
def stop(model):
    """From SUSPEND to a reset no key changes, and nothing is asked twice."""
    with driven(model) as (device, commands):
        device.map()
        device.prepare()
        device.start()
        commands.took()
        device.vhost.suspend()
        assert commands.took() == {MODIFY: 2, QUERY: 2}
        bases = device.bases()
        device.unmap()
        device.reset()
        device.map()
        device.prepare(bases)
        assert commands.took() == {}
        device.start()
        took = commands.took()
        assert took == {MODIFY: 2}, took


@suite.test()
def go_on(model):
    """RESUME takes one for each virtqueue."""
    with driven(model) as (device, commands):
        device.map()
        device.prepare()
        device.start()
        device.vhost.suspend()
        commands.took()
        device.vhost.resume()
        took = commands.took()
        assert took == {MODIFY: 2}, took


@suite.test()
def legacy(model):
    """A legacy driver starts by as many as a modern one, in any order."""
    with driven(model) as (device, commands):
        for is_legacy in (False, True, True, False):
            device.map()
            device.prepare(legacy=is_legacy)
            commands.took()
            device.start()
            took = commands.took()
            ktap.say(f"legacy {is_legacy}: {took}")
            # The first one has the keys made.
            assert is_legacy is False or took == {MODIFY: 2}, took
            device.reset()
            device.unmap()


@suite.test()
def pairs(model):
    """Queues of many pairs that are enabled one by one take one each."""
    count = 8
    with driven(model, count) as (device, commands):
        device.map()
        device.prepare(enabled=False)
        device.start()
        commands.took()
        device.use_pairs()
        took = commands.took()
        # What the pairs but the first have is changed at once.
        assert took == {MODIFY: 2 * (count - 1), "MODIFY_RQT": 1}, took
        device.enable()
        took = commands.took()
        assert took == {MODIFY: 2 * count}, took


@suite.test()
def receive(model):
    """A guest that starts again finds what it receives."""
    groups = drive.receive_groups(3)
    with driven(model) as (device, commands):
        for is_first in (True, False):
            device.map()
            device.prepare()
            commands.took()
            device.start()
            took = commands.took()
            ktap.say(f"DRIVER_OK: {took}")
            # Everything is received, until the driver says something else.
            assert is_first or took == {MODIFY: 2, "SET_FLOW_TABLE_ENTRY": 3, PORT: 1}, took
            device.command(groups)
            # The switch is told of groups that it has not heard of.
            assert commands.took() == ({PORT: 1} if is_first else {})
            device.command(drive.NO_PROMISCUOUS)
            took = commands.took()
            ktap.say(f"what is received: {took}")
            assert is_first or took == {"DELETE_FLOW_TABLE_ENTRY": 3, PORT: 1}, took
            device.reset()
            device.unmap()


@suite.test()
def more(model):
    """2 MiB more take the same, however much is mapped."""
    with driven(model) as (device, commands):
        dev, took = device.vhost, {}
        for times in (2, 64):
            dev.begin()
            for number in range(times):
                dev.map(BASE + 2 * number * RAM, device.ram)
            device.prepare()
            device.start()
            commands.took()
            dev.map(BASE - HUGE, device.ram, size=HUGE)
            took[times] = commands.took()
            device.reset()
            with dev.batch():
                dev.unmap(0, BASE << 8)
        ktap.say(took)
        # A key, and that of all in place of another; virtqueues are stopped for that one.
        assert took[2] == took[64] == {"CREATE_MKEY": 2, "DESTROY_MKEY": 1, MODIFY: 4}, took


if __name__ == "__main__":
    rust_mlx5.main(suite, __doc__)
