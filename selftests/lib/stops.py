# SPDX-License-Identifier: GPL-2.0
"""A device that is stopped by its status, again and again, while frames go both
ways: what it says of where it stands, beside what its driver has counted.
"""

import contextlib
import errno
import os
import select
import statistics
import struct
import threading
import time

import nic
import vdpa
import vhost
from vhost import STOP

# How many frames are under way at most: fewer than a receiver has buffers.
WINDOW = 60

# How long a stop may take; it is waited for.
PATIENCE = 10

# A device says that it has stopped: by the interrupt first, or by the status.
TOLD, SEEN = "interrupt", "status"


class Flow:
    """Numbered frames from one driver to another, and which of them have come."""

    def __init__(self, source, receiver):
        self.source, self.receiver = source, receiver
        # The numbers of those in the ring, by position, and of those that came.
        self.placed, self.arrived = [], []
        self.numbers = 0

    def put(self, count):
        """Has more of them sent."""
        for _ in range(count):
            self.numbers += 1
            payload = struct.pack(">Q", self.numbers)
            self.source.put(nic.ethernet(self.receiver.mac, self.source.mac, payload))
            self.placed.append(self.numbers)
        self.source.kick(1)

    def done(self):
        """How many the device has sent."""
        return len(self.placed) - self.source.rings[1].pending()

    def rewind(self):
        """Takes those back that a stopped device has not sent. Returns how many."""
        count = self.source.rings[1].pending()
        self.source.rings[1].take_back(count)
        del self.placed[len(self.placed) - count:]
        return count

    def take(self):
        """Takes those that came. Returns how many there are."""
        sender = nic.mac_bytes(self.source.mac)
        for _, frame, _ in self.receiver.look():
            if frame[6:12] == sender:
                self.arrived.append(struct.unpack_from(">Q", frame, 14)[0])
        self.receiver.received.clear()
        return len(self.arrived)

    def check(self):
        """What was sent came: each once, in order, and nothing else."""
        sent = self.done()
        vdpa.wait_until(lambda: self.take() >= sent, f"{sent} frames", PATIENCE)
        assert self.arrived == self.placed[:sent], "frames were lost, or came twice"
        # One that comes again would be the first of what is still to come.
        del self.placed[:sent], self.arrived[:]


