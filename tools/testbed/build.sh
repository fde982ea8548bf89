#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# build.sh [selftests]: builds the modules in the root, for the kernel the root
# has; and what the selftests, the demonstration and the benchmarks run.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root
if [ -n "${KERNEL:-}" ] && too_old "$KERNEL"; then
	die "KERNEL=$KERNEL is too old: the modules use Linux's Rust crate as it is since $oldest_linux." \
	    "Name a newer one, or none for the newest."
fi
root=$("$testbed/root.sh")
tree=$("$testbed/kernel.sh")
release=$(cat "$root/.kernel")

step "$build/log/modules.log" "build modules for $release" \
	in_tree "$root" "$tree" tools/testbed/modules.sh /kernel/build "$release" ||
	die "the modules do not build."
[ "${1:-}" = selftests ] || exit 0
step "$build/log/selftests-build.log" "build programs, guest and peers for the selftests" \
	in_tree "$root" "$tree" selftests/build.sh || die "the selftests do not build."
