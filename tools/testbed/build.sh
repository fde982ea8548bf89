#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Builds the modules in the root, for the kernel the root has.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root
root=$("$testbed/root.sh")
tree=$("$testbed/kernel.sh")
release=$(cat "$root/.kernel")

step "$build/log/modules.log" "build modules for $release" \
	in_tree "$root" "$tree" tools/testbed/modules.sh /kernel/build "$release" ||
	die "the modules do not build."
echo "$release" >"$build/modules/.release"
