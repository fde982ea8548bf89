#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# mlx5.sh [OUTPUT]: builds the C driver mlx5_vdpa, and the livepatch that makes
# Debian's mlx5_core offer the auxiliary device that it binds to.

set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib.sh
. "$here/lib.sh"
begin "${1:-$here/../../build/peers/mlx5}" drivers/vdpa/mlx5/net/mlx5_vnet.c

copy "$source/drivers/vhost/vringh.c" vringh.c
for file in core/mlx5_vdpa.h core/mr.c core/resources.c net/debug.c net/mlx5_vnet.c \
	net/mlx5_vnet.h; do
	copy "$source/drivers/vdpa/mlx5/$file" "$file"
done
copy "$here/mlx5_vnet_livepatch.c" mlx5_vnet_livepatch.c

# vringh has users in the kernel that Debian does not build, so it has no
# option of its own there and is built along.
build vringh mlx5_vdpa mlx5_vnet_livepatch <<-KBUILD
	obj-m := vringh.o mlx5_vdpa.o mlx5_vnet_livepatch.o
	mlx5_vdpa-y := net/mlx5_vnet.o core/resources.o core/mr.o net/debug.o
	ccflags-y := -I\$(src)/core
KBUILD
