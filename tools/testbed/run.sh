#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The main job: from nothing to a legacy and a modern guest at the same time, on
# vDPA devices of two functions of a NIC that a Rust driver has.  The NIC is
# mlx5-model, beside the host virtual machine.  DEVICE=software: the guests in
# turn on a device that needs no hardware.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root run
case ${DEVICE:-} in
"")
	what="a legacy and a modern guest at the same time on functions of a modelled NIC"
	demo=selftests/mlx5/demo.py
	export VM_MODEL=selftests/mlx5/functions.toml
	;;
software)
	what="a legacy and then a modern guest on one device in software"
	demo=selftests/guest/demo.py
	;;
*) die "DEVICE is '$DEVICE', not software." "Without it, make run shows the driver of a NIC." ;;
esac
say "rust-vdpa: builds the modules for Debian's kernel, boots that kernel in a virtual"
say "machine, and serves $what."
"$testbed/build.sh" selftests
say "booting the host virtual machine"
exec "$testbed/vm.sh" "$demo"
