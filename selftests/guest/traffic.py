# SPDX-License-Identifier: GPL-2.0
"""Traffic between a guest and the host's port, in both directions."""

import re
import signal
import threading

import qemu
import vdpa

HOST = "10.77.0.1"
GUEST = "10.77.0.2"
PREFIX = "24"
PORT = 5001

# Seconds between pings that go on.
INTERVAL = 0.1


class Neighbour:
    """Another guest, with a server, as the port that a guest at the address
    `other` has its traffic with.
    """

    def __init__(self, guest, address, other):
        self.guest = guest
        self.address = address
        self.other = other

    def ping(self, count, size=56):
        """Pings the guest as fast as it answers: (sent, received)."""
        return guest_ping(self.guest, count, size, self.other)

    def send(self, up, down):
        """TCP both ways at once, from this one; a line about it."""
        return guest_send(self.guest, up, down, self.other)


class HostPort:
    """A device of the host's own, bound to virtio_vdpa, in a namespace.

    A namespace keeps the host from answering its own packets by the short
    way, and a server of the traffic tool runs in it all the time.
    """

    address = HOST

    def __init__(self, mgmtdev, name="hostport", **attributes):
        self.device = vdpa.Device(mgmtdev, name, **attributes)
        self.namespace = vdpa.Namespace(name)
        self.server = None

    def __enter__(self):
        self.device.__enter__()
        try:
            self.namespace.__enter__()
            self.device.bind("virtio_vdpa")
            self.namespace.take(self.device.netdev, f"{HOST}/{PREFIX}")
            self.server = self.namespace.background(qemu.TOOL, "serve", f"0.0.0.0:{PORT}")
            process = self.server.__enter__()
            line = process.stdout.readline()
            assert line.startswith("listening"), line
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.server:
            self.server.__exit__(None, None, None)
        # The interface must be back before the namespace goes, or it would
        # come back by itself while the device is being deleted.
        self.device.bind(None)
        self.namespace.__exit__()
        self.device.__exit__()

    def ping(self, count, size=56):
        """Pings the guest as fast as it answers: (sent, received)."""
        output = self.namespace.run(
            "ping", "-f", "-q", "-n", "-c", count, "-s", size, "-W", 10, GUEST,
            check=False, timeout=90,
        ).stdout
        return counts(output)

    def send(self, up, down):
        """TCP both ways at once, from the host; a line about it."""
        words = [qemu.TOOL, "send", f"{GUEST}:{PORT}", "--up", up, "--down", down]
        return self.namespace.run(*words, timeout=180).stdout.strip()


def counts(output):
    """Packets sent and received, from what ping printed."""
    match = re.search(r"(\d+) packets transmitted, (\d+) (?:packets )?received", output)
    assert match, f"ping printed: {output}"
    return int(match[1]), int(match[2])


def prepare(guest, address=GUEST):
    """Gives the guest its address and starts its server."""
    guest.configure(f"{address}/{PREFIX}")
    serve(guest)


def serve(guest):
    """Starts the server in the guest."""
    guest.run(f"guest-tool serve 0.0.0.0:{PORT} >/tmp/serve 2>&1 & "
              "until grep -q listening /tmp/serve; do usleep 10000; done")


def guest_ping(guest, count, size=56, to=HOST):
    """Pings an address from the guest: (sent, received)."""
    output = guest.run(f"ping -A -q -c {count} -s {size} -w 60 {to}",
                       check=False, timeout=90)[1]
    return counts(output)


def guest_send(guest, up, down, to=HOST):
    """TCP both ways at once, from the guest; a line about it."""
    return guest.get(f"guest-tool send {to}:{PORT} --up {up} --down {down}", timeout=180)


def lengths(what, ping, pings):
    """Pings of two lengths.  Returns lines for a report; fails if one is lost."""
    report = []
    for length in (56, 1400):
        sent, received = ping(pings, length)
        report.append((f"ping {what}, {length} bytes", f"{received} of {sent} answered"))
        assert sent == received == pings, f"ping {what}, {length} bytes: {received} of {sent}"
    return report


