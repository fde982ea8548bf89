#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# vdpa_sim.sh [OUTPUT]: builds the C simulator vdpa_sim_net, which Debian's
# kernel leaves out, from the kernel's own source, as a peer to compare with
# and to try the tests on.  Nothing of it is kept in this repository.
#
# KERNEL_SOURCE and KERNEL_BUILD name the source and the prepared tree.

set -eu

here=$(cd "$(dirname "$0")" && pwd)
source=${KERNEL_SOURCE:-/kernel/source}
tree=${KERNEL_BUILD:-/kernel/build}
output=${1:-$here/../../build/peers/vdpa_sim}

[ -e "$source/drivers/vdpa/vdpa_sim/vdpa_sim.c" ] || {
	echo "error: no kernel source in $source" >&2
	exit 1
}

mkdir -p "$output"
output=$(cd "$output" && pwd)

# Copied only when they differ, so that a second call builds nothing.
copy() {
	cmp -s "$1" "$output/$2" || cp "$1" "$output/$2"
}

copy "$source/drivers/vhost/vringh.c" vringh.c
for file in vdpa_sim.c vdpa_sim.h vdpa_sim_net.c; do
	copy "$source/drivers/vdpa/vdpa_sim/$file" "$file"
done

# vringh has users in the kernel that Debian does not build, so it has no
# option of its own there and is built along.
cat >"$output/Kbuild.new" <<-KBUILD
	obj-m := vringh.o vdpa_sim.o vdpa_sim_net.o
KBUILD
copy "$output/Kbuild.new" Kbuild
rm "$output/Kbuild.new"

release=$(cat "$tree/include/config/kernel.release")
make -s -C "$tree" M="$output" KERNELRELEASE="${KERNELRELEASE:-$release}" modules

for module in vringh vdpa_sim vdpa_sim_net; do
	[ -e "$output/$module.ko" ] || {
		echo "error: $module.ko was not built" >&2
		exit 1
	}
done
