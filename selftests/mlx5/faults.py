#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Faults of the model, met by the distribution's mlx5_core and the C driver
mlx5_vdpa: they take their error paths, nothing hangs, and the function works
again when the fault is gone.
"""

import contextlib
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "lib"), HERE]

# pylint: disable=wrong-import-position
import c_vdpa
import ktap
import mlx5
import vdpa

suite = ktap.Suite("mlx5_faults")


def which(name, after=0, count=1):
    """Which command a fault is for."""
    opcode, _, kind = name.partition(" ")
    return {"opcode": opcode, "after": after, "count": count, **({"object": kind} if kind else {})}


def attempt(action):
    """Whether an action succeeds, and how long that takes to tell."""
    start = time.monotonic()
    try:
        action()
        return True, time.monotonic() - start
    except (OSError, AssertionError):
        return False, time.monotonic() - start


@suite.test(timeout=120)
def delayed(model):
    """A command that takes long is waited for."""
    function = mlx5.functions()["new0"]
    with model.clean(), model.fault(function, "delay", command=which("CREATE_EQ"), ms=3000):
        start = time.monotonic()
        with model.bound(function):
            assert time.monotonic() - start > 3


@contextlib.contextmanager
def pair(model):
    """Two ports under virtio_vdpa that talk."""
    with c_vdpa.pair(model, "new0", "old0") as (here, there):
        here.ping(there.address)
        yield here, there
        here.ping(there.address)


def carrier(port):
    """What the network interface says of its link."""
    return port.space.run("cat", f"/sys/class/net/{port.netdev}/carrier").stdout.strip() == "1"


@suite.test(timeout=120)
def link(model):
    """The link goes down and comes back: the interface follows."""
    with pair(model) as (here, _there):
        assert carrier(here)
        for _ in range(3):
            with model.fault(here.function, "link", state="down"):
                vdpa.wait_until(lambda: not carrier(here), "the link to go")
            vdpa.wait_until(lambda: carrier(here), "the link to come back")


@suite.test(timeout=120)
def queue_interrupts(model):
    """Interrupts of virtqueues are lost: what comes next makes up for it."""
    with pair(model) as (here, there):
        with model.fault(here.function, "lose_interrupts", count=5) as hits:
            here.space.run("ping", "-c", 20, "-i", "0.1", "-W", 1, there.address, check=False)
            assert hits() > 0


@suite.test(timeout=120)
def pages(model):
    """The firmware asks for pages and gives them back."""
    function = mlx5.functions()["new0"]
    with model.clean(), model.bound(function):
        before = model.objects(function)["pages"]
        for change in (64, -64, 1, -1):
            with model.fault(function, "page_request", pages=change):
                vdpa.wait_until(lambda: model.objects(function)["pages"] == before + max(change, 0),
                                "pages", 20)


@suite.test(timeout=120)
def queue_error(model):
    """A virtqueue in error moves nothing; one made anew does."""
    # The driver suspends it all the same when it is unbound.
    with c_vdpa.pair(model, "new0", "old0", expected=["StateTransition"]) as (here, there):
        here.ping(there.address)
        queue = model.queues(here.function)[0]
        with model.fault(here.function, "queue_error", queue=queue):
            output = here.space.run("ping", "-c", 3, "-i", "0.2", "-W", 1, there.address,
                                    check=False).stdout
            assert " 0 received" in output, output
    with pair(model):
        pass


@suite.test(timeout=200)
def fatal(model):
    """Fatal health: mlx5_core gives up the function and takes it again."""
    function = mlx5.functions()["new0"]
    function.bind()
    with mlx5.KernelLog() as log, model.fault(function, "health", syndrome="HW_FATAL_ERR"):
        log.wait("Health issue observed", 60)
    unbound, seconds = attempt(function.unbind)
    ktap.say(f"unbound after {seconds:.1f} s")
    assert unbound
    with model.clean(), model.bound(function):
        pass


@suite.test(timeout=200)
def gone(model):
    """The function reads as all ones: it can be unbound, and bound again."""
    function = mlx5.functions()["new0"]
    function.bind()
    with model.fault(function, "gone"):
        # The driver waits a minute for the answer to a command; one that binds
        # now would wait two for the firmware.
        unbound, seconds = attempt(function.unbind)
        ktap.say(f"unbound after {seconds:.1f} s")
        assert unbound
    with model.clean(), model.bound(function):
        pass


if __name__ == "__main__":
    mlx5.main(suite, __doc__)
