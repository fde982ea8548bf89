# SPDX-License-Identifier: GPL-2.0
"""A driver whose rings are in a part of memory that somebody else maps, so that
one can follow the other on a device and leave its rings where they are.
"""

import contextlib
import os

import nic
import vdpa
import vhost
from vhost import HUGE, PAGE

FEATURES = nic.CTRL_VQ | nic.CTRL_RX | nic.CTRL_VLAN | nic.MQ | nic.CTRL_MAC_ADDR

# Rings lie in pieces of four pages, and their buffers in pieces of 32.
RING = 4 * PAGE
BUFFERS = 32 * PAGE
BUFFER = 2048
COUNT = BUFFERS // BUFFER


class Driver:
    """A driver of `dev` with rings and buffers in the huge page of `memory` that
    begins at `offset` and is mapped at `iova`.  Rings stand at `indices`.
    """

    # pylint: disable=too-many-arguments,too-many-instance-attributes
    def __init__(self, dev, memory, offset, iova, mac, pairs=1, modern=True, indices=None):
        self.dev, self.memory, self.offset, self.iova = dev, memory, offset, iova
        self.mac, self.pairs, self.in_use, self.modern = mac, pairs, 1, modern
        self.header = vhost.HEADER if modern else vhost.HEADER - 2
        features = FEATURES & dev.features()
        if modern:
            dev.acknowledge(features)
        else:
            dev.set_status(vhost.ACKNOWLEDGE | vhost.DRIVER)
            dev.set_features(features | vhost.ACCESS_PLATFORM)
        self.rings, self.kicks, self.calls = [], [], []
        for queue, index in enumerate(indices or [0] * (2 * pairs + 1)):
            self.rings.append(nic.Ring(memory, offset + RING * queue, index))
            self.kicks.append(os.eventfd(0))
            self.calls.append(os.eventfd(0))
            dev.set_ring(queue, iova + RING * queue, index)
            dev.set_kick(queue, self.kicks[queue])
            dev.set_call(queue, self.calls[queue])
        for queue in range(0, 2 * pairs, 2):
            for number in range(COUNT):
                at = iova + self._buffer(queue, number)
                self.rings[queue].describe(number, at, BUFFER, 2)
                self.rings[queue].offer(number)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for eventfd in self.kicks + self.calls:
            os.close(eventfd)

    @staticmethod
    def _buffer(queue, number):
        """Where a buffer of a queue is, behind the beginning."""
        return HUGE // 4 + BUFFERS * queue + BUFFER * number

    def enable(self):
        """Enables the first pair and the control queue."""
        for queue in (0, 1, len(self.rings) - 1):
            self.dev.enable(queue)

    def start(self):
        """Enables them, and the driver is ready. Returns whether the device is,
        too.
        """
        self.enable()
        return self.drive()

    def drive(self):
        """The driver is ready. Returns whether the device is, too."""
        status = vhost.ACKNOWLEDGE | vhost.DRIVER | vhost.DRIVER_OK
        self.dev.set_status(status | (vhost.FEATURES_OK if self.modern else 0))
        return self.is_well()

    def is_well(self):
        """Whether the device runs and needs no reset."""
        return self.dev.status() & (vhost.DRIVER_OK | vhost.NEEDS_RESET) == vhost.DRIVER_OK

    def _kick(self, queue):
        os.eventfd_write(self.kicks[queue], 1)

    def send(self, text, to=nic.EVERYBODY, queue=1):
        """Has a frame sent that says `text`."""
        ring = self.rings[queue]
        number = ring.next % COUNT
        at = self._buffer(queue, number)
        frame = bytes(self.header) + nic.ethernet(to, self.mac, text)
        self.memory.map[self.offset + at:self.offset + at + len(frame)] = frame
        ring.describe(number, self.iova + at, len(frame))
        ring.offer(number)
        self._kick(queue)

    def is_sent(self, queue=1):
        """Whether all that a queue has was sent."""
        return not self.rings[queue].pending()

    def received(self, text):
        """Whether a frame was received that says `text`; whatever was received is
        taken.
        """
        found = False
        for queue in range(0, 2 * self.pairs, 2):
            while entry := self.rings[queue].used():
                at = self.offset + self._buffer(queue, entry[0])
                found |= text in self.memory.map[at:at + entry[1]]
                self.rings[queue].offer(entry[0])
                self._kick(queue)
        return found

    def command(self, which, data, seconds=10):
        """Has the control queue serve a command. Returns whether that was done."""
        queue = len(self.rings) - 1
        ring = self.rings[queue]
        asked, answer = self._buffer(queue, 0), self._buffer(queue, 1)
        whole = bytes(which) + data
        at = self.offset + asked
        self.memory.map[at:at + len(whole)] = whole
        self.memory.map[self.offset + answer] = 0xff
        ring.describe(0, self.iova + asked, len(whole), 1, 1)
        ring.describe(1, self.iova + answer, 1, 2)
        ring.offer(0)
        self._kick(queue)
        # Who needs a reset answers nothing.
        vdpa.wait_until(lambda: not ring.pending() or not self.is_well(), "an answer", seconds)
        return self.memory.map[self.offset + answer] == nic.OK

    def indices(self):
        """Where the device is in its virtqueues."""
        return [(ring.next - ring.pending()) & 0xffff for ring in self.rings]

    def bases(self):
        """Where the device says that it is; None where it does not say."""
        found = []
        for queue in range(len(self.rings)):
            base = None
            with contextlib.suppress(OSError):
                base = self.dev.base(queue)
            found.append(base)
        return found
