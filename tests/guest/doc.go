// SPDX-License-Identifier: Apache-2.0

// Package guest makes what a test guest boots: an unmodified Debian cloud
// kernel with the few modules it needs, and an initramfs. The programs in that
// are ours and, where a test asks for them, those of Debian packages.
//
// Kernels and packages come from the Debian mirror that the machine's own apt
// configuration names. A private sources list and state folder leave the system's
// alone. This needs apt, dpkg-deb, xz and Debian's archive keyring, and works on
// Debian 12 and 13. What was fetched stays in the project's cache and is used
// from there without asking the network again.
//
// The initramfs is a newc archive written in Go, the same bytes for the same
// input. Its /init, package tests/guest/init, takes orders over the second
// serial port in the protocol of package tests/guest/ctl.
//
// Everything here may be called by several processes at once: a folder of the
// cache is made under another name and renamed when it is whole.
package guest
