# SPDX-License-Identifier: GPL-2.0
"""Kicks of guests that come through the kernel: vhost-vdpa calls its parent's
kick_vq for each.  Guests that ring doorbells of hardware themselves cause none.
"""

import collections
import re

import vdpa
from tracing import GROUP, TRACING, add, prepare

PROBES = f"{TRACING}/kprobe_events"
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


class Kicks:
    """Kicks in the context, by device and queue.  Devices stay in it."""

    def __enter__(self):
        prepare()
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
