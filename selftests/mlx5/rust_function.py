#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""What an administrator sees of a function of rust_mlx5_vdpa, and does to it:
devlink, debugfs, resets; and what the bus does to it: errors, an IOMMU.
"""

import contextlib
import json
import os
import re
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
import ktap
import mlx5
import pairs
import rust_mlx5
import vdpa
from rust_mlx5 import DRIVER, bound

suite = ktap.Suite("mlx5_rust_function")

# What the model calls what the commands of the reference are named for; what is
# in a flow table it does not count.
KINDS = {
    "UAR": "UAR",
    "EQ": "event queue",
    "CQ": "completion queue",
    "QP": "queue pair",
    "UCTX": "user context",
    "PD": "protection domain",
    "TRANSPORT_DOMAIN": "transport domain",
    "MKEY": "memory key",
    "UMEM": "umem",
    "RQT": "receive queue table",
    "TIR": "receive interface",
    "TIS": "transmit interface",
    "FLOW_TABLE": "flow table",
    "VIRTIO_NET_Q": "virtqueue",
    "VIRTIO_Q_COUNTERS": "virtqueue counters",
}
INSIDE = ("FLOW_GROUP", "FLOW_TABLE_ENTRY")

DEATH = {"syndrome": "HW_FATAL_ERR"}


def offers_devices(function):
    """Whether devices can be added to a function."""
    return function.mgmtdev in vdpa.show("mgmtdev", "show").get("mgmtdev", {})


def devlink(function, *words):
    """What the devlink tool shows of a function, decoded from its JSON."""
    answer = vdpa.sh("devlink", "-j", *words, f"pci/{function.address}").stdout
    value = next(iter(json.loads(answer).values()))
    return value[f"pci/{function.address}"]


def reporter(function):
    """What devlink says of the firmware's health."""
    return devlink(function, "health", "show")[0]


def reporting(function, *words, check=True):
    """Does something with the reporter of the firmware's health."""
    return vdpa.sh("devlink", "health", *words[:1], f"pci/{function.address}", "reporter", "fw",
                   *words[1:], check=check)


def view(function, *names):
    """The lines of a file that debugfs has of a function."""
    return vdpa.read("/".join(["/sys/kernel/debug", DRIVER, function.address, *names])).split("\n")


def health(function):
    """What debugfs says of the function's health, by name."""
    return {line[:11].strip(): line[11:] for line in view(function, "health")}


def wait_stage(function, stage, seconds=20):
    """Waits until the firmware is in a stage."""
    vdpa.wait_until(lambda: health(function)["stage"] == stage, f"'{stage}'", seconds)


def wait_lives(function, lives, seconds=20):
    """Waits until the firmware runs, and was brought up so often."""
    vdpa.wait_until(
        lambda: (now := health(function))["stage"] == "running" and int(now["lives"]) == lives,
        f"life {lives}", seconds)


@suite.test()
def info(model):
    """devlink tells driver, firmware, board and serial number, of two profiles."""
    boards = set()
    for name in ("new0", "old0"):
        function = mlx5.functions()[name]
        with bound(model, function):
            shown = devlink(function, "dev", "info")
            ktap.say(shown)
            assert shown["driver"] == DRIVER
            versions = shown["versions"]
            assert versions["running"]["fw"] == versions["running"]["fw.version"]
            firmware = health(function)
            assert versions["running"]["fw"] == firmware["firmware"]
            assert versions["fixed"]["fw.psid"] == firmware["board"]
            assert firmware["board"].startswith("MT_00000"), firmware
            boards.add(firmware["board"])
            assert shown["serial_number"] == serial(function), shown
    assert len(boards) == 2, boards


def serial(function):
    """The serial number of a function, as its configuration space has it."""
    with open(f"{mlx5.PCI}/devices/{function.address}/config", "rb") as file:
        config = file.read()
    at = 0x100
    while config[at:at + 2] != b"\x03\x00":
        at = int.from_bytes(config[at + 2:at + 4], "little") >> 4
        assert at, "no serial number"
    return "-".join(f"{byte:02x}" for byte in reversed(config[at + 4:at + 12]))


