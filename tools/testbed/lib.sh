# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What every script of the testbed shares: where things lie, how it speaks,
# and how it enters the root.  Sourced, never run.

set -euo pipefail

testbed=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
checkout=$(cd "$testbed/../.." && pwd)

# Everything slow to make lies here, outside the checkout, so that several
# checkouts share it.
cache=${RUST_VDPA_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/rust-vdpa}

# What this checkout makes for itself.
build=$checkout/build

say() { printf '%s\n' "$*" >&2; }

# A failure says what went wrong and, in the lines after it, how to mend it.
die() {
	printf 'error: %s\n' "$1" >&2
	shift
	for hint in "$@"; do
		printf '       %s\n' "$hint" >&2
	done
	exit 1
}

# The oldest Linux whose Rust crate has what the modules use.
oldest_linux=7.3

# too_old VERSION: whether a kernel is older than that.
too_old() {
	[ "$(printf '%s\n' "$oldest_linux" "$1" | sort -V | head -n 1)" != "$oldest_linux" ]
}

need_root() {
	[ "$(id -u)" -eq 0 ] && return
	die "this needs root: it makes a Debian root, chroots into it and boots virtual machines." \
	    "Run it again as root, for example: sudo make ${1:-}"
}

# step LOG TITLE COMMAND...: runs COMMAND with its output in LOG.  On a
# terminal a ticking clock shows that it is alive; elsewhere a line every
# half minute does.  The time it took is printed when it ends.
step() {
	local log=$1 title=$2 start=$SECONDS pid rc=0 last=0 now
	shift 2
	mkdir -p "$(dirname "$log")"
	"$@" >"$log" 2>&1 </dev/null &
	pid=$!
	# The clock runs beside the work; the wait below is for the work itself.
	(
		while kill -0 $pid 2>/dev/null; do
			now=$((SECONDS - start))
			if [ -t 2 ]; then
				printf '\r%-58s %4d s' "$title ..." "$now" >&2
			elif [ $((now - last)) -ge 30 ]; then
				printf '%-58s %4d s so far\n' "$title ..." "$now" >&2
				last=$now
			fi
			sleep 1
		done
	) &
	local clock=$!
	wait $pid || rc=$?
	kill $clock 2>/dev/null || true
	wait $clock 2>/dev/null || true
	[ -t 2 ] && printf '\r' >&2
	if [ $rc -eq 0 ]; then
		printf '%-58s %4d s\n' "$title" $((SECONDS - start)) >&2
		return 0
	fi
	printf '%-58s FAILED after %d s\n' "$title" $((SECONDS - start)) >&2
	tail -n 25 "$log" | sed 's/^/    | /' >&2
	say "       the whole output is in $log"
	return $rc
}

# with_lock NAME COMMAND...: runs COMMAND while no other checkout makes NAME.
with_lock() {
	local name=$1
	shift
	mkdir -p "$cache"
	exec 9>"$cache/$name.lock"
	if ! flock -n 9; then
		say "waiting for another run that is making '$name' in $cache"
		flock 9
	fi
	"$@"
	exec 9>&-
}

# in_tree ROOT TREE COMMAND...: runs COMMAND inside ROOT, with this checkout at
# /src, the cache at /cache and the prepared kernel TREE (or nothing, if "-")
# at /kernel.  The mounts live in a namespace of their own and go when COMMAND
# ends, however it ends.
in_tree() {
	mkdir -p "$build"
	unshare --mount --propagation private --fork --kill-child \
		"$testbed/enter.sh" "$1" "$checkout" "$cache" "$2" "${@:3}"
}
