#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Benchmarks of rust_vdpa_net against the C simulator, in one run.

Frames from port to port, with drivers in user space that do as little as a
driver can, and from a guest to the host.  The simulator has one pair of
queues and gives its driver back what it sends: that is the path it has, and
what stands beside each of ours.  It passes no frames above 1514 bytes, so at
64 KiB it moves its largest ones, and only bits a second are compared.

Writes JSON lines (name, ours, peer, ratio) and prints a table.
"""

import argparse
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.join(HERE, "..", "..")
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
sys.path.insert(0, os.path.join(HERE, "..", "guest"))

# pylint: disable=wrong-import-position
import ktap
import qemu
import traffic
import vdpa

OURS = "rust_vdpa_net"
PEER = "vdpasim_net"
PEER_MODULES = os.path.join(TOP, "build", "peers", "vdpa_sim")
PROGRAM = os.path.join(TOP, "build", "selftests", "vhost-vdpa-test")

# Frame sizes in bytes, by the name of their row.
SIZES = {"64": 64, "1500": 1514, "64KiB": 65226}
LARGEST_OF_PEER = 1514
PAIRS = (1, 4)
# Each measurement is made so often, and the middle one counts.
ROUNDS = 3


def load_peer():
    """Loads the simulator; it works on physical addresses as ours does."""
    for name, options in (("vringh", []), ("vdpa_sim", ["use_va=0"]), ("vdpa_sim_net", [])):
        if vdpa.references(name) is None:
            vdpa.sh("insmod", os.path.join(PEER_MODULES, f"{name}.ko"), *options)


def middle(rates):
    """The middle one of several (frames, bits) a second."""
    return sorted(rates)[len(rates) // 2]


def port_to_port(mgmtdev, pairs, size, seconds):
    """(frames a second, bits a second)."""
    words = [PROGRAM, "--mgmtdev", mgmtdev, "--bench"]
    if mgmtdev == PEER:
        words.append("--loopback")
    result = subprocess.run(
        [*words, str(pairs), str(size), str(seconds)],
        stdout=subprocess.PIPE, text=True, timeout=120, check=True,
    )
    return tuple(map(float, result.stdout.split()))


def blast(guest, target, size, seconds, threads):
    """Sends from a guest; the seconds that it took."""
    command = f"guest-tool blast eth0 {target} {size} {seconds} {threads}"
    return float(guest.get(command, timeout=seconds + 120).split()[1])


class HostEnd:
    """The host's port as the receiver."""

    def __init__(self, port):
        self.port = port
        self.netdev = self._run("sh", "-c", "ls /sys/class/net | grep -vx lo")
        self.mac = self._run("cat", f"/sys/class/net/{self.netdev}/address")

    def _run(self, *command):
        return self.port.namespace.run(*command).stdout.strip()

    def received(self, what):
        """Its count of received `packets` or `bytes`."""
        return int(self._run("cat", f"/sys/class/net/{self.netdev}/statistics/rx_{what}"))


class GuestEnd:
    """The guest itself as the receiver, behind the simulator."""

    def __init__(self, guest, mac):
        self.guest = guest
        self.mac = mac

    def received(self, what):
        """Its count of received `packets` or `bytes`."""
        return int(self.guest.get(f"cat /sys/class/net/eth0/statistics/rx_{what}"))


def guest_rates(mgmtdev, pairs, options, host=None):
    """Rates from a guest to `host`, or without one back to the guest."""
    rates = {}
    attributes = {"mac": "52:54:00:77:00:02"}
    card = backend = ""
    if pairs > 1:
        attributes["max_vqp"] = pairs
        card = f"mq=on,vectors={2 * pairs + 2}"
        backend = f"queues={pairs}"
    with vdpa.Device(mgmtdev, "benchguest", driver="vhost_vdpa", **attributes) as device:
        with qemu.Guest(device, card=card, backend=backend, cpus=min(pairs, 2)) as guest:
            guest.wait_boot()
            traffic.prepare(guest)
            receiver = host or GuestEnd(guest, attributes["mac"])
            for name, size in SIZES.items():
                if mgmtdev == PEER:
                    size = min(size, LARGEST_OF_PEER)
                rates[name] = middle(
                    [
                        measure(guest, receiver, size, options.seconds, pairs)
                        for _ in range(options.rounds)
                    ]
                )
    return rates


def measure(guest, receiver, size, seconds, threads):
    """(frames, bits) a second that arrive while the guest sends."""
    frames, octets = receiver.received("packets"), receiver.received("bytes")
    elapsed = blast(guest, receiver.mac, size, seconds, threads)
    frames, octets = receiver.received("packets") - frames, receiver.received("bytes") - octets
    return frames / elapsed, octets * 8 / elapsed


class Report:
    """Collects rows, writes them and prints them."""

    def __init__(self, path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.file = open(path, "w", encoding="ascii")  # pylint: disable=consider-using-with
        self.rows = []

    def add(self, name, ours, peer):
        """A row; both values are rates, so that more is better."""
        row = {"name": name, "ours": round(ours), "peer": round(peer), "ratio": round(ours / peer, 2)}
        self.rows.append(row)
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        print(f"  {name:<44} {row['ours']:>14} {row['peer']:>14} {row['ratio']:>8.2f}", flush=True)

    def pair(self, path, size, pairs, ours, peer):
        """The rows of one measurement."""
        name = f"vdpa_net/{path}/{size}/{pairs}-pair"
        if size != "64KiB":
            self.add(f"{name}/frames-per-s", ours[0], peer[0])
        self.add(f"{name}/bits-per-s", ours[1], peer[1])


def main():
    """Runs all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    parser.add_argument("--output", default=os.path.join(TOP, "build", "bench", "vdpa_net.jsonl"))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="measurements of a row")
    parser.add_argument("--no-guests", action="store_true", help="only port to port")
    parser.add_argument("--only", default="", help="rows from port to port with this in the name")
    options = parser.parse_args()
    seconds = options.seconds
    options.no_guests |= options.only != ""
    rows = {
        f"port-to-port/{size}/{pairs}-pair": (size, pairs) for size in SIZES for pairs in PAIRS
    }
    chosen = [what for name, what in rows.items() if options.only in name]
    if not chosen:
        parser.error(f"--only {options.only}: in none of {', '.join(rows)}")

    load_peer()
    report = Report(options.output)
    print(f"  {'name':<44} {'ours':>14} {'peer':>14} {'ratio':>8}", flush=True)
    for size, pairs in chosen:
        length = SIZES[size]
        # In turn, so that a busy moment of the machine hits both.
        ours, peer = [], []
        for _ in range(options.rounds):
            ours.append(port_to_port(OURS, pairs, length, seconds))
            peer.append(port_to_port(PEER, 1, min(length, LARGEST_OF_PEER), seconds))
        report.pair("port-to-port", size, pairs, middle(ours), middle(peer))
    if options.no_guests:
        return
    peer = ktap.until_it_counts(guest_rates, PEER, 1, options)
    for pairs in PAIRS:
        attributes = {"max_vqp": pairs} if pairs > 1 else {}
        with traffic.HostPort(OURS, **attributes) as port:
            ours = ktap.until_it_counts(guest_rates, OURS, pairs, options, HostEnd(port))
        for size in SIZES:
            report.pair("guest-to-host", size, pairs, ours[size], peer[size])


if __name__ == "__main__":
    main()