@suite.test()
def death(model):
    """devlink tells a death and a recovery; who reserves that recovers by command."""
    function = mlx5.functions()["new0"]
    with bound(model, function):
        before = model.objects(function)
        first = reporter(function)
        assert first["reporter"] == "fw", first
        assert (first["state"], first["error"], first["recover"]) == ("healthy", 0, 0), first
        with model.fault(function, "health", **DEATH):
            vdpa.wait_until(lambda: reporter(function)["state"] == "error", "a death", 20)
            wait_stage(function, "dead, waited for")
            # The firmware is not well yet.
            result = reporting(function, "recover", check=False)
            assert result.returncode, result
            diagnosis = reporting(function, "diagnose").stdout
            ktap.say(diagnosis)
            assert "HW_FATAL_ERR" in diagnosis, diagnosis
        wait_lives(function, 2)
        assert reporter(function)["state"] == "healthy"
        reporting(function, "set", "auto_recover", "false")
        with model.fault(function, "health", **DEATH):
            wait_stage(function, "dead, to be recovered by command")
        assert reporter(function)["state"] == "error"
        assert health(function)["lives"] == "2"
        reporting(function, "recover")
        assert health(function)["stage"] == "running"
        assert model.objects(function) == before, model.objects(function)
        last = reporter(function)
        assert (last["state"], last["error"], last["recover"]) == ("healthy", 2, 2), last


@suite.test()
def views(model):
    """debugfs counts the commands that the model does, and what it has."""
    for function in mlx5.by_profile().values():
        if function.name == "minimal":
            continue
        before = model.commands(function)
        with bound(model, function), contextlib.ExitStack() as stack:
            if offers_devices(function):
                device = stack.enter_context(vdpa.Device(function.mgmtdev, "seen"))
                device.bind("virtio_vdpa")
                stack.callback(device.bind, None)
            done = model.commands(function) - before
            head, *lines = view(function, "commands")
            assert head.split()[:3] == ["done", "refused", "lost"], head
            counted = {}
            for line in lines:
                ok, refused, lost, total, most, name = line.split(maxsplit=5)
                assert lost == "0" and int(total) >= int(most) > 0, line
                counted[name] = int(ok) + int(refused)
            assert counted == dict(done), f"{counted}, the model: {dict(done)}"
            alive = dict(line.rsplit(maxsplit=1) for line in view(function, "objects"))
            alive = {KINDS[kind]: int(count) for kind, count in alive.items()
                     if count != "0" and kind not in INSIDE}
            has = model.objects(function)
            del has["pages"]
            assert alive == has, f"{alive}, the model: {has}"
    assert not os.path.exists(f"/sys/kernel/debug/{DRIVER}/{function.address}")


@suite.test()
def queues(model):
    """debugfs shows the virtqueues of a device, and kicks that were calls."""
    with pairs.pair(model, lambda function: bound(model, function), "new0", "new1") as (here, there):

        def kicks():
            status, _, *lines = view(here.function, here.name, "queues")
            assert status == "status 0x0f", status
            return [int(line.split()[4]) for line in lines]

        for line in view(here.function, here.name, "queues")[2:4]:
            assert line.split()[1:3] == ["yes", "yes"], line
        before, rung = kicks(), model.ask("stats", here.function.name)["kicks"]
        here.ping(there.address, count=50)
        after = kicks()
        rung = model.ask("stats", here.function.name)["kicks"] - rung
        # By virtio_vdpa each kick is a call, and each call rings.
        assert sum(after) - sum(before) == rung > 0, f"{before}, {after}, the model: {rung}"
        files = os.path.join("/sys/kernel/debug", DRIVER, here.function.address, here.name)
    assert not os.path.exists(files)


def used_again(model, here, there, lives, has):
    """The function of the port here is in a new life, and frames go to and from it."""
    wait_lives(here.function, lives)
    # What there is of a device without a driver comes by itself, the rest with that.
    here.device.bind(None)
    here.device.bind("virtio_vdpa")
    here.netdev = here.device.netdev
    here.space.take(here.netdev, f"{here.address}/24")
    vdpa.wait_until(lambda: model.objects(here.function) == has, "objects", 20)
    here.ping(there.address, count=50)
    there.ping(here.address, count=50)


@suite.test(timeout=200)
def reset(model):
    """The function is reset under a device, which is used afterwards."""
    with pairs.pair(model, lambda function: bound(model, function), "new0", "new1") as (here, there):
        function = here.function
        has = model.objects(function)
        here.ping(there.address, count=50)
        with mlx5.KernelLog() as log:
            function.reset()
            used_again(model, here, there, 2, has)
            assert "no interrupt told" not in log.read(), log.text
        assert health(function)["last death"] == "none"
        assert reporter(function)["error"] == 0


def inject(address, errors):
    """Has the kernel find uncorrectable errors, a bit each, that a root port reports
    of itself; what is on its bus is then recovered.
    """
    numbers = [int(part, 16) for part in re.split("[:.]", address)]
    data = struct.pack("=4B7I", *numbers[1:], 0, errors, 0, 0, 0, 0, 0, numbers[0])
    # A Python file would write again what could not be written.
    file = os.open("/dev/aer_inject", os.O_WRONLY)
    try:
        os.write(file, data)
    finally:
        os.close(file)


# A completion that did not come, and a packet that made no sense.
ERRORS = (("Non-Fatal", 1 << 14), ("Fatal", 1 << 18))


