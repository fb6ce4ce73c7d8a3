// SPDX-License-Identifier: Apache-2.0

// Package transport carries the agent's messages over the queues of a
// virtio-fbpp device.
package transport
