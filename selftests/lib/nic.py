# SPDX-License-Identifier: GPL-2.0
"""A network device of vhost-vdpa with a driver in this process: queues that
receive and send, and the control queue.
"""

import contextlib
import ipaddress
import itertools
import os
import struct

import vdpa
import vhost
from vhost import HUGE, PAGE, QUEUE_SIZE

# Features.
CSUM = 1 << 0
GUEST_CSUM = 1 << 1
MTU = 1 << 3
MAC = 1 << 5
MRG_RXBUF = 1 << 15
STATUS = 1 << 16
CTRL_VQ = 1 << 17
CTRL_RX = 1 << 18
CTRL_VLAN = 1 << 19
GUEST_ANNOUNCE = 1 << 21
MQ = 1 << 22
CTRL_MAC_ADDR = 1 << 23
NOTIFY_ON_EMPTY = 1 << 24
ANY_LAYOUT = 1 << 27
RSS = 1 << 60

# Commands of the control queue: class and command.
PROMISCUOUS, ALL_MULTICAST = (0, 0), (0, 1)
MAC_TABLE, MAC_ADDRESS = (1, 0), (1, 1)
VLAN_ADD, VLAN_DELETE = (2, 0), (2, 1)
ANNOUNCE_ACK = (3, 0)
PAIRS, RSS_CONFIG = (4, 0), (4, 1)
OK, ERR = 0, 1

# A header's flag: the device found the checksum right.
DATA_VALID = 2

# Bits of the status in the configuration space.
LINK_UP, ANNOUNCE = 1, 2

# Where memory is mapped for the device, and what lies where in it.
BASE = 0x4000_0000
BUFFERS, BUFFER, COUNT = 0x40000, 0x800, 64
FRAMES, FRAME = 0x180000, 0x800
COMMANDS, COMMAND = 0x1c0000, 0x400

EVERYBODY = "ff:ff:ff:ff:ff:ff"
IPV4, IPV6, VLAN, TEST = 0x0800, 0x86dd, 0x8100, 0x88b5
TCP, UDP = 6, 17

_marks = itertools.count(1)
_addresses = itertools.count(1)


def address():
    """A MAC address that nobody had before: switches learn whose one is."""
    return "02:00:01:" + next(_addresses).to_bytes(3, "big").hex(":")


def mac_bytes(text):
    """A MAC address as frames have it."""
    return bytes.fromhex(text.replace(":", ""))


def ethernet(to, source, payload=b"", kind=TEST, vlan=None):
    """An Ethernet frame of 60 bytes at least."""
    tag = b"" if vlan is None else struct.pack(">HH", VLAN, vlan)
    frame = mac_bytes(to) + mac_bytes(source) + tag + struct.pack(">H", kind) + payload
    return frame.ljust(60, b"\0")


def _sum(data):
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def flow(to, source, protocol, version, port, payload=bytes(20)):
    """A frame of TCP or UDP over IP, with the right checksums."""
    addresses = ("10.79.0.1", "10.79.0.2") if version == 4 else ("fd00::1", "fd00::2")
    packed = b"".join(ipaddress.ip_address(address).packed for address in addresses)
    if protocol == UDP:
        segment = struct.pack(">HHHH", port, 7, 8 + len(payload), 0)
    else:
        segment = struct.pack(">HHIIBBHHH", port, 7, 0, 0, 5 << 4, 0x10, 1024, 0, 0)
    segment += payload
    at = 6 if protocol == UDP else 16
    checksum = _sum(packed + struct.pack(">II", len(segment), protocol) + segment)
    segment = segment[:at] + struct.pack(">H", checksum or 0xffff) + segment[at + 2:]
    if version == 4:
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, protocol, 0)
        head = head[:10] + struct.pack(">H", _sum(head + packed)) + packed
        return ethernet(to, source, head + segment, IPV4)
    head = struct.pack(">IHBB", 6 << 28, len(segment), protocol, 64) + packed
    return ethernet(to, source, head + segment, IPV6)


