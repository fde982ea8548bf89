#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Builds the documentation; a warning is an error.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root doc
root=$("$testbed/root.sh")

step "$build/log/doc.log" "documentation" in_tree "$root" - sh -ec "
	tools/testbed/counts.py --write
	sphinx-build -W --keep-going -q -b html -d build/doctrees Documentation build/doc" ||
	die "the documentation does not build without warnings."
say "read it at $build/doc/index.html"
