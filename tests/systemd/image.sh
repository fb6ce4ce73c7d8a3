#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes a Debian that boots, with systemd and Debian's own kernel, and our packages in it:
# image.sh SUITE INIT FOLDER. FOLDER/packages has the packages, and INIT is the program that
# takes the test's orders. FOLDER gets vmlinuz, initrd, and disk, an ext4 file system.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=../debian/debian.sh
. tests/debian/debian.sh

suite=$1 init=$2 folder=$3
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
chmod 755 "$work" # apt downloads as a user of its own
root=$work/root

die() {
	echo "image: $*" >&2
	exit 1
}

debian_install mmdebstrap e2fsprogs || die "the packages above are needed"
# shellcheck disable=SC2016 # mmdebstrap's shell expands it
mmdebstrap --quiet --variant=apt --skip=check/empty,cleanup/apt/lists \
	--include=systemd-sysv,udev,kmod,initramfs-tools,linux-image-cloud-amd64 \
	--include=apparmor,socat,curl,acl,passwd,procps \
	--essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d" \
		"$1/usr/share/initramfs-tools/modules.d"
		echo MODULES=list >"$1/etc/initramfs-tools/conf.d/test"
		printf "%s\n" virtio_pci virtio_blk ext4 >"$1/usr/share/initramfs-tools/modules.d/test"' \
	"$suite" "$root" "$(debian_mirror)" >&2 || die "cannot make a Debian $suite"

# As on a new machine: the packages come before the first boot, and nothing enables a unit.
mkdir "$root/packages"
cp "$folder"/packages/*.deb "$root/packages"
chroot "$root" sh -ec 'apt-get install -y --no-install-recommends /packages/*.deb' >&2 ||
	die "cannot install the packages"

# What libvirt's AppArmor profiles consist of. Nothing else of libvirt is installed.
mkdir "$root/libvirt"
# shellcheck disable=SC2016 # the other shell expands it
chroot "$root" sh -ec 'cd libvirt
	apt-get download libvirt-daemon-system libvirt-daemon-driver-qemu
	for p in *.deb; do dpkg-deb -x "$p" .; done
	cp -r etc/apparmor.d/abstractions etc/apparmor.d/libvirt /etc/apparmor.d' >&2 ||
	die "cannot get libvirt's profiles"

install -m 755 "$init" "$root/init"
cat >"$root/etc/systemd/system/test-orders.service" <<'EOF'
[Unit]
Description=Orders of the test
[Service]
ExecStart=/init orders
[Install]
WantedBy=multi-user.target
EOF
chroot "$root" systemctl enable test-orders.service >&2
echo fbpp-test >"$root/etc/hostname"
chroot "$root" apt-get clean
cp "$root"/boot/vmlinuz-* "$folder/vmlinuz"
cp "$root"/boot/initrd.img-* "$folder/initrd"
# It is there only when it is whole.
mke2fs -q -t ext4 -d "$root" "$folder/disk.new" 3G
mv "$folder/disk.new" "$folder/disk"
