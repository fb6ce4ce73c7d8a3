// SPDX-License-Identifier: Apache-2.0

// Package guest provides the kernel and initramfs that a test guest boots. The kernel
// is an unmodified Debian cloud kernel with the few modules that the guest needs. The
// initramfs holds programs of this module and, if a test asks for them, of Debian
// packages.
//
// Kernels and packages come from the Debian mirror of the host's apt configuration. A
// sources list and state folder of its own keep the host's apt state unchanged. This
// needs apt, dpkg-deb, xz and Debian's archive keyring, and works on Debian 12 and 13. The
// disk to build from needs tar and mke2fs, too. Fetched files stay in the project's cache,
// and are used from there without the network.
//
// The initramfs is a newc archive written in Go, the same bytes for the same
// input. Its /init, package tests/guest/init, takes orders over the second
// serial port in the protocol of package tests/guest/ctl.
//
// Several processes may use the package at once: a folder of the cache is made under
// another name, and renamed when it is complete.
package guest
