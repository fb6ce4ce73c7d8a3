// SPDX-License-Identifier: Apache-2.0

// Package conformance holds the conformance suites for vhost-user backends and
// for drivers of the free page device: report is what they share, backend and
// driver are the suites, fbpp-conform is the program. docs/conformance.md says
// how to use it.
package conformance
