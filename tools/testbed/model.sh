#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# model.sh CONFIG COMMAND...: runs COMMAND, which boots a virtual machine,
# beside the functions of tools/mlx5-model that CONFIG describes.  Runs in the
# root.  COMMAND finds QEMU's options for them in MODEL_OPTIONS: a PCI device
# for each function, in CONFIG's order from slot 0x10 on, and the control
# socket as the serial port "mlx5-model".  In the last function's slot is a root
# port, which tells of errors on its bus, and the function is on that.
#
# All of it is in a network namespace of its own.  The other end of the
# uplink is there, 10.78.0.1, with a server of the traffic tool.

set -euo pipefail
config=$1
shift

# Once more, in the namespace.
if [ -z "${MODEL_OPTIONS+set}" ]; then
	export MODEL_OPTIONS=
	exec unshare --net "$0" "$config" "$@"
fi

log=/src/build/log/mlx5-model.log
model=/src/build/selftests/mlx5-model
mkdir -p /run/mlx5-model /src/build/log

ip link set lo up
ip tuntap add dev uplink mode tap
ip address add 10.78.0.1/24 dev uplink
ip link set uplink up

# Its end is told to the model, as a person would end it; a line of output
# says that it serves, and the end of its output that it never will.
pids=()
finish() {
	local status=$? pid
	trap - EXIT
	for pid in "${pids[@]}"; do
		kill "$pid" 2>/dev/null || true
		wait "$pid" || true
	done
	if [ $status -ne 0 ]; then
		echo "the end of $log:" >&2
		tail -n 25 "$log" | sed 's/^/    | /' >&2
	fi
	exit $status
}
trap finish EXIT
trap 'exit 143' TERM INT

mkfifo /run/mlx5-model/ready /run/mlx5-model/listening
"$model" run --config "$config" >/run/mlx5-model/ready 2>"$log" &
pids+=($!)
exec {ready}</run/mlx5-model/ready
read -r -t 60 -u "$ready" _ || {
	echo "error: mlx5-model does not start" >&2
	exit 1
}
/src/build/selftests/guest-tool serve 0.0.0.0:5001 >/run/mlx5-model/listening 2>&1 &
pids+=($!)
exec {listening}</run/mlx5-model/listening
read -r -t 60 -u "$listening" _

mapfile -t sockets < <("$model" sockets --config "$config")
# For the shell that virtme-ng runs QEMU by.
slot=16
for number in "${!sockets[@]}"; do
	at=$(printf '"addr":"%x"' $((slot + number)))
	if [ $((number + 1)) -eq ${#sockets[@]} ]; then
		MODEL_OPTIONS+=" -device '{\"driver\":\"pcie-root-port\",\"id\":\"rp\",$at}'"
		at='"bus":"rp"'
	fi
	MODEL_OPTIONS+=" -device '{\"driver\":\"vfio-user-pci\",$at,"
	MODEL_OPTIONS+="\"socket\":{\"type\":\"unix\",\"path\":\"${sockets[number]}\"}}'"
done
MODEL_OPTIONS+=" -chardev socket,id=mlx5-model,path=/run/mlx5-model/control"
MODEL_OPTIONS+=" -device virtio-serial-pci -device virtserialport,chardev=mlx5-model,name=mlx5-model"
"$@"
