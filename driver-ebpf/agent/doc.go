// SPDX-License-Identifier: Apache-2.0

// Package agent is the guest's side of virtio-fbpp: it says hello, waits for
// the device to ask, takes a snapshot of the free memory and reports it.
// docs/spec.md specifies the exchange; names in brackets are rules of it.
//
// The transport and the walk are interfaces. So the package imports neither dma nor
// eBPF.
package agent
