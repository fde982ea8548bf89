#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# vdpa_sim.sh [OUTPUT]: builds the C simulator vdpa_sim_net, as a peer to
# compare with and to try the tests on.

set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib.sh
. "$here/lib.sh"
begin "${1:-$here/../../build/peers/vdpa_sim}" drivers/vdpa/vdpa_sim/vdpa_sim.c

copy "$source/drivers/vhost/vringh.c" vringh.c
for file in vdpa_sim.c vdpa_sim.h vdpa_sim_net.c; do
	copy "$source/drivers/vdpa/vdpa_sim/$file" "$file"
done

# vringh has users in the kernel that Debian does not build, so it has no
# option of its own there and is built along.
build vringh vdpa_sim vdpa_sim_net <<-KBUILD
	obj-m := vringh.o vdpa_sim.o vdpa_sim_net.o
KBUILD
