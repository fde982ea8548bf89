#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Benchmarks: of the model of the NIC on this machine (model); of
# rust_mlx5_vdpa against the C mlx5_vdpa on it (mlx5), and of rust_vdpa_net
# against the C simulator (vdpa_net), in virtual machines.
#
# BENCH="NAME [OPTION...]" runs the one of that name only, with options:
# BENCH="mlx5 --only msix/8-pair kick" or BENCH="vdpa_net --seconds 1", and
# --help lists them.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root bench
read -ra options <<<"${BENCH:-}"
only=${options[0]:-}

# Whether the benchmark $1 is to run.
wants() {
	[ -z "$only" ] || [ "$only" = "$1" ]
}

case $only in
"" | model | mlx5 | vdpa_net) ;;
*) die "BENCH begins with '$only', not model, mlx5 or vdpa_net." ;;
esac
root=$("$testbed/root.sh")
tree=$("$testbed/kernel.sh")
if wants model; then
	in_tree "$root" "$tree" cargo bench --locked --quiet -p mlx5-model --bench model
fi
if wants mlx5 || wants vdpa_net; then
	"$testbed/build.sh" selftests
fi
if wants mlx5; then
	VM_MODEL=selftests/mlx5/functions.toml \
		"$testbed/vm.sh" selftests/bench/mlx5.py "${options[@]:1}"
fi
if wants vdpa_net; then
	"$testbed/vm.sh" selftests/bench/bench.py "${options[@]:1}"
fi
say "JSON lines are in $build/bench"
