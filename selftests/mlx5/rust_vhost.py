#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""vDPA devices of rust_mlx5_vdpa on functions of the model, under vhost-vdpa:
guests of either kind in QEMU, and traffic with a function that the host has.
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "lib"), os.path.join(HERE, "..", "guest")]

# pylint: disable=wrong-import-position
import joined
import ktap
import rust_mlx5

suite = ktap.Suite("mlx5_rust_vhost")


def bound(model):
    """What gives functions to our driver."""
    return lambda function: rust_mlx5.bound(model, function)


def join(model, host, *guests):
    """As joined.joined, on functions that our driver has."""
    return joined.joined(model, bound(model), host, *guests)


@suite.test(timeout=400)
def kinds(model):
    """A modern guest and legacy ones in turn, on one device."""
    with join(model, "new1", "new0") as (port, device):
        for card in (joined.MODERN, joined.LEGACY, joined.MODERN, joined.LEGACY):
            ktap.say(card)
            joined.serve(device, port, card)


@suite.test(timeout=400)
def stop_and_continue(model):
    """stop and cont while traffic goes, of a modern guest and of a legacy one."""
    with join(model, "new1", "new0") as (port, device):
        for card in (joined.MODERN, joined.LEGACY):
            joined.stop_and_continue(card, device, port, card)


# What vhost-vdpa-test asks of any device, as far as a function has what it takes.
TITLES = ("SUSPEND: ", "STOP ", "ring state: split", "reset", "queue disabled", "kick before",
          "legacy", "control: ", "frames: split", "IOTLB: ", "hostile: ")


@suite.test(timeout=400)
def any_device(model):
    """What is asked of any device, by a driver that has vhost-vdpa itself."""
    # A third one goes on while another is given rings that are broken; the
    # hardware does not suspend a virtqueue that failed over them.
    joined.ask_any(model, bound(model), ("new0", "new1", "new2"), TITLES, ["StateTransition"])


if __name__ == "__main__":
    rust_mlx5.main(suite, __doc__)
