# SPDX-License-Identifier: GPL-2.0
"""Two vDPA devices of functions of the model, as network interfaces in two
namespaces, and what they do whoever drives the functions.
"""

import contextlib

import iperf
import mlx5
import vdpa


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
def ports(model, bound, names, expected=(), **attributes):
    """Ports that are joined by the switch, of functions that `bound` gives to
    their driver; commands may be refused in it for `expected` reasons only.
    """
    functions = mlx5.functions()
    with model.clean(expected), contextlib.ExitStack() as stack:
        made = []
        for number, name in enumerate(names, 1):
            stack.enter_context(bound(functions[name]))
            made.append(stack.enter_context(Port(functions[name], number, **attributes)))
        yield made


def pair(model, bound, first, second, expected=(), **attributes):
    """Two of them."""
    return ports(model, bound, (first, second), expected, **attributes)


def check_offloads(port):
    """A driver leaves checksums and segments to the device."""
    offloads = port.run("ethtool", "-k", port.netdev)
    for name in ("tx-checksumming", "rx-checksumming", "tcp-segmentation-offload"):
        assert f"{name}: on" in offloads, offloads


def traffic(model, here, there):
    """Pings of several sizes, TCP and UDP both ways."""
    for size in (56, 1400, 8000):
        here.ping(there.address, size=size)
        there.ping(here.address, size=size)
    iperf.both_ways(*here.towards(there), dropped=model.dropped)


# How many frames are sent to see whether they come as far as the driver, and how
# many of others may come meanwhile.
FRAMES, OTHERS = 20, 10


def received(here, there, to):
    """How many frames come as far as the driver here, of whatever address, when
    there sends FRAMES of them to the address `to`.
    """
    counter = f"/sys/class/net/{here.netdev}/statistics/rx_packets"
    before = int(here.run("cat", counter))
    there.space.run("ping", "-q", "-c", FRAMES, "-i", "0.02", "-W", 1, to, check=False)
    return int(here.run("cat", counter)) - before


def change_mac(here, there):
    """Gives one another MAC address by the control queue: what is for the one
    before does not come as far as the driver then.
    """
    here.ping(there.address)
    here.space.run("ip", "link", "set", here.netdev, "address", "02:00:00:00:99:01")
    here.ping(there.address)
    there.ping(here.address)
    there.space.run("ip", "neigh", "replace", here.address, "lladdr",
                    here.function.mac, "dev", there.netdev)
    assert received(here, there, here.address) < OTHERS


def use_vlans(here, there):
    """Two VLANs on both ends, and one of them taken away again. Returns those whose
    frames come as far as the driver nevertheless: of the one that was taken away,
    and of one that was never there.
    """
    for port in (here, there):
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
    here.run("ip", "link", "add", "link", here.netdev, "name", "vlan7", "type", "vlan", "id", 7)
    here.run("ip", "address", "add", "10.80.7.1/24", "dev", "vlan7")
    here.run("ip", "link", "set", "vlan7", "up")
    heard = []
    for vlan in (5, 6, 7):
        here.run("ip", "neigh", "replace", f"10.80.{vlan}.2", "lladdr", there.function.mac,
                 "dev", f"vlan{vlan}")
        if received(there, here, f"10.80.{vlan}.2") >= OTHERS:
            heard.append(vlan)
    assert 5 in heard, heard
    return heard[1:]


def count_pings(here, there):
    """What vdpa dev vstats counts of 500 pings."""
    before = mlx5.queue_stats(here.device.name, 2)
    here.ping(there.address, count=500)
    after = mlx5.queue_stats(here.device.name, 2)
    for queue, (old, new) in enumerate(zip(before, after)):
        grown = new["completed_desc"] - old["completed_desc"]
        assert 500 <= grown < 1500, f"queue {queue}: {old} then {new}"
        assert new["received_desc"] >= new["completed_desc"], new
