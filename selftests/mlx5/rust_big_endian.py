#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Legacy drivers of big-endian guests on rust_mlx5_vdpa, whose hardware knows
little-endian rings only: the driver relays theirs.
"""

import contextlib
import os
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "lib"), os.path.join(HERE, "..", "guest")]

# pylint: disable=wrong-import-position
import joined
import ktap
import mlx5
import nic
import rust_mlx5
import vdpa
import vhost
from nic import BASE, BUFFER
from vhost import HUGE, PAGE

# Functions that serve legacy drivers: whose virtqueues interrupt by themselves and
# are resumed; that do neither; that have little; that know no others; and one
# behind an IOMMU, if there is any.
BEHIND = "new2"
KINDS = ("new0", "old0", "minimal", "legacy", BEHIND)

# Features of a driver, with and without receive buffers that are merged.
PLAIN = nic.MAC
MERGED = nic.MAC | nic.MRG_RXBUF

# Flags of descriptors, and of the header.
NEXT, WRITE = 1, 2
NEEDS_CSUM = 1

# What a receive buffer has of memory where packets take several.
SMALL = 512

LITTLE, BIG = "little", "big"

suite = ktap.Suite("mlx5_rust_big_endian")


def bound(model):
    """What gives functions to our driver."""
    return lambda function: rust_mlx5.bound(model, function)


def set_order(device, order):
    """Says what byte order legacy drivers of a device have."""
    vdpa.write(f"{device.sysfs}/legacy_byte_order", order)


@contextlib.contextmanager
def driven(model, name, **attributes):
    """A device of a function with a driver in this process, which has not begun."""
    function = mlx5.functions()[name]
    with contextlib.ExitStack() as stack:
        if name == BEHIND:
            stack.enter_context(function.translated())
        stack.enter_context(rust_mlx5.bound(model, function))
        yield stack.enter_context(nic.driver(function, name, **attributes))


@contextlib.contextmanager
def bench(model, name="new0", **attributes):
    """A device of a function, and a modern driver behind the switch."""
    with vhost.huge_pages_kept(8):
        with driven(model, "new1") as there, driven(model, name, **attributes) as here:
            there.start()
            yield here, there


def begin(here, order=BIG, features=PLAIN, **more):
    """A legacy driver of a guest with a byte order begins."""
    set_order(here.device, order)
    here.order = ">" if order == BIG else "<"
    here.start(features, legacy=True, **more)


def modern(here, features=PLAIN):
    """A modern driver begins, whatever legacy ones are."""
    here.order = "<"
    here.start(features)


def relay_threads(here):
    """Threads that relay rings of a device."""
    found = []
    for task in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if task.isdigit() and vdpa.read(f"/proc/{task}/comm").startswith(
                    f"{here.device.name}-relay"):
                found.append(task)
    return found


def checksum(here, there):
    """The hardware does what the header of a frame says, of both ways: a checksum
    that is left to it is right.
    """
    whole = nic.flow(there.mac, here.mac, nic.UDP, 4, 4711, bytes(range(100)))
    # Without its checksum, but for what the pseudo header adds to it.
    pseudo = whole[26:34] + struct.pack(">HH", nic.UDP, len(whole) - 34)
    total = sum(struct.unpack(">6H", pseudo))
    total = (total & 0xffff) + (total >> 16)
    frame = whole[:40] + struct.pack(">H", total) + whole[42:]
    here.put(frame, header=struct.pack(here.order + "BBHHHH", NEEDS_CSUM, 0, 0, 0, 34, 6))
    here.kick(1)
    there.wait(whole, "a frame with the right checksum")
    there.send(nic.flow(here.mac, there.mac, nic.UDP, 4, 4712, b"back"))
    head, _ = here.wait(nic.flow(here.mac, there.mac, nic.UDP, 4, 4712, b"back"))
    assert head[0] == nic.DATA_VALID, head.hex()


def several(here, there):
    """A frame in several descriptors, the header by itself and with some of the
    frame; and frames that take several receive buffers, if they may.
    """
    ring = here.rings[1]
    for number, cut in enumerate((here.header, here.header + 20, 4)):
        frame = nic.ethernet(there.mac, here.mac, bytes([number]) * 900)
        whole = bytes(here.header) + frame
        at = nic.FRAMES
        here.memory.map[at:at + len(whole)] = whole
        cuts = [0, cut, cut + 300, len(whole)]
        for index, (first, last) in enumerate(zip(cuts, cuts[1:])):
            is_last = last == len(whole)
            ring.describe(100 + index, BASE + at + first, last - first,
                          0 if is_last else NEXT, 0 if is_last else 101 + index)
        ring.offer(100)
        here.kick(1)
        there.wait(frame, f"a frame cut at {cut}")
        here.wait_sent()
    if here.room == SMALL:
        frame = nic.ethernet(here.mac, there.mac, bytes(range(250)) * 5)
        there.send(frame)
        head, _ = here.wait(frame, "a frame in several buffers")
        assert struct.unpack_from(here.order + "H", head, 10)[0] == 3, head.hex()


@suite.test(timeout=300)
def frames(model):
    """Frames both ways on each kind of function, before and after little-endian drivers."""
    for name in KINDS:
        with bench(model, name) as (here, there):
            for features in (PLAIN, MERGED):
                if features & ~here.vhost.features():
                    ktap.say(f"{name}: no features {features:#x}")
                    continue
                ktap.say(f"{name}: features {features:#x}")
                for order in (LITTLE, BIG, LITTLE):
                    here.room = SMALL if features == MERGED else BUFFER
                    begin(here, order, features)
                    assert here.header == (12 if features == MERGED else 10)
                    # More than the ring has, and than the shadow has descriptors for.
                    for _ in range(20):
                        nic.talk(here, there)
                    several(here, there)
                    here.reset()
            if name != "legacy":
                here.room = BUFFER
                set_order(here.device, BIG)
                modern(here)
                nic.talk(here, there)


@suite.test(timeout=120)
def headers(model):
    """What a header says reaches the hardware, and what the hardware says the driver."""
    with bench(model) as (here, there):
        for order in (LITTLE, BIG):
            begin(here, order, PLAIN | nic.CSUM | nic.GUEST_CSUM)
            checksum(here, there)
            here.reset()


@suite.test(timeout=200)
def indices(model):
    """SUSPEND, GET_VRING_BASE and RESUME give and take the driver's own indices."""
    for name in ("new0", "old0"):
        with bench(model, name) as (here, there):
            # Up to the end of the numbers and beyond.
            begin(here, base=0xfffa)
            for _ in range(5):
                nic.talk(here, there)
            sent, received = here.rings[1].next, here.rings[0].seen
            here.vhost.suspend()
            assert here.vhost.base(1) == sent, (here.vhost.base(1), sent)
            assert here.vhost.base(0) == received, (here.vhost.base(0), received)
            assert here.rings[0].pending() == nic.COUNT
            frame = nic.ethernet(there.mac, here.mac, b"what waits")
            here.send(frame)
            assert not here.is_sent()
            if name == "new0":
                here.vhost.resume()
                there.wait(frame, "what waited")
                nic.talk(here, there)
                here.vhost.suspend()
            # Another driver goes on where this one was, with what waits in its rings.
            bases = [here.vhost.base(queue) for queue in range(2)]
            assert bases[0] == here.rings[0].seen
            here.vhost.set_status(0)
            here.start_at(bases, PLAIN, legacy=True)
            there.wait(frame, "what waited")
            here.wait_sent()
            nic.talk(here, there)
            # A reset stands for nothing.
            here.reset()
            begin(here)
            nic.talk(here, there)


