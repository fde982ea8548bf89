#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# vm.sh [COMMAND...]: boots the host virtual machine on the root, with the
# stock Debian kernel, and runs COMMAND in it, in the checkout (/src).  Without
# COMMAND it is a shell.  Leaves COMMAND's exit status; the kernel's console
# goes to build/log/console.log.
#
# VM_MODEL=FILE names a configuration of tools/mlx5-model, by its path in the
# checkout: the model runs beside the virtual machine and its functions are
# plugged in (see model.sh).  No driver binds to them by itself: a test says
# which one is to have which function, and what is there before.
#
# VM_IOMMU=1 puts an IOMMU between PCI devices and memory.  It translates for
# none until a device's group is told to (mlx5.translated() of the selftests).
#
# virtme-ng boots it: its memory is a shared memfd (virtiofs needs that), which
# vfio-user devices need too, and more of QEMU's options pass through it.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
need_root shell

if [ "${1:-}" = --help ]; then
	sed -n '3,/^$/s/^# \{0,1\}//p' "$0"
	exit
fi

root=$("$testbed/root.sh")
tree=$("$testbed/kernel.sh")
release=$(cat "$root/.kernel")
vmlinuz=/boot/vmlinuz-$release

# Whether this machine's KVM runs a guest.  /dev/kvm may open and still not:
# boot the kernel without a root; it comes up, panics and QEMU ends within
# seconds, or not at all.
probe_kvm() {
	[ -w /dev/kvm ] || return 1
	in_tree "$root" - timeout 20 qemu-system-x86_64 -accel kvm -cpu host -m 512 \
		-nodefaults -no-user-config -display none -no-reboot -serial stdio \
		-kernel "$vmlinuz" -append "console=ttyS0 panic=-1" </dev/null 2>&1 |
		grep -aq 'Kernel panic - not syncing: VFS'
}

# The answer holds until the machine boots again.
accelerator() {
	local mark answer
	mark=$cache/accel-$(cat /proc/sys/kernel/random/boot_id)-$(basename "$root")
	if [ ! -e "$mark" ]; then
		say "trying whether KVM runs a guest here (up to 20 s)"
		answer=tcg
		probe_kvm && answer=kvm
		rm -f "$cache"/accel-*
		echo $answer >"$mark"
	fi
	cat "$mark"
}

case ${RUST_VDPA_ACCEL:=$(accelerator)} in
kvm)
	kvm=()
	cpu="-cpu host"
	;;
tcg)
	say "virtual machine by software emulation: expect minutes where KVM takes seconds"
	kvm=(--disable-kvm)
	cpu="-cpu max,+svm -accel tcg,thread=multi"
	;;
*) die "RUST_VDPA_ACCEL is '$RUST_VDPA_ACCEL', not kvm or tcg." ;;
esac

# QEMU's vfio devices have to know what is mapped before they use it.
machine=$cpu
[ -z "${VM_IOMMU:-}" ] || machine+=" -device intel-iommu,caching-mode=on,intremap=off"

# vng looks for the guest side of a directory relative to where it runs, so it
# runs in /.  Everything but the checkout and the cache is a copy on write.
console=${VM_CONSOLE:-$build/log/console.log}
mkdir -p "$(dirname "$console")"
options=(--run "$vmlinuz" "${kvm[@]}" --cpus "${VM_CPUS:-$(nproc)}" --memory "${VM_MEMORY:-6G}"
	--rwdir=/src --rwdir=/cache --name rust-vdpa
	--append loglevel=5)
[ -z "${VM_IOMMU:-}" ] || options+=(--append "intel_iommu=on iommu=pt")
# File descriptor 3 is the kernel's console, and what virtme-ng says.
boot=(sh -c 'cd / && exec vng "$@" "--qemu-opts=$0 ${MODEL_OPTIONS:-}" 2>&3' "$machine")
if [ -n "${VM_MODEL:-}" ]; then
	boot=(tools/testbed/model.sh "$VM_MODEL" "${boot[@]}")
	options+=(--append "modprobe.blacklist=mlx5_core,mlx5_ib")
fi

if [ $# -eq 0 ]; then
	in_tree "$root" "$tree" "${boot[@]}" "${options[@]}" \
		--exec "/src/tools/testbed/vm-inside.sh bash -i" 3>&2
else
	in_tree "$root" "$tree" "${boot[@]}" "${options[@]}" --verbose \
		--exec "exec 2>&1; /src/tools/testbed/vm-inside.sh $(printf '%q ' "$@")" 3>"$console"
fi