@suite.test(timeout=300)
def errors_of_the_bus(model):
    """The bus has an error, fatal or not, or is reset under a device: that is used afterwards"""
    port = mlx5.functions()["new2"].port
    if not os.path.exists(f"{mlx5.PCI}/devices/{port}"):
        raise ktap.Skip("no root port")
    vdpa.sh("modprobe", "aer_inject")
    with pairs.pair(model, lambda function: bound(model, function), "new2", "new1") as (here, there):
        has = model.objects(here.function)
        lives = 1
        for severity, bit in ERRORS:
            here.ping(there.address, count=50)
            with mlx5.KernelLog() as log:
                inject(port, bit)
                log.wait(f"severity=Uncorrectable ({severity})", 20)
                log.wait(f"{port}: AER: device recovery successful", 20)
                lives += 1
                used_again(model, here, there, lives, has)
                assert "no interrupt told" not in log.read(), log.text
        vdpa.write(f"{mlx5.PCI}/devices/{port}/reset_subordinate", "1")
        used_again(model, here, there, lives + 1, has)
        assert health(here.function)["last death"] == "none"
        assert reporter(here.function)["error"] == 0
    vdpa.sh("rmmod", "aer_inject")


def is_memory(address):
    """Whether there is memory at a physical address."""
    with open("/proc/iomem", encoding="ascii") as file:
        areas = [line.split(" : ")[0] for line in file if line.endswith(" : System RAM\n")]
    spans = [[int(end, 16) for end in area.split("-")] for area in areas]
    return any(first <= address <= last for first, last in spans)


@suite.test(timeout=200)
def behind_an_iommu(model):
    """A function that reaches memory by an IOMMU comes up, and frames go to and from it"""
    function = mlx5.functions()["new2"]
    begin = os.path.getsize(mlx5.TRACE)
    with function.translated() as there_is_one:
        if not there_is_one:
            raise ktap.Skip("no IOMMU")
        with pairs.pair(model, lambda one: bound(model, one), "new2", "new1") as (here, there):
            for size in (56, 1400, 8000):
                here.ping(there.address, count=50, size=size)
                there.ping(here.address, count=50, size=size)

    def pages():
        """The addresses of the pages that the function got."""
        with open(mlx5.TRACE, encoding="utf-8") as file:
            file.seek(begin)
            lines = [line for line in file if '"MANAGE_PAGES"' in line and '"GIVE"' in line]
        given = [json.loads(line) for line in lines if line.endswith("}\n")]
        return [int(record["input"]["tail"][:16], 16)
                for record in given if record["function"] == function.name]

    addresses = vdpa.wait_until(pages, "the trace")
    ktap.say(", ".join(f"{address:#x}" for address in addresses))
    assert not any(is_memory(address) for address in addresses)


@suite.test()
def reset_of_another(model):
    """Somebody else resets a function: its configuration is put back."""
    function = mlx5.functions()["new0"]
    config = f"{mlx5.PCI}/devices/{function.address}/config"
    with bound(model, function), mlx5.KernelLog() as log:
        before = model.objects(function)
        with open(config, "rb") as file:
            here = file.read(256)
        at = here[0x34]
        while here[at] != 0x11:
            at = here[at + 1]
        with model.fault(function, "gone"):
            log.wait("the device does not answer", 20)
            with open(config, "r+b", buffering=0) as file:
                # No interrupts, and neither memory nor the bus.
                file.seek(at + 2)
                file.write(b"\x00\x00")
                file.seek(4)
                file.write(b"\x00\x00")
            log.wait("its configuration was lost, and is put back", 20)
        wait_lives(function, 2)
        assert model.objects(function) == before, model.objects(function)
        with model.fault(function, "page_request", pages=8):
            vdpa.wait_until(
                lambda: model.objects(function)["pages"] == before["pages"] + 8, "pages", 20)
        assert "no interrupt told" not in log.read(), log.text


@suite.test()
def left_behind(model):
    """What somebody else may have left in a function is reset before it is used."""
    function = mlx5.functions()["new0"]

    def resets():
        with open(mlx5.TRACE, encoding="utf-8") as file:
            # The last line may not be whole yet.
            notes = [json.loads(line) for line in file if '"reset"' in line and line.endswith("}\n")]
        return sum(note["function"] == function.name for note in notes)

    # This driver says at the end that nobody has the function, and a reset
    # unsays it.
    function.reset()
    vdpa.wait_until(resets, "the trace")
    before = resets()
    with bound(model, function):
        vdpa.wait_until(lambda: resets() == before + 1, "a reset")
    with bound(model, function):
        pass
    assert resets() == before + 1, f"{resets()} resets, {before} before"


if __name__ == "__main__":
    rust_mlx5.main(suite, __doc__)
