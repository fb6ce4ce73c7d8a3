// SPDX-License-Identifier: Apache-2.0

// Package vring measures round trips through virtqueues: of the Go library
// beside libvhost-user of the QEMU source, each with an echo device in a
// process of its own, under one driver.
//
//	for i in 1 2 3 4 5 6; do go test -run '^$' -bench . ./tests/bench/vring; done
//
// The backends take turns within each row, which -count would have run one after
// the other: a machine's pace drifts by more than they differ.
//
// The driver either waits for interrupts, as a guest's kernel does, or polls
// the used ring, as one of DPDK does. At a depth of n it keeps n requests
// outstanding. The names suit benchstat: compare by -col /backend. A line has
// requests per second, how long a request took, from its kick to the driver that
// has it back, in the median and for the slowest of a hundred, and how much
// processor time the backend used for it. The Go library looks for more requests
// for a while before it sleeps, and does so more seldom while it is in vain: that
// is what makes it quick, where driver and device have a processor each.
// FBPP_BENCH_SPIN=-1ns measures it without.
//
// It takes two processors that nobody else uses. Where others do, the rows
// scatter by more than they differ. A real-time priority (chrt) for the compiled
// test keeps others away; the 50 ms that the kernel then takes of each second
// show as outliers.
//
// libvhost-user is compiled from the QEMU source that qemu-patches/qemu.sh
// fetches; without a C compiler or the source its part is skipped by name.
// Set FBPP_LIBVHOST_USER to the folder of another version.
package vring
