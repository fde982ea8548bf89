# SPDX-License-Identifier: GPL-2.0
"""iperf3 between two ends: a server in a namespace, and a client anywhere.

A client is a function that runs a command, given as words, and returns what it
printed; `timeout` is how many seconds that may take.
"""

import json

import ktap


def measure(server, address, client, *words, seconds=3):
    """What iperf3 measured towards the namespace `server` at `address`."""
    with server.background("iperf3", "-s", "-1", "--forceflush") as process:
        for line in process.stdout:
            if "Server listening" in line:
                break
        output = client("iperf3", "-c", address, "-t", seconds, "-J", *words,
                        timeout=60 + seconds)
    return json.loads(output)["end"]


def tcp(server, address, client, *words, seconds=1):
    """TCP; says how fast."""
    end = measure(server, address, client, *words, seconds=seconds)
    received = end["sum_received"]["bits_per_second"] / 1e6
    ktap.say(f"TCP {' '.join(words)}: {received:.0f} Mbit/s,"
             f" {end['sum_sent'].get('retransmits')} retransmits")
    assert received > 1, end


def udp(server, address, client, *words, dropped):
    """UDP, slowly: a receiver that is kept waiting for a processor has no
    buffers for a while.  `dropped` tells how many frames the device has dropped
    for want of one; none may be lost in any other way.
    """
    before = dropped()
    end = measure(server, address, client, "-u", "-b", "600K", *words, seconds=2)
    total, without = end["sum"], dropped() - before
    ktap.say(f"UDP {' '.join(words)}: {total['packets']} packets,"
             f" {total['lost_packets']} lost, {without} without a buffer")
    assert total["packets"] > 60, end
    assert total["lost_packets"] <= without, end


def both_ways(*ends, dropped):
    """TCP and UDP from the client to the server and back."""
    for words in ([], ["-R"]):
        tcp(*ends, *words)
        udp(*ends, *words, dropped=dropped)
