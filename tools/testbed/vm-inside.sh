#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# vm-inside.sh COMMAND...: the first thing that runs in the host VM.  Loads
# what a vDPA host has loaded, and our modules if they are built.

set -euo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 TERM=${TERM:-vt100}
cd /src

# Memory that is in many pieces makes many maps, and the VM's soon is.
modprobe vhost_vdpa max_iotlb_entries=65536
modprobe -a virtio_vdpa virtio_net
# Guests inside use KVM; it is there if the processor has the extension.
modprobe -q kvm_amd || modprobe -q kvm_intel || true
# It has no whole idea of a processor that is emulated.
if [ "$(systemd-detect-virt)" = qemu ] && [ -e build/peers/kvm/kvm_exit_info.ko ]; then
	insmod build/peers/kvm/kvm_exit_info.ko
fi

for module in build/modules/*.ko; do
	[ -e "$module" ] || continue
	insmod "$module"
done
exec "$@"
