#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Guests of every kind in QEMU on a vDPA device, with traffic to the host."""

import contextlib
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
import joined
import ktap
import qemu
import traffic
import vdpa

MAC = "52:54:00:77:00:02"

VERSION_1 = 32
RING_PACKED = 34
MQ = 22

# What a device with packed rings is provisioned with: the usual bits of the
# device (by default) and RING_PACKED.
PACKED = 1 << RING_PACKED

suite = ktap.Suite("guests")


def device(mgmtdev, name="guestport", **attributes):
    """A device for a guest."""
    return vdpa.Device(mgmtdev, name, driver="vhost_vdpa", mac=MAC, **attributes)


def offered(mgmtdev):
    """Every feature the management device can provision."""
    for name, entry in vdpa.show("mgmtdev", "show").get("mgmtdev", {}).items():
        if name.split("/")[-1] == mgmtdev:
            return entry.get("dev_features", [])
    return []


def serve(port, dev, *more, wanted=(), unwanted=(), **options):
    """Boots a guest, checks its features, does what each of `more` does with it and
    the port, and lets traffic go both ways.
    """
    with qemu.Guest(dev, **options) as guest:
        guest.wait_boot()
        features = guest.features()
        ktap.say(f"features {sorted(features)}")
        for bit in wanted:
            assert bit in features, f"feature {bit} was not negotiated"
        for bit in unwanted:
            assert bit not in features, f"feature {bit} was negotiated"
        # What one guest changed, the next one does not find.
        mac = guest.get("cat /sys/class/net/eth0/address")
        assert mac == MAC, mac
        forget(port)
        traffic.prepare(guest)
        for step in more:
            step(guest, port)
        joined.report(traffic.both_ways(guest, port))


def stop_and_continue(guest, port):
    """stop and cont while traffic goes."""
    outages = joined.stop_and_continue(guest, port)
    # Nobody answers for a guest that is stopped; TCP asks again.
    assert outages <= 5, f"pings lost in {outages} places"


def forget(port):
    """Has the host ask anew whose the guest's address is."""
    port.namespace.run("ip", "neigh", "flush", "all")


def change_mac(guest, port):
    """Gives the guest another MAC address."""
    other = "52:54:00:77:00:99"
    guest.run(f"ip link set eth0 address {other}")
    assert guest.get("cat /sys/class/net/eth0/address") == other
    forget(port)


def rebind(guest, _port):
    """Has the guest's driver leave the card and take it again."""
    for _ in range(3):
        guest.run(
            "set -e; dev=$(basename $(readlink /sys/class/net/eth0/device));"
            "echo $dev >/sys/bus/virtio/drivers/virtio_net/unbind;"
            "echo $dev >/sys/bus/virtio/drivers/virtio_net/bind")
        guest.configure(f"{traffic.GUEST}/{traffic.PREFIX}")
        sent, received = traffic.guest_ping(guest, 20)
        assert sent == received == 20, f"{received} of {sent}"


# Without the control command a legacy driver writes an address to the configuration
# space, byte by byte.
KINDS = {
    "legacy": ("disable-modern=on,ctrl_mac_addr=off", False, (stop_and_continue, change_mac)),
    "transitional": ("disable-legacy=off,disable-modern=off", True, (rebind,)),
    "modern": ("disable-legacy=on", True, (stop_and_continue, change_mac)),
    "legacy again": ("disable-modern=on", False, ()),
}


@suite.test(timeout=600)
def kinds(mgmtdev):
    """Legacy, transitional and modern guests in turn on one device, and what they do.

    They are stopped and go on under traffic, change their MAC address, let go of the
    card and take it again.
    """
    with traffic.HostPort(mgmtdev) as port, device(mgmtdev) as dev:
        for name, (card, modern, more) in KINDS.items():
            ktap.say(name)
            bits = [VERSION_1]
            serve(port, dev, *more, card=card, wanted=bits if modern else (),
                  unwanted=() if modern else bits)


