# SPDX-License-Identifier: GPL-2.0
"""ConnectX functions of tools/mlx5-model: the model's control port, and the
C drivers that drive them.
"""

import collections
import contextlib
import json
import os
import select
import threading
import time
import tomllib

import ktap
import vdpa

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PEERS = os.path.join(CHECKOUT, "build", "peers", "mlx5")
CONFIG = os.path.join(CHECKOUT, "selftests", "mlx5", "functions.toml")
TRACE = os.path.join(CHECKOUT, "build", "log", "mlx5-trace.jsonl")
PORT = "/dev/virtio-ports/mlx5-model"
PCI = "/sys/bus/pci"

# Where the testbed puts the first function, and the last one: that is behind a
# root port (tools/testbed/model.sh).
FIRST_SLOT = 0x10
LAST = "0000:01:00.0"

# The server in the network namespace beside the virtual machine.
UPLINK = "10.78.0.1"


class Refused(Exception):
    """The model refused what a test asked of it."""


class Model:
    """The model's control port: a line of JSON asks, a line answers."""

    def __init__(self):
        self.file = os.open(PORT, os.O_RDWR | os.O_NONBLOCK)
        self.data = b""
        # What is in the trace from here on is this suite's. Before it there may
        # be objects whose end is not: those of firmware that died.
        self.begin = os.path.getsize(TRACE) if os.path.exists(TRACE) else 0
        # What an earlier test asked may still be answered.
        mark = f"hello-{os.getpid()}-{time.monotonic_ns()}"
        self._send({mark: {}})
        while mark not in self._line():
            pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.file)

    def _send(self, request):
        os.write(self.file, json.dumps(request).encode() + b"\n")

    def _line(self):
        end = time.monotonic() + 30
        while b"\n" not in self.data:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.file], [], [], left)[0]:
                raise TimeoutError("the model does not answer")
            with contextlib.suppress(BlockingIOError):
                self.data += os.read(self.file, 65536)
        line, self.data = self.data.split(b"\n", 1)
        return line.decode()

    def ask(self, what, function=None, **fields):
        """The answer to a request, for a function by name or for each of them."""
        if function:
            fields["function"] = function
        self._send({what: fields})
        answer = json.loads(self._line())
        if "error" in answer:
            raise Refused(answer["error"])
        answer = answer[what]
        return answer[function] if function else answer

    def commands(self, function):
        """How often each command was executed, by name."""
        times = self.ask("stats", function.name)["commands"]
        return collections.Counter({name: time["count"] for name, time in times.items()})

    def objects(self, function):
        """How many objects and pages the function has, by type."""
        stats = self.ask("stats", function.name)
        return {**stats["objects"], "pages": stats["pages"]}

    def dropped(self):
        """How many frames queues dropped, most for want of a buffer."""
        return sum(queue["dropped"] for stats in self.ask("stats").values()
                   for queue in stats["queues"].values())

    def refusals(self):
        """How many commands were refused, by function and reason."""
        return collections.Counter({
            (name, reason): count
            for name, stats in self.ask("stats").items()
            for reason, count in stats["refusals"].items()
        })

    @contextlib.contextmanager
    def clean(self, expected=()):
        """In the context no command may be refused, but for reasons that are
        expected.
        """
        before = self.refusals()
        yield
        refused = {
            (name, reason): count
            for (name, reason), count in (self.refusals() - before).items()
            if reason not in expected
        }
        assert not refused, f"refused commands: {refused}"

    @contextlib.contextmanager
    def fault(self, function, kind, **fields):
        """Something goes wrong in the context.  Yields a function that says
        how often it did so far."""
        number = self.ask("fault", function.name, kind=kind, **fields)

        def hits():
            faults = self.ask("faults", function.name)
            return next(fault["hits"] for fault in faults if fault["id"] == number)

        try:
            yield hits
        finally:
            self.ask("clear", function.name, fault=number)

    def queues(self, function):
        """The ids of the function's virtqueue objects, in the order this suite
        made them; from the trace, which is written a little later."""

        def read():
            ids = []
            with open(TRACE, encoding="utf-8") as file:
                file.seek(self.begin)
                for line in file:
                    # The first and the last one may not be whole yet.
                    if not (line.startswith("{") and line.endswith("}\n")) or (
                            "VIRTIO_NET_Q" not in line):
                        continue
                    record = json.loads(line)
                    if (record["function"], record.get("object"), record.get("status")) != (
                            function.name, "VIRTIO_NET_Q", "OK"):
                        continue
                    if record["opcode"].startswith("CREATE_"):
                        ids.append(record["output"].get("obj_id", 0))
                    elif record["opcode"].startswith("DESTROY_"):
                        asked = record["input"]
                        ids.remove(asked.get("general_obj_in_cmd_hdr", asked).get("obj_id", 0))
            return ids

        wanted = self.objects(function).get("virtqueue", 0)
        return vdpa.wait_until(lambda: (ids := read()) and len(ids) == wanted and ids, "the trace")

    def check_empty(self, function):
        """No object and no page may be left in the function."""
        left = {what: count for what, count in self.objects(function).items() if count}
        assert not left, f"left in {function.name}: {left}"

    @contextlib.contextmanager
    def bound(self, function):
        """A function that mlx5_core has; afterwards nothing may be left in it."""
        function.bind()
        try:
            yield function
        finally:
            function.unbind()
        self.check_empty(function)


