#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# in-root.sh COMMAND...: runs COMMAND in the root, where the checkout is
# /src, the cache /cache and the prepared kernel /kernel/{source,build}.
# Both are made first if they are not there.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root run
root=$("$testbed/root.sh")
tree=$("$testbed/kernel.sh")
in_tree "$root" "$tree" "$@"
