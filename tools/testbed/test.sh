#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# All tests: the pure crates on the host, then everything in the host VM, and
# once more in one that has functions of mlx5-model: what drives those loads
# other modules, and a livepatch.  The last line counts all of them: "N passed,
# N failed, N skipped".

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
		say "  the virtual machine ended before its tests did: see $2"
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

# vm_tests LOG TITLE [SUITE...]: what runs in a virtual machine.
vm_tests() {
	local log=$build/log/$1.log console=$build/log/$1-console.log
	say "$2 (the log is $log)"
	VM_CONSOLE=$console "$testbed/vm.sh" selftests/run.sh "${@:3}" </dev/null | tee "$log" || broken=1
	count_ktap "$log" "$console"
}

# TESTS names suites; those of the model's functions have a prefix.
software=() functions=()
for suite in ${TESTS:-}; do
	case $suite in
	mlx5-*) functions+=("$suite") ;;
	*) software+=("$suite") ;;
	esac
done
if [ -z "${TESTS:-}" ] || [ ${#software[@]} -gt 0 ]; then
	vm_tests selftests "tests in the host virtual machine" "${software[@]}"
fi
if [ -z "${TESTS:-}" ] || [ ${#functions[@]} -gt 0 ]; then
	VM_IOMMU=1 VM_MODEL=selftests/mlx5/functions.toml vm_tests selftests-mlx5 \
		"tests of mlx5 drivers, in another one" "${functions[@]}"
fi

[ $failed -eq 0 ] && [ $broken -ne 0 ] && failed=1
say "took $((SECONDS - start)) s"
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
