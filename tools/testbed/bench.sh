#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Benchmarks against the C simulator, in the host virtual machine.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root bench
root=$("$testbed/root.sh")
tree=$("$testbed/kernel.sh")
"$testbed/build.sh"
step "$build/log/selftests-build.log" "build the drivers, the guest and the simulator" \
	in_tree "$root" "$tree" selftests/build.sh || die "the benchmarks do not build."
"$testbed/vm.sh" selftests/bench/bench.py ${BENCH:-}
say "JSON lines are in $build/bench"
