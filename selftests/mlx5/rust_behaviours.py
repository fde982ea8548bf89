#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""What a driver of ConnectX virtqueues is to do well, by the numbers of
Documentation/behaviours.rst: rust_mlx5_vdpa has to, and what the C driver
mlx5_vdpa does in the same test stands beside it.

The driver of the vDPA device is in this process. Behind the switch is a second
device, of rust_mlx5_vdpa whoever is tested.
"""

import collections
import contextlib
import errno
import glob
import json
import os
import struct
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

# pylint: disable=wrong-import-position
import ktap
import mlx5
import nic
import rust_mlx5
import vdpa
import vhost
from nic import OK, ERR
from vhost import ACCESS_PLATFORM, HUGE, PAGE, VERSION_1

# Bits of the status: what goes with DRIVER_OK.
RUNNING = vhost.ACKNOWLEDGE | vhost.DRIVER | vhost.FEATURES_OK | vhost.DRIVER_OK

# What a driver with a control queue takes, and what with the filter of the C
# driver, which knows no receive modes.
CONTROL = nic.MAC | nic.CTRL_VQ | nic.CTRL_MAC_ADDR
FILTER = CONTROL | nic.CTRL_VLAN

GROUP = "01:00:5e:01:02:03"

QUEUE = "VIRTIO_NET_Q"

# For how long nothing happens where nothing must.
QUIET = 0.2

suite = ktap.Suite("mlx5_rust_behaviours")


class Side:
    """A driver that is tested, and the function that it has."""

    def __init__(self, driver, function, where):
        self.driver, self.function = driver, function
        # Where modinfo finds the module.
        self.where = where
        self.is_ours = driver == rust_mlx5.DRIVER


class Bench:
    """Both drivers, and what is behind the switch."""

    def __init__(self, model, peer):
        self.model, self.peer = model, peer
        functions = mlx5.functions()
        self.ours = Side(rust_mlx5.DRIVER, functions["new0"], rust_mlx5.MODULE)
        self.other = Side("mlx5_vdpa", functions["new2"], "mlx5_vdpa")
        self.results = {}

    def commands(self, side):
        """How often the function executed each command."""
        return self.model.commands(side.function)

    def switch(self, side, *wanted):
        """The port of a function asks the switch for this: whether all frames, and
        all to groups, and the addresses of stations and groups.
        """
        # The trace is written a little later.
        vdpa.wait_until(lambda: self._asked(side.function) == list(wanted),
                        f"{wanted}, not {self._asked(side.function)}")

    def _asked(self, function):
        """What the port asked for last, as the trace has it."""
        found = [None, None, None, None]
        with open(mlx5.TRACE, encoding="utf-8") as file:
            file.seek(self.model.begin)
            for line in file:
                if "MODIFY_NIC_VPORT_CONTEXT" not in line or not line.endswith("}\n"):
                    continue
                record = json.loads(line)
                if (record["function"], record.get("status")) != (function.name, "OK"):
                    continue
                asked = record["input"]
                select, context = asked["field_select"], asked.get("nic_vport_context", {})
                if "promisc" in select:
                    found[:2] = (bool(context.get(mode)) for mode in ("promisc_all", "promisc_mc"))
                if "addresses_list" in select:
                    tail = bytes.fromhex(asked.get("tail", ""))
                    tail = tail.ljust(8 * context.get("allowed_list_size", 0), b"\0")
                    is_single = context.get("allowed_list_type", "UC") in ("UC", 0)
                    found[2 if is_single else 3] = {
                        tail[at + 2:at + 8].hex(":") for at in range(0, len(tail), 8)}
        return found

    @contextlib.contextmanager
    def took(self, side):
        """Which commands what is done in the context takes: in what it yields, at
        its end.
        """
        before, commands = self.commands(side), collections.Counter()
        yield commands
        commands.update(self.commands(side) - before)


@contextlib.contextmanager
def bench_of(model):
    """Functions for both drivers, for the whole suite."""
    functions = mlx5.functions()
    with contextlib.ExitStack() as stack:
        stack.enter_context(vhost.huge_pages_kept(12))
        stack.enter_context(rust_mlx5.bound(model, functions["new0"]))
        peer = stack.enter_context(rust_mlx5.bound(model, functions["new1"]))
        stack.enter_context(model.bound(functions["new2"]))
        yield Bench(model, stack.enter_context(nic.driver(peer, "peer")))


def behaviour(number, timeout=60, other=True):
    """Decorator: adds a test of a behaviour, which is a function of the bench and
    of a side. Without `other` the C driver is not asked, for a reason that the
    function gives.
    """

    def add(function):
        def test(bench):
            function(bench, bench.ours)
            if not other:
                return
            try:
                function(bench, bench.other)
                found = "yes"
            except (AssertionError, OSError, LookupError, subprocess.SubprocessError) as error:
                found = "no: " + " ".join(str(error).split())[:100]
            ktap.say(f"mlx5_vdpa: {found}")

        title = function.__doc__.splitlines()[0].rstrip(".")
        test.__doc__ = f"{number}: {title}"
        suite.test(timeout)(test)
        return function

    return add


def counts(commands, *names):
    """How many of the commands have one of the names."""
    return sum(commands[name] for name in names)


def subject(side, **attributes):
    """A device of the driver that is tested, with nobody who drives it yet."""
    return nic.driver(side.function, **attributes)


@contextlib.contextmanager
def joined(bench, side, **attributes):
    """As `subject`, and a driver behind the switch."""
    bench.peer.reset()
    bench.peer.start()
    with subject(side, **attributes) as here:
        yield here, bench.peer


@contextlib.contextmanager
def pair(bench, side, features=nic.MAC, pairs=1, base=0, legacy=False, **attributes):
    """As `joined`, and a driver that runs."""
    with joined(bench, side, **attributes) as (here, there):
        here.start(features, pairs, base, legacy)
        yield here, there


def quiet():
    """Time in which nothing may happen."""
    time.sleep(QUIET)


def frame_for(to, payload=b"", vlan=None):
    """A frame from nowhere."""
    return nic.ethernet(to, "02:00:00:00:aa:ab", payload, vlan=vlan)


def config(name):
    """What the configuration of a device is shown as."""
    return vdpa.show("dev", "config", "show", name)["config"][name]


@behaviour(1)
def stock(_bench, side):
    """It is made for the distribution's kernel as it is."""
    assert "Debian" in vdpa.read("/proc/version")
    magic = vdpa.sh("modinfo", "-F", "vermagic", side.where).stdout.split()
    assert magic[0] == os.uname().release, magic
    assert side.function.mgmtdev in vdpa.show("mgmtdev", "show")["mgmtdev"]


