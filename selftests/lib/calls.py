# SPDX-License-Identifier: GPL-2.0
"""Calls of vhost-vdpa, whoever makes them, and how long each takes."""

import collections
import os
import re

import kicks
import vdpa

DYNAMIC = f"{kicks.TRACING}/dynamic_events"
INSTANCE = f"{kicks.TRACING}/instances/{kicks.GROUP}"
EVENTS = f"{INSTANCE}/events/{kicks.GROUP}"

# By ioctl, and by a message about memory, of which there is no number.
FUNCTIONS = {"ioctl": "vhost_vdpa_unlocked_ioctl", "message": "vhost_vdpa_chr_write_iter"}
SUSPEND = 0xAF7D

LINE = re.compile(r"-(\d+)\s+\[\d+\]\s+\S+\s+([\d.]+): (call|back)_(\w+): .*?(?:number=(\w+))?$",
                  re.MULTILINE)

Call = collections.namedtuple("Call", "kind number begin seconds")


class Calls:
    """Calls in the context."""

    def __enter__(self):
        if not os.path.exists(DYNAMIC):
            vdpa.sh("mount", "-t", "tracefs", "tracefs", kicks.TRACING)
        for kind, function in FUNCTIONS.items():
            kicks.add(DYNAMIC, f"f:{kicks.GROUP}/call_{kind} {function} number=$arg2:x32")
            kicks.add(DYNAMIC, f"f:{kicks.GROUP}/back_{kind} {function}%return")
        os.mkdir(INSTANCE)
        vdpa.write(f"{EVENTS}/enable", "1")
        return self

    def __exit__(self, *_):
        vdpa.write(f"{EVENTS}/enable", "0")
        os.rmdir(INSTANCE)
        for kind in FUNCTIONS:
            for way in ("call", "back"):
                kicks.add(DYNAMIC, f"-:{kicks.GROUP}/{way}_{kind}")

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
