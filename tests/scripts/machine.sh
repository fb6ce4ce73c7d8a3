#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Checks that this machine can run guests and tests, and installs the Debian
# packages that are missing. With the argument "go" it looks for Go only.
set -euo pipefail
export LC_ALL=C
# shellcheck source=../debian/debian.sh
. "$(dirname "${BASH_SOURCE[0]}")/../debian/debian.sh"

# The oldest Go that fetches the toolchain which go.mod names by itself.
oldest_go=1.21

# xz and the keyring are for kernels from Debian, e2fsprogs makes a guest's disk, gcc
# is for the race detector, Debian's own QEMU runs the example backends, and spin checks
# the model. libvirt is without libvirt-daemon-system, which would start it on this
# machine.
packages=(ca-certificates debian-archive-keyring xz-utils e2fsprogs gcc libc6-dev
	qemu-system-x86 spin iproute2 libvirt-clients libvirt-daemon libvirt-daemon-driver-qemu)

die() {
	echo "fbpp: $*" >&2
	exit 1
}

check_go() {
	local version get="install Go $oldest_go or later from https://go.dev/dl"
	command -v go >/dev/null || die "Go is missing: $get"
	version=$(cd / && go env GOVERSION)
	version=${version#go}
	printf '%s\n' "$oldest_go" "$version" | sort -CV ||
		die "Go $version is too old: $get"
	go version >/dev/null 2>&1 || # fetches the toolchain of go.mod
		die "Go $version cannot get the toolchain that go.mod names:" \
			"is GOTOOLCHAIN=local set, or the network down?"
}

check_debian() {
	[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] ||
		die "this needs Linux on x86-64, not $(uname -s) on $(uname -m)"
	local ID='' VERSION_ID=''
	# shellcheck source=/dev/null
	[ ! -r /etc/os-release ] || . /etc/os-release
	{ [ "$ID" = debian ] && [ "${VERSION_ID%%.*}" -ge 12 ]; } 2>/dev/null ||
		die "this needs Debian 12 or 13: its kernels and QEMU's source come from Debian, through apt"
}

check_root() {
	[ "$(id -u)" = 0 ] || die "this needs root, to install packages and to run guests: try sudo make"
}

case ${1:-} in
"")
	check_debian
	check_root
	debian_install "${packages[@]}" || die "the packages above are needed"
	;;
go) ;;
*) die "machine.sh takes no argument but go, and not '$1'" ;;
esac
check_go
