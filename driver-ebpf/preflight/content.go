// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/protocol/cmdline"
	"github.com/fbpp-project/fbpp/driver-ebpf/kernel"
)

// variables reads the kernel's variables; [kernel.Peek] does.
type variables interface {
	Symbol(name string) (uint64, error)
	Read(addr uint64, buf []byte) error
}

var _ variables = (*kernel.Peek)(nil)

// switches are static keys of the kernel that decide how it treats the contents of free pages
// (mm/page_poison.c, mm/debug_page_alloc.c, mm/mm_init.c), and the parameters that turn them
// on.
var switches = []struct {
	key       string
	parameter string
	feature   protocol.Features
}{
	{"_page_poisoning_enabled", "page_poison", protocol.FeaturePagePoison},
	{"_debug_pagealloc_enabled", "debug_pagealloc", protocol.FeaturePagePoison},
	{"init_on_free", "init_on_free", protocol.FeatureInitOnFree},
	{"init_on_alloc", "init_on_alloc", protocol.FeatureInitOnAlloc},
}

// contentFeatures returns what the allocator does with the contents of free pages. line is the
// kernel's command line. A static key decides if it exists: a parameter has no effect in a
// kernel that was built without the feature, and the feature can be on without a parameter. If
// the key does not exist, the kernel lacks the feature or has renamed the key. To be safe the
// parameter decides then.
func contentFeatures(v variables, line string) (protocol.Features, error) {
	var features protocol.Features
	for _, s := range switches {
		on, err := staticKey(v, s.key)
		if errors.Is(err, kernel.ErrNoSymbol) {
			on, err = cmdline.AsksFor(line, s.parameter), nil
		}
		if err != nil {
			return 0, err
		}
		if on {
			features |= s.feature
		}
	}
	return features, nil
}

// staticKey reads a struct static_key, which begins with a counter.
func staticKey(v variables, name string) (bool, error) {
	addr, err := v.Symbol(name)
	if err != nil {
		return false, err
	}
	var enabled [4]byte
	if err := v.Read(addr, enabled[:]); err != nil {
		return false, fmt.Errorf("read static key %s: %w", name, err)
	}
	return binary.NativeEndian.Uint32(enabled[:]) != 0, nil
}
