// SPDX-License-Identifier: Apache-2.0

package device

import "sync"

// watchers wakes the goroutines that wait for a change of the status. Its lock is
// taken last, so wake may be called with any other lock held. The zero value is
// usable.
type watchers struct {
	mu      sync.Mutex
	changed chan struct{} // closed at the next change; nil without waiters
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

func (w *watchers) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
}
