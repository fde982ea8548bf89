#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The C driver mlx5_vdpa on functions of the model, under virtio_vdpa: two
functions in two network namespaces.
"""

import contextlib
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
import iperf
import ktap
import mlx5
import vdpa

MRG_RXBUF = 1 << 15

suite = ktap.Suite("mlx5_c_vdpa")


class Port:
    """A vDPA device of a function, as a network interface in a namespace.

    `number` is the last byte of its address 10.79.0.0/24.
    """

    def __init__(self, function, number, **attributes):
        self.function = function
        self.name = f"port{number}"
        self.address = f"10.79.0.{number}"
        self.device = vdpa.Device(function.mgmtdev, self.name, **attributes)
        self.space = vdpa.Namespace(self.name)
        self.netdev = None
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        with self.stack as stack:
            stack.enter_context(self.device)
            stack.enter_context(self.space)
            self.device.bind("virtio_vdpa")
            # Back to the first namespace before that one goes, or it would
            # come back by itself while the device is being deleted.
            stack.callback(self.device.bind, None)
            self.netdev = self.device.netdev
            self.space.take(self.netdev, f"{self.address}/24")
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.stack.close()

    def ping(self, to, count=200, size=56):
        """Pings another port, as fast as it answers; none may be lost."""
        output = self.space.run("ping", "-A", "-q", "-n", "-c", count, "-s", size, "-w", 60,
                                to, timeout=90).stdout
        assert f" {count} received" in output, output

    def run(self, *words, timeout=60):
        """What a command in the namespace printed."""
        return self.space.run(*words, timeout=timeout).stdout

    def towards(self, to):
        """Another port as the server and this one as the client of iperf3."""
        return to.space, to.address, self.run


@contextlib.contextmanager
def pair(model, first, second, expected=(), **attributes):
    """Two ports that are joined by the switch; commands may be refused in it for
    `expected` reasons only.
    """
    functions = mlx5.functions()
    with model.clean(expected), contextlib.ExitStack() as stack:
        ports = []
        for number, name in enumerate((first, second), 1):
            stack.enter_context(model.bound(functions[name]))
            ports.append(stack.enter_context(Port(functions[name], number, **attributes)))
        yield ports


def traffic(model, here, there):
    """Pings of several sizes, TCP and UDP both ways."""
    for size in (56, 1400, 8000):
        here.ping(there.address, size=size)
        there.ping(here.address, size=size)
    iperf.both_ways(*here.towards(there), dropped=model.dropped)


def modes():
    """The pairs of functions to try: with MSI-X and with QPs for events."""
    return ("new0", "new1"), ("old0", "old1")


@suite.test(timeout=300)
def between(model):
    """Two functions of each event mode talk: ping, TCP, UDP, with offloads."""
    for names in modes():
        ktap.say(" and ".join(names))
        with pair(model, *names) as (here, there):
            offloads = here.space.run("ethtool", "-k", here.netdev).stdout
            for name in ("tx-checksumming", "rx-checksumming", "tcp-segmentation-offload"):
                assert f"{name}: on" in offloads, offloads
            traffic(model, here, there)


@suite.test(timeout=300)
def mixed(model):
    """A function with MSI-X and one with QPs for events talk."""
    with pair(model, "new0", "old0") as (here, there):
        traffic(model, here, there)


@suite.test(timeout=300)
def mergeable(model):
    """Mergeable receive buffers, which a device has if it is asked for."""
    functions = mlx5.functions()
    for names in modes():
        with model.clean(), model.bound(functions[names[0]]) as function:
            features = vdpa.default_features(function.mgmtdev)
        with pair(model, *names, device_features=hex(features | MRG_RXBUF)) as (here, there):
            traffic(model, here, there)


@suite.test(timeout=300)
def multiqueue(model):
    """Several queue pairs, and their number changed."""
    for names in modes():
        with pair(model, *names, max_vqp=2) as (here, there):
            for port in (here, there):
                port.space.run("ethtool", "-L", port.netdev, "combined", 2)
            iperf.tcp(*here.towards(there), "-P", "4")
            counts = [stats["completed_desc"] for stats in mlx5.queue_stats(there.device.name, 4)]
            ktap.say(f"descriptors completed by queue: {counts}")
            # Where queues cannot be resumed, Linux 7.3's driver makes them anew
            # and forgets to say where they are: fewer pairs work, more do not.
            for number in (1, 2, 1, 2) if names[0] == "new0" else (1,):
                here.space.run("ethtool", "-L", here.netdev, "combined", number)
                here.ping(there.address)
                there.ping(here.address)


@suite.test(timeout=200)
def mac_change(model):
    """Another MAC address by the control queue."""
    for names in modes():
        with pair(model, *names) as (here, there):
            here.ping(there.address)
            here.space.run("ip", "link", "set", here.netdev, "address", "02:00:00:00:99:01")
            here.ping(there.address)
            there.ping(here.address)
            # The one before is nobody's now.
            there.space.run("ip", "neigh", "replace", here.address, "lladdr",
                            here.function.mac, "dev", there.netdev)
            output = there.space.run("ping", "-c", 2, "-i", "0.2", "-W", 1, here.address,
                                     check=False).stdout
            assert " 0 received" in output, output


@suite.test(timeout=200)
def vlans(model):
    """VLANs by the control queue: frames of others are not received."""
    for names in modes():
        with pair(model, *names) as ports:
            here, there = ports
            for port in ports:
                for vlan in (5, 6):
                    port.space.run("ip", "link", "add", "link", port.netdev, "name",
                                   f"vlan{vlan}", "type", "vlan", "id", vlan)
                    port.space.run("ip", "address", "add",
                                   f"10.80.{vlan}.{port.address[-1]}/24", "dev", f"vlan{vlan}")
                    port.space.run("ip", "link", "set", f"vlan{vlan}", "up")
            for vlan in (5, 6):
                here.ping(f"10.80.{vlan}.2")
                there.ping(f"10.80.{vlan}.1")
            there.space.run("ip", "link", "del", "vlan6")
            here.ping(there.address)
            here.ping("10.80.5.2")


@suite.test(timeout=120)
def statistics(model):
    """vdpa dev vstats counts what a queue received and completed."""
    for names in modes():
        with pair(model, *names) as (here, there):
            before = mlx5.queue_stats(here.device.name, 2)
            here.ping(there.address, count=500)
            after = mlx5.queue_stats(here.device.name, 2)
            for queue, (old, new) in enumerate(zip(before, after)):
                grown = new["completed_desc"] - old["completed_desc"]
                assert 500 <= grown < 1500, f"queue {queue}: {old} then {new}"
                assert new["received_desc"] >= new["completed_desc"], new


@suite.test(timeout=200)
def again(model):
    """Devices come and go; what the driver made is gone each time."""
    functions = mlx5.functions()
    for name in ("new0", "old0"):
        with model.clean(), model.bound(functions[name]) as function:
            before = None
            for number in range(10):
                with vdpa.Device(function.mgmtdev, "again", max_vqp=1 + number % 2) as device:
                    for _ in range(2):
                        device.bind("virtio_vdpa")
                        device.bind(None)
                # mlx5_core keeps event queues that it made for the first ones.
                if number == 1:
                    before = model.objects(function)
            assert model.objects(function) == before


if __name__ == "__main__":
    mlx5.main(suite, __doc__)
