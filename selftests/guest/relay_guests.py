#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Guests of every kind behind vdpa-relay: QEMU has vhost-user, the relay the vDPA device."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

# pylint: disable=wrong-import-position
import guests
import joined
import ktap
import relay
import traffic
import vdpa

suite = ktap.Suite("relay_guests")


def restart(guest, port):
    """The machine is reset: the guest boots anew on the same device."""
    guest.monitor.command("set-action", reboot="reset")
    guest.monitor.command("system_reset")
    guest.wait_boot()
    guests.forget(port)
    traffic.prepare(guest)


KINDS = {
    "legacy": ("disable-modern=on", False, (guests.stop_and_continue, guests.rebind)),
    "transitional": ("disable-legacy=off,disable-modern=off", True, (restart,)),
    "modern": ("disable-legacy=on", True, (guests.stop_and_continue, guests.change_mac)),
}


@suite.test(timeout=600)
def kinds(mgmtdev):
    """Legacy, transitional and modern guests in turn behind one relay, and what they do.

    They are stopped and go on under traffic, are reset, let go of the card and take it
    again, change their MAC address.
    """
    with traffic.HostPort(mgmtdev) as port, guests.device(mgmtdev) as dev:
        with relay.Relay(dev) as through:
            for name, (card, modern, more) in KINDS.items():
                ktap.say(name)
                with relay.Guest(through, card=card) as guest:
                    guest.wait_boot()
                    assert (guests.VERSION_1 in guest.features()) == modern
                    guests.forget(port)
                    traffic.prepare(guest)
                    for step in more:
                        step(guest, port)
                    joined.report(traffic.both_ways(guest, port))
                kind = "modern" if modern else "legacy, little byte order"
                assert f"the device runs: {kind}" in through.log(), through.log()


def keeps_going(guest, port):
    """Pings and TCP both ways; the guest has the address it had."""
    guests.forget(port)
    joined.report(traffic.both_ways(guest, port))


@suite.test(timeout=600)
def killed(mgmtdev):
    """Relay killed and started again, then the VMM: each finds the other again."""
    with traffic.HostPort(mgmtdev) as port, guests.device(mgmtdev) as dev:
        for connect in (False, True):
            ktap.say("QEMU listens" if connect else "the relay listens")
            with relay.Relay(dev, connect) as through:
                with relay.Guest(through, card="disable-legacy=on") as guest:
                    guest.wait_boot()
                    traffic.prepare(guest)
                    for _ in range(2):
                        with traffic.Stream(guest, port) as stream:
                            through.kill()
                            through.start()
                            # An answer to a ping that was sent after that.
                            stream.pings.wait()
                            line, _ = stream.finish(guest)
                        ktap.say(line)
                    keeps_going(guest, port)
                    guest.process.kill()
                    guest.process.wait()
                # The device is reset by then, or another guest could not have it.
                with relay.Guest(through, card="disable-modern=on") as guest:
                    guest.wait_boot()
                    traffic.prepare(guest)
                    keeps_going(guest, port)


if __name__ == "__main__":
    options = ktap.arguments(__doc__).parse_args()
    if not vdpa.exists(options.mgmtdev):
        print(f"1..0 # SKIP no management device {options.mgmtdev}")
        ktap.exit_with(ktap.EXIT_SKIP)
    ktap.exit_with(suite.run(options.mgmtdev, only=options.only))
