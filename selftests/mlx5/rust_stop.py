#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Devices of rust_mlx5_vdpa that are stopped by their status while frames go both
ways, a thousand times, and what comes of a stop that fails.
"""

import contextlib
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

# pylint: disable=wrong-import-position
import ktap
import mlx5
import nic
import rust_mlx5
import stops
import vhost

# How often devices are stopped: of virtqueues that interrupt, and of others.
TIMES = {"new0": 1000, "old0": 200}

# How long a command may take, in milliseconds.
LIMIT = 300

suite = ktap.Suite("mlx5_rust_stop")


@contextlib.contextmanager
def joined(model, name, legacy=False):
    """A device of a function, with a driver, and another one behind the switch."""
    functions = mlx5.functions()
    with contextlib.ExitStack() as stack:
        stack.enter_context(vhost.huge_pages_kept(4))
        nics = []
        for each in (name, "new1"):
            function = stack.enter_context(rust_mlx5.bound(model, functions[each]))
            nics.append(stack.enter_context(nic.driver(function, each)))
        stopped = stops.Stopped(*nics, legacy)
        yield stopped
        for one in nics:
            one.reset()


@suite.test(timeout=300)
def thousand(model):
    """A device is stopped by its status in the midst of traffic, and goes on by each of the ways"""
    for name, times in TIMES.items():
        for legacy in (False, True):
            with model.clean(), joined(model, name, legacy) as stopped:
                stopped.rounds(times // 2)
                ktap.say(f"{name}, {'legacy' if legacy else 'modern'}: {stopped.words()}")
                assert stopped.midst and stopped.taken_back, "no stop was in the midst of traffic"


def failing(model, kind, **fields):
    """In the context no virtqueue of new0 can be suspended."""
    which = mlx5.which("MODIFY_GENERAL_OBJECT VIRTIO_NET_Q", count=2)
    return model.fault(mlx5.functions()["new0"], kind, command=which, **fields)


@suite.test()
def failed(model):
    """A stop that the firmware refuses shows as STOP_FAILED, and the device runs on until the next"""
    for legacy in (False, True):
        with joined(model, "new0", legacy) as stopped:
            with failing(model, "fail", status="INT_ERR", syndrome=0x1616) as hits:
                stopped.ask()
                stopped.told()
                assert hits(), "no command"
            status = stopped.here.vhost.status()
            assert status == stopped.running | vhost.STOP_FAILED, f"{status:#x}"
            with stopped.traffic():
                pass
            stopped.here.wait_sent()
            stopped.out.check()
            # Nothing stops it until somebody has seen that.
            stopped.here.vhost.set_status(status | vhost.STOP)
            status = stopped.here.vhost.status()
            assert status == stopped.running | vhost.STOP_FAILED, f"{status:#x}"
            stopped.here.vhost.resume()
            stopped.rounds(10)


@suite.test()
def late(model):
    """A stop that the firmware does not answer leaves a device that needs a reset, and gets it"""
    with rust_mlx5.loaded(command_timeout_ms=LIMIT), joined(model, "new0") as stopped:
        with failing(model, "lose") as hits:
            stopped.ask()
            stopped.told()
            assert hits(), "no command"
        status = stopped.here.vhost.status()
        assert status & vhost.NEEDS_RESET and not status & vhost.STOP, f"{status:#x}"
        stopped.here.reset()
        stopped.there.reset()
        again = stops.Stopped(stopped.here, stopped.there)
        again.rounds(10)


if __name__ == "__main__":
    rust_mlx5.main(suite, __doc__)
