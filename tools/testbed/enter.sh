#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# enter.sh ROOT CHECKOUT CACHE TREE COMMAND...: the inside of in_tree() in lib.sh.
# Runs in a mount namespace of its own.

set -euo pipefail
root=$1 checkout=$2 cache=$3 tree=$4
shift 4

mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/run"
mount --bind "$checkout" "$root/src"
mount --bind "$cache" "$root/cache"
[ "$tree" = - ] || mount --bind "$tree" "$root/kernel"
# Names are resolved and certificates trusted as on the machine itself.
if [ -e /etc/resolv.conf ]; then
	rm -f "$root/etc/resolv.conf"
	cat /etc/resolv.conf >"$root/etc/resolv.conf"
fi

# Proxies are the one thing of the caller's environment that the root needs.
keep=()
for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY \
	TERM KERNEL V RUST_VDPA_ACCEL RUST_VDPA_ONLY; do
	[ -n "${!name:-}" ] && keep+=("$name=${!name}")
done

exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
	LC_ALL=C.UTF-8 SSL_CERT_DIR=/etc/ssl/certs CARGO_HOME=/cache/cargo \
	CARGO_TARGET_DIR=/src/build/cargo \
	GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=/src \
	"${keep[@]}" \
	sh -c 'cd /src && exec "$@"' sh "$@"
