#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The distribution's mlx5_core on functions of the model."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
import ktap
import mlx5

ROUNDS = 20

suite = ktap.Suite("mlx5_probe")


def rebind(model, function, rounds):
    """Binds and unbinds a function; nothing may be left each time."""
    for _ in range(rounds):
        with model.bound(function):
            assert function.driver() == "mlx5_core"


@suite.test()
def commands(model):
    """Every profile is bound and unbound; what that takes."""
    for profile, function in mlx5.by_profile().items():
        before = model.commands(function)
        with model.clean(), model.bound(function):
            made = model.objects(function)
            up = model.commands(function) - before
        down = model.commands(function) - before - up
        ktap.say(f"{profile}: {up.total()} commands, then {down.total()}; {made}")


def profile_test(profile):
    """Adds the test of one profile."""

    def test(model):
        function = mlx5.by_profile()[profile]
        with model.clean():
            rebind(model, function, ROUNDS)

    test.__doc__ = f"{profile} is bound and unbound {ROUNDS} times."
    suite.test(timeout=400)(test)


for name in mlx5.by_profile():
    profile_test(name)


@suite.test(timeout=400)
def together(model):
    """All functions are bound and unbound at once."""
    mlx5.rebind_together(model, mlx5.Function.bind, mlx5.Function.unbind)


if __name__ == "__main__":
    mlx5.main(suite, __doc__)
