// SPDX-License-Identifier: Apache-2.0

package vhostuser

import "github.com/fbpp-project/fbpp/vhostuser/internal/guestmem"

// lease is a queue's use of a memory table, and that of all chains popped
// meanwhile. It is one reference to the table: a reference for each chain would
// be a counter that all queues write for each request. The queue's lock guards
// it.
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
