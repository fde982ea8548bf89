#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# run.sh [--mgmtdev NAME] [SUITE...]: runs the selftests inside the host
# virtual machine (or on any machine with the modules loaded): KTAP, one
# subtest list a suite, and a last line "# totals: pass:P fail:F skip:S".
# Suites: vhost-vdpa, vdpa_cli, guests, relay_guests; and where the functions of mlx5-model
# are, those in mlx5/ instead, with mlx5- before their names.  The exit status is
# a kselftest's.

cd "$(dirname "$0")" || exit 1
mgmtdev=rust_vdpa_net
if [ "$1" = --mgmtdev ]; then
	mgmtdev=$2
	shift 2
fi
suites=(vhost-vdpa vdpa_cli guests relay_guests)
if [ -e /dev/virtio-ports/mlx5-model ]; then
	suites=(mlx5-rust_hca mlx5-rust_function mlx5-rust_vdpa mlx5-rust_commands mlx5-rust_vhost
		mlx5-rust_maps mlx5-rust_big_endian mlx5-rust_faults mlx5-rust_events
		mlx5-rust_stop mlx5-probe mlx5-rust_behaviours mlx5-c_vdpa mlx5-c_vhost mlx5-faults)
fi
[ $# -gt 0 ] && suites=("$@")

command_of() {
	case $1 in
	vhost-vdpa) echo ../build/selftests/vhost-vdpa-test ;;
	vdpa_cli) echo ./vdpa_cli.py ;;
	guests | relay_guests) echo "guest/$1.py" ;;
	mlx5-*) echo "mlx5/${1#mlx5-}.py" ;;
	*) return 1 ;;
	esac
}

# Each load of the module under test makes it a new directory.
loaded_as() {
	stat -c %i "/sys/module/$mgmtdev" 2>/dev/null
}

# Suites load the module anew, with other parameters too, and one that is ended
# before its time leaves it like that, or none.  Parameters cannot be read, so
# whoever did that, it is loaded once more without any.
load_again() {
	[ "$(loaded_as)" = "$loaded" ] && return
	if [ "$(cat /sys/module/vhost_vdpa/refcnt 2>/dev/null || echo 0)" -ne 0 ]; then
		echo "$mgmtdev was loaded anew, and a vhost-vdpa device is in use"
		return 1
	fi
	if [ -e "/sys/module/$mgmtdev" ]; then
		timeout 60 rmmod "$mgmtdev" || return
	fi
	if [ -e "../build/modules/$mgmtdev.ko" ]; then
		insmod "../build/modules/$mgmtdev.ko" || return
	else
		modprobe "$mgmtdev" || return
	fi
	loaded=$(loaded_as)
}

# What the kernel complained of so far, a line each.
complaints() {
	dmesg | grep -E 'BUG:|WARNING:|Oops|panic'
}

# One suite that hangs must not take the others with it.
timeout=$(sed -n 's/^timeout=//p' settings)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
pass=0 fail=0 skip=0 number=0

for module in vhost_vdpa virtio_vdpa virtio_net; do
	modprobe -q $module
done
loaded=$(loaded_as)

echo "TAP version 13"
echo "1..${#suites[@]}"
for suite in "${suites[@]}"; do
	number=$((number + 1))
	if ! command=$(command_of "$suite"); then
		echo "not ok $number $suite # no such suite"
		fail=$((fail + 1))
		continue
	fi
	if ! load_again >"$log" 2>&1; then
		sed 's/^/    # /' "$log"
		echo "not ok $number $suite # the module is not loaded as at the start"
		fail=$((fail + 1))
		continue
	fi
	warnings=$(complaints | wc -l)
	start=$SECONDS
	timeout --kill-after=30 "$timeout" "$command" --mgmtdev "$mgmtdev" 2>&1 |
		tee "$log" | sed -u 's/^/    /'
	status=${PIPESTATUS[0]}
	read -r p f s < <(sed -n 's/^# totals: pass:\([0-9]*\) fail:\([0-9]*\) skip:\([0-9]*\).*/\1 \2 \3/p' "$log" | tail -n 1) ||
		read -r p f s <<<"0 0 0"
	pass=$((pass + p)) fail=$((fail + f)) skip=$((skip + s))
	# A kernel that complains has failed, whatever the tests saw.
	if [ "$(complaints | wc -l)" -gt "$warnings" ]; then
		dmesg | grep -E -A25 'BUG:|WARNING:|Oops|panic' | tail -n 60 | sed 's/^/    # /'
		echo "    # the kernel complained during this suite"
		fail=$((fail + 1))
		status=1
	elif [ "$status" -ne 0 ] && [ "$status" -ne 4 ] && [ "$f" -eq 0 ]; then
		echo "    # the suite ended with status $status before its tests did"
		fail=$((fail + 1))
	fi
	case $status in
	0) echo "ok $number $suite # $((SECONDS - start)) s" ;;
	4)
		echo "ok $number $suite # SKIP"
		[ "$s" -eq 0 ] && skip=$((skip + 1))
		;;
	*) echo "not ok $number $suite # $((SECONDS - start)) s" ;;
	esac
done
echo "# totals: pass:$pass fail:$fail skip:$skip"
[ $fail -eq 0 ] || exit 1
[ $pass -gt 0 ] || exit 4