@suite.test(timeout=300)
def packed(mgmtdev):
    """Guest with packed rings on a device provisioned so."""
    if "RING_PACKED" not in offered(mgmtdev):
        raise ktap.Skip("the device has no packed rings")
    with traffic.HostPort(mgmtdev) as port:
        features = vdpa.default_features(mgmtdev) | PACKED
        with device(mgmtdev, device_features=hex(features)) as dev:
            serve(port, dev, card="disable-legacy=on,packed=on", wanted=[VERSION_1, RING_PACKED])


@suite.test(timeout=300)
def multiqueue(mgmtdev):
    """Guest with two queue pairs, traffic on both."""
    if "MQ" not in offered(mgmtdev):
        raise ktap.Skip("the device has one queue pair only")
    with traffic.HostPort(mgmtdev, max_vqp=2) as port, device(mgmtdev, max_vqp=2) as dev:
        with qemu.Guest(dev, card="mq=on,vectors=6", backend="queues=2", cpus=2) as guest:
            guest.wait_boot()
            assert MQ in guest.features()
            queues = guest.get("ls /sys/class/net/eth0/queues").split()
            assert sorted(queues) == ["rx-0", "rx-1", "tx-0", "tx-1"], queues
            traffic.prepare(guest)
            joined.report(traffic.both_ways(guest, port))
            # The driver gives each processor a transmit queue of its own.
            for cpu in (1, 2):
                ktap.say(guest.get(
                    f"taskset {cpu} guest-tool send {traffic.HOST}:{traffic.PORT}"
                    " --up 4000000 --down 4000000", timeout=120))
            interrupts = guest.get("cat /proc/interrupts")
            for queue in ("input.0", "input.1"):
                line = next(line for line in interrupts.splitlines() if queue in line)
                taken = sum(int(word) for word in line.split()[1:3])
                assert taken > 0, f"no interrupt of {queue}\n{interrupts}"


@suite.test(timeout=300)
def shadow(mgmtdev):
    """Guest behind QEMU's shadow virtqueues."""
    with traffic.HostPort(mgmtdev) as port, device(mgmtdev) as dev:
        card = f"disable-legacy=on,{qemu.SHADOWED}"
        serve(port, dev, card=card, backend="x-svq=on", wanted=[VERSION_1])


@suite.test(timeout=500)
def live_migration(mgmtdev):
    """Live migration between two QEMU processes and devices, with traffic."""
    for card in (joined.LEGACY, joined.MODERN):
        with traffic.HostPort(mgmtdev) as port, device(mgmtdev) as here, device(
            mgmtdev, name="target"
        ) as there:
            outages = joined.live_migration(here, there, port, card)
            # Nobody answers while QEMU puts its shadow virtqueues in, nor while
            # the guest moves.
            assert outages <= 2, f"pings lost in {outages} places"


@suite.test(timeout=300)
def removal(mgmtdev):
    """Device deleted under a running guest: QEMU lives, the host too."""
    with contextlib.ExitStack() as undo:
        dev = undo.enter_context(device(mgmtdev))
        guest = undo.enter_context(qemu.Guest(dev))
        guest.wait_boot()
        # vhost-vdpa lets nothing be removed while it is open, so the removal
        # must wait, and end when QEMU does.
        delete = subprocess.Popen(["vdpa", "dev", "del", dev.name])
        # Whatever comes of the rest, that one deletes the device, and is
        # waited for.
        undo.pop_all()
        with delete, contextlib.ExitStack() as running:
            running.push(guest)
            guest.run("ip link set eth0 up")
            assert delete.poll() is None, "deleted while in use"
        assert delete.returncode == 0


if __name__ == "__main__":
    options = ktap.arguments(__doc__).parse_args()
    if not vdpa.exists(options.mgmtdev):
        print(f"1..0 # SKIP no management device {options.mgmtdev}")
        ktap.exit_with(ktap.EXIT_SKIP)
    ktap.exit_with(suite.run(options.mgmtdev, only=options.only))