def versions(bench, function):
    """The version of virtio that each virtqueue object has, by its id."""
    found = {}
    with open(mlx5.TRACE, encoding="utf-8") as file:
        file.seek(bench.model.begin)
        for line in file:
            if QUEUE not in line or not line.endswith("}\n"):
                continue
            record = json.loads(line)
            if (record["function"], record.get("object"), record.get("status")) != (
                    function.name, QUEUE, "OK"):
                continue
            asked = record["input"]
            context = asked.get("obj_context", {})
            version = context.get("virtio_q_context", {}).get("virtio_version_1_0", 0)
            number = asked.get("general_obj_in_cmd_hdr", asked).get("obj_id", 0)
            if record["opcode"].startswith("CREATE_"):
                found[record["output"].get("obj_id", 0)] = version
            elif record["opcode"].startswith("DESTROY_"):
                found.pop(number, None)
            elif context.get("modify_field_select", 0) & 1 << 10:
                found[number] = version
    return list(found.values())


@behaviour(2)
def legacy_traffic(bench, side):
    """A legacy driver's frames go both ways, through virtqueues of version 0."""
    with pair(bench, side, legacy=True) as (here, there):
        assert here.header == 10
        nic.talk(here, there)
        vdpa.wait_until(lambda: versions(bench, side.function) == [0, 0], "version 0")
        here.reset()
        here.start(legacy=False)
        nic.talk(here, there)
        vdpa.wait_until(lambda: versions(bench, side.function) == [1, 1], "version 1")


@behaviour(3)
def lazy_maps(bench, side):
    """What is mapped between SUSPEND and the next driver costs no memory key."""
    with pair(bench, side) as (here, there):
        nic.talk(here, there)
        with bench.took(side) as commands:
            here.vhost.suspend()
            here.vhost.base(0)
            here.unmap()
            here.map()
            here.vhost.set_status(0)
        keys = counts(commands, "CREATE_MKEY", "DESTROY_MKEY")
        ktap.say(f"{side.driver}: {keys} commands for keys, {commands.total()} in all")
        assert not keys, f"{keys} commands for keys"


@behaviour(4)
def incremental_maps(bench, side):
    """One more range costs what is new, not what is there."""
    size, ranges = 8 * HUGE, 200
    with pair(bench, side) as (here, there), contextlib.closing(vhost.Memory(size)) as more:
        with here.vhost.batch():
            for page in range(ranges):
                # No two of them go together.
                here.vhost.map(nic.BASE + HUGE + 2 * page * PAGE, more, offset=page * PAGE,
                               size=PAGE)
        nic.talk(here, there)
        with bench.took(side) as commands:
            here.vhost.map(nic.BASE + 32 * HUGE, more, offset=4 * HUGE, size=HUGE)
        keys = counts(commands, "CREATE_MKEY", "DESTROY_MKEY")
        ktap.say(f"{side.driver}: {keys} commands for keys beside {ranges} ranges")
        nic.talk(here, there)
        here.vhost.unmap(nic.BASE + HUGE, size=64 * HUGE)
        assert keys <= 4, f"{keys} commands for keys"


@behaviour(5)
def control_space(bench, side):
    """What is mapped for the control queue alone takes no memory key."""
    chosen = nic.address()
    with joined(bench, side) as (here, there):
        with bench.took(side) as commands:
            for at in range(8):
                here.vhost.map(at * HUGE, here.memory, size=HUGE, asid=1)
        assert there.mac
        here.map()
        here.set_up(CONTROL)
        here.vhost.map(nic.BASE, here.memory, size=HUGE, asid=1)
        group = here.vhost.group(here.control_index)
        assert group != here.vhost.group(0)
        here.vhost.set_group_asid(group, 1)
        here.enable()
        assert here.ready()
        nic.talk(here, there)
        with bench.took(side) as more:
            here.vhost.unmap(0, 4 * HUGE, asid=1)
            assert here.control(nic.MAC_ADDRESS, nic.mac_bytes(chosen)) == OK
        keys = counts(commands + more, "CREATE_MKEY", "DESTROY_MKEY")
        assert not keys, f"{keys} commands for keys"


@behaviour(6)
def control_after_resume(bench, side):
    """The control queue works after SUSPEND and RESUME."""
    chosen, stranger = nic.address(), nic.address()
    with pair(bench, side, CONTROL) as (here, there):
        assert here.control(nic.MAC_ADDRESS, nic.mac_bytes(chosen)) == OK
        here.vhost.suspend()
        here.vhost.resume()
        nic.talk(here, there)
        assert here.control(nic.MAC_ADDRESS, nic.mac_bytes(stranger)) == OK
        assert nic.arrives(there, here, frame_for(stranger))


@behaviour(7)
def early_kicks(bench, side):
    """A kick before the queue runs, or while it is suspended, is not lost."""
    with joined(bench, side) as (here, there):
        here.map()
        here.set_up(nic.MAC)
        first, second, third = (frame_for(there.mac, bytes([number])) for number in (1, 2, 3))
        here.put(first)
        here.kick_heard(1)
        here.enable()
        assert here.ready()
        there.wait(first, "a frame from before DRIVER_OK")
        here.vhost.suspend()
        here.put(second)
        here.kick_heard(1)
        quiet()
        assert not here.is_sent(), "sent while it is suspended"
        here.vhost.resume()
        there.wait(second, "a frame from before RESUME")
        here.send(third)
        there.wait(third)


@behaviour(8)
def legacy_address(bench, side):
    """An address that a legacy driver writes counts from its last byte."""
    chosen = nic.address()
    with pair(bench, side, legacy=True) as (here, there):
        before = here.mac
        for at, byte in enumerate(nic.mac_bytes(chosen)):
            assert nic.arrives(there, here, frame_for(before, bytes([at])))
            assert not nic.arrives(there, here, frame_for(chosen, bytes([at])))
            here.vhost.set_config(at, bytes([byte]))
        assert here.mac == chosen
        assert nic.arrives(there, here, frame_for(chosen, b"new"))
        assert not nic.arrives(there, here, frame_for(before, b"new"))
        if side.is_ours:
            refused_address(bench, side, here)
        here.reset()
        assert here.mac == before


