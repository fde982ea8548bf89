#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The C driver mlx5_vdpa on functions of the model, under vhost-vdpa: modern
guests in QEMU, and traffic with a function that the host has.
"""

import contextlib
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "lib"), os.path.join(HERE, "..", "guest")]

# pylint: disable=wrong-import-position
import iperf
import ktap
import mlx5
import qemu
import traffic
import vdpa

MAC = "52:54:00:77:00:02"
MODERN = "disable-legacy=on"
VERSION_1 = 32

suite = ktap.Suite("mlx5_c_vhost")


@contextlib.contextmanager
def joined(model, host, *guests):
    """The host's port on the function `host`, and a device for a guest on
    each of the others; all on one switch.  Nothing may go wrong in it.
    """
    functions = mlx5.functions()
    with model.clean(), contextlib.ExitStack() as stack:
        for name in (host, *guests):
            stack.enter_context(model.bound(functions[name]))
        port = stack.enter_context(traffic.HostPort(functions[host].mgmtdev))
        devices = [
            stack.enter_context(vdpa.Device(functions[name].mgmtdev, f"guest-{name}",
                                            driver="vhost_vdpa", mac=MAC))
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


@suite.test(timeout=300)
def modern(model):
    """Modern guests, with MSI-X and with QPs for events."""
    for host, name in (("new1", "new0"), ("old1", "old0")):
        with joined(model, host, name) as (port, device), qemu.Guest(device, card=MODERN) as guest:
            guest.wait_boot()
            assert VERSION_1 in guest.features()
            traffic.prepare(guest)
            report(traffic.both_ways(guest, port))
            iperf.both_ways(
                port.namespace,
                traffic.HOST,
                lambda *words, timeout: guest.get(" ".join(map(str, words)), timeout=timeout),
                dropped=model.dropped,
            )


@suite.test(timeout=300)
def doorbells(model):
    """A guest whose kicks are stores to the doorbell page of the function."""
    with joined(model, "new1", "new0") as (port, device):
        with qemu.Guest(device, card=f"{MODERN},page-per-vq=on") as guest:
            guest.wait_boot()
            traffic.prepare(guest)
            report(traffic.both_ways(guest, port))


@suite.test(timeout=400)
def stop_and_continue(model):
    """stop and cont while traffic goes, with and without resume."""
    for host, name in (("new1", "new0"), ("old1", "old0")):
        with joined(model, host, name) as (port, device), qemu.Guest(device, card=MODERN) as guest:
            guest.wait_boot()
            traffic.prepare(guest)
            with traffic.Stream(guest, port) as stream:
                for _ in range(5):
                    guest.monitor.command("stop")
                    guest.monitor.wait("STOP")
                    assert guest.monitor.command("query-status")["status"] == "paused"
                    guest.monitor.command("cont")
                    guest.monitor.wait("RESUME")
                    guest.run("true")
                    stream.pings.wait()
                # Some are lost: while the guest is stopped, and where it has
                # no buffers in time. Each stop was followed by an answer.
                line, (sent, received, _) = stream.finish(guest)
            ktap.say(f"{name}: {line}; {received} of {sent} pings answered")
            report(traffic.both_ways(guest, port))


@suite.test(timeout=500)
def live_migration(model):
    """Live migration between two functions, with traffic."""
    # Without MRG_RXBUF, which this driver does not offer by default, buffers
    # for segments are chains too.
    card = f"{MODERN},{qemu.SHADOWED},guest_tso4=off,guest_tso6=off,guest_ecn=off"
    with joined(model, "old0", "new0", "new1") as (port, here, there):
        with qemu.Guest(here, card=card) as source:
            source.wait_boot()
            traffic.prepare(source)
            with qemu.Guest(there, card=card, incoming=True) as target:
                with traffic.Stream(source, port) as stream:
                    result = qemu.migrate(source, target)
                    # The guest lives on, and so does its connection.
                    assert target.get("echo alive") == "alive"
                    line, (sent, received, _) = stream.finish(target)
                ktap.say(f"downtime {result.get('downtime')} ms; {line};"
                         f" {received} of {sent} pings answered")
                source.__exit__()
                report(traffic.both_ways(target, port))


# What the tests of vhost-vdpa ask of any device that can be suspended, and of
# those that can be resumed too.  This driver loses kicks of suspended queues.
SUSPENDED = ("ring state: split",)
RESUMED = ("what waits goes with the next kick", "twice, and RESUME", "move to other places")


@suite.test(timeout=400)
def ring_state(model):
    """Suspend, resume and ring state, by a driver that has vhost-vdpa itself."""
    program = os.path.join(qemu.BUILD, "vhost-vdpa-test")
    functions = mlx5.functions()
    for names, titles in ((("new0", "new1"), SUSPENDED + RESUMED),
                          (("old0", "old1"), SUSPENDED)):
        with model.clean(), contextlib.ExitStack() as stack:
            for name in names:
                stack.enter_context(model.bound(functions[name]))
            makers = ",".join(functions[name].mgmtdev for name in names)
            done = subprocess.run([program, "--mgmtdev", makers, *titles], timeout=300,
                                  check=False, stdout=subprocess.PIPE, text=True)
        lines = done.stdout.splitlines()
        for line in lines:
            ktap.say(f"{names[0]}: {line}")
        passed = [line for line in lines if line.startswith("ok ") and "# SKIP" not in line]
        for title in titles:
            assert any(title in line for line in passed), f"{title}: did not pass"
        assert not done.returncode, f"exit status {done.returncode}"


if __name__ == "__main__":
    mlx5.main(suite, __doc__)
