#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The uplink of the model's switch: a guest behind the C driver mlx5_vdpa
reaches the network namespace beside the host virtual machine.
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "lib"), os.path.join(HERE, "..", "guest")]

# pylint: disable=wrong-import-position
import ktap
import mlx5
import qemu
import traffic
import vdpa

suite = ktap.Suite("mlx5_uplink")


@suite.test(timeout=300)
def outside(model):
    """Ping and TCP from a guest to the other end of the tap device."""
    function = mlx5.functions()["new0"]
    with model.clean(), model.bound(function):
        with vdpa.Device(function.mgmtdev, "guest", driver="vhost_vdpa",
                         mac=function.mac) as device:
            with qemu.Guest(device, card="disable-legacy=on") as guest:
                guest.wait_boot()
                guest.configure("10.78.0.2/24")
                for size in (56, 1400, 8000):
                    output = guest.get(f"ping -A -q -c 100 -s {size} -w 60 {mlx5.UPLINK}",
                                       timeout=90)
                    sent, received = traffic.counts(output)
                    assert sent == received == 100, output
                ktap.say(guest.get(
                    f"guest-tool send {mlx5.UPLINK}:{mlx5.UPLINK_PORT}"
                    " --up 2000000 --down 2000000", timeout=120))


if __name__ == "__main__":
    mlx5.main(suite, __doc__)
