// SPDX-License-Identifier: Apache-2.0

// Package ops tests what operators install beside the programs: the alerts and the
// dashboard of contrib.
package ops
