#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Makes the root: a Debian 13 with backports that builds the modules and
# runs the host virtual machine.  Prints its path; a second call only that.

# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

suite=trixie
backports=trixie-backports
wanted=${KERNEL:-newest}

# The root depends on nothing but the recipe and the kernel asked for.
key=$(cat "$testbed/root.sh" "$testbed/packages" <(echo "$wanted") | sha256sum | cut -c1-12)
root=$cache/root-$key
log=$cache/log

if [ -e "$root/.whole" ]; then
	echo "$root"
	exit
fi

need_root run

# The mirror is the one the machine itself installs Debian from.
find_mirror() {
	if [ -n "${MIRROR:-}" ]; then
		echo "$MIRROR"
		return
	fi
	apt-get indextargets --format '$(REPO_URI)' \
		'Identifier: Packages' 'Origin: Debian' 'Label: Debian' 2>/dev/null |
		sort -u | head -n 1
}

need_tools() {
	local missing=()
	command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
	command -v unshare >/dev/null || missing+=(util-linux)
	[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing+=(debian-archive-keyring)
	[ ${#missing[@]} -eq 0 ] && return
	command -v apt-get >/dev/null ||
		die "this machine lacks ${missing[*]} and has no apt-get to install them with." \
		    "The testbed runs on Debian 12 or later."
	say "installing on this machine: ${missing[*]}"
	step "$log/apt.log" "  apt-get update" apt-get update ||
		die "apt-get update failed." "Mend the machine's package sources first."
	step "$log/apt.log" "  apt-get install ${missing[*]}" \
		env DEBIAN_FRONTEND=noninteractive apt-get install -y "${missing[@]}" ||
		die "could not install ${missing[*]}."
}

# The newest image whose exact source is in the archive, or the one named.
# Both come from one source package, so equal versions are a match.
choose_kernel() {
	local images image release series version
	images=$(chroot "$1" apt-cache pkgnames linux-image- |
		sed -n 's/^linux-image-\([0-9.]*+deb13-amd64\)$/\1/p' | sort -Vr)
	for release in $images; do
		case $wanted in
		newest) ;;
		"$release" | "${release%%+*}") ;;
		*) continue ;;
		esac
		series=$(echo "$release" | cut -d. -f1,2)
		version=$(chroot "$1" apt-cache madison "linux-headers-$release" | awk 'NR==1{print $3}')
		image=$(chroot "$1" apt-cache madison "linux-source-$series" |
			awk -v v="$version" '$3==v{print $3; exit}')
		[ -n "$image" ] || continue
		echo "$release $series $version"
		return
	done
	say "kernels in the archive:" ${images:-none}
	if [ "$wanted" = newest ]; then
		die "no distribution kernel with a matching linux-source was found." \
		    "Try another mirror (MIRROR=...), or again later."
	fi
	die "no kernel $wanted with a matching linux-source was found." \
	    "Name one of those above (KERNEL=x.y.z), or none for the newest."
}

make_root() {
	local mirror tmp=$root.tmp packages chosen release series version
	[ -e "$root/.whole" ] && return
	need_tools
	mirror=$(find_mirror)
	[ -n "$mirror" ] ||
		die "cannot tell which Debian mirror this machine uses." \
		    "Name one: make MIRROR=http://mirror.example/debian ..."

	say "making the Debian root in $root (about 3 GB; once)"
	rm -rf --one-file-system "$tmp"
	mkdir -p "$cache"
	step "$log/mmdebstrap.log" "  bootstrap $suite" \
		mmdebstrap --variant=apt --include=ca-certificates \
		--keyring=/usr/share/keyrings/ "$suite" "$tmp" \
		"deb $mirror $suite main" "deb $mirror $backports main" ||
		die "could not bootstrap Debian $suite from $mirror." \
		    "If the mirror is wrong, name another with MIRROR=...; if keys are missing," \
		    "upgrade debian-archive-keyring on this machine."
	mkdir -p "$tmp/src" "$tmp/cache" "$tmp/kernel"

	# Kernel, QEMU and what is bound to them come from backports; all else,
	# the Rust compiler above all, from the release the kernel was built on.
	cat >"$tmp/etc/apt/preferences.d/rust-vdpa" <<-PIN
	Package: src:linux src:linux-base src:linux-signed-amd64 src:qemu src:seabios src:ipxe src:virtme-ng src:iproute2
	Pin: release n=$backports
	Pin-Priority: 1001
	PIN
	echo 'APT::Install-Recommends "false";' >"$tmp/etc/apt/apt.conf.d/90rust-vdpa"
	# The archive's own certificates, and the machine's.
	cp -rL --update=none /etc/ssl/certs/. "$tmp/etc/ssl/certs/" 2>/dev/null ||
		cp -rLn /etc/ssl/certs/. "$tmp/etc/ssl/certs/" 2>/dev/null || true

	step "$log/root-update.log" "  package lists" in_tree "$tmp" - apt-get update ||
		die "apt-get update inside the new root failed."
	chosen=$(choose_kernel "$tmp")
	read -r release series version <<<"$chosen"
	say "  kernel $release ($version)"
	packages=$(sed 's/#.*//' "$testbed/packages")
	# shellcheck disable=SC2086
	step "$log/root-install.log" "  packages" in_tree "$tmp" - \
		env DEBIAN_FRONTEND=noninteractive apt-get install -y $packages \
		"linux-image-$release=$version" "linux-headers-$release=$version" \
		"linux-source-$series=$version" ||
		die "could not install the packages of the root."
	# The virtual machine has no init system to be powered off by.
	ln -s /bin/busybox "$tmp/usr/local/bin/poweroff"
	in_tree "$tmp" - apt-get clean
	echo "$release" >"$tmp/.kernel"
	: >"$tmp/.whole"
	mv -T "$tmp" "$root"
}

with_lock "root-$key" make_root
echo "$root"
