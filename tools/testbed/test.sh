#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# All tests: the pure crates on the host, then everything in the host VM.
# The last line counts them: "N passed, N failed, N skipped".

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root test
root=$("$testbed/root.sh")
tree=$("$testbed/kernel.sh")
start=$SECONDS passed=0 failed=0 skipped=0 broken=0

# What cargo ran; a run that ended without a result counts as one failure.
count_cargo() {
	local sums
	sums=$(sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed; \([0-9]*\) ignored.*/\1 \2 \3/p' "$1" |
		awk '{p+=$1; f+=$2; s+=$3} END {print p+0, f+0, s+0}')
	read -r p f s <<<"$sums"
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	say "  $p passed, $f failed, $s ignored"
}

# What the runner in the VM counted.
count_ktap() {
	local sums
	sums=$(sed -n 's/^# totals: pass:\([0-9]*\) fail:\([0-9]*\) skip:\([0-9]*\).*/\1 \2 \3/p' "$1" | tail -n 1)
	if [ -z "$sums" ]; then
		say "  the virtual machine ended before its tests did: see $build/log/console.log"
		broken=1
		return
	fi
	read -r p f s <<<"$sums"
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

"$testbed/build.sh" selftests

log=$build/log/cargo-test.log
step "$log" "tests of the pure crates" \
	in_tree "$root" "$tree" cargo test --workspace --locked --no-fail-fast || broken=1
count_cargo "$log"

log=$build/log/selftests.log
say "tests in the host virtual machine (the log is $log)"
"$testbed/vm.sh" selftests/run.sh ${TESTS:-} </dev/null | tee "$log" || broken=1
count_ktap "$log"

[ $failed -eq 0 ] && [ $broken -ne 0 ] && failed=1
say "took $((SECONDS - start)) s"
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
