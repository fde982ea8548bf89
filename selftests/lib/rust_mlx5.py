# SPDX-License-Identifier: GPL-2.0
"""Functions of the model that rust_mlx5_vdpa drives."""

import contextlib
import os

import mlx5
import vdpa

DRIVER = "rust_mlx5_vdpa"
MODULE = os.path.join(mlx5.CHECKOUT, "build", "modules", f"{DRIVER}.ko")


@contextlib.contextmanager
def loaded(**parameters):
    """The module loaded anew, with parameters."""
    vdpa.sh("rmmod", DRIVER)
    vdpa.sh("insmod", MODULE, *(f"{name}={value}" for name, value in parameters.items()))
    try:
        yield
    finally:
        vdpa.sh("rmmod", DRIVER)
        vdpa.sh("insmod", MODULE)


def override(address, driver):
    """Names the driver that is to have a device; "" is none."""
    vdpa.write(f"{mlx5.PCI}/devices/{address}/driver_override", driver or "\n")


def attach(address):
    """Has our driver look at a device, once: OSError if it does not take it."""
    # A Python file would write again what could not be written.
    file = os.open(f"{mlx5.PCI}/drivers/{DRIVER}/bind", os.O_WRONLY)
    try:
        os.write(file, address.encode())
    finally:
        os.close(file)


def bind(function):
    """Gives a function to our driver: OSError if that does not take it."""
    override(function.address, DRIVER)
    attach(function.address)


def unbind(function):
    """Takes it back."""
    function.unbind()
    override(function.address, "")


@contextlib.contextmanager
def bound(model, function):
    """A function that our driver has; afterwards nothing may be left in it."""
    bind(function)
    try:
        yield function
    finally:
        unbind(function)
    model.check_empty(function)


def prepare():
    """Has no driver take functions by itself: which has which, and when, is for
    the tests to say.
    """
    vdpa.write(f"{mlx5.PCI}/drivers_autoprobe", "0")


def main(suite, description):
    """Runs a suite that is given the model; mlx5_core is not needed."""
    mlx5.main(suite, description, prepare)
