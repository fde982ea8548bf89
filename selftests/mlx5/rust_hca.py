#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""rust_mlx5_vdpa on functions of the model: brought up and taken down, also
where a command fails, is lost, or the firmware dies.
"""

import json
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
import ktap
import mlx5
import rust_mlx5
import vdpa
from rust_mlx5 import DRIVER, MODULE, attach, bind, bound, loaded, override, unbind

ROUNDS = 20

# A syndrome that no firmware has.
SYNDROME = 0xabcde

suite = ktap.Suite("mlx5_rust_hca")


def taken(model, function):
    """How often each command is executed, by name: to bring the function up,
    and to take it down.
    """
    before = model.commands(function)
    with bound(model, function):
        up = model.commands(function)
    return up - before, model.commands(function) - up


@suite.test()
def commands(model):
    """Every profile is bound and unbound; what that takes."""
    for profile, function in mlx5.by_profile().items():
        with model.clean():
            up, down = taken(model, function)
        ktap.say(f"{profile}: {up.total()} commands, then {down.total()}")
        with model.clean(), bound(model, function):
            ktap.say(f"{profile}: {model.objects(function)}")


def rounds_test(profile):
    """Adds the test of one profile."""

    def test(model):
        function = mlx5.by_profile()[profile]
        with model.clean():
            for _ in range(ROUNDS):
                with bound(model, function):
                    assert function.driver() == DRIVER

    test.__doc__ = f"{profile} is bound and unbound {ROUNDS} times."
    suite.test()(test)


@suite.test()
def vector(model):
    """The interrupt is raised on one processor, and goes with the driver."""
    function = mlx5.functions()["new0"]
    with bound(model, function):
        irqs = sorted(os.listdir(f"{mlx5.PCI}/devices/{function.address}/msi_irqs"), key=int)
        assert vdpa.read(f"/proc/irq/{irqs[0]}/smp_affinity_list").isdigit()
        assert DRIVER in os.listdir(f"/proc/irq/{irqs[0]}")
    assert not os.path.exists(f"/proc/irq/{irqs[0]}/{DRIVER}")


@suite.test()
def together(model):
    """All functions are bound and unbound at once."""
    mlx5.rebind_together(model, bind, unbind)


@suite.test()
def load(model):
    """A function that waits is bound at load, and unbound at removal."""
    function = mlx5.functions()["new0"]
    autoprobe = f"{mlx5.PCI}/drivers_autoprobe"
    vdpa.sh("rmmod", DRIVER)
    override(function.address, DRIVER)
    try:
        with model.clean():
            vdpa.write(autoprobe, "1")
            vdpa.sh("insmod", MODULE)
            assert function.driver() == DRIVER
            vdpa.sh("rmmod", DRIVER)
        model.check_empty(function)
    finally:
        vdpa.write(autoprobe, "0")
        override(function.address, "")
        if vdpa.references(DRIVER) is None:
            vdpa.sh("insmod", MODULE)


@suite.test()
def left_alone(model):
    """A function that was not given to the driver by name is left alone."""
    function = mlx5.functions()["new0"]
    before = model.commands(function)
    try:
        attach(function.address)
    except OSError:
        pass
    assert function.driver() is None
    assert model.commands(function) == before
    with loaded(claim=1):
        attach(function.address)
        assert function.driver() == DRIVER
        function.unbind()
    model.check_empty(function)


@suite.test()
def no_function(_model):
    """What is no virtual function of the family is refused with a reason."""
    address = next(
        name for name in sorted(os.listdir(f"{mlx5.PCI}/devices"))
        if not os.path.exists(f"{mlx5.PCI}/devices/{name}/driver")
        and vdpa.read(f"{mlx5.PCI}/devices/{name}/vendor") != "0x15b3"
    )
    override(address, DRIVER)
    try:
        with mlx5.KernelLog() as log:
            try:
                attach(address)
            except OSError:
                pass
            log.wait("is no virtual function of ConnectX-6 Dx or later", 5)
        assert not os.path.exists(f"{mlx5.PCI}/devices/{address}/driver")
    finally:
        override(address, "")


def wait_empty(model, function, name):
    """Nothing is left in a function, or it was disabled, which takes its time."""
    vdpa.wait_until(lambda: not any(model.objects(function).values()),
                    f"nothing to be left after {name} went wrong")


def refused_at(model, function, words, name):
    """Binding fails; the log says why, and nothing is left."""
    with mlx5.KernelLog() as log:
        try:
            bind(function)
        except OSError:
            pass
        assert function.driver() is None, f"bound, though {name} failed"
        log.wait(words, 5)
        assert "bring-up failed" in log.text, log.text
    wait_empty(model, function, name)


def fail_test(profile):
    """Adds the tests of failing commands of one profile."""

    def up(model):
        function = mlx5.by_profile()[profile]
        executed, _ = taken(model, function)
        # What fails is not refused by the model, nor is anything else.
        with model.clean(expected=["Injected"]):
            for name, after in mlx5.each(executed):
                fault = {"command": mlx5.which(name, after), "status": "LIM_ERR", "syndrome": SYNDROME}
                with model.fault(function, "fail", **fault) as hits:
                    refused_at(model, function, f"refused: LIM_ERR (0x8), syndrome {SYNDROME:#x}",
                               name)
                    assert hits() == 1, name
                with bound(model, function):
                    pass
        ktap.say(f"{len(mlx5.each(executed))} commands failed in turn")

    up.__doc__ = f"{profile}: each command of bring-up fails in turn."
    suite.test(timeout=300)(up)

    def down(model):
        function = mlx5.by_profile()[profile]
        _, executed = taken(model, function)
        # What could not be taken away is in the way of what comes after it.
        with model.clean(expected=["Injected", "InUse", "AlreadyStarted"]):
            for name, after in mlx5.each(executed):
                with mlx5.KernelLog() as log:
                    bind(function)
                    fault = {"command": mlx5.which(name, after), "status": "RES_BUSY",
                             "syndrome": SYNDROME}
                    with model.fault(function, "fail", **fault) as hits:
                        unbind(function)
                        assert hits() == 1, name
                    log.wait(f"{name} (", 5)
                    log.wait(f"refused: RES_BUSY (0x6), syndrome {SYNDROME:#x}", 5)
                # What could not be taken down in order was stopped.
                wait_empty(model, function, name)
                with bound(model, function):
                    pass

    down.__doc__ = f"{profile}: each command of teardown fails in turn."
    suite.test(timeout=300)(down)


for PROFILE in mlx5.by_profile():
    rounds_test(PROFILE)
for PROFILE in mlx5.by_profile():
    fail_test(PROFILE)


@suite.test()
def at_once(model):
    """What does not depend on an answer is asked at once, in slots of its own."""
    function = mlx5.functions()["new0"]

    def records():
        with open(mlx5.TRACE, encoding="utf-8") as file:
            file.seek(model.begin)
            # The first and the last one may not be whole yet; most are of others.
            lines = [json.loads(line) for line in file
                     if line.startswith("{") and line.endswith("}\n") and function.name in line]
        return [line for line in lines if line["function"] == function.name and "slot" in line]

    before = len(records())
    with bound(model, function):
        pass

    def last():
        new = records()[before:]
        return new and new[-1]["opcode"] == "DISABLE_HCA" and new

    new = vdpa.wait_until(last, "the trace")
    start = next(at for at, line in enumerate(new) if line["opcode"] == "INIT_HCA") + 1
    batch = new[start:start + 6]
    ktap.say([(line["opcode"], line["slot"]) for line in batch])
    assert sorted(line["slot"] for line in batch) == list(range(6))
    pages = {line["slot"] for line in new if line["opcode"] == "MANAGE_PAGES"}
    assert pages == {31}, pages


@suite.test(timeout=400)
def lost_up(model):
    """Each command of bring-up is lost in turn: there is a bound on it."""
    function = mlx5.functions()["new0"]
    executed, _ = taken(model, function)
    with loaded(command_timeout_ms=500):
        for name, after in mlx5.each(executed):
            with model.fault(function, "lose", command=mlx5.which(name, after)) as hits:
                start = time.monotonic()
                refused_at(model, function, "not complete after 500 ms", name)
                seconds = time.monotonic() - start
                assert hits() == 1, name
            # No step of the way back is waited for once more.
            assert seconds < 2, f"{name}: {seconds:.1f} s"
            with bound(model, function):
                pass


@suite.test(timeout=400)
def lost_down(model):
    """Each command of teardown is lost in turn: unbinding ends all the same."""
    function = mlx5.functions()["new0"]
    _, executed = taken(model, function)
    with loaded(command_timeout_ms=500):
        for name, after in mlx5.each(executed):
            with mlx5.KernelLog() as log:
                bind(function)
                with model.fault(function, "lose", command=mlx5.which(name, after)) as hits:
                    start = time.monotonic()
                    unbind(function)
                    seconds = time.monotonic() - start
                    assert hits() == 1, name
                log.wait(f"{name} (", 5)
            assert seconds < 2, f"{name}: {seconds:.1f} s"
            wait_empty(model, function, name)
            with bound(model, function):
                pass


@suite.test(timeout=200)
def garbage(model):
    """Answers that say nonsense are not believed."""
    function = mlx5.functions()["new0"]
    for name, after, place in (
        ("QUERY_PAGES", 0, {"field": "num_pages", "value": 0x7fffffff}),
        ("QUERY_PAGES", 0, {"field": "num_pages", "value": 0x80000000}),
        ("CREATE_EQ", 0, {"field": "eq_number", "value": 0xff}),
        ("ALLOC_UAR", 0, {"field": "uar", "value": 0xffffff}),
        # Whole groups of capabilities, and what else is asked, are random.
        *(("QUERY_HCA_CAP", after, {"field": "capability"}) for after in range(5)),
        ("QUERY_ISSI", 0, {"field": "supported_issi_dw0"}),
        ("QUERY_ADAPTER", 0, {"field": "query_adapter_struct"}),
    ):
        with model.fault(function, "garbage", command=mlx5.which(name, after), **place) as hits:
            try:
                bind(function)
            except OSError:
                pass
            assert hits() == 1, name
            unbind(function)
        wait_empty(model, function, name)
        with bound(model, function):
            pass
    # More pages come back than were asked for, or others.
    bind(function)
    fault = {"command": mlx5.which("MANAGE_PAGES"), "field": "output_num_entries", "value": 0xffffffff}
    with model.fault(function, "garbage", **fault) as hits:
        unbind(function)
        assert hits() == 1
    wait_empty(model, function, "MANAGE_PAGES")
    with bound(model, function):
        pass


@suite.test()
def delayed(model):
    """A command that takes long is waited for."""
    function = mlx5.functions()["new0"]
    with model.clean(), model.fault(function, "delay", command=mlx5.which("CREATE_EQ", 1), ms=3000):
        start = time.monotonic()
        with bound(model, function):
            assert time.monotonic() - start > 3


@suite.test(timeout=200)
def late(model):
    """Commands that come back after they were given up leave nothing behind."""
    function = mlx5.functions()["new0"]
    with loaded(command_timeout_ms=500), model.clean(), bound(model, function):
        before = model.objects(function)["pages"]
        # There is one slot for these.
        for _ in range(3):
            with model.fault(function, "delay", command=mlx5.which("MANAGE_PAGES"), ms=1500), \
                    mlx5.KernelLog() as log:
                with model.fault(function, "page_request", pages=4):
                    log.wait("MANAGE_PAGES (0x108) not complete after 500 ms", 20)
                vdpa.wait_until(
                    lambda: model.objects(function)["pages"] == before + 4, "pages", 20)
            with model.fault(function, "page_request", pages=-4):
                vdpa.wait_until(
                    lambda: model.objects(function)["pages"] == before, "pages", 20)


@suite.test(timeout=300)
def interrupts(model):
    """Interrupts are lost, and come for nothing: commands end all the same."""
    function = mlx5.functions()["new0"]
    with model.clean():
        with model.fault(function, "lose_interrupts") as hits:
            with bound(model, function):
                pass
            assert hits() > 0
        with bound(model, function):
            for vector in range(3):
                with model.fault(function, "spurious_interrupt", vector=vector, count=50):
                    pass


@suite.test()
def interrupt(model):
    """One interrupt is lost: what it would have told is found, and the next one comes."""
    function = mlx5.functions()["new0"]

    def ask(change, wanted):
        with model.fault(function, "page_request", pages=change):
            vdpa.wait_until(lambda: model.objects(function)["pages"] == wanted, "pages", 20)

    with model.clean(), bound(model, function):
        before = model.objects(function)["pages"]
        with model.fault(function, "lose_interrupts", vector=0) as hits:
            with model.fault(function, "page_request", pages=1):
                vdpa.wait_until(hits, "an interrupt that is lost", 20)
        vdpa.wait_until(lambda: model.objects(function)["pages"] == before + 1, "pages", 20)
        start = time.monotonic()
        for _ in range(5):
            ask(2, before + 3)
            ask(-2, before + 1)
        assert time.monotonic() - start < 8, "interrupts stay away"
        ask(-1, before)


@suite.test()
def pages(model):
    """The firmware asks for pages and gives them back."""
    for function in mlx5.by_profile().values():
        with model.clean(), bound(model, function):
            before = model.objects(function)["pages"]
            for change in (64, -64, 1, -1, 2000, -2000):
                with model.fault(function, "page_request", pages=change):
                    vdpa.wait_until(
                        lambda: model.objects(function)["pages"] == before + max(change, 0),
                        "pages", 20)


def dies(model, kind, words, **fields):
    """The firmware dies and stays so; the function is had again afterwards."""
    function = mlx5.functions()["new0"]
    for _ in range(3):
        bind(function)
        with mlx5.KernelLog() as log, model.fault(function, kind, **fields):
            log.wait(words, 20)
            start = time.monotonic()
            unbind(function)
            seconds = time.monotonic() - start
            assert seconds < 5, f"unbound after {seconds:.1f} s"
        wait_empty(model, function, "the firmware")
        with bound(model, function):
            pass


@suite.test(timeout=200)
def fatal(model):
    """Fatal health: nothing is asked of the firmware, and it can be unbound."""
    dies(model, "health", "dead: it asks for a reset: HW_FATAL_ERR (0x8)",
         syndrome="HW_FATAL_ERR")


@suite.test(timeout=200)
def recovery(model):
    """Firmware that died is brought up again when it is well."""
    function = mlx5.functions()["new0"]
    with bound(model, function):
        before = model.objects(function)
        for _ in range(3):
            with mlx5.KernelLog() as log:
                with model.fault(function, "health", syndrome="HW_FATAL_ERR"):
                    log.wait("the firmware is dead", 20)
                    time.sleep(2)
                log.wait(": ready", 20)
            assert model.objects(function) == before, model.objects(function)
        # It does not take a command on its way up.
        with mlx5.KernelLog() as log:
            fault = {"command": mlx5.which("CREATE_EQ", 1), "status": "LIM_ERR"}
            with model.fault(function, "fail", **fault) as hits:
                with model.fault(function, "health", syndrome="HW_FATAL_ERR"):
                    log.wait("the firmware is dead", 20)
                log.wait("bring-up failed again: CREATE_EQ (0x301) refused: LIM_ERR", 20)
                log.wait(": ready", 20)
                assert hits() == 1, hits()
        assert function.driver() == DRIVER
        assert model.objects(function) == before, model.objects(function)
        # Interrupts are there until the end.
        with mlx5.KernelLog() as log:
            unbind(function)
            assert "no interrupt told" not in log.read(), log.text


@suite.test(timeout=200)
def gone(model):
    """The device is pulled out: nothing is asked of it, and it is unbound at once."""
    dies(model, "gone", "dead: the device does not answer")


@suite.test(timeout=200)
def back(model):
    """A device that did not answer for a while is brought up again."""
    function = mlx5.functions()["new0"]
    with bound(model, function):
        before = model.objects(function)
        for _ in range(3):
            with mlx5.KernelLog() as log:
                with model.fault(function, "gone"):
                    log.wait("dead: the device does not answer", 20)
                    time.sleep(2)
                log.wait(": ready", 20)
            assert model.objects(function) == before, model.objects(function)


@suite.test(timeout=200)
def device(model):
    """A network device is there again when its firmware is, and goes without it too."""
    function = mlx5.functions()["new0"]

    def add():
        vdpa.sh("vdpa", "dev", "add", "name", "hca0", "mgmtdev", f"pci/{function.address}")
        return model.objects(function)

    with bound(model, function):
        before = model.objects(function)
        with_device = add()
        assert with_device != before
        for kind, fields in (("health", {"syndrome": "HW_FATAL_ERR"}), ("gone", {})):
            with mlx5.KernelLog() as log:
                with model.fault(function, kind, **fields):
                    log.wait("the firmware is dead", 20)
                log.wait(": ready", 20)
            vdpa.wait_until(lambda: model.objects(function) == with_device, "objects", 20)
        with mlx5.KernelLog() as log:
            with model.fault(function, "health", syndrome="HW_FATAL_ERR"):
                log.wait("the firmware is dead", 20)
                vdpa.sh("vdpa", "dev", "del", "hca0")
            log.wait(": ready", 20)
        assert model.objects(function) == before, model.objects(function)
        # It ends with the function.
        assert add() == with_device


@suite.test()
def ill(model):
    """Health that is not good, but not fatal, is told and goes on."""
    function = mlx5.functions()["new0"]
    with model.clean(), bound(model, function), mlx5.KernelLog() as log:
        with model.fault(function, "health", syndrome="HIGH_TEMP_ERR", fatal=False):
            log.wait("not well: HIGH_TEMP_ERR (0x10)", 20)


if __name__ == "__main__":
    rust_mlx5.main(suite, __doc__)
