# SPDX-License-Identifier: GPL-2.0
"""vDPA devices, their drivers and network namespaces, as a test sees them."""

import contextlib
import fcntl
import json
import os
import subprocess
import time

BUS = "/sys/bus/vdpa"


def sh(*command, check=True, timeout=60):
    """Runs a command; its result has stdout and stderr as text."""
    result = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if check and result.returncode:
        raise AssertionError(
            f"{' '.join(map(str, command))}: exit status {result.returncode}\n"
            f"{result.stdout}{result.stderr}"
        )
    return result


def vdpa(*command, check=True):
    """Runs the vdpa tool."""
    return sh("vdpa", *command, check=check)


def show(*command):
    """What the vdpa tool shows, decoded from its JSON."""
    return json.loads(vdpa("-j", *command).stdout or "{}")


def write(path, text):
    """Writes to a file of sysfs."""
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def read(path):
    """Reads a file of sysfs."""
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def wait_until(condition, what, seconds=10):
    """Waits until condition() gives something true, and returns that."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(0.01)


def exists(mgmtdev):
    """Whether there is such a management device."""
    return any(
        name.split("/")[-1] == mgmtdev for name in show("mgmtdev", "show").get("mgmtdev", {})
    )


class Device:
    """A vDPA device of `mgmtdev`, made on entry and deleted on exit.

    Attributes are those of `vdpa dev add`: mac, mtu, max_vqp,
    device_features.
    """

    def __init__(self, mgmtdev, name, driver=None, **attributes):
        self.mgmtdev = mgmtdev
        self.name = name
        self.driver = driver
        self.attributes = attributes
        self.sysfs = f"{BUS}/devices/{name}"

    def __enter__(self):
        words = [word for pair in self.attributes.items() for word in pair]
        # A device goes to the driver the test names, and to no other.
        write(f"{BUS}/drivers_autoprobe", "0")
        vdpa("dev", "add", "name", self.name, "mgmtdev", self.mgmtdev, *words)
        try:
            if self.driver:
                self.bind(self.driver)
        except BaseException:
            vdpa("dev", "del", self.name, check=False)
            raise
        return self

    def __exit__(self, *_):
        vdpa("dev", "del", self.name)

    def bound(self):
        """The driver the device is bound to, or None."""
        try:
            return os.path.basename(os.readlink(f"{self.sysfs}/driver"))
        except FileNotFoundError:
            return None

    def bind(self, driver):
        """Moves the device to `driver`; to none, if that is None."""
        bound = self.bound()
        if bound == driver:
            return
        if bound:
            write(f"{BUS}/drivers/{bound}/unbind", self.name)
        if driver:
            write(f"{BUS}/drivers/{driver}/bind", self.name)

    @property
    def path(self):
        """The character device of vhost-vdpa."""
        return "/dev/" + wait_until(
            lambda: next(
                (entry for entry in os.listdir(self.sysfs) if entry.startswith("vhost-vdpa-")),
                None,
            ),
            f"vhost-vdpa of {self.name}",
        )

    @property
    def netdev(self):
        """The network interface that virtio_vdpa made."""
        # It is a child of what reaches memory: the vDPA device itself, or the
        # function of a NIC that the device belongs to.
        here = os.path.realpath(self.sysfs)

        def find():
            for place in (here, os.path.dirname(here)):
                for entry in os.listdir(place):
                    net = f"{place}/{entry}/net"
                    if entry.startswith("virtio") and os.path.isdir(net):
                        return next(iter(os.listdir(net)), None)
            return None

        wait_until(find, f"network interface of {self.name}")
        # udev may give it another name, by where it is.
        sh("udevadm", "settle")
        return find()


def default_features(mgmtdev):
    """The bits a device offers that is provisioned with none."""
    with Device(mgmtdev, "probe", driver="vhost_vdpa") as dev:
        return vhost_features(dev.path)


def vhost_features(path):
    """VHOST_GET_FEATURES of a vhost-vdpa device."""
    with open(path, "r+b", buffering=0) as file:
        buffer = bytearray(8)
        fcntl.ioctl(file, 0x8008AF00, buffer)
        return int.from_bytes(buffer, "little")


class Namespace:
    """A network namespace, with the interface of a device in it."""

    def __init__(self, name):
        self.name = name

    def __enter__(self):
        sh("ip", "netns", "add", self.name)
        self.run("ip", "link", "set", "lo", "up")
        return self

    def __exit__(self, *_):
        sh("ip", "netns", "del", self.name, check=False)

    def take(self, netdev, address):
        """Moves `netdev` in and gives it `address` (with its prefix)."""
        sh("ip", "link", "set", netdev, "netns", self.name)
        self.run("ip", "address", "add", address, "dev", netdev)
        self.run("ip", "link", "set", netdev, "up")

    def words(self, *command):
        """The words of a command that runs in the namespace."""
        return ["ip", "netns", "exec", self.name, *map(str, command)]

    def run(self, *command, check=True, timeout=60):
        """Runs a command in the namespace."""
        return sh(*self.words(*command), check=check, timeout=timeout)

    @contextlib.contextmanager
    def background(self, *command):
        """A command that runs as long as the context does."""
        process = subprocess.Popen(
            self.words(*command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


def slab(name):
    """Objects in use of a slab cache, after what RCU holds back is freed."""
    with open("/proc/slabinfo", encoding="ascii") as file:
        for line in file:
            words = line.split()
            if words[0] == name:
                return int(words[1])
    return None


def references(module):
    """The reference count of a module, or None if it is not loaded."""
    try:
        return int(read(f"/sys/module/{module}/refcnt"))
    except FileNotFoundError:
        return None
