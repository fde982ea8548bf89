#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Faults of the model, met by the distribution's mlx5_core and the C driver
mlx5_vdpa: they take their error paths, nothing hangs, and the function works
again when the fault is gone.
"""

import concurrent.futures
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


def attempt(action):
    """Whether an action succeeds, and how long that takes to tell."""
    start = time.monotonic()
    try:
        action()
        return True, time.monotonic() - start
    except (OSError, AssertionError):
        return False, time.monotonic() - start


def came_back(model, function):
    """The function comes up without a refusal, and goes with nothing left.
    Returns whether it had to be reset for that.
    """
    bound, _ = attempt(function.bind)
    if not bound:
        # The driver did not take back all that it had done before.
        function.reset()
    function.unbind()
    with model.clean(), model.bound(function):
        pass
    return not bound


def each_fails(model, function, commands, prepare, action):
    """Each of `commands`, as mlx5.each has them, fails in turn while `action` is done
    after `prepare`.  No failure may keep the function from coming back.
    """
    nevertheless, reset = [], []
    for opcode, number in commands:
        name = f"{opcode} {number}"
        prepare()
        with model.fault(function, "fail", command=mlx5.which(opcode, number),
                         status="INT_ERR", syndrome=0x1234) as hits:
            done, seconds = attempt(action)
            assert hits() == 1, f"{name} did not come"
        assert seconds < 30, f"{name}: {seconds:.1f} s"
        function.unbind()
        if done:
            nevertheless.append(name)
        if came_back(model, function):
            reset.append(name)
    ktap.say(f"{function.name}: each of {len(commands)} commands; done nevertheless:"
             f" {', '.join(nevertheless) or 'none'}; reset was needed after:"
             f" {', '.join(reset) or 'none'}")


@suite.test(timeout=400)
def bring_up(model):
    """mlx5_core: every command of a bring-up fails in turn."""
    tried = set()
    for name in ("new0", "old0"):
        function = mlx5.functions()[name]
        before = model.commands(function)
        with model.bound(function):
            commands = mlx5.each(model.commands(function) - before)
        commands = [step for step in commands if step not in tried]
        each_fails(model, function, commands, lambda: None, function.bind)
        tried.update(commands)


# What the C driver asks for before it registers a device.  If it cannot make the
# queues of one afterwards, Linux 7.3's drops a reference too many, and the kernel
# goes on with memory that was freed.
BEFORE_QUEUES = ("ALLOC_PD", "ALLOC_TRANSPORT_DOMAIN", "ALLOC_UAR", "CREATE_MKEY", "CREATE_TIS",
                 "QUERY_NIC_VPORT_CONTEXT", "QUERY_SPECIAL_CONTEXTS", "QUERY_VPORT_STATE")


@suite.test(timeout=300)
def device_add(model):
    """mlx5_vdpa: what a device add makes before its queues fails in turn."""
    tried = set()
    for name in ("new0", "old0"):
        function = mlx5.functions()[name]

        device = vdpa.Device(function.mgmtdev, "fault")
        with model.bound(function):
            before = model.commands(function)
            with device:
                commands = mlx5.each(model.commands(function) - before)
        commands = [step for step in commands if step[0] in BEFORE_QUEUES and step not in tried]

        def add(device=device):
            with device:
                pass

        each_fails(model, function, commands, function.bind, add)
        tried.update(commands)


@suite.test(timeout=120)
def delayed(model):
    """A command that takes long is waited for."""
    function = mlx5.functions()["new0"]
    with model.clean(), model.fault(function, "delay", command=mlx5.which("CREATE_EQ"), ms=3000):
        start = time.monotonic()
        with model.bound(function):
            assert time.monotonic() - start > 3


@suite.test(timeout=200)
def lost(model):
    """Commands, interrupts and a function are lost: the driver waits a minute for each."""
    functions = mlx5.functions()
    # Commands that it polls for.  One that it waits for by event keeps a
    # semaphore, and Linux 7.3's driver waits for that without an end when it
    # goes back to polling.
    cases = {
        "new0": ("lose", {"command": mlx5.which("QUERY_PAGES")}, False),
        "new1": ("lose", {"command": mlx5.which("ALLOC_UAR")}, False),
        # It looks for what it was not told of.
        "old0": ("lose_interrupts", {"count": 1}, True),
    }
    # It reads as all ones. The driver waits for the answer to a command; one that
    # binds now would wait two minutes for the firmware.
    gone = functions["new2"]
    gone.bind()
    with contextlib.ExitStack() as stack:
        stack.enter_context(model.fault(gone, "gone"))
        hits = {name: stack.enter_context(model.fault(functions[name], kind, **fields))
                for name, (kind, fields, _) in cases.items()}
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(len(cases) + 1))
        unbinding = pool.submit(attempt, gone.unbind)
        attempts = {name: pool.submit(attempt, functions[name].bind) for name in cases}
        for name, (kind, _, expected) in cases.items():
            bound, seconds = attempts[name].result()
            ktap.say(f"{name}: {kind}: {'bound' if bound else 'refused'} after {seconds:.0f} s")
            assert hits[name]() == 1, name
            assert bound == expected, name
            functions[name].unbind()
        unbound, seconds = unbinding.result()
        ktap.say(f"{gone.name}: gone: unbound after {seconds:.0f} s")
        assert unbound
    with model.clean(), model.bound(gone):
        pass
    for name in cases:
        assert not came_back(model, functions[name]), f"{name}: a reset was needed"


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
    """The link goes and comes, and so does the interface; lost interrupts are made up for."""
    with pair(model) as (here, there):
        assert carrier(here)
        for _ in range(3):
            with model.fault(here.function, "link", state="down"):
                vdpa.wait_until(lambda: not carrier(here), "the link to go")
            vdpa.wait_until(lambda: carrier(here), "the link to come back")
        here.ping(there.address)
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


if __name__ == "__main__":
    mlx5.main(suite, __doc__)
