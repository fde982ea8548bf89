#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# initramfs.sh RELEASE TOOL OUTPUT: the whole user space of a guest: busybox,
# the modules of kernel RELEASE that a network card needs, iperf3, guest-tool
# and an init that starts its agent.

set -eu
release=$1 tool=$2 output=$3
init=$(cd "$(dirname "$0")" && pwd)/init
self=$0

# What iperf3 is linked with, and what the C library loads when it ends threads.
libraries="$(ldd /usr/bin/iperf3 | sed -n 's/^[^/]*\(\/[^ ]*\) (.*/\1/p')
	$(/sbin/ldconfig -p | awk '$1 == "libgcc_s.so.1" { print $NF; exit }')"

# Nothing to do if the inputs are those it was last made of.
key=$({ echo "$release"; cat "$self" "$init" "$tool" /bin/busybox /usr/bin/iperf3; } | sha256sum)
if [ -e "$output" ] && [ "$key" = "$(cat "$output.key" 2>/dev/null)" ]; then
	exit 0
fi

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree/bin" "$tree/dev" "$tree/proc" "$tree/sys" "$tree/tmp" "$tree/modules"
cp /bin/busybox /usr/bin/iperf3 "$tree/bin/"
cp "$tool" "$tree/bin/guest-tool"
cp "$init" "$tree/init"
for library in $libraries; do
	install -D "$library" "$tree$library"
done
chmod +x "$tree/init"

# In the order they are to be loaded in.  Built-in ones are left out.
/sbin/modprobe -S "$release" --show-depends virtio_net |
	sed -n 's/^insmod \([^ ]*\).*/\1/p' |
	while read -r module; do
		name=$(basename "$module" .ko.xz)
		xz -dc "$module" >"$tree/modules/$name.ko"
		echo "$name" >>"$tree/modules/order"
	done

(cd "$tree" && find . | sort | cpio --quiet -o -H newc -R 0:0) >"$output.new"
mv "$output.new" "$output"
echo "$key" >"$output.key"
