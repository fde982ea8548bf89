#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Prepares a kernel build tree with the Rust metadata that Debian's headers
# package lacks: the distribution's own source, configured as the headers
# are, made with the same compiler.  Symbols then equal the running kernel's.
# Prints the tree's path; a second call only that.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

root=$("$testbed/root.sh")
release=$(cat "$root/.kernel")
headers=$root/usr/src/linux-headers-$release
[ -e "$headers/.config" ] || die "the root has no headers of $release." \
	"Make the cache anew: make distclean"

key=$(cat "$testbed/kernel.sh" "$headers/.config" "$headers/Module.symvers" | sha256sum | cut -c1-12)
tree=$cache/kernel-$release-$key

if [ -e "$tree/.whole" ]; then
	echo "$tree"
	exit
fi

need_root run

# Rust symbols carry a hash of the compiler: another one makes modules that
# the kernel cannot link, so it must be the kernel's to the letter.
check_compiler() {
	local theirs ours
	theirs=$(sed -n 's/^CONFIG_RUSTC_VERSION_TEXT="\(.*\)"$/\1/p' "$headers/.config")
	ours=$(chroot "$root" rustc --version)
	[ -n "$theirs" ] || die "the kernel $release was built without Rust (no CONFIG_RUSTC_VERSION_TEXT)."
	[ "$theirs" = "$ours" ] ||
		die "the kernel $release was built with '$theirs' but the root has '$ours'." \
		    "Modules built with another compiler do not load. Name a kernel built with" \
		    "this one (KERNEL=x.y.z), or make the cache anew: make distclean"
}

prepare() {
	local tmp=$tree.tmp series
	[ -e "$tree/.whole" ] && return
	check_compiler
	series=$(echo "$release" | cut -d. -f1,2)
	rm -rf --one-file-system "$tmp"
	mkdir -p "$tmp/build"
	say "preparing Rust metadata of kernel $release in $tree (once)"
	step "$cache/log/kernel-unpack.log" "  unpack linux-source-$series" \
		tar -C "$tmp" -xf "$root/usr/src/linux-source-$series.tar.xz" ||
		die "could not unpack the kernel source."
	mv "$tmp/linux-source-$series" "$tmp/source"
	cp "$headers/.config" "$tmp/build/.config"
	# The tree is built at the path it will be used at: kbuild writes it down.
	mkdir -p "$root/kernel"
	step "$cache/log/kernel-prepare.log" "  prepare (Rust core, kernel crate, bindings)" \
		in_tree "$root" "$tmp" sh -ec "
			make -s -C /kernel/source O=/kernel/build olddefconfig
			make -C /kernel/source O=/kernel/build -j$(nproc) prepare
			cp /usr/src/linux-headers-$release/Module.symvers /kernel/build/
			make -C /kernel/source O=/kernel/build KERNELRELEASE=$release -j$(nproc) modules_prepare" ||
		die "could not prepare the kernel tree."
	[ -e "$tmp/build/rust/libkernel.rmeta" ] ||
		die "the prepared tree has no rust/libkernel.rmeta: the configuration lost Rust." \
		    "See $cache/log/kernel-prepare.log"
	echo "$release" >"$tmp/.kernel"
	: >"$tmp/.whole"
	mv -T "$tmp" "$tree"
}

with_lock "kernel-$release" prepare
echo "$tree"
