# SPDX-License-Identifier: GPL-2.0
"""Probes in the kernel."""

import os

import vdpa

TRACING = "/sys/kernel/tracing"
# Where all of our own are.
GROUP = "rust_vdpa_selftests"


def prepare():
    """Has the files be there."""
    if not os.path.exists(f"{TRACING}/events"):
        vdpa.sh("mount", "-t", "tracefs", "tracefs", TRACING)


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
