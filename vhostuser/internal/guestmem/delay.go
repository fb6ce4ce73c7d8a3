// SPDX-License-Identifier: Apache-2.0

package vhostuser

import "errors"

// delay is the error of an access to guest memory that will succeed later:
// the translation of an address has to be asked for, or a page has yet to
// arrive. Nobody waits for either with a queue's lock held.
type delay interface {
	error
	// await returns nil when it is worth to try again, or when stop is closed.
	// An error is final.
	await(stop <-chan struct{}) error
}

// asDelay returns the delay in err, or nil.
func asDelay(err error) delay {
	var d delay
	if errors.As(err, &d) {
		return d
	}
	return nil
}

// isMiss says whether err is about a translation that was asked for. A ring
// that waits for one is paused.
func isMiss(err error) bool { return errors.As(err, new(*miss)) }
