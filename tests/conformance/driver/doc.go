// SPDX-License-Identifier: Apache-2.0

// Package driver checks drivers of the free page device. It is a device itself,
// behind a vhost-user frontend such as QEMU, and watches what the driver in the
// guest does.
//
// The device keeps docs/spec.md. In some of its scenarios it is an ordinary
// device. In others it does what is odd but allowed: it is slow, keeps buffers,
// uses them out of order, sends events that nobody knows, interrupts for nothing,
// changes its mind, and goes away. Whatever the scenario, every message is
// judged. After each scenario the driver has to answer an ordinary request.
//
// A rule has passed when there was an occasion to break it and it was kept;
// without an occasion it is skipped. What was seen just before a breach is in the
// result's notes. Where an occasion needs power over the guest, [Control] has
// to supply it.
//
// Nothing waits without a limit, whatever driver and frontend do.
package driver
