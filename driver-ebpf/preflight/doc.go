// SPDX-License-Identifier: Apache-2.0

// Package preflight finds out whether this guest can and may report its free memory. If so, it
// loads the eBPF program for that.
package preflight
