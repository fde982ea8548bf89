#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The main job: from nothing to a legacy and a modern guest on a Rust vDPA
# device, with traffic both ways.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root run
say "rust-vdpa: builds the modules for Debian's kernel, boots that kernel in a virtual"
say "machine, and serves a legacy and then a modern guest on one Rust vDPA device."
"$testbed/build.sh" selftests
say "booting the host virtual machine"
exec "$testbed/vm.sh" selftests/guest/demo.py
