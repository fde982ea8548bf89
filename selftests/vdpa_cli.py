#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The vdpa tool and its netlink family: every command, good and bad; leaks
and unloading."""

import contextlib
import errno
import fcntl
import os
import select
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))

# pylint: disable=wrong-import-position
import ktap
import netlink
import vdpa

MAC = "52:54:00:79:00:01"
OTHER = "52:54:00:79:00:99"
CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

suite = ktap.Suite("vdpa_cli")


def refused(*command, text=None):
    """Runs the vdpa tool, which must fail (and say `text`)."""
    result = vdpa.vdpa(*command, check=False)
    assert result.returncode, f"vdpa {' '.join(map(str, command))} succeeded"
    said = result.stdout + result.stderr
    assert text is None or text in said, f"expected '{text}', got: {said}"


@contextlib.contextmanager
def fails(*numbers):
    """What is done in the context must fail with one of the error numbers."""
    try:
        yield
    except OSError as error:
        assert error.errno in numbers, f"{error}, expected {[errno.errorcode[n] for n in numbers]}"
    else:
        raise AssertionError(f"succeeded, expected {[errno.errorcode[n] for n in numbers]}")


def add(mgmtdev, name, *words):
    """Adds a device with the tool."""
    vdpa.vdpa("dev", "add", "name", name, "mgmtdev", mgmtdev, *words)


def delete(name):
    """Deletes a device with the tool."""
    vdpa.vdpa("dev", "del", name)


def capabilities(mgmtdev):
    """What `vdpa mgmtdev show` says of the management device."""
    for name, entry in vdpa.show("mgmtdev", "show").get("mgmtdev", {}).items():
        if name.split("/")[-1] == mgmtdev:
            return entry
    raise AssertionError(f"no management device {mgmtdev}")


def config(name):
    """What `vdpa dev config show` says of a device."""
    return vdpa.show("dev", "config", "show", name)["config"][name]


@suite.test()
def mgmtdev_show(mgmtdev):
    """vdpa mgmtdev show."""
    entry = capabilities(mgmtdev)
    assert entry["supported_classes"] == ["net"], entry
    assert entry["max_supported_vqs"] >= 3, entry
    for feature in ("MAC", "MTU", "VERSION_1", "ACCESS_PLATFORM"):
        assert feature in entry["dev_features"], entry
    vdpa.vdpa("mgmtdev", "show", mgmtdev)
    refused("mgmtdev", "show", "nonesuch")


@suite.test()
def dev_add_del(mgmtdev):
    """vdpa dev add, show and del."""
    add(mgmtdev, "cli0")
    entry = vdpa.show("dev", "show", "cli0")["dev"]["cli0"]
    assert entry["type"] == "network", entry
    assert entry["mgmtdev"].split("/")[-1] == mgmtdev, entry
    assert entry["max_vqs"] >= 2 and entry["max_vq_size"] >= 64, entry
    assert "cli0" in vdpa.show("dev", "show")["dev"]
    refused("dev", "add", "name", "cli0", "mgmtdev", mgmtdev)
    delete("cli0")
    refused("dev", "show", "cli0")
    refused("dev", "del", "cli0", text="not found")
    # It can be made again by the same name.
    add(mgmtdev, "cli0")
    delete("cli0")


@suite.test()
def dev_add_bad(mgmtdev):
    """vdpa dev add: what is refused."""
    refused("dev", "add", "name", "cli0", "mgmtdev", "nonesuch", text="management device")
    refused("dev", "add", "name", "cli0")
    refused("dev", "add", "mgmtdev", mgmtdev)
    refused("dev", "add", "name", "cli0", "mgmtdev", mgmtdev, "mac", "nonsense")
    refused("dev", "add", "name", "cli0", "mgmtdev", mgmtdev, "mtu", "nonsense")
    refused("dev", "add", "name", "cli0", "mgmtdev", mgmtdev, "max_vqp", "0")
    refused("dev", "add", "name", "cli0", "mgmtdev", mgmtdev, "mtu", "67")
    refused("dev", "show", "cli0")


@suite.test()
def provision_bad(mgmtdev):
    """Attributes that a network device cannot have."""
    simulated = mgmtdev.startswith("vdpasim")
    with netlink.Vdpa() as family:
        entry = capabilities(mgmtdev)
        most = (entry["max_supported_vqs"] - 1) // 2
        with fails(errno.EINVAL, errno.EOPNOTSUPP, errno.ERANGE):
            # Far beyond what it says it can do.
            family.add(mgmtdev, "cli0", features=1 << 62 | 1 << 33 | 1 << 32)
        # The core looks at what belongs to an attribute.
        for attributes in ({"mac": MAC}, {"mtu": 1500}):
            with fails(errno.EINVAL):
                family.add(mgmtdev, "cli0", features=1 << 32 | 1 << 33, **attributes)
        if simulated:
            return
        for pairs in (most + 1, 65535):
            with fails(errno.EINVAL, errno.ERANGE):
                family.add(mgmtdev, "cli0", max_vqp=pairs)
        # No address of a card: a group's, and none.
        for address in ("01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"):
            with fails(errno.EINVAL, errno.EADDRNOTAVAIL):
                family.add(mgmtdev, "cli0", mac=address)
        # CTRL_RX without CTRL_VQ, MQ without CTRL_VQ.
        for bit in (18, 22):
            with fails(errno.EINVAL):
                family.add(mgmtdev, "cli0", features=1 << 32 | 1 << 33 | 1 << bit)
        # Not one that QEMU or the core must never see.
        for bit in (41, 42, 43, 30):
            with fails(errno.EINVAL, errno.EOPNOTSUPP):
                family.add(mgmtdev, "cli0", features=1 << 32 | 1 << 33 | 1 << bit)
    assert "cli0" not in vdpa.show("dev", "show").get("dev", {})


@suite.test()
def provision(mgmtdev):
    """vdpa dev add with mac, mtu and max_vqp; vdpa dev config show."""
    words = ["mac", MAC, "mtu", "1400"]
    pairs = (capabilities(mgmtdev)["max_supported_vqs"] - 1) // 2
    if pairs > 1:
        words += ["max_vqp", str(pairs)]
    add(mgmtdev, "cli0", *words)
    try:
        shown = config("cli0")
        assert shown["mac"] == MAC, shown
        assert shown["mtu"] == 1400, shown
        if pairs > 1:
            assert shown["max_vq_pairs"] == pairs, shown
            assert vdpa.show("dev", "show", "cli0")["dev"]["cli0"]["max_vqs"] == 2 * pairs + 1
        # Reading it has decided nothing.
        assert "negotiated_features" not in shown, shown
        vdpa.vdpa("dev", "config", "show")
    finally:
        delete("cli0")
    refused("dev", "config", "show", "cli0")


@suite.test()
def provision_features(mgmtdev):
    """vdpa dev add with device_features: exactly these are offered."""
    # MAC, MTU, VERSION_1, ACCESS_PLATFORM.
    features = 1 << 5 | 1 << 3 | 1 << 32 | 1 << 33
    with vdpa.Device(mgmtdev, "cli0", driver="virtio_vdpa", mac=MAC, mtu="1400",
                     device_features=hex(features)) as device:
        netdev = device.netdev
        assert vdpa.read(f"/sys/class/net/{netdev}/address") == MAC
        assert vdpa.read(f"/sys/class/net/{netdev}/mtu") == "1400"
        bits = vdpa.read(f"/sys/class/net/{netdev}/device/features")
        got = sum(1 << number for number, bit in enumerate(bits) if bit == "1")
        assert got & ~features == 0, hex(got)
        shown = config("cli0")
        assert "VERSION_1" in shown["negotiated_features"], shown


@suite.test()
def many_devices(mgmtdev):
    """Sixteen devices at once, deleted in another order."""
    if mgmtdev.startswith("vdpasim"):
        raise ktap.Skip("the simulator is not of interest")
    names = [f"cli{number}" for number in range(16)]
    with netlink.Vdpa() as family:
        for name in names:
            family.add(mgmtdev, name)
        shown = vdpa.show("dev", "show")["dev"]
        assert set(names) <= set(shown), shown
        for name in names[::2] + names[1::2]:
            family.delete(name)


@suite.test()
def vstats(mgmtdev):
    """vdpa dev vstats show."""
    with vdpa.Device(mgmtdev, "cli0", mac=MAC) as device:
        # Nobody has negotiated anything.
        refused("dev", "vstats", "show", "cli0", "qidx", "0", text="not complete")
        device.bind("virtio_vdpa")
        assert device.netdev
        shown = vdpa.vdpa("dev", "vstats", "show", "cli0", "qidx", "0", check=False)
        if shown.returncode and mgmtdev.startswith("vdpasim"):
            raise ktap.Skip("the simulator was not asked well enough")
        assert shown.returncode == 0, shown.stderr
        queues = vdpa.show("dev", "show", "cli0")["dev"]["cli0"]["max_vqs"]
        for queue in range(queues):
            ktap.say(vdpa.vdpa("dev", "vstats", "show", "cli0", "qidx", queue).stdout)
        for queue in (queues, 65535, 65536, 4294967295):
            refused("dev", "vstats", "show", "cli0", "qidx", queue)
        refused("dev", "vstats", "show", "nonesuch", "qidx", "0")


@suite.test()
def set_mac(mgmtdev):
    """VDPA_CMD_DEV_ATTR_SET: the address, also while the device runs."""
    with netlink.Vdpa() as family, vdpa.Device(mgmtdev, "cli0", mac=MAC) as device:
        family.set_mac("cli0", OTHER)
        assert config("cli0")["mac"] == OTHER
        with fails(errno.EINVAL, errno.EOPNOTSUPP):
            family.set_mac("cli0", "01:00:00:00:00:01")
        with fails(errno.ENODEV):
            family.set_mac("nonesuch", OTHER)
        with fails(errno.EOPNOTSUPP, errno.EINVAL):
            family.call(netlink.DEV_ATTR_SET, {netlink.DEV_NAME: netlink.text("cli0")})
        assert config("cli0")["mac"] == OTHER
        device.bind("virtio_vdpa")
        assert vdpa.read(f"/sys/class/net/{device.netdev}/address") == OTHER
        family.set_mac("cli0", MAC)
        assert config("cli0")["mac"] == MAC


# Calls of vhost-vdpa, and bits of the status and of the features.
SET_FEATURES, SET_OWNER = 0x4008AF00, 0xAF01
GET_STATUS, SET_STATUS, GET_CONFIG, SET_CONFIG_CALL = 0x8001AF71, 0x4001AF72, 0x8008AF73, 0x4004AF77
SUSPEND, RESUME = 0xAF7D, 0xAF7E
DRIVER_OK = 4
MAC_AND_MTU, VERSION_1, ACCESS_PLATFORM = 1 << 5 | 1 << 3, 1 << 32, 1 << 33


class Driver:
    """A driver on an open vhost-vdpa file, with nothing but a configuration."""

    def __init__(self, file, features):
        self.file = file
        self.event = os.eventfd(0, os.EFD_NONBLOCK)
        fcntl.ioctl(file, SET_OWNER)
        fcntl.ioctl(file, SET_CONFIG_CALL, struct.pack("=i", self.event))
        status = 3
        fcntl.ioctl(file, SET_STATUS, struct.pack("=B", status))
        fcntl.ioctl(file, SET_FEATURES, struct.pack("=Q", features))
        if features & VERSION_1:
            status |= 8
            fcntl.ioctl(file, SET_STATUS, struct.pack("=B", status))
        fcntl.ioctl(file, SET_STATUS, struct.pack("=B", status | DRIVER_OK))
        assert fcntl.ioctl(file, GET_STATUS, b"\0")[0] & DRIVER_OK

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.event)

    def config(self, offset, length):
        """Reads the configuration space."""
        words = struct.pack("=II", offset, length) + bytes(length)
        return fcntl.ioctl(self.file, GET_CONFIG, words)[8:]

    def told(self, seconds):
        """Whether a configuration interrupt comes, or has come."""
        if not select.select([self.event], [], [], seconds)[0]:
            return False
        os.eventfd_read(self.event)
        return True


@suite.test()
def set_mac_told(mgmtdev):
    """VDPA_CMD_DEV_ATTR_SET: the driver is told, but not of a stopped device."""
    if mgmtdev.startswith("vdpasim"):
        raise ktap.Skip("the simulator tells nobody")
    legacy = MAC_AND_MTU | ACCESS_PLATFORM
    with netlink.Vdpa() as family, vdpa.Device(mgmtdev, "cli0", "vhost_vdpa", mac=MAC) as device:
        vdpa.wait_until(lambda: os.path.exists(device.path), "udev")
        for features in (legacy, legacy | VERSION_1):
            with open(device.path, "r+b", buffering=0) as file, Driver(file, features) as driver:
                assert not driver.told(0.1)
                family.set_mac("cli0", OTHER)
                assert driver.config(0, 6) == netlink.mac(OTHER)
                assert driver.told(10), "no configuration interrupt"
                fcntl.ioctl(file, SUSPEND)
                with fails(errno.EBUSY):
                    family.set_mac("cli0", MAC)
                assert driver.config(0, 6) == netlink.mac(OTHER)
                assert not driver.told(0.1)
                fcntl.ioctl(file, RESUME)
                family.set_mac("cli0", MAC)
                assert driver.config(0, 6) == netlink.mac(MAC)
                assert driver.told(10), "no configuration interrupt"


@suite.test()
def bad_messages(mgmtdev):
    """Netlink messages that no tool sends."""
    with netlink.Vdpa() as family:
        for command in (netlink.DEV_NEW, netlink.DEV_DEL, netlink.DEV_GET,
                        netlink.DEV_CONFIG_GET, netlink.DEV_VSTATS_GET, netlink.DEV_ATTR_SET):
            with fails(errno.EINVAL):
                family.call(command, {})
        with fails(errno.EOPNOTSUPP, errno.EINVAL):
            family.call(99, {})
        for kind, data in ((netlink.NET_MACADDR, b"\1\2\3"), (netlink.NET_MTU, b"\1"),
                           (netlink.NET_MTU, netlink.u16(1)), (netlink.FEATURES, b"")):
            with fails(errno.EINVAL, errno.ERANGE):
                family.call(netlink.DEV_NEW, {
                    netlink.MGMTDEV_DEV_NAME: netlink.text(mgmtdev),
                    netlink.DEV_NAME: netlink.text("cli0"),
                    kind: data,
                })
        with fails(errno.EINVAL, errno.ENODEV):
            family.call(netlink.DEV_NEW, {
                netlink.MGMTDEV_DEV_NAME: netlink.text(mgmtdev),
                netlink.MGMTDEV_BUS_NAME: netlink.text("pci"),
                netlink.DEV_NAME: netlink.text("cli0"),
            })
    assert "cli0" not in vdpa.show("dev", "show").get("dev", {})


@suite.test()
def drivers(mgmtdev):
    """A device moves between vhost-vdpa and virtio-vdpa."""
    with vdpa.Device(mgmtdev, "cli0", mac=MAC) as device:
        for _ in range(5):
            device.bind("vhost_vdpa")
            assert os.path.exists(device.path)
            device.bind("virtio_vdpa")
            netdev = device.netdev
            vdpa.sh("ip", "link", "set", netdev, "up")
        device.bind(None)


@suite.test(timeout=300)
def host_to_host(mgmtdev):
    """Two devices in two namespaces talk through virtio_vdpa."""
    if mgmtdev.startswith("vdpasim"):
        raise ktap.Skip("devices of the simulator are not joined")
    with contextlib.ExitStack() as stack:
        spaces = []
        for number in (1, 2):
            device = stack.enter_context(vdpa.Device(mgmtdev, f"cli{number}"))
            space = stack.enter_context(vdpa.Namespace(f"cli{number}"))
            device.bind("virtio_vdpa")
            stack.callback(device.bind, None)
            space.take(device.netdev, f"10.79.0.{number}/24")
            spaces.append(space)
        output = spaces[0].run("ping", "-f", "-q", "-c", 500, "-W", 10, "10.79.0.2").stdout
        assert "500 received" in output, output
        tool = os.path.join(CHECKOUT, "build", "selftests", "guest-tool")
        with spaces[1].background(tool, "serve", "0.0.0.0:5001") as server:
            assert server.stdout.readline().startswith("listening")
            size = str(32 << 20)
            line = spaces[0].run(tool, "send", "10.79.0.2:5001", "--up", size, "--down", size,
                                 timeout=200).stdout
            ktap.say(line)


def memory():
    """Objects of each slab cache of the kernel's own allocator, and threads."""
    # Freed objects that wait for RCU or lie in caches would count as leaked.
    vdpa.write("/proc/sys/vm/drop_caches", "3")
    counts = {}
    with open("/proc/slabinfo", encoding="ascii") as file:
        for line in file:
            words = line.split()
            if words[0].startswith(("kmalloc", "vmap", "device", "eventpoll", "task_struct")):
                counts[words[0]] = int(words[1])
    kernel = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                kernel += not os.readlink(f"/proc/{name}/exe")
    counts["threads"] = kernel
    return counts


