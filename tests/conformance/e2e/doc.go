// SPDX-License-Identifier: Apache-2.0

// Package e2e runs the conformance suite for drivers against the agent, in
// guests of real kernels under the patched QEMU.
package e2e
