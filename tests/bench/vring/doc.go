// SPDX-License-Identifier: Apache-2.0

// Package vring measures round trips through virtqueues. It compares the Go
// library with libvhost-user of the QEMU source: each has an echo device in a
// process of its own, under the same driver.
//
//	for i in 1 2 3 4 5 6; do go test -run '^$' -bench . ./tests/bench/vring; done
//
// In this way the backends take turns within each row. With -count each backend would run
// all its rounds first, and a host's speed drifts by more than the backends differ.
//
// The driver either waits for interrupts, as a guest's kernel does, or polls
// the used ring, as one of DPDK does. At a depth of n it keeps n requests
// outstanding. The names suit benchstat: compare by -col /backend.
//
// A line has requests per second, the median and 99th percentile of a request's time, and
// the backend's processor time per request. The time of a request goes from its kick until
// the driver has it back.
//
// Before it sleeps, the Go library polls for more requests for a while, and less often if
// it finds none. That makes it fast if driver and device have a processor each.
// FBPP_BENCH_SPIN=-1ns measures it without polling.
//
// The benchmark needs two processors that nothing else uses. Otherwise the rows scatter by
// more than they differ. A real-time priority (chrt) for the compiled test keeps other
// processes away. The kernel then takes 50 ms of each second, which show as outliers.
//
// libvhost-user is compiled from the QEMU source that qemu-patches/qemu.sh
// fetches. Without a C compiler or the source its part is skipped by name. Set
// FBPP_LIBVHOST_USER to the folder of another version.
package vring
