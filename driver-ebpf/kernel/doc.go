// SPDX-License-Identifier: Apache-2.0

// Package kernel answers questions about the running kernel: where a symbol
// is, what lies at an address, what the allocator does with free pages. It
// asks by means of eBPF programs that are run once and attached nowhere.
//
// Everything here needs CAP_BPF and CAP_PERFMON.
package kernel
