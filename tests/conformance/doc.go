// SPDX-License-Identifier: Apache-2.0

// Package conformance holds the conformance suites for vhost-user backends and for
// drivers of the free page device. Packages backend and driver are the suites. Package
// report is what they share. The program is cmd/fbpp-conform. docs/conformance.md says
// how to use it.
package conformance
