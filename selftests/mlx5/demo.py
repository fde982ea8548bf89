#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The main job: a legacy and a modern guest on vDPA devices of two functions
of a NIC, at the same time; then a legacy guest where the modern one was.

Nobody configures anything between the two.  The guests exchange pings and TCP
with each other, both ways, and with a machine behind the uplink of the NIC.
Kicks of the modern guest are counted.  A table of results ends it.
"""

import contextlib
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "lib"), os.path.join(HERE, "..", "guest")]

# pylint: disable=wrong-import-position
import joined
import kicks
import mlx5
import qemu
import rust_mlx5
import stage
import traffic
import vdpa

# The functions, with the addresses of the guests on them, which are in the
# network of the uplink.
FIRST, SECOND = ("new0", "10.78.0.2"), ("new1", "10.78.0.3")

# Has the doorbell of each virtqueue in a page of its own.
DOORBELLS = f"{joined.MODERN},page-per-vq=on"

# The queues of a device that move frames, and the one that the driver serves
# itself, which has no doorbell.
DATA, CONTROL = (0, 1), 2


class Port:
    """A function that our driver has, and its vDPA device; a context."""

    def __init__(self, show, model, name, address):
        self.show = show
        self.model = model
        self.function = mlx5.functions()[name]
        self.address = address
        self.device = vdpa.Device(self.function.mgmtdev, f"vdpa-{name}", driver="vhost_vdpa",
                                  mac=self.function.mac)
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        function = self.function
        with self.stack as stack, mlx5.KernelLog() as log:
            self.show.step(f"{function.address}: driver_override {rust_mlx5.DRIVER}, bind")
            stack.enter_context(rust_mlx5.bound(self.model, function))
            log.wait(": ready", 10)
            line = next(line for line in log.text.splitlines() if ": ready" in line)
            self.show.step(f"  {line.split(';', 1)[1]}")
            self.show.step(f"vdpa dev add name {self.device.name} mgmtdev {function.mgmtdev}"
                           f" mac {function.mac}")
            stack.enter_context(self.device)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        self.stack.__exit__(*error)

    def start(self, kind, card):
        """A guest on the device, to be entered."""
        self.show.step(f"booting a {kind} guest (virtio-net-pci,{card}) on {self.device.path}")
        return qemu.Guest(self.device, card=card)

    def doorbells(self):
        """How often the NIC heard the doorbells of queues that move frames."""
        queues = self.model.ask("stats", self.function.name)["queues"]
        return sum(queues.get(str(queue), {"kicks": 0})["kicks"] for queue in DATA)


def converse(show, first, second):
    """Traffic between two guests, and from both to the uplink.  Of each: of which
    kind it is, itself, and its port.
    """
    (one, guest, here), (two, other, there) = first, second
    show.step(f"  ping and TCP, {one} and {two} guest, both ways, every byte checked")
    neighbour = traffic.Neighbour(other, there.address, here.address)
    show.said(f"{one}, {two}", traffic.both_ways(guest, neighbour,
                                                 names=(f"{one} guest", f"{two} guest")))
    show.step(f"  ping and TCP to {mlx5.UPLINK}, a machine behind the uplink of the NIC")
    for kind, sender, _ in (first, second):
        show.said(f"{kind}, uplink", traffic.outwards(sender, mlx5.UPLINK,
                                                      (f"{kind} guest", "uplink")))


def show_guests(show, probe, first, second):
    """A legacy guest and a modern one at the same time, and then a legacy one
    in place of the modern one.
    """
    with first.start("legacy", joined.LEGACY) as legacy:
        with second.start("modern", DOORBELLS) as modern:
            show.boots("legacy", legacy)
            show.boots("modern", modern)
            # Behind those that vhost-vdpa itself begins with.
            rung, called = second.doorbells(), probe.of(second.device)
            traffic.prepare(legacy, first.address)
            traffic.prepare(modern, second.address)
            converse(show, ("legacy", legacy, first), ("modern", modern, second))
            rung, called = second.doorbells() - rung, probe.of(second.device) - called
            data = sum(called[queue] for queue in DATA)
            assert rung, "the NIC heard no kick of the modern guest"
            assert not data, f"{data} kicks of the modern guest were calls of kick_vq"
            assert called[CONTROL], "kicks are not counted"
            show.said("modern", [("kicks of the queues that move frames",
                                  f"{rung} heard by the NIC, {data} calls of kick_vq")])
        show.step("  the modern guest is off; its device stays as it is")
        with second.start("legacy", joined.LEGACY) as other:
            show.boots("legacy", other)
            traffic.prepare(other, second.address)
            converse(show, ("legacy", legacy, first), ("new legacy", other, second))


def main():
    """Runs it; the exit status."""
    show = stage.Stage()
    rust_mlx5.prepare()
    with mlx5.Model() as model, model.clean():
        with (
            Port(show, model, *FIRST) as first,
            Port(show, model, *SECOND) as second,
            kicks.Kicks() as probe,
        ):
            show.attempt("guests", show_guests, probe, first, second)
            for port in (first, second):
                print(vdpa.vdpa("dev", "config", "show", port.device.name).stdout.strip())
        show.step("devices deleted, functions unbound; nothing is left in them")
    return show.end("A legacy and a modern guest at once, then a legacy one in place of the"
                    " modern one; nothing was lost.")


if __name__ == "__main__":
    sys.exit(main())
