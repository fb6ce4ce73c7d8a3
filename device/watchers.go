// SPDX-License-Identifier: Apache-2.0

package device

import "sync"

// watchers wakes those who wait for a change of the status. Its lock is taken
// last: wake may be called under any other. The zero value is usable.
type watchers struct {
	mu      sync.Mutex
	changed chan struct{} // closed at the next change; nil when nobody waits
}

// wait returns a channel that is closed at the next change.
func (w *watchers) wait() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changed == nil {
		w.changed = make(chan struct{})
	}
	return w.changed
}

// wake says that something has changed.
func (w *watchers) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
}
