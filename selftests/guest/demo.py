#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The main job: one vDPA device serves a legacy guest, then a modern one.

Nobody configures anything between the two.  Each exchanges pings and TCP
with the host's own port, both ways.  A table of results ends it.
"""

import argparse
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
import ktap
import qemu
import traffic
import vdpa

MAC = "52:54:00:77:00:02"
VERSION_1 = 32

GUESTS = (
    ("legacy", "disable-modern=on"),
    ("modern", "disable-legacy=on"),
)

start = time.monotonic()


def step(text):
    """Says what is being done, and when."""
    print(f"[{time.monotonic() - start:5.1f} s] {text}", flush=True)


def check_kind(guest, kind):
    """What the guest's driver is, by what it acknowledged."""
    modern = VERSION_1 in guest.features()
    identity = guest.get("cat /sys/class/net/eth0/device/../device")
    found = "modern" if modern else "legacy"
    text = f"{found} driver, PCI device {identity}, VERSION_1 {'acknowledged' if modern else 'not acknowledged'}"
    step(f"  {text}")
    assert found == kind, f"expected a {kind} driver"
    return text


def show_guest(kind, card, device, port):
    """Boots one guest and tries everything; rows of the table."""
    step(f"booting a {kind} guest (virtio-net-pci,{card}) on {device.path}")
    began = time.monotonic()
    with qemu.Guest(device, card=card) as guest:
        guest.wait_boot()
        step(f"  booted in {time.monotonic() - began:.0f} s")
        rows = [("driver", check_kind(guest, kind))]
        traffic.prepare(guest)
        step("  ping and TCP, both ways, every byte checked")
        rows += traffic.both_ways(guest, port)
        for name, text in rows[1:]:
            step(f"  {name}: {text}")
    step(f"  the {kind} guest is off; the device stays as it is")
    return rows


def main():
    """Runs it; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mgmtdev", default="rust_vdpa_net")
    mgmtdev = parser.parse_args().mgmtdev
    table = []
    failed = False

    step(f"vdpa dev add name hostport mgmtdev {mgmtdev}: the host's port, bound to virtio_vdpa")
    with traffic.HostPort(mgmtdev) as port:
        step(f"  network interface {traffic.HOST} in a namespace of its own")
        step(f"vdpa dev add name guestport mgmtdev {mgmtdev} mac {MAC}: the guests' device")
        with vdpa.Device(mgmtdev, "guestport", driver="vhost_vdpa", mac=MAC) as device:
            for kind, card in GUESTS:
                try:
                    rows = ktap.until_it_counts(show_guest, kind, card, device, port)
                    table += [(kind, name, text, "ok") for name, text in rows]
                except (AssertionError, OSError, ktap.Again) as error:
                    failed = True
                    print(error, flush=True)
                    table.append((kind, "guest", str(error).splitlines()[0], "FAILED"))
            print(vdpa.vdpa("dev", "config", "show", "guestport").stdout.strip())
    step("devices deleted")

    heads = ("guest", "what", "result", "")
    widths = [max(len(row[column]) for row in [heads, *table]) for column in range(4)]
    print()
    for row in [heads, tuple("-" * width for width in widths), *table]:
        print("  ".join(word.ljust(width) for word, width in zip(row, widths)).rstrip())
    print()
    print("FAILED" if failed else
          "One device served a legacy and a modern guest; nothing was lost.", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
