// SPDX-License-Identifier: Apache-2.0

// Package shm maps memory that other processes write and may truncate, and
// accesses it by the few operations that virtqueues and dirty logs need. All
// of vhostuser's unsafe code is here.
package shm
