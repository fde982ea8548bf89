#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# install.sh install|uninstall RELEASE [ROOT]: puts the modules that were
# built under /lib/modules/RELEASE/updates, or takes them away, and runs
# depmod.  modprobe prefers that place to the distribution's modules.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
what=$1 release=$2 top=${3:-}
need_root "$what"
place=$top/lib/modules/$release/updates

[ -d "$top/lib/modules/$release" ] ||
	die "there is no kernel $release in $top/lib/modules." \
	    "Name one that is (make $what KVER=VERSION): $(ls "$top/lib/modules" 2>/dev/null || echo none is there)"

shopt -s nullglob
case $what in
install)
	built=("$build"/modules/*.ko)
	[ ${#built[@]} -gt 0 ] || die "no modules are built." "Build them first: make KERNEL=$release"
	for module in "${built[@]}"; do
		magic=$(modinfo -F vermagic "$module")
		[ "${magic%% *}" = "$release" ] ||
			die "$(basename "$module") was built for kernel ${magic%% *}, not $release." \
			    "Build for it: make KERNEL=$release" \
			    "or install for another kernel: make install KVER=${magic%% *}"
	done
	install -d "$place"
	install -m 0644 -t "$place" "${built[@]}"
	say "installed in $place: $(basename -a "${built[@]}" | paste -sd' ')"
	;;
uninstall)
	rm -f "$place/rust_vdpa_net.ko" "$place/rust_mlx5_vdpa.ko"
	rmdir --ignore-fail-on-non-empty "$place" 2>/dev/null || true
	say "removed our modules from $place"
	;;
esac
depmod ${top:+-b "$top"} "$release"
