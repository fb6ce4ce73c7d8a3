// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"fmt"
	"io"

	"github.com/cilium/ebpf"

	"github.com/fbpp-project/fbpp/driver-ebpf/kernel"
)

// system is what a snapshot asks of the kernel. Unit tests have one of their own.
type system interface {
	task() (uint64, error) // of the calling thread
	hooks() (hooks []Hook, why error)
	attach(hook Hook, prog io.Closer) (io.Closer, error)
	open(path string) (*zoneFile, error)
}

// running is the running kernel.
type running struct{ peek *kernel.Peek }

func (r running) task() (uint64, error) { return r.peek.CurrentTask() }

func (r running) hooks() ([]Hook, error) { return findHooks(r.peek) }

func (r running) open(path string) (*zoneFile, error) { return openZoneFile(path) }

func (r running) attach(hook Hook, prog io.Closer) (io.Closer, error) {
	p, ok := prog.(*ebpf.Program)
	if !ok {
		return nil, fmt.Errorf("attach %T to %v", prog, hook)
	}
	l, err := hook.attach(p)
	if err != nil {
		return nil, err // not l, which would be an interface that is not nil
	}
	return l, nil
}