def refused_address(bench, side, here):
    """Of an address that is refused at its last byte nothing is left."""
    before = here.mac
    with bench.model.fault(side.function, "fail", command=mlx5.which("SET_FLOW_TABLE_ENTRY"),
                           status="INT_ERR", syndrome=0x0808) as hits:
        for at, byte in enumerate(nic.mac_bytes("02:fe:fe:fe:fe:fe")):
            here.vhost.set_config(at, bytes([byte]))
        assert hits() == 1
    assert here.mac == before, here.mac


@behaviour(9)
def early_write(bench, side):
    """What a VMM writes before the driver does not replace a provisioned address."""
    chosen, stranger = nic.address(), nic.address()
    with joined(bench, side, mac=chosen) as (here, there):
        here.vhost.set_config(0, nic.mac_bytes(stranger))
        assert here.mac == chosen
        here.vhost.set_status(0)
        here.start()
        assert here.mac == chosen
        assert nic.arrives(there, here, frame_for(chosen))
        assert not nic.arrives(there, here, frame_for(stranger))


@behaviour(10)
def default_offer(_bench, side):
    """What is offered by default keeps no VMM from migrating."""
    blockers = (24, 34, 35, 36, 38, 40, 41, 42, 43)
    with subject(side) as here:
        offered = here.vhost.features()
        found = [bit for bit in blockers if offered & 1 << bit]
        assert not found, f"bits {found}"
        assert offered & VERSION_1


@behaviour(11)
def no_features_yet(bench, side):
    """No features before FEATURES_OK, again and again and by several, change nothing."""
    with joined(bench, side) as (here, there):
        errors = []

        def ask():
            try:
                for _ in range(100):
                    here.vhost.set_features(VERSION_1 | ACCESS_PLATFORM | nic.MAC)
                    here.vhost.set_features(0)
                    here.vhost.config(0, 12)
            except OSError as error:
                errors.append(error)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors, errors[0]
        here.start()
        nic.talk(here, there)


@behaviour(12)
def nothing_acknowledged(bench, side):
    """A driver that takes no feature at all is served."""
    with pair(bench, side, features=0, legacy=True) as (here, there):
        nic.talk(here, there)


@behaviour(13)
def without_platform(bench, side):
    """Without ACCESS_PLATFORM a driver is served through maps, and the host's own is not."""
    with pair(bench, side, legacy=True) as (here, there):
        nic.talk(here, there)
    features = VERSION_1 | nic.MAC | nic.ANY_LAYOUT
    with vdpa.Device(side.function.mgmtdev, "subject", device_features=hex(features)) as device:
        with mlx5.KernelLog() as log:
            with contextlib.suppress(OSError):
                device.bind("virtio_vdpa")
            log.wait("driver refused", 5)
            # The driver goes on, as Linux' do; the device does not.
            [path] = glob.glob(f"{os.path.dirname(os.path.realpath(device.sysfs))}/virtio*/status")
            status = int(vdpa.read(path), 16)
            assert status & vhost.NEEDS_RESET and not status & vhost.DRIVER_OK, hex(status)
        device.bind(None)


@behaviour(14)
def legacy_cost(bench, side):
    """A legacy driver's DRIVER_OK makes no virtqueue anew."""
    with joined(bench, side) as (here, there):
        for legacy in (False, True, False):
            here.map()
            here.set_up(nic.MAC, legacy=legacy)
            here.enable()
            with bench.took(side) as commands:
                assert here.ready(legacy)
            made = counts(commands, f"CREATE_GENERAL_OBJECT {QUEUE}",
                          f"DESTROY_GENERAL_OBJECT {QUEUE}")
            word = "legacy" if legacy else "modern"
            ktap.say(f"{side.driver}: {commands.total()} commands for DRIVER_OK, {word}:"
                     f" {made} for making virtqueues")
            nic.talk(here, there)
            assert not made, f"{word}: {made} commands"
            here.reset()


@behaviour(15)
def stop_bit(bench, side):
    """The status bit STOP stops the queues, and RESUME clears it."""
    with pair(bench, side) as (here, there):
        nic.talk(here, there)
        here.vhost.set_status(RUNNING | vhost.STOP)
        vdpa.wait_until(lambda: here.vhost.status() & vhost.STOP, "STOP in the status", 3)
        bases = [here.vhost.base(queue) for queue in (0, 1)]
        late = frame_for(there.mac, b"late")
        here.put(late)
        here.kick_heard(1)
        quiet()
        assert not here.is_sent(), "sent while it is stopped"
        assert [here.vhost.base(queue) for queue in (0, 1)] == bases
        assert here.vhost.status() & vhost.DRIVER_OK
        here.vhost.resume()
        assert not here.vhost.status() & vhost.STOP
        there.wait(late)
        nic.talk(here, there)


def failing_suspend(bench, side, status="INT_ERR"):
    """No virtqueue can be suspended in the context."""
    which = mlx5.which(f"MODIFY_GENERAL_OBJECT {QUEUE}", count=2)
    return bench.model.fault(side.function, "fail", command=which, status=status,
                             syndrome=0x1616)


@behaviour(16)
def stop_again(bench, side):
    """SUSPEND of what is suspended is done, and one that fails says so."""
    with pair(bench, side) as (here, there):
        nic.talk(here, there)
        here.vhost.suspend()
        bases = [here.vhost.base(queue) for queue in (0, 1)]
        here.vhost.suspend()
        assert [here.vhost.base(queue) for queue in (0, 1)] == bases
        here.vhost.resume()
        nic.talk(here, there)
        with failing_suspend(bench, side) as hits:
            try:
                here.vhost.suspend()
                failed = False
            except OSError:
                failed = True
            assert hits(), "no command"
        assert failed, "SUSPEND says nothing"


