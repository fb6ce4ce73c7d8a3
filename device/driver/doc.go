// SPDX-License-Identifier: Apache-2.0

// Package driver is the first source of page classes: the guest's own driver,
// at the other end of the virtio-fbpp device (docs/spec.md). A [Source] has the
// device's two queues and its config space. It raises the migration interrupt
// by an event, decodes the driver's report straight out of guest memory, and
// trusts nothing that the guest says.
//
// # Concurrency
//
// All exported methods are safe for concurrent use. One mutex guards the state.
// It is never held while the source waits for the guest, and what is called back
// under it (Options.Changed) must not call the source.
package driver
