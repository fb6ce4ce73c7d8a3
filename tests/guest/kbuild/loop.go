// SPDX-License-Identifier: Apache-2.0

package kbuild

import (
	"maps"
	"slices"
	"sync"
)

// Status is what came of the builds so far.
type Status struct {
	Builds    int      `json:"builds"`              // those that have ended well
	Compared  int      `json:"compared"`            // objects, each with that of the first build
	Different []string `json:"different,omitempty"` // the objects that once were not as in the first
	Error     string   `json:"error,omitempty"`     // why a build failed: there are no more
}

// Loop builds the same over and over, and compares. It is safe for concurrent use.
type Loop struct {
	build func() (Objects, error)

	mu        sync.Mutex
	first     Objects
	different map[string]bool
	status    Status
	ended     chan struct{} // closed when the build that is under way ends
}

// NewLoop returns a loop that builds by calling build. [Loop.Run] starts it.
func NewLoop(build func() (Objects, error)) *Loop {
	return &Loop{build: build, different: make(map[string]bool), ended: make(chan struct{})}
}

// Run builds until a build fails.
func (l *Loop) Run() {
	for l.once() {
	}
}

// Await waits until the build that is under way has ended.
func (l *Loop) Await() Status {
	l.mu.Lock()
	ended := l.ended
	l.mu.Unlock()
	<-ended
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.status
	s.Different = slices.Sorted(maps.Keys(l.different))
	return s
}

// once builds once, and tells whether that went well.
func (l *Loop) once() bool {
	built, err := l.build()
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.ended)
	if err != nil {
		l.status.Error = err.Error()
		return false
	}
	l.ended = make(chan struct{})
	l.status.Builds++
	l.compare(built)
	return true
}

// compare compares the objects with those of the first build.
func (l *Loop) compare(built Objects) {
	if l.first == nil {
		l.first = built
		return
	}
	for path, sum := range l.first {
		l.status.Compared++
		if built[path] != sum { // also where it is missing
			l.different[path] = true
		}
	}
	for path := range built {
		if _, ok := l.first[path]; !ok {
			l.different[path] = true
		}
	}
}
