// SPDX-License-Identifier: Apache-2.0

//go:build guest

package pageruntest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"

	"github.com/fbpp-project/fbpp/driver-ebpf/freepages"
	"github.com/fbpp-project/fbpp/driver-ebpf/kernel"
)

// MustConstants returns what the agent sets the variables of a program to, on this kernel.
func MustConstants(t testing.TB) map[string]uint64 {
	t.Helper()
	peek, err := kernel.OpenPeek()
	if err != nil {
		t.Fatal(err)
	}
	defer peek.Close()
	snapshot, err := freepages.Load(peek, freepages.Options{NoProgram: true})
	if err != nil {
		t.Fatal(err)
	}
	constants := snapshot.Constants()
	version, err := features.LinuxVersionCode()
	if err := errors.Join(err, snapshot.Close()); err != nil {
		t.Fatal(err)
	}
	constants["kernel_version"] = uint64(version)
	return constants
}

// Loader returns a function that loads a program of an object with these constants, as far as
// the object has such variables.
func Loader(
	spec *ebpf.CollectionSpec, program string, constants map[string]uint64,
) func(shared map[string]*ebpf.Map) (*ebpf.Program, error) {
	return func(shared map[string]*ebpf.Map) (*ebpf.Program, error) {
		for name, value := range constants {
			v := spec.Variables[name]
			var err error
			switch {
			case v == nil:
			case v.Size() == 4:
				err = v.Set(uint32(value))
			default:
				err = v.Set(value)
			}
			if err != nil {
				return nil, fmt.Errorf("set %s: %w", name, err)
			}
		}
		objects, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
			MapReplacements: shared,
		})
		if err != nil {
			return nil, err
		}
		defer objects.Close()
		return objects.DetachProgram(program), nil
	}
}
