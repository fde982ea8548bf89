#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""What it takes a VMM without a guest to see of rust_mlx5_vdpa on functions of
the model: which memory keys its maps take, when, and where those lead; and that
a reset leaves nothing of a driver.
"""

import contextlib
import functools
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

# pylint: disable=wrong-import-position
import ktap
import mlx5
import rust_mlx5
import vdpa
import vhost
from vhost import HUGE, PAGE, huge_pages

# Where memory is mapped for the device.
BASE = 0x4000_0000
# An entry of the IOTLB is of 4 KiB at least, and of what follows each other in
# memory: the memory of tests is of huge pages, so that they know how many.
RAM = 32 * HUGE

FRAME = 64 + vhost.HEADER

# A feature.
CTRL_VQ = 1 << 17

# Functions whose virtqueues go on where they were, and can be told of other memory;
# whose are made anew for that; whose keys belong to a user context besides; and one
# behind an IOMMU, if there is any.
BEHIND = "new2"
KINDS = ("new0", "old0", "minimal", BEHIND)

suite = ktap.Suite("mlx5_rust_maps")


def on_each(test):
    """A test that is given the name of a function as well, on each kind of them."""

    @functools.wraps(test)
    def run(model):
        for name in KINDS:
            ktap.say(name)
            test(model, name)

    return run


@contextlib.contextmanager
def memory(size=RAM):
    """Memory of huge pages, which must be there again afterwards."""
    with vhost.huge_pages_kept(size // HUGE):
        free = huge_pages("Free")
        assert free >= size // HUGE, f"{free} huge pages"
        ram = vhost.Memory(size)
        try:
            yield ram
        finally:
            ram.close()
            vdpa.wait_until(lambda: huge_pages("Free") == free, "memory that nobody holds")


class Keys:
    """How many memory keys are made and destroyed."""

    def __init__(self, model, function):
        self.model, self.function = model, function
        self.before = self._count()

    def _count(self):
        commands = self.model.commands(self.function)
        return commands["CREATE_MKEY"], commands["DESTROY_MKEY"]

    def took(self):
        """How many since this was asked last."""
        now, before = self._count(), self.before
        self.before = now
        return now[0] - before[0], now[1] - before[1]


@contextlib.contextmanager
def device(model, name="new0", **attributes):
    """A device of a function, opened, and the counts of its keys."""
    function = mlx5.functions()[name]
    with function.translated() if name == BEHIND else contextlib.nullcontext():
        with rust_mlx5.bound(model, function):
            with vdpa.Device(function.mgmtdev, "maps", driver="vhost_vdpa", **attributes) as dev:
                with vhost.Vhost(dev.path) as opened:
                    yield opened, Keys(model, function)


@contextlib.contextmanager
def sender(dev, ram, features=0):
    """Rings for a pair of queues at the beginning of memory that is mapped;
    what is sent goes nowhere. The driver takes `features` beside those it
    needs.
    """
    dev.acknowledge(features)
    dev.set_ring(0, BASE)
    ram.map[0:8 * PAGE] = bytes(8 * PAGE)
    out = vhost.Sender(dev, 1, ram, 4 * PAGE, BASE + 4 * PAGE)
    try:
        yield out
    finally:
        out.close()


def enable(dev, queues=(0, 1)):
    """Enables virtqueues: a pair, if nothing is said."""
    for queue in queues:
        dev.enable(queue)


def start(dev, queues=(0, 1)):
    """Enables virtqueues, and the driver is ready. Returns whether the device
    is, too.
    """
    enable(dev, queues)
    return dev.drive()


def map_all(dev, ram, size=None):
    """Maps memory, page by huge page, as a VMM does at once: all of it, or as
    much of it.
    """
    with dev.batch():
        for at in range(0, size or ram.size, HUGE):
            dev.map(BASE + at, ram, offset=at, size=HUGE)


def unmap_all(dev, ram):
    """Takes all of it back."""
    with dev.batch():
        dev.unmap(BASE, ram.size)


def works(out, iova):
    """A frame at an address is read."""
    out.send(iova, FRAME)
    want = out.next & 0xffff
    vdpa.wait_until(lambda: out.used() == want, f"a frame at {iova:#x}")


def fails(dev, out, iova):
    """A frame at an address cannot be read, and the driver is told."""
    used = out.used()
    out.send(iova, FRAME)
    vdpa.wait_until(lambda: dev.status() & vhost.NEEDS_RESET, f"no frame at {iova:#x}")
    assert out.used() == used


def serves(dev, ram):
    """A driver starts, has a frame read, and resets the device."""
    with sender(dev, ram) as out:
        assert start(dev)
        works(out, BASE + HUGE)
        dev.set_status(0)


@suite.test()
@on_each
def lazy(model, name):
    """What is mapped before a driver runs or while it is stopped takes no command."""
    with memory() as ram, device(model, name) as (dev, keys), model.clean():
        map_all(dev, ram)
        with sender(dev, ram) as out:
            enable(dev)
            assert keys.took() == (0, 0)
            assert dev.drive()
            first = keys.took()
            ktap.say(f"{first[0]} keys for {RAM >> 20} MiB")
            assert 1 <= first[0] <= 16 and first[1] == 0
            works(out, BASE + HUGE)
            assert keys.took() == (0, 0)

            # As QEMU stops: suspended, all is taken back, reset, and again.
            dev.suspend()
            assert dev.base(1) == out.next
            unmap_all(dev, ram)
            map_all(dev, ram)
            dev.set_status(0)
            assert keys.took() == (0, 0), "keys between SUSPEND and reset"
        with sender(dev, ram) as out:
            assert start(dev)
            assert keys.took() == (0, 0), "keys for the same map"
            works(out, BASE + HUGE)
            dev.set_status(0)


@suite.test()
def control_space(model):
    """An address space of the control queue alone takes no key."""
    with memory() as ram, device(model) as (dev, keys), model.clean():
        groups = [dev.group(queue) for queue in range(3)]
        assert groups[0] == groups[1] != groups[2], groups
        dev.set_group_asid(groups[2], 1)
        map_all(dev, ram)
        with sender(dev, ram):
            assert start(dev)
            keys.took()
            for at in range(8):
                dev.map(at * HUGE, ram, offset=at * HUGE, size=HUGE, asid=1)
            dev.unmap(0, 8 * HUGE, asid=1)
            assert keys.took() == (0, 0)
            dev.set_status(0)


@suite.test()
@on_each
def running(model, name):
    """What changes while a driver runs takes a key, and the one of all."""
    more = BASE + 2 * RAM
    with memory(RAM + HUGE) as ram, device(model, name) as (dev, keys), model.clean():
        map_all(dev, ram, RAM)
        with sender(dev, ram) as out:
            assert start(dev)
            works(out, BASE + HUGE)
            keys.took()
            for _ in range(3):
                dev.map(more, ram, offset=RAM, size=HUGE)
                added = keys.took()
                works(out, more)
                works(out, BASE + HUGE)
                dev.unmap(more, HUGE)
                gone = keys.took()
                works(out, BASE + RAM - HUGE)
                ktap.say(f"2 MiB more: {added}; less: {gone}")
                assert sum(added) <= 3 and sum(gone) <= 3
            # It leads nowhere now.
            fails(dev, out, more)
            dev.set_status(0)


@suite.test()
@on_each
def hole(model, name):
    """A part that is taken back is not reached any more, the rest is."""
    gone = BASE + 5 * HUGE
    with memory() as ram, device(model, name) as (dev, keys), model.clean():
        map_all(dev, ram)
        with sender(dev, ram) as out:
            assert start(dev)
            works(out, gone)
            keys.took()
            dev.unmap(gone, HUGE)
            took = keys.took()
            ktap.say(f"a hole: {took}")
            assert sum(took) <= 4
            works(out, gone - PAGE)
            works(out, gone + HUGE)
            fails(dev, out, gone)
            dev.set_status(0)
        # The same again, with the hole from the beginning.
        with sender(dev, ram) as out:
            assert start(dev)
            works(out, gone - PAGE)
            fails(dev, out, gone)
            dev.set_status(0)


@suite.test()
def rights(model):
    """What may only be written is not read."""
    with memory() as ram, device(model) as (dev, _), model.clean():
        with dev.batch():
            dev.map(BASE, ram, size=HUGE)
            dev.map(BASE + HUGE, ram, offset=HUGE, size=HUGE, permissions=vhost.RO)
            dev.map(BASE + 2 * HUGE, ram, offset=2 * HUGE, size=HUGE, permissions=vhost.WO)
        with sender(dev, ram) as out:
            assert start(dev)
            works(out, BASE + HUGE)
            fails(dev, out, BASE + 2 * HUGE)
            dev.set_status(0)


@suite.test()
def many(model):
    """Two thousand pages that do not follow each other take few keys, and a hint."""
    count = 2000
    with memory() as ram, device(model) as (dev, keys), model.clean():
        with mlx5.KernelLog() as log:
            with dev.batch():
                dev.map(BASE, ram, size=HUGE)
                for page in range(count):
                    # From the last one on, so that none joins the one before.
                    offset = HUGE + (count - 1 - page) * PAGE
                    dev.map(BASE + HUGE + page * PAGE, ram, offset=offset, size=PAGE)
            log.wait("ranges are mapped", 5)
        with sender(dev, ram) as out:
            assert start(dev)
            took = keys.took()
            ktap.say(f"{count} pages: {took}")
            assert took[0] <= 8
            for page in (0, 1, 777, count - 1):
                works(out, BASE + HUGE + page * PAGE)
            fails(dev, out, BASE + HUGE + count * PAGE)
            dev.set_status(0)


@suite.test()
@on_each
def nothing(model, name):
    """Without memory a device does not start, and gets no key of all."""
    with memory() as ram, device(model, name) as (dev, keys), model.clean():
        with sender(dev, ram):
            assert not start(dev)
            assert keys.took() == (0, 0)
            dev.set_status(0)
        map_all(dev, ram)
        serves(dev, ram)


@suite.test()
def refused(model):
    """A key that the firmware does not give keeps a device from starting, once."""
    function = mlx5.functions()["new0"]
    with memory() as ram, device(model) as (dev, keys):
        map_all(dev, ram)
        with model.fault(function, "fail", command=mlx5.which("CREATE_MKEY"),
                         status="LIM_ERR", syndrome=0xabcde), mlx5.KernelLog() as log:
            with sender(dev, ram):
                assert not start(dev)
                log.wait("no key for", 5)
            dev.set_status(0)
        made, gone = keys.took()
        ktap.say(f"{made} asked for, {gone} taken back")
        serves(dev, ram)


@suite.test()
def in_doubt(model):
    """A virtqueue of which nobody knows whether it runs is taken away by a reset."""
    function = mlx5.functions()["new0"]
    name = "VIRTIO_NET_Q"
    with rust_mlx5.loaded(command_timeout_ms=500), memory() as ram, device(model) as (dev, _):
        map_all(dev, ram)
        # Two set fields, and two have the queues run.
        which = mlx5.which(f"MODIFY_GENERAL_OBJECT {name}", after=2)
        before = model.commands(function)
        with sender(dev, ram), model.fault(function, "lose", command=which) as hits:
            assert not start(dev)
            assert hits() == 1
            dev.set_status(0)
            took = model.commands(function) - before
        assert took[f"DESTROY_GENERAL_OBJECT {name}"] >= 1, took
        serves(dev, ram)


@suite.test()
def control(model):
    """The control queue is where the driver has it, and not where the one before had it."""
    # Without MQ it is behind the first pair, however many there are.
    index = 2
    with memory() as ram, device(model, max_vqp=2) as (dev, _):
        map_all(dev, ram)
        for offset, is_last in ((8 * PAGE, False), (16 * PAGE, True)):
            with sender(dev, ram, features=CTRL_VQ):
                ring = vhost.Sender(dev, index, ram, offset, BASE + offset)
                assert start(dev, (0, 1, index))
                if is_last:
                    # There is no room for an answer: the device says that it is broken.
                    fails(dev, ring, BASE + HUGE)
                ring.close()
                dev.set_status(0)


@suite.test()
@on_each
def held(model, name):
    """Memory that a process lets go of is its own again, as soon as nothing leads there."""
    with device(model, name) as (dev, _), model.clean():
        with memory() as ram:
            map_all(dev, ram)
            serves(dev, ram)
            unmap_all(dev, ram)
            # While nobody drives the device, keys of what is gone go after a while.


if __name__ == "__main__":
    rust_mlx5.main(suite, __doc__)
