// SPDX-License-Identifier: Apache-2.0

// Package driver is the device's side of the guest's own driver (docs/spec.md),
// which is the first source of page classes. A [Source] serves the two queues and
// the config space of the virtio-fbpp device. To ask, it puts an event into
// eventq, which interrupts the guest. It decodes the driver's report directly
// from guest memory. It checks everything that the guest writes.
//
// # Concurrency
//
// All exported methods are safe for concurrent use. One mutex guards the state.
// It is not held while the source waits for the guest. It is held while
// Options.Changed runs, so that function must not call the source.
package driver
