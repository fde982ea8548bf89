#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""vDPA devices of rust_mlx5_vdpa on functions of the model, under vhost-vdpa:
guests of either kind in QEMU, and traffic with a function that the host has.
"""

import collections
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "lib"), os.path.join(HERE, "..", "guest")]

# pylint: disable=wrong-import-position
import joined
import kicks
import ktap
import mlx5
import qemu
import rust_mlx5
import traffic

suite = ktap.Suite("mlx5_rust_vhost")


def bound(model):
    """What gives functions to our driver."""
    return lambda function: rust_mlx5.bound(model, function)


def heard_kicks(model, function):
    """How often the NIC heard the doorbell of each queue so far."""
    queues = model.ask("stats", function.name)["queues"]
    return collections.Counter({int(queue): count["kicks"] for queue, count in queues.items()})


def join(model, host, *guests, **attributes):
    """As joined.joined, on functions that our driver has."""
    return joined.joined(model, bound(model), host, *guests, **attributes)


@suite.test(timeout=500)
def kinds(model):
    """Modern guests and legacy ones in turn, on one device, with stop and cont."""
    with join(model, "new1", "new0") as (port, device):
        def fast(guest, port):
            with kicks.Kicks() as probe:
                joined.streams(model, guest, port)
                called = probe.of(device)
            # Those that are looked for in vain where doorbells are mapped; the
            # hardware is seldom without buffers to receive into.
            ktap.say(f"calls of kick_vq: {dict(called)}")
            assert called[1], "kicks are not counted"

        more = fast, joined.stop_and_continue
        for card, steps in ((joined.MODERN, more), (joined.LEGACY, more),
                           (joined.MODERN, [joined.outside])):
            ktap.say(card)
            joined.serve(device, port, card, *steps)


@suite.test(timeout=300)
def doorbells(model):
    """A modern guest rings the doorbells of two queue pairs by itself."""
    function = mlx5.functions()["new0"]
    card = f"{joined.MODERN},page-per-vq=on,mq=on,vectors=6"
    with join(model, "new1", "new0", max_vqp=2) as (port, device):
        with qemu.Guest(device, card=card, backend="queues=2", cpus=2) as guest:
            guest.wait_boot()
            # Behind those that vhost-vdpa itself begins with.
            before = heard_kicks(model, function)
            with kicks.Kicks() as probe:
                traffic.prepare(guest)
                joined.report(traffic.both_ways(guest, port))
                # The driver gives each processor a transmit queue of its own.
                for processor in (1, 2):
                    ktap.say(guest.get(
                        f"taskset {processor} guest-tool send {traffic.HOST}:{traffic.PORT}"
                        " --up 1000000 --down 1000000", timeout=120))
                called = probe.of(device)
            heard = heard_kicks(model, function) - before
            ktap.say(f"kicks heard by the NIC: {dict(heard)}; calls of kick_vq: {dict(called)}")
            for queue in range(4):
                assert heard[queue], f"queue {queue} was not kicked"
                assert not called[queue], f"the doorbell of queue {queue} is not mapped"
            # The control queue has no doorbell.
            assert called[4], "kicks are not counted"


@suite.test(timeout=400)
def older(model):
    """Guests of both kinds in turn where virtqueues neither interrupt nor are resumed."""
    with join(model, "old1", "old0") as (port, device):
        for card in (joined.MODERN, joined.LEGACY):
            ktap.say(card)
            joined.serve(device, port, card, joined.stop_and_continue)


@suite.test(timeout=500)
def live_migration(model):
    """Live migration of a modern guest and of a legacy one, with traffic."""
    with join(model, "new2", "new0", "new1") as (port, here, there):
        joined.live_migration(here, there, port, joined.MODERN)
        # And back.
        joined.live_migration(there, here, port, joined.LEGACY)


# What vhost-vdpa-test asks of any device, as far as a function has what it takes.
TITLES = ("SUSPEND: ", "STOP ", "ring state: split", "reset", "queue disabled", "kick before",
          "legacy", "control: ", "frames: split", "IOTLB: ", "hostile: ")


@suite.test(timeout=700)
def any_device(model):
    """What is asked of any device, by a driver that has vhost-vdpa itself."""
    # A third one goes on while another is given rings that are broken; the
    # hardware does not suspend a virtqueue that failed over them.
    joined.ask_any(model, bound(model), ("new0", "new1", "new2"), TITLES, ["StateTransition"])


# Where virtqueues neither interrupt nor can be resumed; those are made anew.
OLDER = ("SUSPEND: ", "STOP ", "ring state: split", "reset", "queue disabled", "kick before",
         "what waits goes with", "move to other places")


@suite.test(timeout=700)
def any_older_device(model):
    """What is asked of any device that can be suspended, on older firmware."""
    joined.ask_any(model, bound(model), ("old0", "old1"), OLDER)


if __name__ == "__main__":
    rust_mlx5.main(suite, __doc__)
