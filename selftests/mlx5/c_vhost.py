#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The C driver mlx5_vdpa on functions of the model, under vhost-vdpa: modern
guests in QEMU, and traffic with a function that the host has.
"""

import functools
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "lib"), os.path.join(HERE, "..", "guest")]

# pylint: disable=wrong-import-position
import joined
import ktap
import mlx5

suite = ktap.Suite("mlx5_c_vhost")


def join(model, host, *guests):
    """As joined.joined, on functions that mlx5_core has."""
    return joined.joined(model, model.bound, host, *guests)


def serve(model, host, name, card):
    """Traffic with a guest, also while it is stopped and goes on."""
    with join(model, host, name) as (port, device):
        joined.serve(device, port, card, functools.partial(joined.streams, model),
                     joined.stop_and_continue)


@suite.test(timeout=500)
def msix(model):
    """A guest with MSI-X that rings the doorbell of the function itself, stop and cont."""
    serve(model, "new1", "new0", f"{joined.MODERN},page-per-vq=on")


@suite.test(timeout=500)
def events(model):
    """A guest with QPs for events whose kicks are calls, stop and cont without resume."""
    serve(model, "old1", "old0", joined.MODERN)


@suite.test(timeout=500)
def live_migration(model):
    """Live migration between two functions, with traffic."""
    # Without MRG_RXBUF, which this driver does not offer by default, buffers
    # for segments are chains too.
    card = f"{joined.MODERN},guest_tso4=off,guest_tso6=off,guest_ecn=off"
    with join(model, "old0", "new0", "new1") as (port, here, there):
        joined.live_migration(here, there, port, card)


# What the tests of vhost-vdpa ask of any device that can be suspended, and of
# those that can be resumed too.  This driver loses kicks of suspended queues.
SUSPENDED = ("ring state: split",)
RESUMED = ("what waits goes with the next kick", "twice, and RESUME", "move to other places")


@suite.test(timeout=700)
def ring_state(model):
    """Suspend, resume and ring state, by a driver that has vhost-vdpa itself."""
    joined.ask_any(model, model.bound, ("new0", "new1"), SUSPENDED + RESUMED)
    joined.ask_any(model, model.bound, ("old0", "old1"), SUSPENDED)


if __name__ == "__main__":
    mlx5.main(suite, __doc__)