@suite.test(timeout=600)
def leaks(mgmtdev):
    """A thousand devices made and deleted leave nothing behind."""
    cycles = 1000
    with netlink.Vdpa() as family:

        def round_trip():
            family.add(mgmtdev, "cli0", mac=MAC, mtu=1400)
            family.delete("cli0")

        # The first ones fill caches.
        for _ in range(100):
            round_trip()
        vdpa.sh("udevadm", "settle", check=False)
        references = vdpa.references(mgmtdev)
        before = memory()
        for _ in range(cycles):
            round_trip()
        vdpa.sh("udevadm", "settle", check=False)
        grown = {}

        def settled():
            after = memory()
            grown.clear()
            grown.update({name: after.get(name, 0) - count for name, count in before.items()})
            # One object a cycle would be a thousand.
            return all(count < cycles // 2 for count in grown.values())

        try:
            vdpa.wait_until(settled, "memory to be given back", 30)
        finally:
            ktap.say({name: count for name, count in grown.items() if count})
        assert vdpa.references(mgmtdev) == references
        assert not vdpa.show("dev", "show").get("dev", {}).get("cli0")


class Module:
    """The module under test, which is loaded again when all is done."""

    def __init__(self, mgmtdev):
        self.name = mgmtdev
        if vdpa.references(mgmtdev) is None:
            raise ktap.Skip(f"{mgmtdev} is no module")
        known = (
            f"{CHECKOUT}/build/modules/{mgmtdev}.ko",
            f"{CHECKOUT}/build/peers/vdpa_sim/{mgmtdev}.ko",
        )
        self.file = next((path for path in known if os.path.exists(path)), None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for name in ("cli0", "cli1"):
            vdpa.vdpa("dev", "del", name, check=False)
        if vdpa.references(self.name) is None:
            self.load()

    def load(self):
        """Loads it."""
        if self.file:
            vdpa.sh("insmod", self.file)
        else:
            vdpa.sh("modprobe", self.name)

    def unload(self):
        """Unloads it."""
        vdpa.sh("rmmod", self.name)


def module(mgmtdev):
    """The module of the management device; vdpa_sim_net's has another name."""
    return Module({"vdpasim_net": "vdpa_sim_net"}.get(mgmtdev, mgmtdev))


@suite.test(timeout=300)
def unload(mgmtdev):
    """The module is unloaded with devices there, none to three."""
    with module(mgmtdev) as driver, netlink.Vdpa() as family:
        for number in range(4):
            for name in range(number):
                family.add(mgmtdev, f"cli{name}", mac=MAC)
            driver.unload()
            assert not vdpa.exists(mgmtdev)
            assert not vdpa.show("dev", "show").get("dev", {})
            driver.load()
            assert vdpa.exists(mgmtdev)


@suite.test(timeout=300)
def unload_bound(mgmtdev):
    """The module is unloaded with network interfaces up."""
    with module(mgmtdev) as driver:
        vdpa.write(f"{vdpa.BUS}/drivers_autoprobe", "0")
        for _ in range(2):
            for name in ("cli0", "cli1"):
                add(mgmtdev, name, "mac", MAC if name == "cli0" else OTHER)
                device = vdpa.Device(mgmtdev, name)
                device.bind("virtio_vdpa")
                vdpa.sh("ip", "link", "set", device.netdev, "up")
            driver.unload()
            driver.load()


@suite.test(timeout=300)
def unload_open(mgmtdev):
    """The module is unloaded with a device open: that waits."""
    with module(mgmtdev) as driver:
        vdpa.write(f"{vdpa.BUS}/drivers_autoprobe", "0")
        for _ in range(3):
            add(mgmtdev, "cli0", "mac", MAC)
            device = vdpa.Device(mgmtdev, "cli0")
            device.bind("vhost_vdpa")
            vdpa.wait_until(lambda path=device.path: os.path.exists(path), "udev")
            with open(device.path, "r+b", buffering=0):
                remove = subprocess.Popen(["rmmod", driver.name], stderr=subprocess.PIPE)
                time.sleep(0.5)
                waits = remove.poll() is None
                refused_in_use = not waits and remove.returncode != 0
                assert waits or refused_in_use, "unloaded with a device open"
            if waits:
                assert remove.wait(60) == 0
            else:
                remove.communicate()
                driver.unload()
            driver.load()


@suite.test(timeout=300)
def unload_race(mgmtdev):
    """The module comes and goes while devices are added and removed."""
    with module(mgmtdev) as driver:
        stop = threading.Event()

        def churn(name):
            with netlink.Vdpa() as family:
                while not stop.is_set():
                    with contextlib.suppress(OSError):
                        family.add(mgmtdev, name)
                    with contextlib.suppress(OSError):
                        family.delete(name)

        threads = [threading.Thread(target=churn, args=(f"cli{n}",)) for n in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(5):
                driver.unload()
                driver.load()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert vdpa.exists(mgmtdev)


@suite.test(timeout=300)
def install(mgmtdev):
    """make install puts the module where modprobe finds it; uninstall."""
    script = f"{CHECKOUT}/tools/testbed/install.sh"
    release = os.uname().release
    if mgmtdev.startswith("vdpasim") or not os.path.exists(script):
        raise ktap.Skip("nothing to install")
    # A tree of its own: depmod over all of a distribution's modules takes
    # minutes where everything is emulated.
    with module(mgmtdev) as driver, tempfile.TemporaryDirectory() as top:
        os.makedirs(f"{top}/lib/modules/{release}")
        place = f"{top}/lib/modules/{release}/updates/{mgmtdev}.ko"
        driver.unload()
        vdpa.sh(script, "install", release, top)
        assert os.path.exists(place)
        vdpa.sh("modprobe", "-d", top, mgmtdev)
        assert vdpa.exists(mgmtdev)
        vdpa.sh(script, "uninstall", release, top)
        assert not os.path.exists(place)
        assert vdpa.sh("modprobe", "-n", "-d", top, mgmtdev, check=False).returncode
        driver.unload()
        refused("dev", "add", "name", "cli0", "mgmtdev", mgmtdev)


if __name__ == "__main__":
    options = ktap.arguments(__doc__).parse_args()
    if not vdpa.exists(options.mgmtdev):
        print(f"1..0 # SKIP no management device {options.mgmtdev}")
        ktap.exit_with(ktap.EXIT_SKIP)
    ktap.exit_with(suite.run(options.mgmtdev, only=options.only))
