# SPDX-License-Identifier: GPL-2.0
"""What demonstrations share: steps with the time, guests that tell what their
drivers are, and a table of results that ends it all.
"""

import time

import ktap

HEADS = ("who", "what", "result", "")
VERSION_1 = 32


class Stage:
    """Where something is shown."""

    def __init__(self):
        self.start = time.monotonic()
        self.table = []
        self.failed = False

    def step(self, text):
        """Says what is being done, and when."""
        print(f"[{time.monotonic() - self.start:5.1f} s] {text}", flush=True)

    def said(self, who, report):
        """Says what came of something, and puts it into the table."""
        for name, text in report:
            self.step(f"  {name}: {text}")
            self.table.append((who, name, text, "ok"))

    def boots(self, kind, guest):
        """Waits until a guest, which was started, is up, and says what its driver
        is, by what it acknowledged.
        """
        guest.wait_boot()
        modern = VERSION_1 in guest.features()
        identity = guest.get("cat /sys/class/net/eth0/device/../device")
        found = "modern" if modern else "legacy"
        self.said(kind, [("driver", f"{found} driver, PCI device {identity}, VERSION_1"
                          f" {'acknowledged' if modern else 'not acknowledged'}")])
        assert found == kind, f"expected a {kind} driver"

    def attempt(self, who, show, *values):
        """Shows something; what goes wrong in it goes into the table, and ends
        nothing but that.
        """
        rows = len(self.table)

        def once():
            del self.table[rows:]
            show(self, *values)

        try:
            ktap.until_it_counts(once)
        except (AssertionError, OSError, ktap.Again) as error:
            self.failed = True
            print(error, flush=True)
            text = (str(error) or repr(error)).splitlines()[0]
            self.table.append((who, "what went wrong", text, "FAILED"))

    def end(self, text):
        """Prints the table, and `text` if nothing failed; the exit status."""
        widths = [max(len(row[column]) for row in [HEADS, *self.table]) for column in range(4)]
        print()
        for row in [HEADS, tuple("-" * width for width in widths), *self.table]:
            print("  ".join(word.ljust(width) for word, width in zip(row, widths)).rstrip())
        print()
        print("FAILED" if self.failed else text, flush=True)
        return 1 if self.failed else 0