@behaviour(17)
def not_suspended(bench, side):
    """A device that could not be suspended goes on, with its control queue."""
    chosen = nic.address()
    with pair(bench, side, CONTROL) as (here, there):
        nic.talk(here, there)
        # The firmware fails, or finds that they cannot be suspended as they are.
        for status in ("INT_ERR", "BAD_RES_STATE_ERR"):
            with failing_suspend(bench, side, status) as hits:
                with contextlib.suppress(OSError):
                    here.vhost.suspend()
                assert hits(), "no command"
            nic.talk(here, there)
        assert here.control(nic.MAC_ADDRESS, nic.mac_bytes(chosen)) == OK
        nic.talk(here, there)
        here.vhost.suspend()
        here.vhost.resume()
        nic.talk(here, there)


@behaviour(18)
def cached_state(bench, side):
    """Where suspended virtqueues stand takes no command to tell."""
    with pair(bench, side) as (here, there):
        nic.talk(here, there)
        here.vhost.suspend()
        with bench.took(side) as commands:
            for _ in range(3):
                assert here.vhost.base(1) == here.rings[1].next
                here.vhost.base(0)
        ktap.say(f"{side.driver}: {commands.total()} commands for the state of two virtqueues")
        assert not commands, dict(commands)


@behaviour(19)
def wrap(bench, side):
    """Ring state goes from 65535 to 0, and survives it."""
    with pair(bench, side, base=0xffff) as (here, there):
        for _ in range(3):
            nic.talk(here, there)
        here.vhost.suspend()
        bases = [here.vhost.base(queue) for queue in (0, 1)]
        # Each of them had two frames, one of those a mark, of each of us.
        assert bases[1] == here.rings[1].next == 5, bases
        assert bases[0] == here.rings[0].seen, bases
        here.reset()
        here.start(base=bases[1])
        nic.talk(here, there)


@behaviour(20)
def failing_map(bench, side):
    """Memory that the firmware is not given keeps a device from starting."""
    with joined(bench, side) as (here, there):
        with bench.model.fault(side.function, "fail",
                               command=mlx5.which("CREATE_MKEY", count=100),
                               status="LIM_ERR", syndrome=0x2020) as hits:
            here.map()
            here.set_up(nic.MAC)
            # No queue is enabled: what has no memory of the guest's could use
            # memory of somebody else's.
            assert not here.ready(), "it starts"
            assert not here.vhost.status() & vhost.DRIVER_OK
            assert hits() >= 1
            here.reset()
        here.start()
        nic.talk(here, there)


@behaviour(21)
def queue_error(bench, side):
    """A virtqueue that fails is noticed, counted, and told of."""
    with pair(bench, side) as (here, there), mlx5.KernelLog() as log:
        nic.talk(here, there)
        queue = bench.model.queues(side.function)[1]
        with bench.model.fault(side.function, "queue_error", queue=queue):
            vdpa.wait_until(lambda: here.vhost.status() & vhost.NEEDS_RESET, "NEEDS_RESET", 3)
            here.config_changed()
            log.wait("failed: error", 3)
        errors = [stats["errors"] for stats in mlx5.queue_stats("subject", 2)]
        assert sorted(errors) == [0, 1], errors
        assert f"virtqueue {errors.index(1)} failed" in log.read()
        here.reset()
        here.start()
        nic.talk(here, there)


@behaviour(22)
def callbacks(bench, side):
    """Who is told of used buffers changes while they are used."""
    with pair(bench, side) as (here, there):
        frame = frame_for(there.mac, b"flood")
        last = None
        for _ in range(300):
            eventfd = os.eventfd(0, os.EFD_NONBLOCK)
            here.vhost.set_call(1, eventfd)
            if last is not None:
                os.close(last)
            last = eventfd
            here.wait_sent()
            here.send(*[frame] * 8)
            there.look()
        here.wait_sent()
        # What was told before is not asked for.
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(last)

        def told():
            here.send(frame)
            try:
                return os.eventfd_read(last)
            except BlockingIOError:
                return 0

        vdpa.wait_until(told, "the last one to be told", 3)
        here.vhost.set_call(1, -1)
        os.close(last)
        nic.talk(here, there)


@behaviour(23)
def malformed(bench, side):
    """A control command that is none is answered with an error, and the next one is served."""
    chosen = nic.address()
    address = nic.mac_bytes(chosen)
    commands = [
        (nic.MAC_ADDRESS, address, 1),
        (nic.MAC_ADDRESS, address, 2),
        (nic.MAC_ADDRESS, address, 7),
        (nic.VLAN_ADD, b"\x05", None),
        (nic.VLAN_ADD, b"\xff\xff", None),
        ((77, 1), b"\x01", None),
        (nic.MAC_TABLE, struct.pack("<I", 0xffffffff), None),
    ]
    with pair(bench, side, FILTER) as (here, there):
        for command in commands:
            answer = here.control(*command)
            assert answer == ERR, f"{command}: {answer}"
        assert here.control(nic.MAC_ADDRESS, address) == OK
        nic.talk(here, there)


@behaviour(24)
def drained(bench, side):
    """All control commands that are there are served for one kick."""
    with pair(bench, side, FILTER) as (here, _):
        answers = [here.command(nic.VLAN_ADD, struct.pack("<H", vlan)) for vlan in range(1, 17)]
        here.kick(here.control_index)
        here.wait_sent("the commands", here.control_index)
        assert all(here.memory.map[answer] == OK for answer in answers)


@behaviour(25)
def layouts(_bench, side):
    """ANY_LAYOUT is offered, and NOTIFY_ON_EMPTY refused with the reason."""
    with subject(side) as here:
        offered = here.vhost.features()
    assert offered & nic.ANY_LAYOUT, "ANY_LAYOUT is not offered"
    with mlx5.KernelLog() as log:
        done = vdpa.vdpa("dev", "add", "name", "subject", "mgmtdev", side.function.mgmtdev,
                         "device_features", hex(offered | nic.NOTIFY_ON_EMPTY), check=False)
        assert done.returncode
        log.wait("NOTIFY_ON_EMPTY (", 3)


