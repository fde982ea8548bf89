# SPDX-License-Identifier: GPL-2.0
"""The program vdpa-relay, and guests in QEMU that reach a vDPA device through it."""

import os
import subprocess
import tempfile

import ktap
import qemu

PROGRAM = os.path.join(qemu.BUILD, "vdpa-relay")


class Relay:
    """vdpa-relay for `device`.  A context: started on entry, ended on exit.

    QEMU listens on the socket if `connect` is set, or else the relay does.
    """

    def __init__(self, device, connect=False):
        self.device = device
        self.connect = connect
        self.folder = tempfile.TemporaryDirectory(prefix="relay-")
        self.socket = f"{self.folder.name}/socket"
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def start(self):
        """Starts it, and waits until a VMM may come."""
        words = ["--device", self.device.name, "--socket", self.socket]
        with open(f"{self.folder.name}/log", "ab") as log:
            self.process = subprocess.Popen(
                [PROGRAM, *words, *(["--connect"] if self.connect else [])],
                stdout=subprocess.PIPE, stderr=log, text=True)
        line = self.process.stdout.readline()
        assert line.startswith("ready:"), f"{line}{self.log()}"

    def kill(self):
        """Ends it as nobody can see coming."""
        self.process.kill()
        self.process.communicate()

    def log(self):
        """What it said, of all times it was started."""
        with open(f"{self.folder.name}/log", encoding="utf-8") as file:
            return file.read()

    def __exit__(self, kind=None, *_):
        self.process.terminate()
        self.process.communicate(timeout=30)
        if kind:
            ktap.say(self.log())
        self.folder.cleanup()
        if not kind:
            assert self.process.returncode == 0, f"vdpa-relay: {self.process.returncode}"


class Guest(qemu.Guest):
    """A guest behind a relay; see qemu.Guest."""

    def __init__(self, relay, **options):
        super().__init__(relay.device, **options)
        self.relay = relay

    def network(self):
        chardev = f"socket,id=relay,path={self.relay.socket},"
        chardev += "server=on,wait=on" if self.relay.connect else "reconnect-ms=100"
        netdev = "vhost-user,id=net,chardev=relay"
        return [
            # The relay needs the guest's memory as well.
            "-object", f"memory-backend-memfd,id=memory,size={self.memory}M,share=on",
            "-machine", "memory-backend=memory",
            "-chardev", chardev,
            "-netdev", netdev + ("," + self.backend if self.backend else ""),
        ]
