# SPDX-License-Identifier: GPL-2.0
"""A VMM without a guest, step by step: what QEMU asks of a device from its
begin to its end, without what a guest does meanwhile.
"""

import contextlib
import os
import struct

import vdpa
import vhost
from vhost import HUGE, PAGE

# Where memory is mapped, and how much of it there is.
BASE = 4 << 30
RAM = 32 * HUGE
# Of each ring.
RING = 4 * PAGE

# What legacy drivers know of.
LEGACY = (1 << 32) - 1

# Commands by the control queue.
NO_PROMISCUOUS = bytes([0, 0, 0])


def use_pairs(count):
    """The command to use a number of pairs."""
    return struct.pack("<BBH", 4, 0, count)


def receive_groups(count):
    """The command to receive frames to so many groups, and to no station but
    the own one.
    """
    groups = b"".join(bytes([1, 0, 0x5e, 0, 0, group]) for group in range(count))
    return struct.pack("<BBII", 1, 0, 0, count) + groups


class Drive:
    """A VMM without a guest that drives a device with some pairs of queues."""

    def __init__(self, device, ram, count):
        self.vhost = vhost.Vhost(device.path, persist=False)
        self.ram = ram
        self.data = range(2 * count)
        self.count = count
        self.control = None

    def close(self):
        """Gives the device back."""
        self._drop_control()
        os.close(self.vhost.file)

    def _drop_control(self):
        if self.control:
            self.control.close()
        self.control = None

    def map(self):
        """Maps all memory; that is done with `vhost.end`."""
        self.vhost.begin()
        self.vhost.map(BASE, self.ram)

    def unmap(self):
        """Takes it back."""
        with self.vhost.batch():
            self.vhost.unmap(BASE, self.ram.size)

    def prepare(self, bases=None, legacy=False, enabled=True):
        """All that comes before DRIVER_OK, but for memory."""
        dev = self.vhost
        features = dev.features()
        if legacy:
            features &= LEGACY | vhost.ACCESS_PLATFORM
        dev.set_status(vhost.ACKNOWLEDGE | vhost.DRIVER)
        dev.set_features(features)
        dev.set_status(vhost.ACKNOWLEDGE | vhost.DRIVER | vhost.FEATURES_OK)
        for queue in self.data:
            dev.set_ring(queue, BASE + queue * RING, bases[queue] if bases else 0)
        queue = len(self.data)
        self.control = vhost.Sender(dev, queue, self.ram, queue * RING, BASE + queue * RING)
        dev.enable(queue)
        if enabled:
            self.enable()

    def enable(self):
        """Enables all data queues."""
        for queue in self.data:
            self.vhost.enable(queue)

    def start(self):
        """The memory is there, and the driver is ready."""
        self.vhost.end()
        assert self.vhost.drive(), "the device does not start"

    def command(self, command):
        """Executes a command by the control queue."""
        at = (len(self.data) + 1) * RING
        answer = self.control.command(BASE + at, at, command)
        assert answer == 0, f"{command.hex()}: {answer}"

    def use_pairs(self):
        """Uses all pairs."""
        if self.count > 1:
            self.command(use_pairs(self.count))

    def bases(self):
        """Where all data queues stand."""
        return [self.vhost.base(queue) for queue in self.data]

    def reset(self):
        """Resets the device."""
        self.vhost.set_status(0)
        self._drop_control()


@contextlib.contextmanager
def memory(size, page=HUGE):
    """Memory of huge pages of a size."""
    number = f"/sys/kernel/mm/hugepages/hugepages-{page >> 10}kB/nr_hugepages"
    vdpa.write(number, str(size // page))
    assert int(vdpa.read(number)) == size // page, f"there are not enough pages of {page}"
    ram = vhost.Memory(size, page)
    try:
        yield ram
    finally:
        ram.close()
        vdpa.write(number, "0")


@contextlib.contextmanager
def opened(family, function, ram, count, steps=None):
    """A device of a function with some pairs of queues, driven. `steps` makes
    contexts of what is done to it here.
    """
    steps = steps or contextlib.nullcontext
    attributes = {"max_vqp": count} if count > 1 else {}
    bus, _, address = function.mgmtdev.partition("/")
    with steps("device-add"):
        family.add(address, "driven", bus=bus, **attributes)
    device = vdpa.Device(function.mgmtdev, "driven")
    try:
        device.bind("vhost_vdpa")
        drive = Drive(device, ram, count)
        try:
            yield drive
        finally:
            drive.close()
        device.bind(None)
    finally:
        with steps("device-delete"):
            family.delete("driven")
