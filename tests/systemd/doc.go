// SPDX-License-Identifier: Apache-2.0

// Package systemd boots a Debian with systemd and our packages in it, and migrates it. It
// shows what no chroot can: that the units start, confined as they are, that udev starts the
// agent, that the packages' scripts do what they should where systemd runs, and that AppArmor
// lets libvirt's QEMU reach fbppd.
//
// Making the Debian and booting it takes minutes, so "make packages-boot" runs these tests,
// and CI does not.
package systemd
