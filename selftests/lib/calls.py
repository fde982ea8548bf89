# SPDX-License-Identifier: GPL-2.0
"""Calls of vhost-vdpa, whoever makes them, and how long each takes."""

import collections
import contextlib
import os
import re

import vdpa
from tracing import GROUP, TRACING, add, prepare

DYNAMIC = f"{TRACING}/dynamic_events"
INSTANCE = f"{TRACING}/instances/{GROUP}"
EVENTS = f"{INSTANCE}/events/{GROUP}"

# By ioctl, and by a message about memory, of which there is no number.
FUNCTIONS = {"ioctl": "vhost_vdpa_unlocked_ioctl", "message": "vhost_vdpa_chr_write_iter"}
SUSPEND = 0xAF7D

LINE = re.compile(r"-(\d+)\s+\[\d+\]\s+\S+\s+([\d.]+): (call|back)_(\w+): .*?(?:number=(\w+))?$",
                  re.MULTILINE)

Call = collections.namedtuple("Call", "kind number begin seconds")


class Calls:
    """Calls in the context."""

    def __init__(self):
        self._stack = None

    def __enter__(self):
        prepare()
        with contextlib.ExitStack() as stack:
            for kind, function in FUNCTIONS.items():
                self._probe(stack, f"call_{kind}", f"{function} number=$arg2:x32")
                self._probe(stack, f"back_{kind}", f"{function}%return")
            os.mkdir(INSTANCE)
            stack.callback(os.rmdir, INSTANCE)
            vdpa.write(f"{EVENTS}/enable", "1")
            stack.callback(vdpa.write, f"{EVENTS}/enable", "0")
            self._stack = stack.pop_all()
        return self

    @staticmethod
    def _probe(stack, name, words):
        add(DYNAMIC, f"f:{GROUP}/{name} {words}")
        stack.callback(add, DYNAMIC, f"-:{GROUP}/{name}")

    def __exit__(self, *_):
        self._stack.close()

    def all(self):
        """Those that have returned so far, in the order in which they were made."""
        made, begun = [], {}
        for thread, time, way, kind, number in LINE.findall(vdpa.read(f"{INSTANCE}/trace")):
            if way == "call":
                begun[thread] = kind, int(number, 16), float(time)
            elif thread in begun:
                kind, number, begin = begun.pop(thread)
                made.append(Call(kind, number, begin, float(time) - begin))
        return sorted(made, key=lambda call: call.begin)

    def since_suspend(self):
        """How long those took that were made since the last SUSPEND, and it, in seconds."""
        made = self.all()
        last = max(at for at, call in enumerate(made)
                   if (call.kind, call.number) == ("ioctl", SUSPEND))
        return sum(call.seconds for call in made[last:])
