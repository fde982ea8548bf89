#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Builds what the selftests run, in the root: the programs, the image that
# guests boot and the C peers.  All of it lies in build/selftests and
# build/peers; a second call does only what changed.

set -eu
cd "$(dirname "$0")/.."
output=build/selftests
release=$(cat /.kernel)
mkdir -p "$output"

cargo build --release -p vhost-vdpa-test -p mlx5-model -p vdpa-relay
# Static, since it runs beside busybox and nothing else.
RUSTFLAGS="-C target-feature=+crt-static" \
	cargo build --release -p guest-tool --target x86_64-unknown-linux-gnu

target=${CARGO_TARGET_DIR:-target}
cp "$target/release/vhost-vdpa-test" "$target/release/mlx5-model" \
	"$target/release/vdpa-relay" "$output/"
cp "$target/x86_64-unknown-linux-gnu/release/guest-tool" "$output/"

selftests/guest/initramfs.sh "$release" "$output/guest-tool" "$output/initramfs.cpio"
selftests/peers/vdpa_sim.sh
selftests/peers/mlx5.sh
selftests/peers/kvm.sh