@suite.test(timeout=120)
def maps(model):
    """Memory that is mapped while rings are relayed, where the shadow rings are."""
    for name in ("new0", "old0"):
        with bench(model, name) as (here, there):
            begin(here)
            nic.talk(here, there)
            ram = vhost.Memory(HUGE)
            try:
                for iova in (BASE + HUGE, BASE + 2 * HUGE, BASE - HUGE):
                    here.vhost.map(iova, ram)
                    nic.talk(here, there)
                    # A frame from there.
                    frame = nic.ethernet(there.mac, here.mac, struct.pack(">Q", iova))
                    ram.map[0:here.header + len(frame)] = bytes(here.header) + frame
                    here.rings[1].describe(200, iova, here.header + len(frame))
                    here.rings[1].offer(200)
                    here.kick(1)
                    there.wait(frame, f"a frame at {iova:#x}")
                here.wait_sent()
                for iova in (BASE + HUGE, BASE + 2 * HUGE, BASE - HUGE):
                    here.vhost.unmap(iova, HUGE)
                    nic.talk(here, there)
                assert here.vhost.base(1) == here.rings[1].next
                here.reset()
            finally:
                ram.close()


def at_window(here):
    """A buffer where the shadow rings are."""
    here.rings[1].describe(0, BASE + HUGE, 100)
    here.rings[1].offer(0)


def jumps(here):
    """An available index that jumps ahead."""
    here.rings[1].next = (here.rings[1].next + 1000) & 0xffff
    here.rings[1].publish()