@behaviour(26)
def byte_order(bench, side):
    """Big-endian rings are refused unless the attribute says that they are, and served then."""
    with joined(bench, side) as (here, there):
        try:
            here.vhost.set_big_endian(0)
            raise AssertionError("big-endian rings are accepted")
        except OSError as error:
            assert error.errno in (errno.ENOTTY, errno.EOPNOTSUPP), error
        # The C driver has no such attribute, and nothing is asked of it for that.
        if side.is_ours:
            attribute = f"{vdpa.BUS}/devices/subject/legacy_byte_order"
            assert vdpa.read(attribute) == "little"
            vdpa.write(attribute, "big")
            here.order = ">"
            here.start(legacy=True)
            nic.talk(here, there)
            here.reset()
            vdpa.write(attribute, "little")
            here.order = "<"
        here.start(legacy=True)
        nic.talk(here, there)


@behaviour(27)
def modern_only(_bench, side):
    """A device that is for modern drivers only says so to a legacy one at once."""
    features = VERSION_1 | ACCESS_PLATFORM | nic.MAC | nic.STATUS
    with subject(side, device_features=hex(features)) as here:
        for legacy in (nic.MAC, nic.MAC | ACCESS_PLATFORM):
            try:
                here.vhost.set_features(legacy)
                raise AssertionError(f"features {legacy:#x} are taken")
            except OSError as error:
                assert error.errno == errno.EINVAL, error
        here.start()


@behaviour(28)
def guest_csum(bench, side):
    """GUEST_CSUM reaches the hardware: a checksum that was found right is told of."""
    with joined(bench, side) as (here, there):
        for features, expected in ((nic.MAC | nic.GUEST_CSUM, nic.DATA_VALID), (nic.MAC, 0)):
            here.start(features)
            good = nic.flow(here.mac, there.mac, nic.UDP, 4, 1000)
            bad = good[:40] + b"\xa5\x5a" + good[42:]
            there.send(good, bad)
            for frame, flags in ((good, expected), (bad, 0)):
                header, _ = here.wait(frame)
                assert header[0] == flags, f"flags {header[0]}, and not {flags}"
            here.reset()


@behaviour(29)
def merged(bench, side):
    """MRG_RXBUF is offered by default, and long frames go into several buffers."""
    with joined(bench, side) as (here, there):
        here.room = 512
        here.start(nic.MAC | nic.MRG_RXBUF)
        long = frame_for(here.mac, bytes(range(256)) * 5)
        there.send(long)
        header, _ = here.wait(long)
        assert struct.unpack_from("<H", header, 10)[0] == 3, header.hex()


def filters_vlans(here, there):
    """Which VLANs are received is what the driver says, and no other one."""

    def hears(vlan, number):
        return nic.arrives(there, here, frame_for(here.mac, bytes([number]), vlan))

    assert hears(None, 0) and not hears(7, 0) and not hears(8, 0)
    assert here.control(nic.VLAN_ADD, struct.pack("<H", 7)) == OK
    assert hears(None, 1) and hears(7, 1) and not hears(8, 1)
    assert here.control(nic.VLAN_DELETE, struct.pack("<H", 7)) == OK
    assert hears(None, 2) and not hears(7, 2) and not hears(8, 2)


@behaviour(30)
def vlan_filter(bench, side):
    """Frames of VLANs that nobody asked for are not received, from DRIVER_OK on."""
    with pair(bench, side, FILTER) as (here, there):
        filters_vlans(here, there)
        if not side.is_ours:
            return
        # And with receive modes, which say the rest of what is received.
        here.reset()
        here.start(FILTER | nic.CTRL_RX)
        assert here.control(nic.PROMISCUOUS, b"\0") == OK
        filters_vlans(here, there)


@behaviour(31)
def address_in_vlans(bench, side):
    """Another address is received in all VLANs, the one before in none, and nothing is left."""
    chosen, stranger = nic.address(), nic.address()
    vlans = range(5, 10)
    with pair(bench, side, FILTER) as (here, there):
        for vlan in vlans:
            assert here.control(nic.VLAN_ADD, struct.pack("<H", vlan)) == OK
        first, objects = here.mac, bench.model.objects(side.function)
        with bench.took(side) as commands:
            assert here.control(nic.MAC_ADDRESS, nic.mac_bytes(chosen)) == OK
        ktap.say(f"{side.driver}: {commands.total()} commands for an address in {len(vlans)} VLANs")
        for vlan in (None, *vlans):
            assert nic.arrives(there, here, frame_for(chosen, b"new", vlan)), (
                f"the new one is not received in VLAN {vlan}")
            assert not nic.arrives(there, here, frame_for(first, b"new", vlan)), (
                f"the one before is received in VLAN {vlan}")
        assert not nic.arrives(there, here, frame_for(chosen, b"new", 10))
        for _ in range(3):
            for address in (stranger, chosen):
                assert here.control(nic.MAC_ADDRESS, nic.mac_bytes(address)) == OK
        assert bench.model.objects(side.function) == objects


@behaviour(32)
def receive_modes(bench, side):
    """Receive modes and tables of addresses say what is received."""
    chosen, stranger = nic.address(), nic.address()

    def table(unicast, multicast):
        return b"".join(struct.pack("<I", len(macs)) + b"".join(map(nic.mac_bytes, macs))
                        for macs in (unicast, multicast))

    with pair(bench, side, FILTER | nic.CTRL_RX) as (here, there):
        if side.is_ours:
            bench.switch(side, True, False, {here.mac}, {nic.EVERYBODY})
        numbers = iter(range(256))

        def hears(to):
            return nic.arrives(there, here, frame_for(to, bytes([next(numbers)])))

        assert here.control(nic.PROMISCUOUS, b"\0") == OK
        assert here.control(nic.MAC_TABLE, table([], [])) == OK
        assert hears(here.mac) and not hears(stranger) and not hears(GROUP)
        assert here.control(nic.PROMISCUOUS, b"\1") == OK
        assert hears(stranger) and hears(GROUP)
        assert here.control(nic.PROMISCUOUS, b"\0") == OK
        assert here.control(nic.ALL_MULTICAST, b"\1") == OK
        assert not hears(stranger) and hears(GROUP)
        assert here.control(nic.ALL_MULTICAST, b"\0") == OK
        assert not hears(GROUP)
        assert here.control(nic.MAC_TABLE, table([stranger], [GROUP])) == OK
        assert hears(stranger) and hears(GROUP) and not hears(chosen)
        if side.is_ours:
            # One that does not learn needs to be told what is to come.
            bench.switch(side, False, False, {here.mac, stranger}, {GROUP, nic.EVERYBODY})
        assert here.control(nic.MAC_TABLE, table([], [])) == OK
        assert not hears(stranger) and not hears(GROUP) and hears(here.mac)
        if side.is_ours:
            switch_refuses(bench, side, here, hears)


