#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Faults of the model at every command of everything that a network device of
rust_mlx5_vdpa does: each command of each step fails, is lost, late or answered
with nonsense in turn, and whatever else may happen happens before each step.

A step that is not done must say so: to who asked for it, or by NEEDS_RESET, and
in the log.  One that is done must have been done: frames go.  After a reset they
go in any case, what the driver before had is left alone, and nothing is left
when the device is deleted.
"""

import collections
import contextlib
import itertools
import os
import struct
import subprocess
import sys
import time
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
import driver
import ktap
import mlx5
import netlink
import nic
import rust_mlx5
import vdpa
import vhost
from vhost import HUGE, huge_pages

# Where memory is mapped for devices, and of how many huge pages it is.
BASE = 0x4000_0000
PAGES = 4
# As much as is mapped of it at first.
MAPPED = 3 * HUGE

PAIRS = 2

# A syndrome that no firmware has.
SYNDROME = 0xabcde

# How long a command may take, in milliseconds, and how late one is that is waited for.
LIMIT = 300
DELAY = 100

# No step takes as long, in seconds, whatever goes wrong with one command.
BOUND = 8

# The function of the device that things happen to, that of who it talks to, and
# that of where it migrates.
HERE, PEER, TWIN = "new0", "new1", "new2"

# One whose virtqueues cannot be resumed: they are made anew. Nor do they interrupt:
# channels do that for them, of which some are kept for the next device.
OLD = "old0"
CHANNEL = ("completion queue", "event queue", "protection domain", "queue pair")

suite = ktap.Suite("mlx5_rust_faults")

# What an answer says that may be nonsense: of what is made, its number, and of
# what is asked, what the driver goes by.
FIELDS = {
    "ALLOC_PD": "pd",
    "ALLOC_TRANSPORT_DOMAIN": "transport_domain",
    "CREATE_CQ": "cqn",
    "CREATE_EQ": "eq_number",
    "CREATE_FLOW_GROUP": "group_id",
    "CREATE_FLOW_TABLE": "table_id",
    "CREATE_MKEY": "mkey_index",
    "CREATE_QP": "qpn",
    "CREATE_RQT": "rqtn",
    "CREATE_TIR": "tirn",
    "CREATE_TIS": "tisn",
    "CREATE_UMEM": "umem_id",
    "CREATE_GENERAL_OBJECT VIRTIO_NET_Q": "obj_id",
    "CREATE_GENERAL_OBJECT VIRTIO_Q_COUNTERS": "obj_id",
    "QUERY_GENERAL_OBJECT VIRTIO_NET_Q": "obj_context.state",
}


class Rig:
    """The functions, who is at the other end, and what there is in a function that
    has no device.
    """

    def __init__(self, model, functions, peer):
        self.model, self.functions, self.peer = model, functions, peer
        # The vdpa tool takes its time to start.
        self.netlink = netlink.Vdpa()
        self.idle = {name: self._objects(name) for name in (HERE, TWIN, OLD)}
        # A device of as many queues as any leaves so many channels.
        port = Port(self, OLD, None)
        port.add()
        port.delete()
        self.channels = self._channels()
        self.texts = 0

    def _objects(self, name):
        """What there is in a function, but for channels."""
        objects = self.model.objects(self.functions[name])
        kept = CHANNEL if name == OLD else ()
        return {kind: count for kind, count in objects.items() if count and kind not in kept}

    def _channels(self):
        """What there is of channels."""
        objects = self.model.objects(self.functions[OLD])
        return collections.Counter({kind: objects.get(kind, 0) for kind in CHANNEL})

    def _text(self):
        """What no frame said before."""
        self.texts += 1
        return b"frame %d." % self.texts

    def _arrives(self, received, other, what):
        """Waits until what was sent arrives; who needs a reset is not waited for."""
        vdpa.wait_until(lambda: received() or not other.is_well(), what)
        assert other.is_well(), f"{what}: a reset is needed"

    def exchange(self, other):
        """Frames go both ways, by each pair of queues that is in use."""
        for queue in range(1, 2 * other.in_use, 2):
            text = self._text()
            other.send(text, queue=queue)
            self._arrives(lambda text=text: self.peer.received(text), other,
                          f"a frame of queue {queue}")
        for to in (nic.EVERYBODY, other.mac):
            text = self._text()
            self.peer.send(text, to)
            self._arrives(lambda text=text: other.received(text), other,
                          f"a frame to {to}")

    def settle(self):
        """Nothing is left of a device, maybe after the firmware was started anew."""
        for name, idle in self.idle.items():
            vdpa.wait_until(lambda name=name, idle=idle: self._objects(name) == idle,
                            f"nothing to be left in {name}", 20)
        assert self._channels() <= self.channels, f"{self._channels()}, once {self.channels}"

    def again(self):
        """Binds functions again that are not as they were."""
        for name, idle in self.idle.items():
            if self._objects(name) != idle:
                self.anew(name)

    def anew(self, name):
        """Binds a function again."""
        rust_mlx5.unbind(self.functions[name])
        rust_mlx5.bind(self.functions[name])


@contextlib.contextmanager
def memory():
    """Memory of huge pages, which must be there again afterwards."""
    free = huge_pages("Free")
    assert free >= PAGES, f"{free} huge pages"
    ram = vhost.Memory(PAGES * HUGE)
    try:
        yield ram
    finally:
        ram.close()
    vdpa.wait_until(lambda: huge_pages("Free") == free, "memory that nobody holds", 20)


def map_some(dev, ram, begin, end):
    """Maps a part of memory."""
    dev.map(BASE + begin, ram, offset=begin, size=end - begin)


def driver_of(dev, ram, function, place=0, **how):
    """A driver with rings in the huge page `place` of memory."""
    return driver.Driver(dev, ram, place * HUGE, BASE + place * HUGE, function.mac, **how)


@contextlib.contextmanager
def rig(model):
    """All functions bound, one of them with somebody who answers."""
    functions = mlx5.functions()
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        enter(rust_mlx5.loaded(command_timeout_ms=LIMIT))
        for name in (PEER, HERE, TWIN, OLD):
            enter(rust_mlx5.bound(model, functions[name]))
        enter(vhost.huge_pages_kept(2 * PAGES))
        ram = enter(memory())
        device = enter(vdpa.Device(functions[PEER].mgmtdev, "peer", driver="vhost_vdpa"))
        dev = enter(vhost.Vhost(device.path))
        map_some(dev, ram, 0, MAPPED)
        peer = enter(driver_of(dev, ram, functions[PEER]))
        assert peer.start()
        yield Rig(model, functions, peer)


class Port:
    """A device of a function, and who drives it."""

    def __init__(self, rig_, name, ram, pairs=PAIRS):
        self.rig, self.function, self.ram = rig_, rig_.functions[name], ram
        self.pairs = pairs
        self.device = vdpa.Device(self.function.mgmtdev, f"port-{name}")
        self.opened = contextlib.ExitStack()
        self.dev = self.driver = None

    def add(self):
        """Adds the device."""
        self.rig.netlink.add(self.function.address, self.device.name, "pci",
                             max_vqp=self.pairs)
        self.device.bind("vhost_vdpa")

    def open(self):
        """Opens it, and maps memory."""
        self.dev = self.opened.enter_context(vhost.Vhost(self.device.path))
        map_some(self.dev, self.ram, 0, MAPPED)

    def begin(self, place=0, **how):
        """A driver with rings in the huge page `place` of memory."""
        self.driver = self.opened.enter_context(
            driver_of(self.dev, self.ram, self.function, place, pairs=self.pairs, **how))
        return self.driver

    def run(self):
        """Brings it to where frames go."""
        self.add()
        self.open()
        assert self.begin().start(), "the device does not start"
        self.rig.exchange(self.driver)

    def close(self):
        """Closes it."""
        self.dev = None
        self.opened.close()

    def exists(self):
        """Whether there is the device."""
        return os.path.exists(self.device.sysfs)

    def delete(self):
        """Deletes it."""
        self.close()
        self.rig.netlink.delete(self.device.name)

    def is_well(self):
        """Whether the driver has a device that needs no reset."""
        return self.dev is not None and not self.dev.status() & vhost.NEEDS_RESET

    def restart(self, place=2):
        """Resets the device, and has another driver begin with it elsewhere in
        memory. Returns how often that took.
        """
        if self.dev is None:
            self.open()
        before = self.driver
        end = time.monotonic() + 20
        attempts = 1
        while True:
            self.dev.set_status(0)
            used = before and before.indices()
            assert self.dev.status() == 0, "not reset"
            # What runs on would receive this.
            self.rig.peer.send(b"for nobody")
            vdpa.wait_until(self.rig.peer.is_sent, "a frame for nobody")
            if self.begin(place).start():
                break
            # The firmware is being started anew.
            assert time.monotonic() < end, "the device does not start again"
            attempts += 1
            time.sleep(0.2)
        self.rig.exchange(self.driver)
        if before:
            assert before.indices() == used, "rings of before were used"
        self.dev.set_status(0)
        return attempts


class Step:
    """Something that a device does, from a state that prepare() brings it to."""

    # The function whose commands go wrong.
    on = HERE
    # For events(), if it has no virtqueues before.
    queues = ()
    # What commands that go wrong begin with.
    only = ("",)
    # Of its device.
    pairs = PAIRS

    def __init__(self, rig_, ram):
        self.rig = rig_
        self.port = Port(rig_, self.on, ram, self.pairs)

    def ports(self):
        """All devices that there may be."""
        return [self.port]

    def prepare(self):
        """What comes before."""
        self.port.run()

    def act(self):
        """The step. Raises, or returns False, if it is not done."""
        raise NotImplementedError

    def check(self):
        """It was done."""
        self.rig.exchange(self.port.driver)

    def check_undone(self):
        """It was not done, and the device is as it was before."""
        self.rig.exchange(self.port.driver)

    def finish(self, fault):
        """Whatever happened, the device can be used. Returns what there is to say."""
        attempts = self.port.restart()
        return f"started at attempt {attempts}" if attempts > 1 else ""


class Add(Step):
    """A device is added"""

    queues = ((),)

    def prepare(self):
        pass

    def act(self):
        self.port.add()

    def check(self):
        self.port.open()
        assert self.port.begin().start()
        self.rig.exchange(self.port.driver)

    def check_undone(self):
        assert not self.port.exists()

    def finish(self, fault):
        if fault and fault.is_one_of_many:
            return ""
        end = time.monotonic() + 20
        attempts = 1
        while not self.port.exists():
            try:
                self.port.add()
            except OSError:
                # The firmware is being started anew.
                if time.monotonic() > end:
                    raise
                attempts += 1
                time.sleep(0.2)
        said = super().finish(fault)
        return f"added at attempt {attempts}" if attempts > 1 else said


class Start(Step):
    """A modern driver starts"""

    how = {}

    def prepare(self):
        self.port.add()
        self.port.open()
        self.port.begin(**self.how)

    def act(self):
        return self.port.driver.start()


class Again(Start):
    """A driver starts after another"""

    def prepare(self):
        self.port.run()
        self.port.dev.set_status(0)
        self.port.begin(1)


class StartLegacy(Start):
    """A legacy driver starts"""

    how = {"modern": False}


class Enable(Start):
    """Virtqueues are enabled after DRIVER_OK"""

    def act(self):
        self.port.driver.drive()
        self.port.driver.enable()
        return self.port.is_well()


class Map(Step):
    """More memory is mapped while a driver runs"""

    def act(self):
        map_some(self.port.dev, self.port.ram, MAPPED, MAPPED + HUGE)


class Command(Step):
    """A command of the control queue"""

    which = data = None

    def act(self):
        return self.port.driver.command(self.which, self.data)


class Modes(Command):
    """Promiscuous mode ends"""

    which, data = nic.PROMISCUOUS, bytes([0])


class Mac(Command):
    """The driver changes its address"""

    new = "02:00:00:00:66:66"
    which, data = nic.MAC_ADDRESS, nic.mac_bytes(new)

    def prepare(self):
        super().prepare()
        assert self.port.driver.command(nic.PROMISCUOUS, bytes([0]))

    def check(self):
        self.port.driver.mac = self.new
        super().check()


class Vlan(Command):
    """The driver adds a VLAN"""

    which, data = nic.VLAN_ADD, bytes([5, 0])

    def prepare(self):
        super().prepare()
        assert self.port.driver.command(nic.PROMISCUOUS, bytes([0]))


class More(Command):
    """The driver uses more pairs of queues"""

    which, data = nic.PAIRS, bytes([2, 0])

    def prepare(self):
        super().prepare()
        for queue in (2, 3):
            self.port.dev.enable(queue)

    def check(self):
        self.port.driver.in_use = 2
        super().check()


class Fewer(More):
    """The driver uses fewer pairs of queues"""

    data = bytes([1, 0])

    def prepare(self):
        super().prepare()
        self.port.driver.in_use = 2
        assert self.port.driver.command(self.which, bytes([2, 0]))
        self.rig.exchange(self.port.driver)

    def check(self):
        self.port.driver.in_use = 1
        self.rig.exchange(self.port.driver)


class Suspend(Step):
    """A device is suspended"""

    def act(self):
        self.port.dev.suspend()

    def check(self):
        there = self.port.driver
        wanted, bases = there.indices(), there.bases()
        assert bases == wanted, f"{bases}, not {wanted}"
        self.port.dev.resume()
        super().check()


class Resume(Step):
    """A device goes on"""

    def prepare(self):
        super().prepare()
        self.port.dev.suspend()

    def act(self):
        self.port.dev.resume()


class Reset(Step):
    """A device is reset under its driver"""

    def act(self):
        self.port.dev.set_status(0)

    def check(self):
        assert self.port.dev.status() == 0


class Migrate(Step):
    """A driver goes on at another function"""

    on = TWIN

    def __init__(self, rig_, ram):
        super().__init__(rig_, ram)
        self.source = Port(rig_, HERE, ram)

    def ports(self):
        return [self.port, self.source]

    def prepare(self):
        self.source.run()
        self.source.dev.suspend()
        self.port.add()
        self.port.open()
        self.port.begin(1, indices=self.source.driver.bases())

    def act(self):
        return self.port.driver.start()

    def finish(self, fault):
        said = super().finish(fault)
        # Who comes back goes on.
        self.source.dev.resume()
        self.rig.exchange(self.source.driver)
        return said


class Statistics(Step):
    """Counters are read"""

    def act(self):
        shown = mlx5.queue_stats(self.port.device.name, 1)[0]
        return "received_desc" in shown


class Delete(Step):
    """A device is deleted under its driver"""

    def act(self):
        self.port.delete()

    def check(self):
        assert not self.port.exists()

    def finish(self, fault):
        return ""


class Channels(Add):
    """A device is added, of older firmware that has no channels yet"""

    on = OLD
    only = ("ALLOC_PD", "CREATE_EQ", "CREATE_CQ", "CREATE_QP", "RST2INIT_QP", "INIT2RTR_QP",
            "RTR2RTS_QP")
    # What is made for one virtqueue is made for each.
    pairs = 1

    def prepare(self):
        self.rig.anew(OLD)


def older(kind):
    """A step of a device of older firmware."""
    return type(f"Old{kind.__name__}", (kind,), {
        "on": OLD, "__doc__": f"Older firmware: {kind.__doc__}"})


STEPS = (Add, Start, Again, StartLegacy, Enable, Map, Modes, Mac, Vlan, More, Fewer, Suspend, Resume,
         Reset, Migrate, Statistics, Delete, Channels,
         *map(older, (Start, Map, More, Fewer, Suspend, Resume, Reset, Migrate)))


# Faults that lie in wait for something that a step may not have.
UNCERTAIN = ("lose_interrupts", "lose_events", "completion_opcode")


class Fault:
    """What goes wrong in a step, and what the log has to say then."""

    # Whether what is there to be said of commands that are alike is said by another.
    is_one_of_many = False

    def __init__(self, kind, what="", words=(), harmless=False, **fields):
        self.kind, self.what, self.words, self.harmless = kind, what, words, harmless
        self.fields = fields

    def __str__(self):
        return f"{self.kind} {self.what}".strip()

    @contextlib.contextmanager
    def context(self, model, function):
        """The fault, as Model.fault."""
        kind = "delay" if self.kind == "late" else self.kind
        with model.fault(function, kind, **self.fields) as hits:
            yield hits
        if self.kind == "page_request":
            with model.fault(function, self.kind, pages=-self.fields["pages"]):
                pass


def faults_of(commands):
    """What may go wrong with `commands`, a Counter: each fails, and is lost, and of
    several that are alike the last one suffers what else there is.
    """
    for name, after in mlx5.each(commands):
        is_last = after == commands[name] - 1
        which = {"command": mlx5.which(name, after)}
        what = f"{name} {after}"
        said = f"{name.partition(' ')[0]} (0x"
        timeout = (said, f"not complete after {LIMIT} ms")
        fail = Fault("fail", what, (said, f"LIM_ERR (0x8), syndrome {SYNDROME:#x}"),
                     status="LIM_ERR", syndrome=SYNDROME, **which)
        lose = Fault("lose", what, timeout, **which)
        fail.is_one_of_many = lose.is_one_of_many = not is_last
        yield fail
        yield lose
        if is_last and name.startswith(("MODIFY", "CREATE", "SET")):
            yield Fault("late", what, timeout, ms=100_000, **which)
        if is_last and name in FIELDS:
            yield Fault("garbage", what, field=FIELDS[name], **which)
    yield Fault("delay", what, harmless=True, ms=DELAY, **which)


def events(on, queues=range(2 * PAIRS)):
    """What happens by itself in the function `on`."""
    yield Fault("spurious_interrupt", 0, harmless=True, vector=0, count=20)
    yield Fault("lose_interrupts", harmless=True)
    for queue in queues:
        yield Fault("queue_error", queue)
    if on == OLD:
        for queue, part in zip(queues, itertools.cycle(("pair", "completions"))):
            yield Fault("event_error", queue, part=part)
        yield Fault("lose_events", harmless=True)
        yield Fault("completion_opcode", harmless=True, opcode=3)
    yield Fault("link", "flap", harmless=True, state="flap")
    yield Fault("page_request", 4, harmless=True, pages=4)
    yield Fault("health", syndrome="HW_FATAL_ERR")
    yield Fault("gone")


class Cell:
    """A step with a fault."""

    def __init__(self, rig_, kind, ram):
        self.rig, self.model = rig_, rig_.model
        self.step = kind(rig_, ram)
        self.port = self.step.port
        self.function = self.port.function

    def record(self):
        """The commands of a step with which nothing is wrong."""
        self.step.prepare()
        before = self.model.commands(self.function)
        assert self.step.act() is not False
        after = self.model.commands(self.function)
        self.step.check()
        self.step.finish(None)
        return collections.Counter({name: count for name, count in (after - before).items()
                                    if name.startswith(self.step.only)})

    def _id(self, fault):
        """Of a fault of a virtqueue, the number of its object."""
        if fault.kind in ("queue_error", "event_error"):
            fault.fields["queue"] = self.model.queues(self.function)[fault.what]

    def run(self, fault, log):
        """Has the fault happen in the step. Returns what there is to say."""
        # Objects of before may have gone without a word.
        self.model.begin = os.path.getsize(mlx5.TRACE)
        self.step.prepare()
        self._id(fault)
        said = []
        with fault.context(self.model, self.function) as hits:
            start = time.monotonic()
            try:
                done = self.step.act() is not False
            except (OSError, AssertionError) as error:
                done = False
                said.append(str(error).strip().splitlines()[-1])
            seconds = time.monotonic() - start
            if fault.kind not in UNCERTAIN:
                assert hits() > 0, "it did not happen"
        assert seconds < BOUND, f"{seconds:.1f} s"
        for words in fault.words:
            log.wait(words, 5)
        if fault.harmless:
            assert done, f"not done: {said}"
        said.append("done" if done else "not done")
        self._judge(done, fault, said)
        said.append(self.step.finish(fault))
        return ", ".join(words for words in said if words)

    def _judge(self, done, fault, said):
        """It was done, or it was not, or the device says that it needs a reset."""
        check = self.step.check if done else self.step.check_undone
        try:
            if self.port.dev is None or self.port.is_well():
                return check()
        except (OSError, AssertionError):
            if fault.harmless or self.port.dev is None or self.port.is_well():
                raise
        said.append("a reset is needed")
        # Nobody may go on from where queues stood a while ago.
        there = self.port.driver
        wanted, bases = there.indices(), there.bases()
        assert all(base in (None, index) for base, index in zip(bases, wanted)), (
            f"virtqueues are at {wanted}, and said to be at {bases}")
        return None


def end(step):
    """Deletes what devices there are."""
    for port in step.ports():
        port.close()
    for port in step.ports():
        if port.exists():
            port.delete()


def cell(rig_, kind, use):
    """Has `use` done with a cell; nothing is left afterwards."""
    with memory() as ram, mlx5.KernelLog() as log:
        one = Cell(rig_, kind, ram)
        try:
            result = use(one, log)
        finally:
            end(one.step)
        rig_.settle()
        for words in ("BUG:", "WARNING:", "Oops"):
            assert words not in log.read(), log.text
        return result


def add_test(kind):
    """Adds the tests of a step."""

    def test(rig_):
        commands = cell(rig_, kind, lambda one, _: one.record())
        ktap.say(f"{commands.total()} commands: {dict(commands)}")
        assert commands, "a step without commands"
        done, failed = collections.Counter(), []
        for fault in (*faults_of(commands), *events(kind.on, *kind.queues)):
            start = time.monotonic()
            try:
                said = cell(rig_, kind, lambda one, log, fault=fault: one.run(fault, log))
                ktap.say(f"{fault}: {said}; {time.monotonic() - start:.1f} s")
            except Exception as error:  # pylint: disable=broad-except
                ktap.say(f"{fault}: FAILED\n{traceback.format_exc()}")
                failed.append(f"{fault}: {error}")
                rig_.again()
            done[fault.kind] += 1
        ktap.say(f"{done.total()} cells: {dict(done)}")
        assert not failed, "\n".join([f"{len(failed)} failed:", *failed])

    test.__doc__ = kind.__doc__
    suite.test(timeout=600)(test)


for STEP in STEPS:
    add_test(STEP)


@contextlib.contextmanager
def running(rig_):
    """A device under a driver, of which nothing is left afterwards."""
    with memory() as ram:
        rig_.model.begin = os.path.getsize(mlx5.TRACE)
        port = Port(rig_, HERE, ram)
        try:
            port.run()
            yield port
        finally:
            port.close()
            if port.exists():
                port.delete()
        rig_.settle()


@suite.test()
def deaf(rig_):
    """A device is reset whose virtqueues are neither suspended nor destroyed"""
    kind = "GENERAL_OBJECT VIRTIO_NET_Q"
    with running(rig_) as port, mlx5.KernelLog() as log, contextlib.ExitStack() as faults:
        for verb in ("MODIFY", "DESTROY"):
            which = mlx5.which(f"{verb}_{kind}", count=2 * PAIRS)
            faults.enter_context(rig_.model.fault(port.function, "lose", command=which))
        # It uses nothing any more when the reset returns, and is had again.
        attempts = port.restart()
        faults.close()
        log.wait("the firmware is started anew: DESTROY_GENERAL_OBJECT", 5)
        ktap.say(f"it starts at attempt {attempts}")


@suite.test()
def link(rig_):
    """A link that goes while a device is suspended, or dead, is told of later"""

    def told(port, is_up):
        def is_told():
            status, = struct.unpack("<H", port.dev.config(6, 2))
            return bool(status & nic.LINK_UP) == is_up

        vdpa.wait_until(is_told, f"a link that is {'up' if is_up else 'down'}", 20)

    with running(rig_) as port:
        told(port, True)
        port.dev.suspend()
        with rig_.model.fault(port.function, "link", state="down"):
            port.dev.resume()
            told(port, False)
        told(port, True)
        with contextlib.ExitStack() as links:
            with rig_.model.fault(port.function, "health", syndrome="HW_FATAL_ERR"):
                vdpa.wait_until(lambda: not port.is_well(), "a reset to be needed")
                links.enter_context(rig_.model.fault(port.function, "link", state="down"))
            told(port, False)
        told(port, True)
        port.restart()


@suite.test()
def not_anew(rig_):
    """What cannot be made anew for more pairs is undone, or a reset is needed"""
    kind = "GENERAL_OBJECT VIRTIO_NET_Q"
    function = rig_.functions[OLD]
    for name, goes_on in ((f"CREATE_{kind}", True), ("CREATE_RQT", False)):
        with memory() as ram, contextlib.ExitStack() as stack:
            port = Port(rig_, OLD, ram)
            stack.callback(port.delete)
            port.run()
            for queue in (2, 3):
                port.dev.enable(queue)
            for pairs in (2, 1):
                assert port.driver.command(nic.PAIRS, bytes([pairs, 0]))
            # What is undone needs that command as well.
            which = mlx5.which(name, count=1 if goes_on else 2)
            with rig_.model.fault(function, "fail", command=which, status="LIM_ERR"):
                assert not port.driver.command(nic.PAIRS, bytes([2, 0])), name
                if goes_on:
                    rig_.exchange(port.driver)
                else:
                    vdpa.wait_until(lambda port=port: not port.is_well(), "a reset to be needed")
            if goes_on:
                assert port.driver.command(nic.PAIRS, bytes([2, 0])), name
            port.restart()
        rig_.settle()


def opened(port):
    """A user has the device open, and nothing more."""
    port.add()
    port.open()


def suspended(port):
    """A driver was suspended."""
    port.run()
    port.dev.suspend()


def broken(port):
    """A driver was told that it needs a reset."""
    port.run()
    queue = port.rig.model.queues(port.function)[1]
    with port.rig.model.fault(port.function, "queue_error", queue=queue):
        vdpa.wait_until(lambda: not port.is_well(), "a reset to be needed")


# What users are at when their device is taken away; those who run go on.
USERS = (opened, Port.run, suspended, broken)


def taken_away(rig_, words):
    """A command waits for the user of a device in each state, and ends when that
    has gone; nothing is left then.
    """
    for user in USERS:
        with memory() as ram:
            rig_.model.begin = os.path.getsize(mlx5.TRACE)
            port = Port(rig_, HERE, ram)
            user(port)
            node = port.device.path
            with subprocess.Popen(words(port)) as command:
                # Nobody else can open it any more.
                vdpa.wait_until(lambda node=node: not os.path.exists(node), f"{node} to go")
                if user is Port.run:
                    rig_.exchange(port.driver)
                assert command.poll() is None, "the user is not waited for"
                port.close()
                assert command.wait(20) == 0
            assert not port.exists()
        if not port.function.driver():
            rig_.model.check_empty(port.function)
            rust_mlx5.bind(port.function)
        rig_.settle()


@suite.test()
def delete(rig_):
    """A device is deleted under users in each state: they are waited for"""
    taken_away(rig_, lambda port: ("vdpa", "dev", "del", port.device.name))


@suite.test()
def unbind(rig_):
    """A function is unbound under users in each state: they are waited for"""
    taken_away(rig_, lambda port: (
        "sh", "-c", f"echo {port.function.address} >{mlx5.PCI}/drivers/{rust_mlx5.DRIVER}/unbind"))


@suite.test()
def gone(rig_):
    """A function is unbound while it is gone, under traffic"""
    with running(rig_) as port:
        with rig_.model.fault(port.function, "gone"):
            vdpa.wait_until(lambda: not port.is_well(), "a reset to be needed")
            port.close()
            rust_mlx5.unbind(port.function)
            assert not port.exists()
        rust_mlx5.bind(port.function)


if __name__ == "__main__":
    mlx5.main(suite, __doc__, rust_mlx5.prepare, rig)