def loops(here):
    """A chain without an end."""
    here.rings[1].describe(0, BASE + nic.FRAMES, 100, NEXT, 1)
    here.rings[1].describe(1, BASE + nic.FRAMES, 100, NEXT, 0)
    here.rings[1].offer(0)


def outside(here):
    """A descriptor that is none."""
    here.rings[1].offer(999)


def unmapped(here):
    """A header that is nowhere."""
    here.rings[1].describe(0, BASE - PAGE, 100)
    here.rings[1].offer(0)


def backwards(here):
    """Something to write in what is to be sent."""
    here.rings[1].describe(0, BASE + nic.FRAMES, 100, WRITE)
    here.rings[1].offer(0)


def short(here):
    """A buffer without room for a header."""
    here.rings[1].describe(0, BASE + nic.FRAMES, 9)
    here.rings[1].offer(0)


def indirect(here):
    """A table of descriptors, which was not negotiated."""
    here.rings[1].describe(0, BASE + nic.FRAMES, 32, 4)
    here.rings[1].offer(0)


HOSTILE = {
    at_window: "in a shadow ring",
    jumps: "jumped ahead",
    loops: "",
    outside: "",
    unmapped: "no read access",
    backwards: "a buffer of the other direction",
    short: "without room for a header",
    indirect: "",
}


@suite.test(timeout=200)
def hostile(model):
    """Rings that are broken end in NEEDS_RESET with the reason, and do others no harm."""
    for breaks, words in HOSTILE.items():
        ktap.say(breaks.__doc__)
        # Each with a device of its own, whose messages are not held back.
        with model.clean(), bench(model) as (here, there), mlx5.KernelLog() as log:
            begin(here)
            nic.talk(here, there)
            breaks(here)
            here.kick(1)
            vdpa.wait_until(lambda here=here: here.vhost.status() & vhost.NEEDS_RESET,
                            "NEEDS_RESET")
            log.wait("virtqueue 1 is not relayed: ", 5)
            assert words in log.read(), log.read()
            there.send(nic.ethernet(nic.EVERYBODY, there.mac, b"nobody looks"))
            there.wait_sent()
            here.reset()
            begin(here)
            nic.talk(here, there)


@suite.test(timeout=120)
def costs(model):
    """Who is not big-endian pays nothing: no thread, no key, no command, and the doorbell is his."""
    function = mlx5.functions()["new0"]
    with bench(model) as (here, there):

        def starts(order):
            before = model.commands(function)
            begin(here, order)
            nic.talk(here, there)
            took = model.commands(function) - before
            here.reset()
            return took

        # The first one finds what the device began with.
        starts(LITTLE)
        plain = starts(LITTLE)
        assert not relay_threads(here)
        relayed = starts(BIG)
        assert len(relay_threads(here)) == 1
        ktap.say(f"commands: {plain.total()}, and {relayed.total()} relayed")
        # What the shadow rings took goes with the next driver, and is not missed by the one after.
        starts(LITTLE)
        again = starts(LITTLE)
        assert again == plain, f"{again} commands, not {plain}"
        for order in (LITTLE, BIG, LITTLE):
            begin(here, order)
            try:
                here.vhost.doorbell(0).close()
                assert order == LITTLE, "the doorbell of a relayed queue can be mapped"
            except OSError:
                assert order == BIG, "the doorbell cannot be mapped"
            here.reset()


@suite.test(timeout=120)
def refused(model):
    """Who cannot be served big-endian is refused, with the reason."""
    function = mlx5.functions()["modern"]
    with model.clean(["QueueVersion"]), rust_mlx5.bound(model, function):
        with vdpa.Device(function.mgmtdev, "modern") as device, mlx5.KernelLog() as log:
            try:
                set_order(device, BIG)
                raise AssertionError("a device without legacy virtqueues takes it")
            except OSError:
                log.wait("attribute legacy_byte_order stays little", 5)
    # The host's own driver is none of a big-endian guest.
    function = mlx5.functions()["new0"]
    with rust_mlx5.bound(model, function):
        with vdpa.Device(function.mgmtdev, "own") as device, mlx5.KernelLog() as log:
            vdpa.write(f"{device.sysfs}/legacy", "require")
            set_order(device, BIG)
            with contextlib.suppress(OSError):
                device.bind("virtio_vdpa")
            log.wait("set legacy_byte_order to little", 10)


@suite.test(timeout=300)
def any_device(model):
    """What is asked of any device, by a driver that has vhost-vdpa itself."""
    joined.ask_any(model, bound(model), ("old0", "old1"),
                   ["byte order: legacy driver of a big-endian", "byte order: modern driver",
                    "byte order: a driver of the other"])


if __name__ == "__main__":
    rust_mlx5.main(suite, __doc__)
