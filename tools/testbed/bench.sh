#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Benchmarks: of the model of the NIC on this machine; of the C mlx5_vdpa on
# it, and of rust_vdpa_net against the C simulator, in virtual machines.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root bench
root=$("$testbed/root.sh")
tree=$("$testbed/kernel.sh")
in_tree "$root" "$tree" cargo bench --locked --quiet -p mlx5-model --bench model
"$testbed/build.sh" selftests
VM_MODEL=selftests/mlx5/functions.toml "$testbed/vm.sh" selftests/bench/mlx5.py
"$testbed/vm.sh" selftests/bench/bench.py ${BENCH:-}
say "JSON lines are in $build/bench"