def switch_refuses(bench, side, here, hears):
    """A switch that does not listen is worth a message; all else is done."""
    with bench.model.fault(side.function, "fail",
                           command=mlx5.which("MODIFY_NIC_VPORT_CONTEXT", count=100),
                           status="BAD_OP_ERR", syndrome=0x3232) as hits, mlx5.KernelLog() as log:
        assert here.control(nic.ALL_MULTICAST, b"\1") == OK
        assert hears(GROUP) and hits() == 1
        log.wait("the switch is not told what to send here", 3)
    assert here.control(nic.ALL_MULTICAST, b"\0") == OK
    bench.switch(side, False, False, {here.mac}, {nic.EVERYBODY})


@behaviour(34)
def alignment(bench, side):
    """Where memory lies askew to where it is mapped, the right bytes are read."""
    size = 4 * HUGE
    with pair(bench, side) as (here, there), contextlib.closing(vhost.Memory(size)) as more:
        places = [
            # Where it is mapped, and where it lies, and how much of it.
            (nic.BASE + 16 * HUGE + PAGE, 0, 2 * HUGE),
            (nic.BASE + 32 * HUGE, 3 * PAGE, HUGE),
            (nic.BASE + 48 * HUGE + 5 * PAGE, HUGE + 2 * PAGE, HUGE + PAGE),
        ]
        with here.vhost.batch():
            for iova, offset, length in places:
                here.vhost.map(iova, more, offset=offset, size=length)
        number = 0
        for iova, offset, length in places:
            for at in (0, PAGE - 20, HUGE // 2 - 40, length - HUGE // 2, length - 200):
                number += 1
                frame = frame_for(there.mac, bytes([number] * 64))
                data = bytes(12) + frame
                more.map[offset + at:offset + at + len(data)] = data
                ring = here.rings[1]
                ring.describe(0, iova + at, len(data))
                ring.offer(0)
                here.kick(1)
                there.wait(frame, f"what lies at {at:#x} of {iova:#x}")
        here.vhost.unmap(nic.BASE + 16 * HUGE, 64 * HUGE)


COUNTERS = {"received_desc", "completed_desc", "error_cqes", "bad_desc_errors",
            "exceed_max_chain", "invalid_buffer", "errors"}


@behaviour(35)
def counters(bench, side):
    """Every counter of the hardware is shown, and the last values while it is stopped."""
    with pair(bench, side) as (here, there):
        for _ in range(3):
            nic.talk(here, there)
        running = mlx5.queue_stats("subject", 2)
        assert running[1]["completed_desc"] == 6, running[1]
        here.vhost.suspend()
        stopped = mlx5.queue_stats("subject", 2)
        for stats in (*running, *stopped):
            assert COUNTERS <= stats.keys(), f"only {', '.join(sorted(stats))}"
        assert stopped == running


def affinities(function, name):
    """Where the interrupts of a function may go, or do go, by their numbers."""
    numbers = os.listdir(f"{mlx5.PCI}/devices/{function.address}/msi_irqs")
    return collections.Counter(
        vdpa.read(f"/proc/irq/{number}/{name}") for number in numbers)


@behaviour(36)
def vectors(_bench, side):
    """Interrupts go to several processors, and a driver can say where."""
    if (os.cpu_count() or 1) < 2:
        raise ktap.Skip("there is one processor only")
    spread = affinities(side.function, "effective_affinity_list")
    assert len(spread) >= 2, f"all interrupts go to {list(spread)}"
    with vdpa.Device(side.function.mgmtdev, "subject", max_vqp=2) as device:
        device.bind("virtio_vdpa")
        try:
            # virtio_net lets a single pair interrupt anywhere, and as many pairs as
            # there are processors each one of them.
            found = []
            for pairs in (1, 2):
                vdpa.sh("ethtool", "-L", device.netdev, "combined", pairs)
                found.append(affinities(side.function, "smp_affinity_list"))
            ktap.say(f"{side.driver}: {dict(found[0])} with a pair, {dict(found[1])} with two")
            assert found[0]["0-1"] >= found[1]["0-1"] + 2, "a driver's choice makes no difference"
            assert found[1]["0"] >= 2 <= found[1]["1"], "two pairs are not kept apart"
        finally:
            device.bind(None)


@behaviour(37)
def changes(bench, side):
    """A driver is told that the link or the address changed, and of what."""
    chosen = nic.address()
    with pair(bench, side, nic.MAC | nic.STATUS) as (here, there):
        assert here.status() & nic.LINK_UP, "the link is shown as down at first"
        with bench.model.fault(side.function, "link", state="down"):
            here.config_changed()
            assert not here.status() & nic.LINK_UP, "the link is shown as up"
        here.config_changed()
        assert here.status() & nic.LINK_UP, "the link is shown as down"
        vdpa.vdpa("dev", "set", "name", "subject", "mac", chosen)
        here.config_changed()
        assert here.mac == chosen
        assert nic.arrives(there, here, frame_for(chosen)), "nothing is received for it"


@behaviour(38)
def failing_questions(bench, side):
    """A question that the firmware does not answer keeps a device from being added."""
    for name in ("QUERY_NIC_VPORT_CONTEXT", "QUERY_VPORT_STATE"):
        with bench.model.fault(side.function, "fail", command=mlx5.which(name),
                               status="INT_ERR", syndrome=0x3838) as hits:
            done = vdpa.vdpa("dev", "add", "name", "subject", "mgmtdev", side.function.mgmtdev,
                             check=False)
            asked = hits()
        if not done.returncode:
            vdpa.vdpa("dev", "del", "subject")
        assert asked, f"{name} is not asked"
        assert done.returncode, f"{name} fails, and a device is added"
    with subject(side):
        pass


@behaviour(39)
def spread(bench, side):
    """Flows of TCP and UDP over IPv4 and IPv6 each go to several queues."""
    features = CONTROL | nic.MQ
    with pair(bench, side, features, pairs=2, max_vqp=2) as (here, there):
        found = {}
        for name, protocol, version in (("TCP4", nic.TCP, 4), ("UDP4", nic.UDP, 4),
                                        ("TCP6", nic.TCP, 6), ("UDP6", nic.UDP, 6)):
            frames = [nic.flow(here.mac, there.mac, protocol, version, port)
                      for port in range(1000, 1032)]
            there.send(*frames)
            found[name] = collections.Counter(here.wait(frame)[1] // 2 for frame in frames)
        ktap.say(f"{side.driver}: " + ", ".join(
            f"{name} {sorted(queues.items())}" for name, queues in found.items()))
        alone = [name for name, queues in found.items() if len(queues) < 2]
        assert not alone, f"{', '.join(alone)} to one queue"


@behaviour(40)
def many_maps(_bench, side):
    """Near the most ranges that vhost-vdpa takes, the log gives a hint."""
    size, ranges = 4 * HUGE, 1950
    with subject(side) as here, contextlib.closing(vhost.Memory(size)) as more:
        with mlx5.KernelLog() as log:
            with here.vhost.batch():
                for page in range(ranges):
                    here.vhost.map(nic.BASE + page * PAGE, more,
                                   offset=(ranges - 1 - page) * PAGE, size=PAGE)
            log.wait("ranges are mapped", 3)
        here.vhost.unmap(nic.BASE, size)


@suite.test()
def address_first(bench):
    """An address is shown when it is received, and not taken when it cannot be."""
    function, (chosen, other) = bench.ours.function, (nic.address(), nic.address())
    before = bench.commands(bench.ours)
    with joined(bench, bench.ours) as (here, there):
        here.map()
        here.set_up(nic.MAC)
        # As VMMs do it: queues are enabled later.
        assert here.ready()
        vdpa.vdpa("dev", "set", "name", "subject", "mac", chosen)
        assert here.mac == chosen
        here.enable()
        assert nic.arrives(there, here, frame_for(chosen, b"1"))
        with bench.model.fault(function, "fail", command=mlx5.which("SET_FLOW_TABLE_ENTRY"),
                               status="INT_ERR", syndrome=0x4242) as hits:
            done = vdpa.vdpa("dev", "set", "name", "subject", "mac", other, check=False)
            assert done.returncode and hits() == 1
        assert here.mac == chosen
        assert nic.arrives(there, here, frame_for(chosen, b"2"))
        assert not nic.arrives(there, here, frame_for(other, b"2"))
        bench.switch(bench.ours, False, True, {chosen}, {nic.EVERYBODY})
    # The switch is told of the one that was received, and in the end of nothing: modes and two
    # lists at first and at last, and one list between.
    bench.switch(bench.ours, False, False, set(), set())
    told = (bench.commands(bench.ours) - before)["MODIFY_NIC_VPORT_CONTEXT"]
    assert told == 7, told


@suite.test()
def each_has_its_line(bench):
    """Virtqueues that fail have a line each, also where the firmware is asked twice."""
    side = bench.ours
    with pair(bench, side) as (here, there), mlx5.KernelLog() as log:
        first, second = bench.model.queues(side.function)
        query = mlx5.which(f"QUERY_GENERAL_OBJECT {QUEUE}")
        with contextlib.ExitStack() as stack:
            hits = stack.enter_context(bench.model.fault(
                side.function, "fail", command=query, status="INT_ERR", syndrome=0x5151))
            stack.enter_context(bench.model.fault(side.function, "queue_error", queue=first))
            stack.enter_context(bench.model.fault(side.function, "queue_error", queue=second))
            vdpa.wait_until(lambda: here.vhost.status() & vhost.NEEDS_RESET, "NEEDS_RESET", 5)
            for index in (0, 1):
                log.wait(f"virtqueue {index} failed: error", 5)
            assert hits() == 1
        errors = [stats["errors"] for stats in mlx5.queue_stats("subject", 2)]
        assert errors == [1, 1], errors
        here.reset()
        here.start()
        nic.talk(here, there)


@suite.test()
def begins_meanwhile(bench):
    """A driver that begins while the firmware is started anew for tidying waits for it."""
    side = bench.ours
    with pair(bench, side) as (here, there):
        nic.talk(here, there)
        with bench.model.fault(side.function, "fail",
                               command=mlx5.which("DESTROY_MKEY", count=100),
                               status="INT_ERR", syndrome=0x7171), mlx5.KernelLog() as log:
            here.reset()
            log.wait("the firmware is started anew: something is left in it", 5)
        here.start()
        nic.talk(here, there)


@suite.test(timeout=120)
def tidied_enough(bench):
    """Firmware in which something is left each time is not started anew for ever."""
    side = bench.ours
    fail = {"kind": "fail", "status": "INT_ERR", "syndrome": 0x7272}
    with pair(bench, side) as (here, there), mlx5.KernelLog() as log:
        with contextlib.ExitStack() as stack:
            for name in ("DESTROY_MKEY", "CREATE_FLOW_TABLE", "DEALLOC_PD"):
                stack.enter_context(bench.model.fault(
                    side.function, command=mlx5.which(name, count=1000), **fail))
            here.reset()
            log.wait("something is left in the firmware each time", 60)
        lines = log.read().count("the firmware is started anew")
        assert lines == 5, lines
        vdpa.wait_until(lambda: bench.model.objects(side.function).get("virtqueue") == 2,
                        "virtqueues", 20)
        here.start()
        nic.talk(here, there)


@suite.test()
def announcement(bench):
    """A driver that comes from elsewhere is asked to announce itself, if that is provisioned."""
    side = bench.ours
    with subject(side) as here:
        offered = here.vhost.features()
    assert not offered & nic.GUEST_ANNOUNCE
    features = CONTROL | nic.STATUS | nic.GUEST_ANNOUNCE
    with pair(bench, side, features,
              device_features=hex(offered | nic.GUEST_ANNOUNCE)) as (here, there):
        assert not here.status() & nic.ANNOUNCE, "asked at the beginning"
        nic.talk(here, there)
        here.vhost.suspend()
        here.vhost.resume()
        assert not here.status() & nic.ANNOUNCE, "asked where it was"
        base = here.vhost.base(1)
        here.reset()
        # What was told before is in the past.
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(here.config_call)
        here.start(features, base=base)
        here.config_changed()
        assert here.status() & nic.ANNOUNCE, "not asked"
        for _ in range(2):
            assert here.control(nic.ANNOUNCE_ACK) == OK
            assert here.status() == nic.LINK_UP
        nic.talk(here, there)
        # Who cannot be asked is not.
        here.reset()
        here.start(CONTROL | nic.STATUS, base=base)
        assert here.status() == nic.LINK_UP
        assert here.control(nic.ANNOUNCE_ACK) == ERR


def flows(here, there, ports=range(1000, 1012)):
    """Frames of flows of each kind."""
    return [nic.flow(here.mac, there.mac, protocol, version, port)
            for protocol in (nic.TCP, nic.UDP) for version in (4, 6) for port in ports]


def lands(here, there, frames, queue_of):
    """Each frame is received by the queue that it belongs to."""
    here.look()
    here.received.clear()
    there.send(*frames)
    for frame in frames:
        _, queue = here.wait(frame)
        assert queue // 2 == queue_of(frame), f"{frame.hex()}: {queue // 2}"


@suite.test()
def receive_side_scaling(bench):
    """A driver says how what it receives is spread: by table, key and kinds of hashes."""
    side, key = bench.ours, bytes((7 * number + 3) % 256 for number in range(40))
    with subject(side, max_vqp=2) as here:
        offered = here.vhost.features()
    assert not offered & nic.RSS
    features = CONTROL | nic.MQ | nic.RSS
    with joined(bench, side, max_vqp=4,
                device_features=hex(offered | nic.MQ | nic.RSS)) as (here, there):
        here.start(CONTROL | nic.MQ, pairs=4)
        here.reset()
        objects = bench.model.objects(side.function)
        here.start(features, pairs=4)
        assert here.vhost.config(17, 7) == struct.pack("<BHI", 40, 128, 0x3f)
        whole, frames = 0x3f, flows(here, there)
        tables = [[0, 1, 2, 3], [3, 0, 3, 1, 2, 2, 0, 3], [number % 3 for number in range(128)]]
        for table in tables:
            command = nic.scaling(whole, table, 0, 4, key)
            assert here.control(nic.RSS_CONFIG, command) == OK
            lands(here, there, frames,
                  lambda frame, table=table: table[nic.hash_of(frame, key) % len(table)])
        # Another key, and UDP by its addresses alone.
        key, table = key[::-1], tables[1]
        types = nic.HASH_IPV4 | nic.HASH_IPV6 | nic.HASH_TCPV4 | nic.HASH_TCPV6
        assert here.control(nic.RSS_CONFIG, nic.scaling(types, table, 0, 4, key)) == OK

        def is_udp(frame):
            return frame[23 if frame[12:14] == b"\x08\0" else 20] == nic.UDP

        lands(here, there, frames,
              lambda frame: table[nic.hash_of(frame, key, not is_udp(frame)) % len(table)])
        # TCP over IPv4 only: the rest has a queue of its own, with what is no IP.
        assert here.control(nic.RSS_CONFIG,
                            nic.scaling(nic.HASH_TCPV4, table, 1, 4, key)) == OK
        frames.append(frame_for(here.mac, b"no IP"))
        lands(here, there, frames, lambda frame: table[nic.hash_of(frame, key) % len(table)]
              if frame[12:14] == b"\x08\0" and not is_udp(frame) else 1)
        # What is wrong changes nothing.
        for wrong in (nic.scaling(0x40, table, 1, 4, key), nic.scaling(1, table[:3], 1, 4, key),
                      nic.scaling(1, [4], 1, 4, key), nic.scaling(1, [0], 4, 4, key),
                      nic.scaling(1, [0], 1, 5, key), nic.scaling(1, [0], 1, 1, key)[:-1],
                      nic.scaling(1, [0], 1, 1, key + key)):
            assert here.control(nic.RSS_CONFIG, wrong) == ERR
        lands(here, there, frames, lambda frame: table[nic.hash_of(frame, key) % len(table)]
              if frame[12:14] == b"\x08\0" and not is_udp(frame) else 1)
        # A step that fails changes nothing, or little, and the next one mends it.
        for name in ("MODIFY_RQT", "CREATE_TIR", "SET_FLOW_TABLE_ENTRY"):
            with bench.model.fault(side.function, "fail", command=mlx5.which(name),
                                   status="INT_ERR", syndrome=0x6060) as hits:
                assert here.control(nic.RSS_CONFIG, nic.scaling(whole, [2], 0, 4, key)) == ERR
                assert hits() == 1, name
            assert here.control(nic.RSS_CONFIG, nic.scaling(nic.HASH_TCPV4, table, 1, 4, key)) == OK
            lands(here, there, frames, lambda frame: table[nic.hash_of(frame, key) % len(table)]
                  if frame[12:14] == b"\x08\0" and not is_udp(frame) else 1)
        # And nothing of it is left for the next driver.
        here.reset()
        here.start(CONTROL | nic.MQ, pairs=4)
        spread_over = collections.Counter()
        there.send(*frames)
        for frame in frames:
            spread_over[here.wait(frame)[1]] += 1
        assert len(spread_over) == 4, spread_over
        here.reset()
        assert bench.model.objects(side.function) == objects


@suite.test()
def scaling_by_ethtool(bench):
    """ethtool shows the table of a device with RSS, and changes it."""
    side = bench.ours
    with subject(side, max_vqp=2) as here:
        offered = here.vhost.features()
    with vdpa.Device(side.function.mgmtdev, "subject", max_vqp=2,
                     device_features=hex(offered | nic.MQ | nic.RSS)) as device:
        device.bind("virtio_vdpa")
        try:
            vdpa.sh("ip", "link", "set", device.netdev, "up")
            shown = vdpa.sh("ethtool", "-x", device.netdev).stdout
            assert "with 2 RX ring(s)" in shown and "toeplitz: on" in shown, shown
            before = bench.commands(side)
            vdpa.sh("ethtool", "-X", device.netdev, "weight", 0, 1)
            took = bench.commands(side) - before
            assert took["MODIFY_RQT"], took
            shown = vdpa.sh("ethtool", "-x", device.netdev).stdout.split("RSS hash key")[0]
            table = [word for row in shown.splitlines()[1:] for word in row.split(":")[1].split()]
            assert table == ["1"] * 128, table
        finally:
            device.bind(None)


if __name__ == "__main__":
    mlx5.main(suite, __doc__, given=bench_of)
