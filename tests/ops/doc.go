// SPDX-License-Identifier: Apache-2.0

// Package ops tests what operators install beside the programs: the alerts and the
// dashboard of contrib. It draws the picture of the dashboard in docs/img:
//
//	go test ./tests/ops -run TestDashboardShowsData -args -picture=$PWD/docs/img/dashboard.svg
package ops
