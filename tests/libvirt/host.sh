#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# One host of the test: libvirtd with files, network, host name and processes of its own.
# host.sh FOLDER NAME, in namespaces that unshare has made. FOLDER has etc, bin, run and
# var, which the test has filled. They become those of the host; all else is shared.
set -euo pipefail
folder=$1 name=$2

hostname "$name"
ip link set lo up
cp -a --no-clobber /etc/. "$folder/etc"
mkdir -p "$folder"/var/{tmp,log/libvirt/qemu,cache/libvirt,lib/libvirt}
ln -sfn /run "$folder/var/run"
mount -t sysfs sysfs /sys # that of this network
for there in etc run var; do
	mount --bind "$folder/$there" "/$there"
done
mount --bind "$folder/bin" /usr/local/bin
# Postcopy needs this device, and QEMU and fbppd run as libvirt-qemu.
if [ -e /dev/userfaultfd ]; then
	cp -a /dev/userfaultfd "$folder"
	chown libvirt-qemu "$folder/userfaultfd"
	mount --bind "$folder/userfaultfd" /dev/userfaultfd
fi

# The shell is process 1 here: it reaps the QEMUs that libvirtd leaves to it.
while libvirtd --listen & do
	wait "$!" || true # the test has ended it
done
