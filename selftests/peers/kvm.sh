#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# kvm.sh [OUTPUT]: builds what KVM needs on a processor that QEMU emulates.

set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib.sh
. "$here/lib.sh"
begin "${1:-$here/../../build/peers/kvm}" arch/x86/kvm/svm/svm.c

copy "$here/kvm_exit_info.c" kvm_exit_info.c
build kvm_exit_info <<-KBUILD
	obj-m := kvm_exit_info.o
KBUILD
