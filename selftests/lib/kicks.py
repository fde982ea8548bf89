# SPDX-License-Identifier: GPL-2.0
"""Kicks of guests that come through the kernel: vhost-vdpa calls its parent's
kick_vq for each.  Guests that ring doorbells of hardware themselves cause none.
"""

import collections
import os
import re

import vdpa

TRACING = "/sys/kernel/tracing"
PROBES = f"{TRACING}/kprobe_events"
GROUP = "rust_vdpa_selftests"
EVENT = f"{TRACING}/events/{GROUP}/kick"

# handle_vq_kick(work) of vhost_vdpa does nothing else.  The work is a part of
# the virtqueue, and all of a device's lie behind each other.  (Kernel 7.3 finds no
# types of a function if its module is named.)
VHOST = "(vhost_vdpa,vdev)((vhost_virtqueue,poll.work)work->dev)"
PROBE = (f"p:{GROUP}/kick handle_vq_kick work=work"
         f" device={VHOST}->vdpa->dev.kobj.name:string"
         f" first=+0({VHOST}->vdev.vqs) second=+8({VHOST}->vdev.vqs)")
COUNTS = "hist:keys=device,work"
PLACES = "hist:keys=device,first,second"


def add(name, words):
    """Adds a probe or a trigger, or takes it away, and leaves all others: what
    opens such a file to write it anew takes them away.
    """
    # Python looks for the end of what it appends to, and these have none.
    file = os.open(name, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(file, words.encode())
    finally:
        os.close(file)


class Kicks:
    """Kicks in the context, by device and queue.  Devices stay in it."""

    def __enter__(self):
        if not os.path.exists(PROBES):
            vdpa.sh("mount", "-t", "tracefs", "tracefs", TRACING)
        add(PROBES, PROBE)
        try:
            for trigger in (COUNTS, PLACES):
                add(f"{EVENT}/trigger", trigger)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for trigger in (COUNTS, PLACES):
            if trigger in vdpa.read(f"{EVENT}/trigger"):
                add(f"{EVENT}/trigger", f"!{trigger}")
        add(PROBES, f"-:{GROUP}/kick")

    def of(self, device):
        """How often each queue of a device was kicked so far."""
        text = vdpa.read(f"{EVENT}/hist")

        def rows(*keys):
            fields = ", ".join(rf"{key}:\s*(\d+)" for key in keys)
            return [tuple(map(int, row)) for row in re.findall(
                rf"{{ device: {re.escape(device.name)}\s*, {fields} }} hitcount:\s*(\d+)", text)]

        counts = collections.Counter()
        for first, second, _ in rows("first", "second"):
            for work, count in rows("work"):
                counts[(work - first) // (second - first)] = count
        return counts
