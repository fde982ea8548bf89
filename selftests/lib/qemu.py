# SPDX-License-Identifier: GPL-2.0
"""Guests in QEMU on vhost-vdpa: the machine, its monitor and its agent."""

import contextlib
import json
import os
import resource
import shutil
import socket
import subprocess
import tempfile
import time

import ktap

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("SELFTESTS_BUILD", os.path.join(CHECKOUT, "build", "selftests"))
TOOL = os.path.join(BUILD, "guest-tool")

# Where everything is emulated, a guest boots in half a minute.
BOOT_TIMEOUT = 180

# For a card whose guest QEMU puts behind shadow virtqueues.  QEMU 11.1.3 frees
# only the first descriptor of each chain in such a queue, and once it has been
# through all of them hands out some that are in use.  A Linux guest without
# checksum offload, and what needs it, sends every frame in one descriptor.
SHADOWED = "csum=off,host_tso4=off,host_tso6=off,host_ecn=off"


class Lines:
    """A socket that is read by lines and exact lengths, with a time-out."""

    def __init__(self, path, process):
        self.socket = socket.socket(socket.AF_UNIX)
        end = time.monotonic() + 30
        # QEMU makes the socket when it starts; there is no event for it.
        while True:
            try:
                self.socket.connect(path)
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if process.poll() is not None or time.monotonic() > end:
                    raise
                time.sleep(0.02)
        self.data = b""

    def fill(self, end):
        """Reads some more, until the time `end` at most."""
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError()
        self.socket.settimeout(left)
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("QEMU closed the connection")
        self.data += data

    def line(self, end):
        """The next line, without its end."""
        while b"\n" not in self.data:
            self.fill(end)
        line, self.data = self.data.split(b"\n", 1)
        return line

    def exactly(self, length, end):
        """The next `length` bytes."""
        while len(self.data) < length:
            self.fill(end)
        data, self.data = self.data[:length], self.data[length:]
        return data

    def write(self, data):
        """Writes all of it."""
        self.socket.settimeout(30)
        self.socket.sendall(data)

    def close(self):
        """Closes the socket."""
        self.socket.close()


class Monitor:
    """QEMU's machine protocol."""

    def __init__(self, path, process):
        self.lines = Lines(path, process)
        self.events = []
        end = time.monotonic() + 30
        json.loads(self.lines.line(end))
        self.command("qmp_capabilities")

    def _next(self, end):
        message = json.loads(self.lines.line(end))
        if "event" in message:
            self.events.append(message)
        return message

    def command(self, name, timeout=60, **arguments):
        """Runs a command; an error is an AssertionError."""
        request = {"execute": name, "arguments": arguments}
        self.lines.write(json.dumps(request).encode() + b"\n")
        end = time.monotonic() + timeout
        while True:
            message = self._next(end)
            if "error" in message:
                raise AssertionError(f"QMP {name}: {message['error']['desc']}")
            if "return" in message:
                return message["return"]

    def wait(self, name, timeout=60, **data):
        """Waits for an event (with such data), also one that came before."""
        end = time.monotonic() + timeout
        while True:
            for number, event in enumerate(self.events):
                got = event.get("data", {})
                if event["event"] == name and all(got.get(k) == v for k, v in data.items()):
                    del self.events[: number + 1]
                    return event
            self._next(end)

    def rest(self):
        """The events that nobody waited for, when QEMU has ended: why it did is one."""
        with contextlib.suppress(OSError):
            while True:
                self._next(time.monotonic() + 5)
        return self.events

    def close(self):
        """Closes the connection."""
        self.lines.close()


# What a guest knows of its network when something is wrong with it.
ACCOUNT = """
uptime; grep virtio /proc/interrupts; tail -n +3 /proc/net/dev; cat /proc/net/tcp
grep Tcp /proc/net/snmp; dmesg | tail
"""


