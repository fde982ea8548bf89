# SPDX-License-Identifier: GPL-2.0
"""Runs test functions and reports them as KTAP.

A test is a function that raises to fail, or raises Skip.  Its title is the
first line of its docstring.
"""

import argparse
import signal
import sys
import time
import traceback

EXIT_SKIP = 4

# How often a test is begun at most; see Again.
ATTEMPTS = 3


class Skip(Exception):
    """The test cannot run here; the text says why."""


class Again(Exception):
    """What the test runs on failed, not what it tests: it is to be run again."""


class Timeout(BaseException):
    """A test took too long.  Not an Exception: no test may swallow it."""


def say(text):
    """A diagnostic line."""
    for line in str(text).splitlines():
        print(f"# {line}", flush=True)


def until_it_counts(function, *values):
    """What `function` returns, called again as long as it raises Again.

    The last Again is passed on.
    """
    for left in reversed(range(ATTEMPTS)):
        try:
            return function(*values)
        except Again as reason:
            if not left:
                raise
            say(f"this says nothing, so once more: {reason}")
    return None


def _alarm(_signal, _frame):
    raise Timeout()


class Suite:
    """Tests in the order they are to run."""

    def __init__(self, name):
        self.name = name
        self.tests = []

    def test(self, timeout=120):
        """Decorator: adds a test that may take `timeout` seconds."""

        def add(function):
            title = (function.__doc__ or function.__name__).splitlines()[0]
            self.tests.append((title.rstrip("."), function, timeout))
            return function

        return add

    @staticmethod
    def _attempt(function, values, timeout):
        """Runs a test once; the result and a note.  Raises Again."""
        signal.alarm(timeout)
        try:
            function(*values)
            return "pass", ""
        except Skip as reason:
            return "skip", f" # SKIP {reason}"
        except Again:
            raise
        except Timeout:
            say(traceback.format_exc())
            say(f"took longer than {timeout} s")
        except Exception:  # pylint: disable=broad-except
            say(traceback.format_exc())
        finally:
            signal.alarm(0)
        return "fail", ""

    def run(self, *values, only=()):
        """Runs the tests whose title holds one of `only` (all, if empty).

        Returns the exit status of a kselftest.
        """
        tests = [
            test
            for test in self.tests
            if not only or any(word in test[0] for word in only)
        ]
        print("TAP version 13")
        print(f"1..{len(tests)}", flush=True)
        counts = {"pass": 0, "fail": 0, "skip": 0}
        signal.signal(signal.SIGALRM, _alarm)
        for number, (title, function, timeout) in enumerate(tests, 1):
            start = time.monotonic()
            try:
                result, note = until_it_counts(self._attempt, function, values, timeout)
            except Again as reason:
                result, note = "fail", ""
                say(reason)
            counts[result] += 1
            word = "not ok" if result == "fail" else "ok"
            say(f"{time.monotonic() - start:.1f} s")
            print(f"{word} {number} {title}{note}", flush=True)
        print("# totals: " + " ".join(f"{k}:{v}" for k, v in counts.items()), flush=True)
        if counts["fail"]:
            return 1
        return 0 if counts["pass"] or not tests else EXIT_SKIP


def arguments(description):
    """A parser with the arguments that every suite takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--mgmtdev",
        default="rust_vdpa_net",
        help="management device under test (default: %(default)s)",
    )
    parser.add_argument("only", nargs="*", help="run only tests whose title holds a word")
    return parser


def exit_with(status):
    """Ends the program with the exit status of a suite."""
    sys.stdout.flush()
    sys.exit(status)
