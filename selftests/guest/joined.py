# SPDX-License-Identifier: GPL-2.0
"""Guests in QEMU on vDPA devices of functions of the model, joined with a port
of the host's own on another function, and what they do whoever drives the
functions.
"""

import contextlib
import os
import subprocess

import iperf
import ktap
import mlx5
import qemu
import traffic
import vdpa

MAC = "52:54:00:77:00:02"
MODERN = "disable-legacy=on"
LEGACY = "disable-modern=on"
VERSION_1 = 32


@contextlib.contextmanager
def joined(model, bound, host, *guests, **attributes):
    """The host's port on the function `host`, and a device for a guest on
    each of the others, with these attributes; all on one switch.  `bound` gives
    a function to the driver.  Nothing may go wrong in it.
    """
    functions = mlx5.functions()
    with model.clean(), contextlib.ExitStack() as stack:
        for name in (host, *guests):
            stack.enter_context(bound(functions[name]))
        port = stack.enter_context(traffic.HostPort(functions[host].mgmtdev))
        devices = [
            stack.enter_context(vdpa.Device(functions[name].mgmtdev, f"guest-{name}",
                                            driver="vhost_vdpa", mac=MAC, **attributes))
            for name in guests
        ]
        try:
            yield port, *devices
        except Exception:
            for name in (host, *guests):
                ktap.say(f"{name}: {model.ask('stats', name)['queues']}")
            raise


def report(lines):
    """Prints what traffic.both_ways found."""
    for name, text in lines:
        ktap.say(f"{name}: {text}")


def serve(device, port, card, *more):
    """Boots a guest, does what each of `more` does with it and the port, and lets
    traffic go both ways.
    """
    with qemu.Guest(device, card=card) as guest:
        guest.wait_boot()
        assert (VERSION_1 in guest.features()) == (LEGACY not in card)
        traffic.prepare(guest)
        for step in more:
            step(guest, port)
        report(traffic.both_ways(guest, port))


def streams(model, guest, port):
    """TCP and UDP both ways, as fast as they go."""
    iperf.both_ways(
        port.namespace,
        traffic.HOST,
        lambda *words, timeout: guest.get(" ".join(map(str, words)), timeout=timeout),
        dropped=model.dropped,
    )


def outside(guest, _port):
    """Pings and TCP from the guest to the network namespace beside the host virtual
    machine, by the uplink of the switch.
    """
    guest.run("ip address add 10.78.0.2/24 dev eth0")
    report(traffic.outwards(guest, mlx5.UPLINK, ("guest", "uplink")))


def stop_and_continue(guest, port):
    """stop and cont while traffic goes.  Returns in how many places pings were lost.

    Some are: while the guest is stopped, and where it has no buffers in time.  Each
    stop is followed by an answer.
    """
    line, (sent, received, outages) = traffic.through_stops(guest, port)
    ktap.say(f"stop and cont: {line}; {received} of {sent} pings answered")
    return outages


def live_migration(here, there, port, card):
    """A guest moves from one device to another, with traffic.  Returns in how many
    places pings were lost.
    """
    card = f"{card},{qemu.SHADOWED}"
    with qemu.Guest(here, card=card) as source:
        source.wait_boot()
        assert (VERSION_1 in source.features()) == (LEGACY not in card)
        traffic.prepare(source)
        with qemu.Guest(there, card=card, incoming=True) as target:
            with traffic.Stream(source, port) as stream:
                result = qemu.migrate(source, target)
                # The guest lives on, and so does its connection.
                assert target.get("echo alive") == "alive"
                line, (sent, received, outages) = stream.finish(target)
            ktap.say(f"{card}: downtime {result.get('downtime')} ms; {line};"
                     f" {received} of {sent} pings answered, lost in {outages} places")
            source.__exit__()
            report(traffic.both_ways(target, port))
    return outages


def ask_any(model, bound, names, titles, expected=()):
    """Has some tests of vhost-vdpa, by their titles, run on functions; commands
    may be refused for `expected` reasons only.
    """
    program = os.path.join(qemu.BUILD, "vhost-vdpa-test")
    functions = mlx5.functions()
    with model.clean(expected), contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(bound(functions[name]))
        makers = ",".join(functions[name].mgmtdev for name in names)
        lines = []
        # What it said by then tells where it hung.
        with subprocess.Popen(["timeout", "600", program, "--mgmtdev", makers, *titles],
                              stdout=subprocess.PIPE, text=True) as done:
            for line in done.stdout:
                lines.append(line.rstrip())
                ktap.say(f"{names[0]}: {lines[-1]}")
    passed = [line for line in lines if line.startswith("ok ") and "# SKIP" not in line]
    for title in titles:
        assert any(title in line for line in passed), f"{title}: did not pass"
    assert not done.returncode, f"exit status {done.returncode}"
