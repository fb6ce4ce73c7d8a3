// SPDX-License-Identifier: Apache-2.0

package agent

import "sync"

// waker calls a function that other goroutines may call only while it is set.
type waker struct {
	mu sync.Mutex
	f  func()
}

// set sets the function, and waits for a call that runs. nil means none.
func (w *waker) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.f = f
}

func (w *waker) call() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f != nil {
		w.f()
	}
}
