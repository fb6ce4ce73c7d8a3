// SPDX-License-Identifier: Apache-2.0

// Package report is what the conformance suites have in common: rules, the
// checks that belong to them, and the ways to print results.
//
// A [Rule] is one sentence of a specification and has a name. A [Suite] has rules in a
// fixed order and gives exactly one [Result] for each of them. The result says that
// the rule was kept; or that it was broken, with what was seen; or that it does not
// apply to this peer, with the reason; or that it could not be checked.
//
// [Checks] is a suite made of functions, one for each rule. [Check] bounds the
// time of each, so that no peer can make a suite hang.
//
// Results go to a [Sink]: [NewTAP] and [NewJSON] write a line for each.
package report
