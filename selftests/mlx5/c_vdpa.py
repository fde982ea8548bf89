#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The C driver mlx5_vdpa on functions of the model, under virtio_vdpa: two
functions in two network namespaces.
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
import iperf
import ktap
import mlx5
import pairs
import vdpa

MRG_RXBUF = 1 << 15

suite = ktap.Suite("mlx5_c_vdpa")


def pair(model, first, second, expected=(), **attributes):
    """Two ports whose functions mlx5_core has."""
    return pairs.pair(model, model.bound, first, second, expected, **attributes)


def talk(model, *names):
    """All that two functions can do with each other, one thing after the other."""
    with pair(model, *names) as (here, there):
        pairs.check_offloads(here)
        pairs.traffic(model, here, there)
        pairs.count_pings(here, there)
        heard = pairs.use_vlans(here, there)
        ktap.say(f"{names[1]}: received without being asked for: VLANs {heard or 'none'}")
        pairs.change_mac(here, there)


@suite.test(timeout=500)
def msix(model):
    """Two functions with MSI-X: ping, TCP, UDP, vstats, VLANs, another MAC address."""
    talk(model, "new0", "new1")


@suite.test(timeout=500)
def events(model):
    """Two functions with QPs for events: ping, TCP, UDP, vstats, VLANs, another MAC address."""
    talk(model, "old0", "old1")


@suite.test(timeout=300)
def mergeable(model):
    """One of each, with mergeable receive buffers, which devices have that are asked for them."""
    function = mlx5.functions()["new0"]
    with model.clean(), model.bound(function):
        features = vdpa.default_features(function.mgmtdev)
    with pair(model, "new0", "old0", device_features=hex(features | MRG_RXBUF)) as (here, there):
        pairs.traffic(model, here, there)


@suite.test(timeout=300)
def multiqueue(model):
    """Several queue pairs, and their number changed."""
    for names in (("new0", "new1"), ("old0", "old1")):
        with pair(model, *names, max_vqp=2) as (here, there):
            for port in (here, there):
                port.space.run("ethtool", "-L", port.netdev, "combined", 2)
            iperf.tcp(*here.towards(there), "-P", "4", seconds=3)
            counts = [stats["completed_desc"] for stats in mlx5.queue_stats(there.device.name, 4)]
            ktap.say(f"descriptors completed by queue: {counts}")
            # Where queues cannot be resumed, Linux 7.3's driver makes them anew
            # and forgets to say where they are: fewer pairs work, more do not.
            for number in (1, 2, 1, 2) if names[0] == "new0" else (1,):
                here.space.run("ethtool", "-L", here.netdev, "combined", number)
                here.ping(there.address)
                there.ping(here.address)


@suite.test(timeout=200)
def again(model):
    """Devices come and go; what the driver made is gone each time."""
    functions = mlx5.functions()
    for name in ("new0", "old0"):
        with model.clean(), model.bound(functions[name]) as function:
            before = None
            for number in range(4):
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
