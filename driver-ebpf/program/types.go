// SPDX-License-Identifier: Apache-2.0

package program

import (
	"fmt"
	"sync"

	"github.com/cilium/ebpf/btf"
)

// kernelTypes are those of the kernel, read once, and by the child itself: no object was there that
// could have had a say in it. The zero value is ready for use. It is safe for concurrent use.
type kernelTypes struct {
	mu   sync.Mutex
	spec *btf.Spec
}

// get returns the types. An error is not kept: a guest can be short of memory for a while.
func (k *kernelTypes) get() (_ *btf.Spec, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.spec == nil {
		k.spec, err = readTypes()
	}
	return k.spec, err
}

// readTypes reads the kernel's BTF. The library decodes a type when it is first asked for, with all
// that can be reached from it. From struct page that is most of what any object asks for.
func readTypes() (*btf.Spec, error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("load kernel types: %w", err)
	}
	// Where the kernel has no such type, the object will be refused, or not need it.
	_, _ = spec.AnyTypesByName("page")
	return spec, nil
}
