// SPDX-License-Identifier: Apache-2.0

// Package libvirt migrates a machine between two of Debian's libvirtds, as
// docs/libvirt.md tells operators to.
//
// Each libvirtd has a host of its own: namespaces with a network, a name, processes, and
// the folders /etc, /run, /var and /usr/local/bin. The two networks are connected. QEMU
// runs as libvirt-qemu, as in Debian.
//
// What is not as on a real host:
//
//   - No systemd runs. systemctl.sh stands in for it: it runs fbppd with the command line,
//     user and folders of contrib/fbppd@.service, but does not confine it.
//   - libvirt confines nothing: qemu.conf switches off AppArmor, cgroups and namespaces of
//     its own, which a container may not offer. The QEMU of the series has no seccomp.
//   - virtlogd does not run. QEMU writes its log by itself (stdio_handler).
package libvirt
