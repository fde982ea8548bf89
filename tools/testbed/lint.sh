#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# rustfmt, clippy (cargo code, and kernel code with the kernel's lints),
# licences, shellcheck, and checkpatch for C and patches; all as errors.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root lint
root=$("$testbed/root.sh")
tree=$("$testbed/kernel.sh")
release=$(cat "$root/.kernel")
bad=0

check() {
	step "$build/log/lint-$1.log" "$2" in_tree "$root" "$tree" "${@:3}" || bad=1
}

licences() {
	local missing
	missing=$(git -C "$checkout" ls-files -co --exclude-standard |
		grep -vE '^(COPYING|Cargo\.lock|README\.md|\.gitignore|.*\.(patch|regressions|png|svg|txt))$' |
		while read -r file; do
			[ -f "$checkout/$file" ] || continue
			head -n 3 "$checkout/$file" | grep -q 'SPDX-License-Identifier: GPL-2.0' || echo "$file"
		done)
	[ -z "$missing" ] && return
	echo "files without 'SPDX-License-Identifier: GPL-2.0' in their first three lines:"
	echo "$missing"
	return 1
}

check rustfmt "rustfmt" tools/testbed/rustfmt.sh --check
check clippy-cargo "clippy, cargo code" cargo clippy --workspace --all-targets -- -D warnings
# CLIPPY=1 takes effect where something is compiled: a directory of its own.
check clippy-kernel "clippy, kernel code" \
	sh -ec "mkdir -p build/clippy && make -C /kernel/build M=/src MO=/src/build/clippy CLIPPY=1 \
		KERNELRELEASE=$release KRUSTFLAGS=-Dwarnings modules 2>&1 | tee build/log/clippy.out
		! grep -E '^(warning|error)' build/log/clippy.out"
step "$build/log/lint-spdx.log" "licences" licences || bad=1
check counts "counts in the documentation" tools/testbed/counts.py --check
check shell "shellcheck" sh -ec "git ls-files -co --exclude-standard '*.sh' |
	xargs -r shellcheck -x -S warning"
check checkpatch "checkpatch" sh -ec "
	git ls-files -co --exclude-standard '*.c' '*.h' | xargs -r -n1 \
		/kernel/source/scripts/checkpatch.pl --no-tree --strict --no-summary --terse -f
	# One that it finds in git by its name it takes for a file of the kernel's own.
	git ls-files -co --exclude-standard '*.patch' | xargs -r -I{} sh -c \
		'/kernel/source/scripts/checkpatch.pl --no-tree --strict --no-summary --terse - <{}'"
[ $bad -eq 0 ] || die "lint found something; the logs above say what."
