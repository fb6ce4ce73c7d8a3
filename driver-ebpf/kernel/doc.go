// SPDX-License-Identifier: Apache-2.0

// Package kernel reads symbols and memory of the running kernel. It does so with eBPF programs
// that run once for each question and are not attached.
//
// It needs CAP_BPF and CAP_PERFMON.
package kernel