# Kinds of hashes: of addresses, and of addresses and ports.
HASH_IPV4, HASH_TCPV4, HASH_UDPV4, HASH_IPV6, HASH_TCPV6, HASH_UDPV6 = (1 << n for n in range(6))


def hash_of(frame, key, ports=True):
    """The hash of a frame that `flow` made, by Toeplitz, of ports or without."""
    at, length = (26, 8) if frame[12:14] == b"\x08\0" else (22, 32)
    data = frame[at:at + length + (4 if ports else 0)]
    bits = int.from_bytes(key, "big")
    total = 0
    for number, byte in enumerate(data):
        for bit in range(8):
            if byte & 0x80 >> bit:
                total ^= bits >> 8 * len(key) - 32 - 8 * number - bit & 0xffffffff
    return total


def scaling(types, table, rest, transmit, key):
    """What RSS_CONFIG says."""
    return (struct.pack("<IHH", types, len(table) - 1, rest) +
            b"".join(struct.pack("<H", queue) for queue in table) +
            struct.pack("<HB", transmit, len(key)) + key)


class Ring:
    """A split virtqueue in memory, as its driver sees it: "<" or ">" is the byte
    order of what is in it.
    """

    def __init__(self, memory, offset, base, order="<"):
        self.memory, self.offset, self.order = memory, offset, order
        self.next = self.seen = base
        memory.map[offset:offset + 4 * PAGE] = bytes(4 * PAGE)
        self._write(PAGE + 2, "H", base)
        self._write(2 * PAGE + 2, "H", base)

    def _write(self, at, form, *values):
        struct.pack_into(self.order + form, self.memory.map, self.offset + at, *values)

    def _read(self, at, form):
        return struct.unpack_from(self.order + form, self.memory.map, self.offset + at)

    def describe(self, index, address, length, flags=0, following=0):
        """Writes a descriptor."""
        self._write(16 * index, "QIHH", address, length, flags, following)

    def offer(self, index):
        """Makes a chain available."""
        self._write(PAGE + 4 + 2 * (self.next % QUEUE_SIZE), "H", index)
        self.next = (self.next + 1) & 0xffff
        self.publish()

    def publish(self):
        """Shows the device what is available."""
        self._write(PAGE + 2, "H", self.next)

    def take_back(self, count):
        """Makes the last chains unavailable, of a device that has stopped before them."""
        self.next = (self.next - count) & 0xffff
        self.publish()

    def used(self):
        """The next chain that was used and how much of it, or None."""
        if self._read(2 * PAGE + 2, "H")[0] == self.seen:
            return None
        entry = self._read(2 * PAGE + 4 + 8 * (self.seen % QUEUE_SIZE), "II")
        self.seen = (self.seen + 1) & 0xffff
        return entry

    def pending(self):
        """How many chains the device has yet."""
        return (self.next - self._read(2 * PAGE + 2, "H")[0]) & 0xffff


