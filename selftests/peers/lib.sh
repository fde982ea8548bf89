# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# What the scripts that build peers share.  A peer is C code of the kernel's
# own source that Debian's kernel leaves out; it is built as it is, and nothing
# of it is kept in this repository.  Sourced, with the peer's name and the
# folder it is built in.
#
# KERNEL_SOURCE and KERNEL_BUILD name the source and the prepared tree.

source=${KERNEL_SOURCE:-/kernel/source}
tree=${KERNEL_BUILD:-/kernel/build}

# begin FOLDER FILE: makes FOLDER, and stops without the source of FILE.
begin() {
	[ -e "$source/$2" ] || {
		echo "error: no kernel source in $source" >&2
		exit 1
	}
	mkdir -p "$1"
	output=$(cd "$1" && pwd)
}

# copy FILE AS: copied only when they differ, so that a second call builds
# nothing.
copy() {
	cmp -s "$1" "$output/$2" || install -D -m 644 "$1" "$output/$2"
}

# build MODULE...: builds what the Kbuild on standard input says.
build() {
	cat >"$output/Kbuild.new"
	copy "$output/Kbuild.new" Kbuild
	rm "$output/Kbuild.new"
	release=$(cat "$tree/include/config/kernel.release")
	make -s -C "$tree" M="$output" KERNELRELEASE="${KERNELRELEASE:-$release}" modules
	for module in "$@"; do
		[ -e "$output/$module.ko" ] || {
			echo "error: $module.ko was not built" >&2
			exit 1
		}
	done
}
