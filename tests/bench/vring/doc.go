// SPDX-License-Identifier: Apache-2.0

// Package vring measures round trips through virtqueues. It compares the Go
// library with libvhost-user of the QEMU source: each has an echo device in a
// process of its own, under the same driver.
//
//	for i in 1 2 3 4 5 6; do go test -run '^$' -bench . ./tests/bench/vring; done
//
// In this way the backends take turns within each row. With -count each would run
// all its rounds first, and a machine's pace drifts by more than they differ.
//
// The driver either waits for interrupts, as a guest's kernel does, or polls
// the used ring, as one of DPDK does. At a depth of n it keeps n requests
// outstanding. The names suit benchstat: compare by -col /backend.
//
// A line has requests per second, the time of a request, and the processor time
// that the backend used for it. The time of a request goes from its kick to the
// driver that has it back; there is the median, and the slowest of a hundred.
//
// Before it sleeps, the Go library looks for more requests for a while. It does
// so more seldom while it finds none. That makes it quick where driver and device
// have a processor each. FBPP_BENCH_SPIN=-1ns measures it without.
//
// The benchmark takes two processors that nobody else uses. Where others do, the
// rows scatter by more than they differ. A real-time priority (chrt) for the
// compiled test keeps others away. The kernel then takes 50 ms of each second,
// which show as outliers.
//
// libvhost-user is compiled from the QEMU source that qemu-patches/qemu.sh
// fetches. Without a C compiler or the source its part is skipped by name. Set
// FBPP_LIBVHOST_USER to the folder of another version.
package vring
