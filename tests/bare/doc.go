// SPDX-License-Identifier: Apache-2.0

// Package bare holds no code but tests of QEMU's device, in VMs that no guest
// runs in: the test itself is the guest's driver, by QEMU's qtest protocol
// (docs/devel/testing/qtest.rst of QEMU). So it can have its queues wherever it
// likes, and take any step at any moment of a migration.
//
// The backends are fbppd, which is stopped and killed, and relays before it that
// fall silent. The tests need root and the patched QEMU of "make qemu-build".
package bare
