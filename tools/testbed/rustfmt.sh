#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# rustfmt.sh [--check]: formats every Rust source that git knows or would
# add, in the kernel's style.  Runs in the root.

set -euo pipefail
cd "$(dirname "$0")/../.."
git ls-files -co --exclude-standard '*.rs' |
	xargs -r rustfmt --edition 2021 --config skip_children=true "$@" 2> >(grep -v 'unstable features' >&2)