def outwards(guest, address, names=("guest", "host"), pings=100, megabytes=2):
    """Pings and TCP from the guest to an address.  Returns lines for a report.

    Fails if a single ping is lost or a byte arrives wrong.
    """
    here, there = names
    size = megabytes << 20

    def ping(count, length):
        return guest_ping(guest, count, length, address)

    report = lengths(f"{here} to {there}", ping, pings)
    report.append((f"TCP opened by the {here}", guest_send(guest, size, size, to=address)))
    return report


def both_ways(guest, port, pings=100, megabytes=2, names=("guest", "host")):
    """Pings and TCP from each side, as `outwards` has them from one."""
    here, there = names
    size = megabytes << 20
    report = lengths(f"{there} to {here}", port.ping, pings)
    report += outwards(guest, port.address, names, pings, megabytes)
    report.append((f"TCP opened by the {there}", port.send(size, size)))
    return report


class Pings:
    """Pings from the host that go on until they are told to end, one every so
    many seconds.
    """

    def __init__(self, port, interval=INTERVAL):
        self.port = port
        self.interval = interval
        self.context = None
        self.ping = None
        self.reader = None
        self.output = ""
        self.answer = threading.Event()

    def __enter__(self):
        self.context = self.port.namespace.background(
            "ping", "-n", "-D", "-i", self.interval, "-O", GUEST)
        self.ping = self.context.__enter__()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()
        self.wait()
        return self

    def __exit__(self, *_):
        self.ping.kill()
        self.reader.join()
        self.context.__exit__(None, None, None)

    def _read(self):
        """Reads as it comes: a pipe that nobody reads stops ping."""
        for line in self.ping.stdout:
            self.output += line
            if "bytes from" in line:
                self.answer.set()

    def wait(self):
        """Waits for the next answer."""
        self.answer.clear()
        assert self.answer.wait(60), f"no ping is answered any more\n{self.output[-1000:]}"

    def finish(self):
        """Ends them after another answer; (sent, received, outages).

        An outage is a row of pings without an answer.
        """
        self.wait()
        self.ping.send_signal(signal.SIGINT)
        self.reader.join()
        sent, received = counts(self.output)
        answered = sorted({int(number) for number in
                           re.findall(r"bytes from .*icmp_seq=(\d+)", self.output)})
        outages = sum(after - before > 1 for before, after in zip(answered, answered[1:]))
        return sent, received, outages

    def silence(self):
        """The longest time without an answer, in seconds."""
        times = [float(at) for at in re.findall(r"\[([\d.]+)\] \d+ bytes from", self.output)]
        return max(after - before for before, after in zip(times, times[1:]))


def through_stops(guest, port):
    """Stops the guest and has it go on, five times, while traffic goes, which
    gets on after each. Returns the stream's line and what came of the pings.
    """
    with Stream(guest, port) as stream:
        for _ in range(5):
            guest.monitor.command("stop")
            guest.monitor.wait("STOP")
            assert guest.monitor.command("query-status")["status"] == "paused"
            guest.monitor.command("cont")
            guest.monitor.wait("RESUME")
            guest.run("true")
            stream.pings.wait()
        return stream.finish(guest)


class Stream:
    """Traffic that goes on until it is told to end: TCP from the guest to
    the host, and pings from the host.
    """

    def __init__(self, guest, port):
        self.guest = guest
        self.pings = Pings(port)

    def __enter__(self):
        self.guest.run(
            "rm -f /tmp/stop /tmp/done; mkfifo /tmp/done; "
            f"{{ guest-tool send {HOST}:{PORT} --until /tmp/stop >/tmp/stream 2>&1; "
            "echo $? >/tmp/done; } >/dev/null 2>&1 &"
        )
        self.pings.__enter__()
        return self

    def __exit__(self, *error):
        self.pings.__exit__(*error)

    def finish(self, guest):
        """Ends the traffic, in `guest` now.  Returns the stream's line and
        what came of the pings."""
        line = guest.get(
            "touch /tmp/stop; read status </tmp/done; cat /tmp/stream; exit $status", timeout=120
        )
        return line, self.pings.finish()
