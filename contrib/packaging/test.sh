#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the packages twice, in different folders, and compares them; checks them with
# lintian, and their bills of materials with the programs; installs them into a new Debian of
# each release, has systemd verify the units and AppArmor compile the abstraction with libvirt's
# own there, and purges them: only the user is left. The same with the packages for rpm, by Debian's
# rpm, as far as that goes on a Debian.
# contrib/packaging/test.sh [SUITE]...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export LC_ALL=C
# shellcheck source=../../tests/debian/debian.sh
. tests/debian/debian.sh

[ $# -gt 0 ] || set -- bookworm trixie
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
# The root folder of a chroot has to be open to users that packages make.
chmod 755 "$work"

die() {
	echo "packages: $*" >&2
	exit 1
}

# least UNIT SCORE ROOT: fails unless systemd scores the unit's exposure below SCORE.
least() {
	local score
	score=$(systemd-analyze security --offline=true --no-pager \
		"$3/usr/lib/systemd/system/$1" | sed -n 's/.*exposure level for .*: \([0-9.]*\) .*/\1/p')
	awk -v is="$score" -v max="$2" 'BEGIN { exit !(is != "" && is < max) }' ||
		die "systemd scores the exposure of $1 as '$score', not below $2"
	echo "$1: exposure $score"
}

# state ROOT: prints all files of a system but what dpkg and apt leave behind, and its
# users but fbpp, which stays.
state() {
	(cd "$1" && find . -xdev ! -path './proc/*' ! -path './sys/*' ! -path './dev/*' \
		! -path './run/*' ! -path './tmp/*' ! -path './var/log/*' ! -path './var/cache/*' \
		! -path './var/lib/apt/*' ! -path './var/lib/dpkg/*' ! -path './etc/*-' \
		! -path './etc/.pwd.lock' ! -path './root/.rpmdb*' | sort
	grep -hv '^fbpp:' etc/passwd etc/group)
}

# bill FOLDER PACKAGE: fails unless the package that is unpacked there names all modules that
# its programs consist of, and no others.
bill() {
	local said is
	said=$(gunzip -c "$1/usr/share/doc/$2/sbom.cdx.json.gz" |
		jq -er '.components[] | select(.type == "library") | .name') ||
		die "$2 has no bill of materials"
	is=$({ go version -m "$1"/usr/bin/* | awk '$1 == "dep" { print $2 }' && echo std; } | sort -u)
	diff <(echo "$is") <(sort -u <<<"$said") || die "the bill of materials of $2 is not true"
}

# abstraction ROOT: fails unless AppArmor's compiler takes what a confined QEMU of libvirt may do,
# with the line of docs/libvirt.md. It needs no AppArmor in the kernel.
abstraction() {
	local libvirt=$1/libvirt/etc/apparmor.d
	mkdir -p "$libvirt/local/abstractions"
	echo 'include <abstractions/fbpp>' >"$libvirt/local/abstractions/libvirt-qemu"
	chroot "$1" apparmor_parser --skip-kernel-load --skip-cache -I /libvirt/etc/apparmor.d \
		-I /etc/apparmor.d --preprocess /libvirt/etc/apparmor.d/libvirt/TEMPLATE.qemu |
		grep 'run/fbpp/\*/vhost.sock' >/dev/null ||
		die "libvirt's profile does not take the abstraction in"
	chroot "$1" apparmor_parser --skip-kernel-load --skip-cache -I /libvirt/etc/apparmor.d \
		-I /etc/apparmor.d /libvirt/etc/apparmor.d/libvirt/TEMPLATE.qemu ||
		die "AppArmor refuses the abstraction"
	rm -r "$libvirt/local/abstractions"
	rmdir --ignore-fail-on-non-empty "$libvirt/local"
}

debian_install lintian mmdebstrap jq rpm rpm2cpio cpio || die "the packages above are needed"
[ -z "$(git status --porcelain)" ] || echo "packages: without your changes since HEAD" >&2
git clone -q . "$work/commit" # HEAD may move meanwhile
"$work/commit/contrib/packaging/build.sh" "$work/packages" # in a folder of its own each time
"$work/commit/contrib/packaging/build.sh" "$work/again"
diff -r "$work/packages" "$work/again" || die "two builds of one commit differ"
echo "two builds are the same, byte by byte"

lintian --allow-root --fail-on error,warning "$work"/packages/*.deb || die "lintian complains"

for file in "$work"/packages/*; do
	folder=$work/unpacked/$(basename "$file")
	mkdir -p "$folder"
	case $file in
	*.deb) dpkg-deb -x "$file" "$folder" ;;
	*.rpm) # rpm2cpio fails after all is written, as nfpm notes another size; bill looks at it
		(cd "$folder" && { rpm2cpio "$file" || true; } | cpio -id --no-absolute-filenames 2>/dev/null)
		;;
	esac
	case $(basename "$file") in
	fbppd*) bill "$folder" fbppd ;;
	fbpp-agent*) bill "$folder" fbpp-agent ;;
	esac
done
echo "each package says what it consists of"

for suite; do
	root=$work/$suite
	# shellcheck disable=SC2016 # mmdebstrap's shell expands it
	mmdebstrap --quiet --variant=apt --include=systemd,udev,kmod,passwd,apparmor \
		--skip=check/empty --customize-hook='mkdir "$1/libvirt" && chroot "$1" sh -ec "cd libvirt
			apt-get -q download libvirt-daemon-system libvirt-daemon-driver-qemu
			for p in *.deb; do dpkg-deb -x \$p .; done"' \
		"$suite" "$root" "$(debian_mirror)" || die "cannot make a Debian $suite"
	before=$(state "$root")
	cp "$work"/packages/*.deb "$root/tmp"
	chroot "$root" sh -ec 'apt-get install -y --no-install-recommends /tmp/*.deb >/tmp/log 2>&1 ||
		{ cat /tmp/log; exit 1; }' || die "cannot install them on Debian $suite"
	for program in fbppd fbppctl fbpp-conform fbpp-agent; do
		chroot "$root" "$program" --version >/dev/null || die "$program does not run on $suite"
	done
	chroot "$root" systemd-analyze verify --man=no fbppd@vm1.service fbpp-agent.service \
		fbpp-exporter.service fbpp-exporter.socket || die "systemd of $suite refuses a unit"
	chroot "$root" getent passwd fbpp >/dev/null || die "$suite has no user fbpp"
	abstraction "$root"
	least fbppd@.service 1 "$root"
	least fbpp-exporter.service 1 "$root"
	least fbpp-agent.service 5 "$root"
	chroot "$root" systemctl enable fbppd@vm1.service fbpp-exporter.socket fbpp-agent.service ||
		die "systemd of $suite does not enable the units"
	[ -L "$root/etc/systemd/system/multi-user.target.wants/fbppd@vm1.service" ] ||
		die "systemd of $suite enables the units elsewhere"
	mkdir -p "$root/var/lib/fbpp/vm1" "$root/var/lib/fbpp-agent"
	touch "$root/var/lib/fbpp/vm1/history" "$root/var/lib/fbpp-agent/accepted.json"
	chroot "$root" sh -ec 'dpkg --purge fbppd fbpp-agent >/tmp/log 2>&1 ||
		{ cat /tmp/log; exit 1; }' || die "cannot purge them on Debian $suite"
	diff <(echo "$before") <(state "$root") || die "purging them on $suite left something"
	chroot "$root" getent passwd fbpp >/dev/null || die "purging them on $suite removed the user"
	echo "Debian $suite: installed, verified and purged"

	# What they need has the names of other distributions.
	rpm --root "$root" --nodeps --nosignature --quiet -i "$work"/packages/*.rpm ||
		die "rpm does not install them on $suite"
	for program in fbppd fbppctl fbpp-conform fbpp-agent; do
		chroot "$root" "$program" --version >/dev/null || die "$program of the rpm does not run"
	done
	rpm --root "$root" --nodeps --quiet -e fbppd fbpp-agent || die "rpm does not remove them"
	# rpm leaves folders that are libvirt's and the shells' where there are these.
	find "$root"/etc/libvirt "$root"/usr/share/{fish,zsh/site-functions} -depth -type d -empty -delete
	diff <(echo "$before") <(state "$root") || die "removing them by rpm on $suite left something"
	echo "Debian $suite: installed and removed by rpm"
done
