#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Removes the cache, and nothing else that may lie in the directory.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
[ -d "$cache" ] || exit 0
say "removing the roots, kernels and crates in $cache"
rm -rf --one-file-system "$cache"/root-* "$cache"/kernel-* "$cache"/cargo "$cache"/log "$cache"/accel-*
rmdir --ignore-fail-on-non-empty "$cache"
