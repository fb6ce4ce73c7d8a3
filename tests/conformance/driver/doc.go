// SPDX-License-Identifier: Apache-2.0

// Package driver checks drivers of the free page device. It implements the device
// itself, as a vhost-user backend behind a frontend such as QEMU, and observes what
// the driver in the guest does.
//
// The device keeps docs/spec.md. In some scenarios it is an ordinary device. In
// others it does what is unusual but allowed. It is slow, keeps buffers, or uses
// them out of order. It sends unknown events, or interrupts without a reason. It
// changes its configuration, or its connection ends. Every message is checked in
// every scenario. After each scenario the driver has to answer an ordinary request.
//
// A rule has passed when the driver had an occasion to break it and kept it. A rule
// without an occasion is skipped. The result of a broken rule has in its notes what
// was seen just before. Some occasions need control of the guest: [Control] has the
// functions for that.
//
// Every wait has a limit, whatever the driver and the frontend do.
package driver