class Function:
    """A function, as its entry in the configuration has it."""

    def __init__(self, entry, address):
        self.name = entry["name"]
        self.profile = entry["profile"]
        self.mac = entry["mac"]
        self.address = address

    def driver(self):
        """The PCI driver that has it, or None."""
        try:
            return os.path.basename(os.readlink(f"{PCI}/devices/{self.address}/driver"))
        except FileNotFoundError:
            return None

    def bind(self, driver="mlx5_core"):
        """Gives it to a driver: OSError if that does not take it."""
        vdpa.write(f"{PCI}/drivers/{driver}/bind", self.address)

    def unbind(self):
        """Takes it from its driver, if it has one."""
        driver = self.driver()
        if driver:
            vdpa.write(f"{PCI}/drivers/{driver}/unbind", self.address)

    def reset(self):
        """Function level reset; no driver may have it."""
        vdpa.write(f"{PCI}/devices/{self.address}/reset", "1")

    @property
    def port(self):
        """The address of what it is connected to, if that is not the root itself."""
        return os.path.basename(os.path.dirname(os.path.realpath(f"{PCI}/devices/{self.address}")))

    @contextlib.contextmanager
    def translated(self):
        """In the context addresses that the function uses are not those of memory.
        No driver may have it at the beginning and at the end.  Yields whether there
        is an IOMMU for that.
        """
        kind = f"{PCI}/devices/{self.address}/iommu_group/type"
        if not os.path.exists(kind):
            yield False
            return
        before = vdpa.read(kind)
        vdpa.write(kind, "DMA")
        try:
            yield True
        finally:
            vdpa.write(kind, before)

    @property
    def mgmtdev(self):
        """The management device that mlx5_vdpa makes of it."""
        return f"pci/{self.address}"


class KernelLog:
    """What the kernel says in the context."""

    def __init__(self):
        self.file = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self.file, 0, os.SEEK_END)
        self.text = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.file)

    def read(self):
        """All of it so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                # What was overwritten before it was read is an error once.
                with contextlib.suppress(BrokenPipeError):
                    self.text += os.read(self.file, 8192).decode(errors="replace")
        return self.text

    def wait(self, words, seconds):
        """Waits until it has said these words."""
        vdpa.wait_until(lambda: words in self.read(), f"'{words}' in the kernel's log", seconds)


def functions():
    """Every function of the configuration, by name."""
    with open(CONFIG, "rb") as file:
        entries = tomllib.load(file)["function"]
    addresses = [f"0000:00:{FIRST_SLOT + number:02x}.0" for number in range(len(entries) - 1)]
    return {
        entry["name"]: Function(entry, address)
        for entry, address in zip(entries, (*addresses, LAST))
    }


def by_profile():
    """A function of each profile."""
    return {function.profile: function for function in functions().values()}


def which(name, after=0, count=1):
    """Which command a fault is for: an opcode, with the type of object behind
    it if there is one.
    """
    opcode, _, kind = name.partition(" ")
    return {"opcode": opcode, "after": after, "count": count, **({"object": kind} if kind else {})}


def each(commands):
    """Each command of a Counter: its name, and how many of the same name came
    before it.
    """
    return [(name, after) for name, count in sorted(commands.items()) for after in range(count)]


def rebind_together(model, bind, unbind):
    """Binds and unbinds all functions at once, again and again."""
    errors = []

    def run(function):
        try:
            for _ in range(10):
                bind(function)
                unbind(function)
        except OSError as error:
            errors.append(f"{function.name}: {error}")

    with model.clean():
        threads = [threading.Thread(target=run, args=[function])
                   for function in functions().values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors, errors
        for function in functions().values():
            model.check_empty(function)


def load_core():
    """Loads the distribution's mlx5_core, which then waits for functions."""
    # Which functions it has, and when, is for the tests to say.
    vdpa.write(f"{PCI}/drivers_autoprobe", "0")
    vdpa.sh("modprobe", "mlx5_core")


def load_vdpa():
    """Loads the C driver mlx5_vdpa, and what makes mlx5_core offer devices
    to it.  It stays loaded: a livepatch is not for coming and going.
    """
    load_core()
    livepatch = "/sys/kernel/livepatch/mlx5_vnet_livepatch"
    if not os.path.exists(livepatch):
        vdpa.sh("insmod", f"{PEERS}/mlx5_vnet_livepatch.ko")
    vdpa.wait_until(lambda: vdpa.read(f"{livepatch}/transition") == "0", "the livepatch", 60)
    for module in ("vringh", "mlx5_vdpa"):
        if vdpa.references(module) is None:
            vdpa.sh("insmod", f"{PEERS}/{module}.ko")


def queue_stats(name, queues):
    """What the driver counts for each data virtqueue of a device."""
    return [
        vdpa.show("dev", "vstats", "show", name, "qidx", queue)["vstats"][name]
        for queue in range(queues)
    ]


def main(suite, description, prepare=load_vdpa, given=contextlib.nullcontext):
    """Runs a suite, when there is what it needs.  Its tests are given the model,
    or what the context `given` makes of it.
    """
    options = ktap.arguments(description).parse_args()
    if not os.path.exists(PORT):
        print("1..0 # SKIP no functions of mlx5-model")
        ktap.exit_with(ktap.EXIT_SKIP)
    prepare()
    with Model() as model, given(model) as value:
        status = suite.run(value, only=options.only)
    ktap.exit_with(status)
