#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""One vDPA device in software serves a legacy guest, then a modern one.

Nobody configures anything between the two.  Each exchanges pings and TCP
with the host's own port, both ways.  A table of results ends it.
"""

import argparse
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
import qemu
import stage
import traffic
import vdpa

MAC = "52:54:00:77:00:02"

GUESTS = (
    ("legacy", "disable-modern=on"),
    ("modern", "disable-legacy=on"),
)


def show_guest(show, kind, card, device, port):
    """Boots one guest and tries everything."""
    show.step(f"booting a {kind} guest (virtio-net-pci,{card}) on {device.path}")
    with qemu.Guest(device, card=card) as guest:
        show.boots(kind, guest)
        traffic.prepare(guest)
        show.step("  ping and TCP, both ways, every byte checked")
        show.said(kind, traffic.both_ways(guest, port))
    show.step(f"  the {kind} guest is off; the device stays as it is")


def main():
    """Runs it; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mgmtdev", default="rust_vdpa_net")
    mgmtdev = parser.parse_args().mgmtdev
    show = stage.Stage()

    show.step(f"vdpa dev add name hostport mgmtdev {mgmtdev}: the host's port, bound to"
              " virtio_vdpa")
    with traffic.HostPort(mgmtdev) as port:
        show.step(f"  network interface {traffic.HOST} in a namespace of its own")
        show.step(f"vdpa dev add name guestport mgmtdev {mgmtdev} mac {MAC}: the guests' device")
        with vdpa.Device(mgmtdev, "guestport", driver="vhost_vdpa", mac=MAC) as device:
            for kind, card in GUESTS:
                show.attempt(kind, show_guest, kind, card, device, port)
            print(vdpa.vdpa("dev", "config", "show", "guestport").stdout.strip())
    show.step("devices deleted")
    return show.end("One device served a legacy and a modern guest; nothing was lost.")


if __name__ == "__main__":
    sys.exit(main())
