// SPDX-License-Identifier: Apache-2.0

package vhostuser

import "github.com/fbpp-project/fbpp/vhostuser/internal/guestmem"

// lease is one reference to a memory table, which a queue and its outstanding chains share.
// With a reference for each chain, all queues would write one counter for each request. The
// queue's lock guards the lease.
type lease struct {
	*guestmem.Snapshot
	users int // the queue, and the chains that the device has
}

// newLease makes the lease of a queue.
func newLease(m *guestmem.Snapshot) *lease {
	m.Retain()
	return &lease{Snapshot: m, users: 1}
}

// renew adds a user.
func (l *lease) renew() *lease {
	l.users++
	return l
}

// end removes a user. A nil lease has none.
func (l *lease) end() {
	if l == nil {
		return
	}
	if l.users--; l.users == 0 {
		l.Release()
	}
}
