#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Benchmarks against the C simulator, in the host virtual machine.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root bench
"$testbed/build.sh" selftests
"$testbed/vm.sh" selftests/bench/bench.py ${BENCH:-}
say "JSON lines are in $build/bench"