class Stopped:
    """A driver (`here`) whose device is stopped, another one (`there`) that it
    exchanges frames with, and how long stops took, in seconds.
    """

    def __init__(self, here, there, legacy=False):
        self.here, self.there, self.legacy = here, there, legacy
        self.times = []
        # How a device goes on.
        self.ways = ["RESUME", "reset"]
        # How many stops had all frames sent, and how many left some.
        self.whole = self.midst = 0
        # How many frames were taken back.
        self.taken_back = 0
        self.running = vhost.ACKNOWLEDGE | vhost.DRIVER | vhost.DRIVER_OK
        if not legacy:
            self.running |= vhost.FEATURES_OK
        there.start()
        here.start(legacy=legacy)
        self.out, self.back = Flow(here, there), Flow(there, here)

    def told(self, seconds=PATIENCE):
        """Waits until the driver is told that the configuration changed."""
        ready, _, _ = select.select([self.here.config_call], [], [], seconds)
        assert ready, "the driver is not told"
        os.eventfd_read(self.here.config_call)

    def ask(self):
        """Asks the device to stop."""
        self.here.vhost.set_status(self.running | STOP)

    def stop(self, first=TOLD):
        """Stops the device: what says so first is looked at first."""
        begin = time.monotonic()
        self.ask()
        if first == TOLD:
            self.told()
            self.times.append(time.monotonic() - begin)
        else:
            vdpa.wait_until(lambda: self.here.vhost.status() & STOP, "STOP", PATIENCE)
            self.told()
        assert self.here.vhost.status() == self.running | STOP

    def bases(self):
        """Where the device says that its queues stand."""
        return [self.here.vhost.base(queue) for queue in (0, 1)]

    def counted(self):
        """Where they stand by what it has used, which the driver counts."""
        return [(ring.next - ring.pending()) & 0xffff
                for ring in (self.here.rings[0], self.here.rings[1])]

    def stands(self):
        """A stopped device says exactly where it stands, all that it sent has
        come, and it neither sends nor receives what comes behind that.
        """
        bases = self.bases()
        assert bases == self.counted(), f"it stands at {bases}, by its driver {self.counted()}"
        self.out.check()
        self.here.kick(1)
        # It is not heard; what follows shall not count as lost.
        self.back.put(1)
        self.there.wait_sent("what goes to a stopped device", seconds=PATIENCE)
        assert self.bases() == self.counted() == bases, "it goes on while it is stopped"
        self.back.take()
        return bases

    def resume(self, bases, way):
        """Has the device go on."""
        WAYS[way](self, bases)
        assert self.here.vhost.status() == self.running

    def _feed(self, over):
        """As many frames both ways as there is room for, until it is over."""
        while not over.is_set():
            room = WINDOW - (len(self.out.placed) - self.out.take())
            if room:
                self.out.put(room)
            self.back.take()
            if not self.there.rings[1].pending():
                self.back.put(WINDOW // 8)

    @contextlib.contextmanager
    def traffic(self):
        """Frames go both ways in the context."""
        back = len(self.back.arrived)
        over = threading.Event()
        thread = threading.Thread(target=self._feed, args=(over,))
        thread.start()
        try:
            vdpa.wait_until(lambda: self.out.arrived and len(self.back.arrived) > back,
                            "frames both ways", PATIENCE)
            yield
        finally:
            over.set()
            thread.join()

    def round(self, number):
        """Frames go both ways, the device is stopped in the midst, and goes on."""
        with self.traffic():
            self.stop((TOLD, SEEN)[number % 2])
        bases = self.stands()
        left = self.here.rings[1].pending()
        self.whole += not left
        self.midst += left > 0
        if number % 3 == 0:
            # Others are sent in their place.
            self.taken_back += self.out.rewind()
            self.out.put(left)
        self.resume(bases, self.ways[number % len(self.ways)])
        self.here.kick(1)
        self.here.wait_sent("what a stop has left", seconds=PATIENCE)
        self.out.check()

    def rounds(self, count):
        """That many, by each of the ways that the core lets through."""
        self.stop()
        if self.may_clear():
            self.ways.append("status")
        else:
            self.resume(self.stands(), "RESUME")
        for number in range(count):
            self.round(number)
        self.back.take()
        assert self.back.arrived == sorted(set(self.back.arrived)), "frames came twice"

    def may_clear(self):
        """Takes STOP away from the status, if the core allows that."""
        try:
            self.here.vhost.set_status(self.running)
        except OSError as error:
            # The stock one takes no bit away from a status.
            assert error.errno == errno.EINVAL, error
            return False
        return True

    def words(self):
        """What was seen."""
        times = [1000 * seconds for seconds in self.times]
        return (f"on by {', '.join(self.ways)}; stopped {self.whole} times behind all frames, "
                f"{self.midst} times in the midst; "
                f"{self.out.numbers} sent, {self.taken_back} taken back; "
                f"told after {statistics.median(times):.1f} ms, {max(times):.1f} ms at most")


def by_call(stopped, _bases):
    """RESUME."""
    stopped.here.vhost.resume()


def by_reset(stopped, bases):
    """A reset, and the driver begins where it was."""
    stopped.here.vhost.set_status(0)
    stopped.here.start_at(bases, legacy=stopped.legacy)


def by_status(stopped, _bases):
    """STOP is taken away from the status."""
    stopped.here.vhost.set_status(stopped.running)


WAYS = {"RESUME": by_call, "reset": by_reset, "status": by_status}