class Guest:
    """A virtual machine with one network card on a vhost-vdpa device.

    `card` are options of virtio-net-pci, `backend` ones of -netdev
    vhost-vdpa.  A context: started on entry, ended on exit.
    """

    def __init__(self, device, card="", backend="", memory=192, cpus=1, incoming=False):
        self.device = device
        self.card = card
        self.backend = backend
        self.memory = memory
        self.cpus = cpus
        self.incoming = incoming
        self.folder = None
        self.process = None
        self.monitor = None
        self.agent = None
        self.number = 0

    def network(self):
        """The options for what is behind the card, which is called `net`."""
        netdev = f"vhost-vdpa,id=net,vhostdev={self.device.path}"
        return ["-netdev", netdev + ("," + self.backend if self.backend else "")]

    def options(self):
        """QEMU's command line."""
        release = os.uname().release
        kvm = os.access("/dev/kvm", os.R_OK | os.W_OK)
        card = "virtio-net-pci,netdev=net,romfile="
        if "mac" in self.device.attributes:
            card += f",mac={self.device.attributes['mac']}"
        return [
            "qemu-system-x86_64",
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display", "none",
            # No machine part that the guest would only spend time to find.
            "-machine", "q35,sata=off,smbus=off,vmport=off,graphics=off",
            "-accel", "kvm" if kvm else "tcg",
            "-cpu", "host" if kvm else "max",
            "-m", f"{self.memory}M",
            "-smp", str(self.cpus),
            "-kernel", f"/boot/vmlinuz-{release}",
            "-initrd", os.path.join(BUILD, "initramfs.cpio"),
            "-append",
            "console=ttyS0 quiet panic=-1 mitigations=off nokaslr random.trust_cpu=on"
            " tsc=reliable no_timer_check ipv6.disable=1 audit=0",
            "-serial", f"file:{self.folder}/console",
            "-qmp", f"unix:{self.folder}/monitor,server=on,wait=off",
            "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=agent,path={self.folder}/agent,server=on,wait=off",
            "-device", "virtserialport,chardev=agent,name=agent",
            *self.network(),
            "-device", card + ("," + self.card if self.card else ""),
            *(["-incoming", "defer"] if self.incoming else []),
        ]

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="guest-")
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self):
        """Starts QEMU and connects to its monitor and agent port."""
        # vhost-vdpa pins all of the guest's memory, and counts it against this.
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, unlimited)
        with open(f"{self.folder}/qemu.log", "wb") as log:
            self.process = subprocess.Popen(
                self.options(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self.monitor = Monitor(f"{self.folder}/monitor", self.process)
            self.agent = Lines(f"{self.folder}/agent", self.process)
        except (OSError, TimeoutError) as error:
            raise AssertionError(f"QEMU did not start: {error}\n{self.log()}") from error

    def __exit__(self, kind=None, *_):
        if kind and self.monitor and self.agent and not issubclass(kind, (ktap.Skip, ktap.Again)):
            self.explain()
        for connection in (self.agent, self.monitor):
            if connection:
                connection.close()
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        error = self.kvm_error()
        shutil.rmtree(self.folder, ignore_errors=True)
        if error:
            raise ktap.Again(error)

    def explain(self):
        """Prints how the guest fares, for who wants to know why a test failed."""
        ktap.say(self.log())
        try:
            status = self.monitor.command("query-status", timeout=10)["status"]
            ktap.say(f"the guest is {status}")
            if status == "running":
                ktap.say(self.run(ACCOUNT, check=False, timeout=20)[1])
        # It may be what failed; then the log has to do.
        except (AssertionError, OSError, ValueError) as error:
            ktap.say(f"{error!r}; QEMU's last events: {self.monitor.rest()}")

    def kvm_error(self):
        """What QEMU said of an error in KVM itself.

        Emulated processors are seen to fail it now and then, where an
        interrupt meets a write to the card's doorbell.
        """
        try:
            with open(f"{self.folder}/qemu.log", errors="replace", encoding="utf-8") as file:
                return next((line.strip() for line in file if "KVM internal error" in line), "")
        except FileNotFoundError:
            return ""

    def log(self):
        """What QEMU and the guest's kernel said last."""
        text = ""
        try:
            text += f"--- QEMU ended with status {self.process.wait(1)}\n"
        except (AttributeError, subprocess.TimeoutExpired):
            # It has not begun, or goes on.
            pass
        for name in ("qemu.log", "console"):
            try:
                with open(f"{self.folder}/{name}", errors="replace", encoding="utf-8") as file:
                    text += f"--- {name}\n" + "".join(file.readlines()[-25:])
            except FileNotFoundError:
                pass
        return text

    def wait_boot(self):
        """Waits for the agent's greeting."""
        try:
            greeting = self.agent.line(time.monotonic() + BOOT_TIMEOUT)
        except (OSError, TimeoutError) as error:
            raise AssertionError(f"the guest did not boot: {error!r}\n{self.log()}") from error
        assert greeting == b"0 0 0", greeting

    def run(self, command, check=True, timeout=60):
        """Runs shell in the guest; returns (status, output)."""
        self.number += 1
        code = command.encode()
        self.agent.write(b"%d %d\n" % (self.number, len(code)) + code)
        end = time.monotonic() + timeout
        try:
            number, status, length = map(int, self.agent.line(end).split())
            output = self.agent.exactly(length, end).decode(errors="replace")
        except (OSError, TimeoutError) as error:
            raise AssertionError(
                f"the guest did not answer '{command}': {error!r}\n{self.log()}"
            ) from error
        assert number == self.number, f"answer {number} to command {self.number}"
        if check and status:
            raise AssertionError(f"guest: {command}: exit status {status}\n{output}")
        return status, output

    def get(self, command, **options):
        """Runs shell in the guest; returns what it printed."""
        return self.run(command, **options)[1].strip()

    def features(self):
        """The feature bits that the guest's driver acknowledged."""
        bits = self.get("cat /sys/class/net/eth0/device/features")
        return {number for number, bit in enumerate(bits) if bit == "1"}

    def configure(self, address):
        """Brings up the guest's network card with `address`."""
        self.run(f"ip address add {address} dev eth0 && ip link set eth0 up")


def migrate(source, target, limit=2000):
    """Moves the guest from one QEMU to another; QEMU's account of it. It is
    stopped when the rest of its memory takes `limit` milliseconds at most.
    """
    for guest in (source, target):
        guest.monitor.command(
            "migrate-set-capabilities",
            # Under emulation a guest may send faster than it can be copied.
            capabilities=[{"capability": name, "state": True}
                          for name in ("events", "auto-converge")],
        )
    uri = f"unix:{target.folder}/migration"
    target.monitor.command("migrate-incoming", uri=uri)
    source.monitor.command("migrate-set-parameters", **{"downtime-limit": limit})
    source.monitor.command("migrate", uri=uri)
    while True:
        event = source.monitor.wait("MIGRATION", timeout=180)
        status = event["data"]["status"]
        if status == "completed":
            break
        assert status not in ("failed", "cancelled"), source.monitor.command("query-migrate")
    target.monitor.wait("RESUME", timeout=60)
    return source.monitor.command("query-migrate")
