// SPDX-License-Identifier: Apache-2.0

// Package bare tests QEMU's device in VMs without a guest. The test acts as the
// guest's driver, over QEMU's qtest protocol (docs/devel/testing/qtest.rst of QEMU).
// So it can place the queues anywhere, and take each step at a chosen moment of a
// migration.
//
// The backends are fbppd, which the tests stop and kill, relays before it that stop
// passing messages on, and backends of the tests' own. The tests need root and the
// patched QEMU of "make qemu-build".
package bare
