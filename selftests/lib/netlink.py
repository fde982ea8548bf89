# SPDX-License-Identifier: GPL-2.0
"""The generic netlink family "vdpa", for what the vdpa tool cannot say.

iproute2 has no command for VDPA_CMD_DEV_ATTR_SET, sends no nonsense, and
takes some milliseconds to start, which a thousand times is long.
"""

import os
import socket
import struct

NETLINK_GENERIC = 16
GENL_ID_CTRL = 16
CTRL_CMD_GETFAMILY = 3
CTRL_ATTR_FAMILY_ID = 1
CTRL_ATTR_FAMILY_NAME = 2

NLM_F_REQUEST = 1
NLM_F_ACK = 4
NLMSG_ERROR = 2

# enum vdpa_command
MGMTDEV_GET = 2
DEV_NEW = 3
DEV_DEL = 4
DEV_GET = 5
DEV_CONFIG_GET = 6
DEV_VSTATS_GET = 7
DEV_ATTR_SET = 8

# enum vdpa_attr
MGMTDEV_BUS_NAME = 1
MGMTDEV_DEV_NAME = 2
DEV_NAME = 4
NET_MACADDR = 10
NET_MAX_VQP = 12
NET_MTU = 13
QUEUE_INDEX = 17
FEATURES = 20


def text(value):
    """A string attribute."""
    return value.encode() + b"\0"


def u16(value):
    """A 16-bit attribute."""
    return struct.pack("=H", value)


def u32(value):
    """A 32-bit attribute."""
    return struct.pack("=I", value)


def u64(value):
    """A 64-bit attribute."""
    return struct.pack("=Q", value)


def mac(value):
    """A MAC address as an attribute."""
    return bytes.fromhex(value.replace(":", ""))


def _attribute(kind, data):
    padding = b"\0" * (-len(data) % 4)
    return struct.pack("=HH", 4 + len(data), kind) + data + padding


class Vdpa:
    """A socket to the family; errors are OSError."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)
        self.socket.bind((0, 0))
        self.socket.settimeout(120)
        self.sequence = 0
        answer = self._call(
            GENL_ID_CTRL, CTRL_CMD_GETFAMILY, {CTRL_ATTR_FAMILY_NAME: text("vdpa")}
        )
        self.family = self._family(answer[4:])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    @staticmethod
    def _family(attributes):
        while len(attributes) >= 4:
            length, kind = struct.unpack_from("=HH", attributes)
            if kind == CTRL_ATTR_FAMILY_ID:
                return struct.unpack_from("=H", attributes, 4)[0]
            attributes = attributes[(length + 3) & ~3 :]
        raise OSError("no family id")

    def _call(self, family, command, attributes):
        self.sequence += 1
        body = struct.pack("=BBH", command, 1, 0)
        body += b"".join(_attribute(*pair) for pair in attributes.items())
        head = struct.pack(
            "=IHHII", 16 + len(body), family, NLM_F_REQUEST | NLM_F_ACK, self.sequence, 0
        )
        self.socket.send(head + body)
        answer = b""
        # An answer, if there is one, then the acknowledgement.
        while True:
            data = self.socket.recv(65536)
            while data:
                length, kind, _flags, sequence, _port = struct.unpack_from("=IHHII", data)
                message, data = data[16:length], data[(length + 3) & ~3 :]
                if sequence != self.sequence:
                    continue
                if kind == NLMSG_ERROR:
                    error = -struct.unpack_from("=i", message)[0]
                    if error:
                        raise OSError(error, os.strerror(error))
                    return answer
                answer = message

    def call(self, command, attributes):
        """Sends a command; its answer as bytes."""
        return self._call(self.family, command, attributes)

    def add(self, mgmtdev, name, bus=None, **attributes):
        """Makes a device of a management device, which may be one of a bus.
        Attributes: mac, mtu, max_vqp, features.
        """
        words = {MGMTDEV_BUS_NAME: text(bus)} if bus else {}
        words |= {MGMTDEV_DEV_NAME: text(mgmtdev), DEV_NAME: text(name)}
        kinds = {
            "mac": (NET_MACADDR, mac),
            "mtu": (NET_MTU, u16),
            "max_vqp": (NET_MAX_VQP, u16),
            "features": (FEATURES, u64),
        }
        for key, value in attributes.items():
            kind, encode = kinds[key]
            words[kind] = encode(value)
        self.call(DEV_NEW, words)

    def delete(self, name):
        """Deletes a device."""
        self.call(DEV_DEL, {DEV_NAME: text(name)})

    def set_mac(self, name, address):
        """Gives a device another MAC address."""
        self.call(DEV_ATTR_SET, {DEV_NAME: text(name), NET_MACADDR: mac(address)})