class Nic:
    """A driver of a vDPA device of vhost-vdpa, and the memory it has."""

    def __init__(self, device):
        self.stack = contextlib.ExitStack()
        self.device = device
        with self.stack as stack:
            self.memory = vhost.Memory(HUGE)
            stack.callback(self.memory.close)
            self.vhost = stack.enter_context(vhost.Vhost(device.path))
            self.config_call = os.eventfd(0, os.EFD_NONBLOCK)
            stack.callback(os.close, self.config_call)
            self.stack = stack.pop_all()
        self.kicks, self.rings = {}, {}
        self.pairs, self.control_index = 1, None
        self.header = vhost.HEADER
        # The byte order of rings, headers and the configuration.
        self.order = "<"
        # How much of each receive buffer the device is given.
        self.room = BUFFER
        self.received = []
        self.sent = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for eventfd in self.kicks.values():
            os.close(eventfd)
        self.stack.close()

    @property
    def mac(self):
        """The address in the configuration space."""
        return self.vhost.config(0, 6).hex(":")

    def map(self):
        """Maps all of the memory."""
        with self.vhost.batch():
            self.vhost.map(BASE, self.memory, size=HUGE)

    def unmap(self):
        """Takes it back."""
        with self.vhost.batch():
            self.vhost.unmap(BASE, HUGE)

    def set_up(self, features, pairs=1, base=0, legacy=False):
        """All that comes before queues are enabled. A legacy driver says nothing
        but DRIVER_OK, as QEMU has it.
        """
        offered = self.vhost.features()
        missing = features & ~offered
        assert not missing, f"features {missing:#x} are not offered"
        if legacy:
            self.vhost.set_features(features)
            self.header = 12 if features & MRG_RXBUF else 10
        else:
            self.vhost.acknowledge(features)
            self.header = 12
        self.pairs, self.control_index = pairs, None
        if features & CTRL_VQ:
            most = struct.unpack(self.order + "H", self.vhost.config(8, 2))[0]
            self.control_index = 2 * most if features & (MQ | RSS) else 2
        self.received, self.rings = [], {}
        # A reset forgets it.
        self.vhost.set_config_call(self.config_call)
        for place, queue in enumerate(self.queues()):
            offset = 4 * PAGE * place
            self.rings[queue] = Ring(self.memory, offset, base, self.order)
            self.vhost.set_ring(queue, BASE + offset, base)
            if queue not in self.kicks:
                self.kicks[queue] = os.eventfd(0)
            self.vhost.set_kick(queue, self.kicks[queue])
        for queue in range(0, 2 * pairs, 2):
            for index in range(COUNT):
                at = BASE + self._buffer(queue, index)
                self.rings[queue].describe(index, at, self.room, 2)
                self.rings[queue].offer(index)

    @staticmethod
    def _buffer(queue, index):
        return BUFFERS + (queue // 2 * COUNT + index) * BUFFER

    def queues(self):
        """The queues that the driver uses."""
        control = [] if self.control_index is None else [self.control_index]
        return [*range(2 * self.pairs), *control]

    def enable(self):
        """Enables all of them."""
        for queue in self.queues():
            self.vhost.enable(queue)

    def ready(self, legacy=False):
        """The driver is ready. Returns whether the device is, too."""
        if not legacy:
            return self.vhost.drive()
        self.vhost.set_status(vhost.ACKNOWLEDGE | vhost.DRIVER | vhost.DRIVER_OK)
        return not self.vhost.status() & vhost.NEEDS_RESET

    def start(self, features=MAC, pairs=1, base=0, legacy=False):
        """A driver begins: memory, features, queues."""
        self.map()
        self.set_up(features, pairs, base, legacy)
        self.enable()
        assert self.ready(legacy), "it does not start"
        if features & MQ and self.control_index is not None:
            assert self.control(PAIRS, struct.pack(self.order + "H", pairs)) == OK

    def start_at(self, bases, features=MAC, legacy=False):
        """After a reset a driver begins where the rings stood, with what is in them."""
        if legacy:
            self.vhost.set_features(features)
        else:
            self.vhost.acknowledge(features)
        self.vhost.set_config_call(self.config_call)
        for queue, base in enumerate(bases):
            self.vhost.set_ring(queue, BASE + self.rings[queue].offset, base)
            self.vhost.set_kick(queue, self.kicks[queue])
        self.enable()
        assert self.ready(legacy), "it does not start"

    def reset(self):
        """The driver resets the device and takes its memory back."""
        self.vhost.set_status(0)
        self.unmap()

    def kick(self, queue):
        """Says that there is something in a queue."""
        os.eventfd_write(self.kicks[queue], 1)

    def kick_heard(self, queue):
        """Says that there is something in a queue, and waits until the parent
        was told: the eventfd is not looked at any more.
        """
        self.kick(queue)
        before, self.kicks[queue] = self.kicks[queue], os.eventfd(0)
        self.vhost.set_kick(queue, self.kicks[queue])
        os.close(before)

    def put(self, frame, queue=1, header=None):
        """Has a frame in a queue, and says so to nobody."""
        index = self.sent % COUNT
        self.sent += 1
        at = FRAMES + index * FRAME
        whole = (header or b"").ljust(self.header, b"\0") + frame
        self.memory.map[at:at + len(whole)] = whole
        self.rings[queue].describe(index, BASE + at, self.header + len(frame))
        self.rings[queue].offer(index)

    def send(self, *frames, queue=1):
        """Sends frames."""
        for frame in frames:
            self.put(frame, queue)
        self.kick(queue)

    def is_sent(self, queue=1):
        """Whether all of them went."""
        return self.rings[queue].pending() == 0

    def wait_sent(self, what="what was sent", queue=1, seconds=3):
        """Waits until they did."""
        vdpa.wait_until(lambda: self.is_sent(queue), what, seconds)

    def look(self):
        """Takes what was received: headers, frames and queues, in order of the
        queues.
        """
        for queue in range(0, 2 * self.pairs, 2):
            while piece := self._piece(queue):
                header, frame = piece[:self.header], piece[self.header:]
                if self.header == 12:
                    # In several buffers, if those were merged.
                    for _ in range(1, struct.unpack_from(self.order + "H", header, 10)[0]):
                        frame += self._piece(queue)
                self.received.append((header, frame, queue))
                self.kick(queue)
        return self.received

    def _piece(self, queue):
        """What is in the next buffer that was used, which is given back; or None."""
        entry = self.rings[queue].used()
        if entry is None:
            return None
        index, length = entry
        at = self._buffer(queue, index)
        data = self.memory.map[at:at + length]
        self.rings[queue].offer(index)
        return data

    def has(self, frame):
        """Whether a frame was received."""
        return any(frame == one for _, one, _ in self.look())

    def wait(self, frame, what="a frame", seconds=3):
        """Waits for a frame. Returns its header and its queue."""
        vdpa.wait_until(lambda: self.has(frame), what, seconds)
        return next((head, queue) for head, one, queue in self.received if one == frame)

    def command(self, command, data=b"", length=None):
        """Puts a command into the control queue, of a number of bytes."""
        index = self.sent % COUNT
        self.sent += 1
        at = COMMANDS + index * COMMAND
        whole = (bytes(command) + data)[:length]
        self.memory.map[at:at + len(whole)] = whole
        self.memory.map[at + COMMAND - 1] = 0xff
        ring = self.rings[self.control_index]
        ring.describe(2 * index, BASE + at, len(whole), 1, 2 * index + 1)
        ring.describe(2 * index + 1, BASE + at + COMMAND - 1, 1, 2)
        ring.offer(2 * index)
        return at + COMMAND - 1

    def control(self, command, data=b"", length=None, seconds=3):
        """Has a command carried out, and returns the answer."""
        answer = self.command(command, data, length)
        self.kick(self.control_index)
        vdpa.wait_until(lambda: self.is_sent(self.control_index), f"command {command}", seconds)
        return self.memory.map[answer]

    def config_changed(self, seconds=3):
        """Waits until it is said that the configuration changed."""

        def told():
            try:
                return os.eventfd_read(self.config_call)
            except BlockingIOError:
                return 0

        vdpa.wait_until(told, "a change of the configuration", seconds)

    def status(self):
        """The status in the configuration space."""
        return struct.unpack(self.order + "H", self.vhost.config(6, 2))[0]


@contextlib.contextmanager
def driver(function, name="subject", **attributes):
    """A device of a function, with nobody who drives it yet."""
    with vdpa.Device(function.mgmtdev, name, driver="vhost_vdpa", **attributes) as device:
        with Nic(device) as here:
            yield here


def arrives(source, receiver, frame):
    """Whether a frame comes from one to the other: one to everybody that is sent
    behind it says by when.
    """
    mark = ethernet(EVERYBODY, "02:00:00:00:aa:aa", struct.pack(">Q", next(_marks)))
    source.send(frame, mark)
    receiver.wait(mark, "a frame to everybody")
    return receiver.has(frame)


def talk(here, there):
    """A frame each way, and back."""
    for source, to in ((here, there), (there, here)):
        frame = ethernet(to.mac, source.mac, struct.pack(">Q", next(_marks)))
        assert arrives(source, to, frame), f"{to.mac} receives nothing"
