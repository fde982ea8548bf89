#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""vDPA devices of rust_mlx5_vdpa on functions of the model, under virtio_vdpa:
two functions in two network namespaces, and what an administrator may ask for.
"""

import contextlib
import errno
import glob
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
import iperf
import ktap
import mlx5
import pairs
import rust_mlx5
import vdpa

# Commands of the C driver mlx5_vdpa to add a device with one pair of queues,
# and to delete it.
C_ADD, C_DELETE = 47, 28

MRG_RXBUF = 1 << 15
ANY_LAYOUT = 1 << 27
VERSION_1 = 1 << 32

suite = ktap.Suite("mlx5_rust_vdpa")


def bound(model):
    """What gives functions to our driver."""
    return lambda function: rust_mlx5.bound(model, function)


def pair(model, first="new0", second="new1", **attributes):
    """Two ports whose functions our driver has, as pairs.pair."""
    return pairs.pair(model, bound(model), first, second, **attributes)


def offers_devices(function):
    """Whether devices can be added to a function."""
    return vdpa.exists(function.mgmtdev) or function.mgmtdev in vdpa.show(
        "mgmtdev", "show").get("mgmtdev", {})


@suite.test(timeout=200)
def add_and_delete(model):
    """A device is added to every profile and deleted; what that takes."""
    for profile, function in mlx5.by_profile().items():
        with model.clean(["QueueVersion"]), bound(model)(function):
            assert offers_devices(function), profile
            # What virtqueues without vectors of their own tell by is kept for
            # the next device: the second one leaves as much as the first.
            left = []
            for name in ("first", "next"):
                before = model.commands(function)
                with vdpa.Device(function.mgmtdev, name):
                    added = model.commands(function)
                deleted = model.commands(function)
                left.append(model.objects(function))
                count = (added - before).total()
                # Where virtqueues interrupt by themselves, half as many at most.
                assert 2 * count <= C_ADD or profile != "cx7", f"{profile}: {count}"
                ktap.say(f"{profile}, {name}: {count} commands to add a"
                         f" device (C: {C_ADD}), {(deleted - added).total()} to delete it"
                         f" (C: {C_DELETE})")
            assert left[0] == left[1], left


@suite.test(timeout=200)
def again(model):
    """Devices come and go, with and without a driver."""
    function = mlx5.functions()["new0"]
    with model.clean(), bound(model)(function):
        idle = model.objects(function)
        for number in range(10):
            with vdpa.Device(function.mgmtdev, "again", max_vqp=1 + number % 3) as device:
                for _ in range(2):
                    device.bind("virtio_vdpa")
                    device.bind(None)
            assert model.objects(function) == idle, model.objects(function)


@suite.test()
def mtu_comes_back(model):
    """The port has its MTU again when a device is gone, or could not be made."""
    function = mlx5.functions()["new0"]

    def mtu():
        with vdpa.Device(function.mgmtdev, "seen"):
            return vdpa.show("dev", "config", "show", "seen")["config"]["seen"]["mtu"]

    def fails(name, **fields):
        return model.fault(function, "fail", command=mlx5.which(name, **fields),
                           status="INT_ERR", syndrome=0x9000)

    with bound(model)(function):
        before = mtu()
        with vdpa.Device(function.mgmtdev, "large", mtu=before + 4000):
            pass
        assert mtu() == before
        with fails("CREATE_RQT") as hits:
            done = vdpa.vdpa("dev", "add", "name", "large", "mgmtdev", function.mgmtdev,
                             "mtu", before + 4000, check=False)
            assert done.returncode and hits() == 1
        assert mtu() == before
        # That it does not is no reason to start the firmware anew.
        with mlx5.KernelLog() as log, fails("MODIFY_NIC_VPORT_CONTEXT", after=1):
            with vdpa.Device(function.mgmtdev, "large", mtu=before + 4000):
                pass
            log.wait("the port keeps its MTU", 5)
            assert "started anew" not in log.read(), log.text


@suite.test(timeout=300)
def between(model):
    """Two functions talk: ping, TCP, UDP, with offloads, and vstats counts it."""
    with pair(model) as (here, there):
        pairs.check_offloads(here)
        pairs.traffic(model, here, there)
        pairs.count_pings(here, there)


# A function of each profile, and one more.
EACH = ("new0", "old0", "old1", "minimal", "modern", "legacy")
# Which of them talk.
OTHERS = (("old0", "old1"), ("old0", "new0"), ("minimal", "new0"), ("modern", "new0"),
          ("legacy", "new0"))


@suite.test(timeout=300)
def others(model):
    """Functions of every profile talk, those without vectors for queues too."""
    with pairs.ports(model, bound(model), EACH, expected=["QueueVersion"]) as ports:
        by_name = dict(zip(EACH, ports))
        for first, second in OTHERS:
            here, there = by_name[first], by_name[second]
            for size in (56, 1400):
                here.ping(there.address, count=20, size=size)
                there.ping(here.address, count=20, size=size)


def use_receive_modes(here, there):
    """Frames for others are received in promiscuous mode, and groups are not
    where nobody is in them.
    """
    stranger = "02:00:00:00:99:09"
    there.space.run("ip", "neigh", "replace", "10.79.0.9", "lladdr", stranger,
                    "dev", there.netdev)

    def hears(to):
        """Whether frames that are sent there come as far as the driver."""
        count = pairs.received(here, there, to)
        assert count >= pairs.FRAMES or count < pairs.OTHERS, count
        return count >= pairs.FRAMES

    assert not hears("10.79.0.9")
    here.run("ip", "link", "set", here.netdev, "promisc", "on")
    assert hears("10.79.0.9")
    here.run("ip", "link", "set", here.netdev, "promisc", "off")
    assert not hears("10.79.0.9")

    group = "239.1.2.3"
    there.run("ip", "route", "add", group, "dev", there.netdev)
    assert not hears(group)
    here.run("ip", "link", "set", here.netdev, "allmulticast", "on")
    assert hears(group)
    here.run("ip", "link", "set", here.netdev, "allmulticast", "off")
    assert not hears(group)
    here.run("ip", "maddress", "add", "01:00:5e:01:02:03", "dev", here.netdev)
    assert hears(group)


@suite.test(timeout=400)
def filters(model):
    """By the control queue: receive modes, VLANs, another MAC address."""
    with pair(model) as (here, there):
        use_receive_modes(here, there)
        heard = pairs.use_vlans(here, there)
        assert not heard, f"VLANs {heard}"
        pairs.change_mac(here, there)


@suite.test(timeout=200)
def multiqueue(model):
    """Several queue pairs, and their number changed."""
    with pair(model, max_vqp=2) as (here, there):
        for port in (here, there):
            port.run("ethtool", "-L", port.netdev, "combined", 2)

        def is_spread():
            """Whether each queue receives something of eight flows."""
            before = mlx5.queue_stats(there.device.name, 4)
            iperf.tcp(*here.towards(there), "-P", "8", seconds=3)
            after = mlx5.queue_stats(there.device.name, 4)
            counts = [new["completed_desc"] - old["completed_desc"]
                      for old, new in zip(before, after)]
            ktap.say(f"descriptors completed by queue: {counts}")
            return all(count > 100 for count in counts[::2])

        # Their ports are anything: now and then all of them go one way.
        assert any(is_spread() for _ in range(3))
        for number in (1, 2, 1, 2):
            here.run("ethtool", "-L", here.netdev, "combined", number)
            here.ping(there.address)
            there.ping(here.address)


@suite.test(timeout=120)
def refusals(model):
    """What cannot be provisioned is refused, and the log says why."""
    function = mlx5.functions()["new0"]
    cases = [
        ({"max_vqp": 33}, "33 queue pairs are not 1 to 32"),
        ({"mac": "01:00:5e:00:00:01"}, "01:00:5e:00:00:01 is not the address of a station"),
        ({"device_features": hex(VERSION_1 | 1 << 11)}, "HOST_TSO4 needs CSUM"),
    ]
    with model.clean(), bound(model)(function), mlx5.KernelLog() as log:
        idle = model.objects(function)
        for attributes, reason in cases:
            words = [word for pair in attributes.items() for word in pair]
            result = vdpa.vdpa("dev", "add", "name", "no", "mgmtdev", function.mgmtdev, *words,
                               check=False)
            assert result.returncode, attributes
            log.wait(reason, 5)
        with vdpa.Device(function.mgmtdev, "first"):
            result = vdpa.vdpa("dev", "add", "name", "second", "mgmtdev", function.mgmtdev,
                               check=False)
            assert "No space left" in result.stderr, result.stderr
            log.wait("a function has one device only", 5)
        assert model.objects(function) == idle, model.objects(function)


@suite.test(timeout=120)
def provisioned(model):
    """A device is what it was provisioned to be, and its address can change."""
    function = mlx5.functions()["new0"]
    with model.clean(), bound(model)(function):
        attributes = {"mac": "02:00:00:00:77:01", "mtu": 1400, "max_vqp": 3}
        with vdpa.Device(function.mgmtdev, "asked", **attributes) as device:
            device.bind("virtio_vdpa")
            config = vdpa.show("dev", "config", "show", device.name)["config"][device.name]
            assert config["mac"] == attributes["mac"], config
            assert config["mtu"] == attributes["mtu"], config
            assert config["max_vq_pairs"] == attributes["max_vqp"], config
            netdev = f"/sys/class/net/{device.netdev}"
            assert vdpa.read(f"{netdev}/address") == attributes["mac"]
            assert vdpa.read(f"{netdev}/mtu") == "1400"
            vdpa.vdpa("dev", "set", "name", device.name, "mac", "02:00:00:00:77:02")
            config = vdpa.show("dev", "config", "show", device.name)["config"][device.name]
            assert config["mac"] == "02:00:00:00:77:02", config
        with vdpa.Device(function.mgmtdev, "plain") as device:
            config = vdpa.show("dev", "config", "show", device.name)["config"][device.name]
            assert config["mac"] == function.mac, config
        features = vdpa.default_features(function.mgmtdev)
        assert features & MRG_RXBUF and features & ANY_LAYOUT and features & VERSION_1, hex(features)


def write(device, attribute, word):
    """Writes an attribute of a device: None, or the number of the error."""
    try:
        vdpa.write(f"{device.sysfs}/{attribute}", word)
    except OSError as error:
        return error.errno
    return None


# Which words a device of such a function takes for who is let in, the first one by itself.
ADMITTED = {
    "new0": ("allow", "off", "require"),
    "modern": ("off",),
    "legacy": ("allow", "require"),
}


@suite.test(timeout=200)
def admitted(model):
    """Who is let in is what the administrator says, as far as the firmware serves them."""
    for name, words in ADMITTED.items():
        function = mlx5.functions()[name]
        with contextlib.ExitStack() as stack:
            stack.enter_context(model.clean(["QueueVersion"]))
            stack.enter_context(bound(model)(function))
            device = stack.enter_context(vdpa.Device(function.mgmtdev, "asked"))
            log = stack.enter_context(mlx5.KernelLog())
            said = vdpa.read(f"{device.sysfs}/legacy")
            assert said == words[0], f"{name}: {said}"
            for word in ("require", "off", "allow"):
                result = write(device, "legacy", word)
                assert result == (None if word in words else errno.EOPNOTSUPP), (name, word, result)
            if len(words) < 3:
                log.wait("asked: refused: attribute legacy ", 5)
            assert write(device, "legacy", "nobody") == errno.EINVAL


def virtio_version_1(device):
    """Whether the host's own driver acknowledged VERSION_1."""
    [path] = glob.glob(f"{os.path.dirname(os.path.realpath(device.sysfs))}/virtio*/features")
    return vdpa.read(path)[32] == "1"


@suite.test(timeout=200)
def own_driver(model):
    """The host's own driver is a legacy one where only those are let in, and else a modern one."""
    with pair(model) as (here, there):
        for word in ("require", "off", "require", "allow"):
            for attribute, value in (("legacy", "off"), ("legacy_byte_order", "little")):
                assert write(here.device, attribute, value) == errno.EBUSY, attribute
            here.device.bind(None)
            assert write(here.device, "legacy", word) is None
            here.device.bind("virtio_vdpa")
            here.netdev = here.device.netdev
            here.space.take(here.netdev, f"{here.address}/24")
            assert virtio_version_1(here.device) == (word != "require"), word
            for size in (56, 1400):
                here.ping(there.address, count=20, size=size)
                there.ping(here.address, count=20, size=size)


if __name__ == "__main__":
    rust_mlx5.main(suite, __doc__)
