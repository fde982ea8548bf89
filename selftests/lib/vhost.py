# SPDX-License-Identifier: GPL-2.0
"""A VMM without a guest: /dev/vhost-vdpa, and rings in memory that the test
maps and writes itself.
"""

import contextlib
import ctypes
import fcntl
import mmap
import os
import resource
import struct
import time

import vdpa

PAGE = 4096
HUGE = 2 << 20

# Directions of an ioctl's argument.
WRITE, READ = 1, 2

# Bits of the status. STOP is written to stop, and read of a device that has
# stopped; STOP_FAILED is read of one that could not.
ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK = 1, 2, 4, 8
STOP, STOP_FAILED = 0x10, 0x20
NEEDS_RESET = 0x40

# Features.
VERSION_1 = 1 << 32
ACCESS_PLATFORM = 1 << 33

# Permissions of a map, and kinds of messages.
RO, WO, RW = 1, 2, 3
UPDATE, INVALIDATE, BATCH_BEGIN, BATCH_END = 2, 3, 5, 6

QUEUE_SIZE = 256
HEADER = 12


def _ioc(direction, number, size):
    return direction << 30 | size << 16 | 0xaf << 8 | number


def huge_pages(what):
    """A number of huge pages: "Free", or "Total"."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(f"HugePages_{what}:"))


@contextlib.contextmanager
def huge_pages_kept(count):
    """A number of huge pages is there for programs in the context."""
    number = "/proc/sys/vm/nr_hugepages"
    vdpa.write(number, str(count))
    try:
        yield
    finally:
        vdpa.write(number, "0")


class Memory:
    """Memory of this process, of huge pages."""

    def __init__(self, size, page=HUGE):
        flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | 0x40000  # MAP_HUGETLB
        flags |= (page.bit_length() - 1) << 26
        self.map = mmap.mmap(-1, size, flags=flags)
        self.size = size
        # All of it is there from the beginning.
        for at in range(0, size, page):
            self.map[at] = 0
        view = ctypes.c_char.from_buffer(self.map)
        self.address = ctypes.addressof(view)
        del view

    def close(self):
        """Gives it back."""
        self.map.close()


class Vhost:
    """A device of vhost-vdpa, opened."""

    def __init__(self, path, persist=True):
        # Pages that are pinned count against this limit, whoever asks.
        limit = resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
        self.file = os.open(path, os.O_RDWR)
        self._ioctl(0, 0x01, b"")  # SET_OWNER
        # MSG_V2, BATCH, ASID; maps may stay over a reset (IOTLB_PERSIST), which
        # QEMU does not ask for.
        features = 1 << 1 | 1 << 2 | 1 << 3 | persist << 8
        self._ioctl(WRITE, 0x25, struct.pack("=Q", features))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.file)

    def _ioctl(self, direction, number, argument, size=None):
        # Where an array is behind what the number of the ioctl has the size of.
        size = len(argument) if size is None else size
        buffer = bytearray(argument)
        fcntl.ioctl(self.file, _ioc(direction, number, size), buffer)
        return bytes(buffer)

    def status(self):
        """The device status."""
        return self._ioctl(READ, 0x71, bytes(1))[0]

    def set_status(self, status):
        """Sets the device status; 0 is a reset."""
        self._ioctl(WRITE, 0x72, bytes([status]))

    def features(self):
        """What is offered."""
        return struct.unpack("=Q", self._ioctl(READ, 0x00, bytes(8)))[0]

    def suspend(self):
        """Stops the device."""
        self._ioctl(0, 0x7d, b"")

    def resume(self):
        """Has it go on."""
        self._ioctl(0, 0x7e, b"")

    def config(self, offset, length):
        """Some of the configuration space."""
        head = struct.pack("=II", offset, length)
        return self._ioctl(READ, 0x73, head + bytes(length), len(head))[len(head):]

    def set_config(self, offset, data):
        """Writes to the configuration space."""
        head = struct.pack("=II", offset, len(data))
        self._ioctl(WRITE, 0x74, head + data, len(head))

    def set_config_call(self, eventfd):
        """Gives it an eventfd that says that the configuration changed."""
        self._ioctl(WRITE, 0x77, struct.pack("=i", eventfd))

    def base(self, queue):
        """Where a virtqueue stands."""
        answer = self._ioctl(READ | WRITE, 0x12, struct.pack("=II", queue, 0))
        return struct.unpack("=II", answer)[1]

    def set_group_asid(self, group, asid):
        """Puts a group of virtqueues into an address space."""
        self._ioctl(WRITE, 0x7c, struct.pack("=II", group, asid))

    def group(self, queue):
        """The group that a virtqueue is in."""
        answer = self._ioctl(READ | WRITE, 0x7b, struct.pack("=II", queue, 0))
        return struct.unpack("=II", answer)[1]

    def _message(self, kind, asid=0, iova=0, size=0, address=0, permissions=0):
        os.write(self.file, struct.pack("=IIQQQBB38x", 2, asid, iova, size, address,
                                        permissions, kind))

    def map(self, iova, memory, permissions=RW, asid=0, offset=0, size=None):
        """Maps memory, or some of it."""
        self._message(UPDATE, asid, iova, size or memory.size - offset,
                      memory.address + offset, permissions)

    def unmap(self, iova, size, asid=0):
        """Takes back what is mapped in a range."""
        self._message(INVALIDATE, asid, iova, size)

    def begin(self, asid=0):
        """What is mapped and taken back from here on becomes so with `end`."""
        self._message(BATCH_BEGIN, asid)

    def end(self, asid=0):
        """Ends what `begin` began."""
        self._message(BATCH_END, asid)

    @contextlib.contextmanager
    def batch(self, asid=0):
        """What is mapped and taken back in the context becomes so at its end."""
        self.begin(asid)
        yield
        self.end(asid)

    def set_ring(self, queue, iova, base=0):
        """Says where a virtqueue's ring is: three pages and a bit. It goes on
        at `base`.
        """
        state = struct.pack("=II", queue, QUEUE_SIZE)
        self._ioctl(WRITE, 0x10, state)
        self._ioctl(WRITE, 0x12, struct.pack("=II", queue, base))
        # Descriptors, used, available.
        addresses = iova, iova + 2 * PAGE, iova + PAGE, 0
        self._ioctl(WRITE, 0x11, struct.pack("=IIQQQQ", queue, 0, *addresses))

    def set_kick(self, queue, eventfd):
        """Gives it an eventfd for kicks."""
        self._ioctl(WRITE, 0x20, struct.pack("=Ii", queue, eventfd))

    def set_call(self, queue, eventfd):
        """Gives it an eventfd that says that buffers were used."""
        self._ioctl(WRITE, 0x21, struct.pack("=Ii", queue, eventfd))

    def set_big_endian(self, queue, on=True):
        """Says what byte order a virtqueue has."""
        self._ioctl(WRITE, 0x13, struct.pack("=II", queue, on))

    def doorbell(self, queue):
        """The page with the doorbell of a virtqueue: OSError if there is none."""
        return mmap.mmap(self.file, PAGE, mmap.MAP_SHARED, mmap.PROT_WRITE, offset=queue * PAGE)

    def enable(self, queue, on=True):
        """Enables a virtqueue."""
        self._ioctl(WRITE, 0x75, struct.pack("=II", queue, on))

    def set_features(self, features):
        """Takes features."""
        self._ioctl(WRITE, 0x00, struct.pack("=Q", features))

    def acknowledge(self, features=0):
        """All that comes before rings, with these features beside those needed."""
        self.set_status(ACKNOWLEDGE | DRIVER)
        self.set_features(VERSION_1 | ACCESS_PLATFORM | features)
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK)

    def drive(self):
        """The driver is ready. Returns whether the device is, too."""
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)
        return not self.status() & NEEDS_RESET


class Sender:
    """A transmit queue, or that of control, whose ring lies in `memory` at
    `offset`, which is mapped at `iova`.
    """

    def __init__(self, vhost, queue, memory, offset, iova):
        self.memory, self.offset = memory, offset
        self.next = 0
        memory.map[offset:offset + 4 * PAGE] = bytes(4 * PAGE)
        self.eventfd = os.eventfd(0)
        vhost.set_ring(queue, iova)
        vhost.set_kick(queue, self.eventfd)

    def close(self):
        """Gives back what it holds."""
        os.close(self.eventfd)

    def send(self, iova, length):
        """Has the device read a frame and the header before it."""
        descriptor = self.next % QUEUE_SIZE
        at = self.offset + 16 * descriptor
        self.memory.map[at:at + 16] = struct.pack("<QIHH", iova, length, 0, 0)
        self._put(descriptor)

    def _put(self, descriptor):
        """Makes the chain that begins at a descriptor available."""
        at = self.offset + PAGE + 4 + 2 * (self.next % QUEUE_SIZE)
        self.memory.map[at:at + 2] = struct.pack("<H", descriptor)
        self.next += 1
        at = self.offset + PAGE + 2
        self.memory.map[at:at + 2] = struct.pack("<H", self.next & 0xffff)
        os.eventfd_write(self.eventfd, 1)

    def command(self, iova, offset, command, seconds=10):
        """As a control queue: has the device execute a command, which is put at
        `offset`, mapped at `iova`. Returns what it says of it.
        """
        answer = offset + len(command)
        self.memory.map[offset:answer + 1] = command + b"\xff"
        first = 2 * self.next % QUEUE_SIZE
        at = self.offset + 16 * first
        self.memory.map[at:at + 32] = struct.pack(
            "<QIHHQIHH", iova, len(command), 1, first + 1, iova + len(command), 1, 2, 0)
        self._put(first)
        end = time.monotonic() + seconds
        while self.used() != self.next & 0xffff:
            if time.monotonic() > end:
                raise TimeoutError("a control command is not answered")
        return self.memory.map[answer]

    def used(self):
        """How many the device is done with."""
        at = self.offset + 2 * PAGE + 2
        return struct.unpack("<H", self.memory.map[at:at + 2])[0]
