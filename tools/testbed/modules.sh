#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# modules.sh KDIR [RELEASE]: builds the modules against the prepared kernel
# tree KDIR, into build/modules.  RELEASE is the kernel's, where the tree does
# not know it.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
kdir=$1 release=${2:-}

[ -e "$kdir/.config" ] || die "$kdir is no prepared kernel tree: it has no .config." \
	"Prepare one with: make O=$kdir olddefconfig modules_prepare"
linux=$(cat "$kdir/include/config/kernel.release" 2>/dev/null || true)
if [ -n "$linux" ] && too_old "$linux"; then
	die "the kernel in $kdir, $linux, is too old:" \
	    "the modules use Linux's Rust crate as it is since $oldest_linux."
fi
grep -q '^CONFIG_RUST=y' "$kdir/.config" || die "the kernel in $kdir is configured without Rust (CONFIG_RUST)."
[ -e "$kdir/rust/libkernel.rmeta" ] ||
	die "$kdir has no Rust metadata (rust/libkernel.rmeta)." \
	    "Make it with: make O=$kdir prepare"
theirs=$(sed -n 's/^CONFIG_RUSTC_VERSION_TEXT="\(.*\)"$/\1/p' "$kdir/.config")
ours=$(${RUSTC:-rustc} --version 2>/dev/null || echo none)
[ "$theirs" = "$ours" ] ||
	die "the kernel in $kdir was built with '$theirs' but the compiler here is '$ours'." \
	    "Modules built with another compiler do not load. Name the right one with RUSTC=..."

mkdir -p "$build/modules"
exec make -C "$kdir" M="$checkout" MO="$build/modules" \
	${release:+KERNELRELEASE=$release} ${MODULES_FLAGS:-} modules
