// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/kernel"
)

// fakeVariables are the values of kernel variables by name.
type fakeVariables map[string]uint32

func (v fakeVariables) Symbol(name string) (uint64, error) {
	value, ok := v[name]
	if !ok {
		return 0, fmt.Errorf("look up %s: %w", name, kernel.ErrNoSymbol)
	}
	return uint64(value), nil // the address is the value, so the fake can read it back
}

func (v fakeVariables) Read(addr uint64, buf []byte) error {
	if addr == unreadable {
		return errUnreadable
	}
	binary.NativeEndian.PutUint32(buf, uint32(addr))
	return nil
}

const unreadable = 666

var errUnreadable = errors.New("unreadable")

func TestContentFeatures(t *testing.T) {
	for name, c := range map[string]struct {
		keys    fakeVariables
		cmdline string
		want    protocol.Features
	}{
		"nothing": {fakeVariables{}, "quiet", 0},
		"all keys on": {
			fakeVariables{
				"_page_poisoning_enabled": 1, "_debug_pagealloc_enabled": 1,
				"init_on_free": 2, "init_on_alloc": 1,
			}, "",
			protocol.FeaturePagePoison | protocol.FeatureInitOnFree | protocol.FeatureInitOnAlloc,
		},
		"a key is believed rather than the command line": {
			fakeVariables{"_page_poisoning_enabled": 0, "init_on_alloc": 1},
			"page_poison=1 init_on_alloc=0",
			protocol.FeatureInitOnAlloc,
		},
		"debug_pagealloc counts as poisoning": {
			fakeVariables{"_debug_pagealloc_enabled": 1}, "", protocol.FeaturePagePoison,
		},
		"without a key the command line is believed": {
			fakeVariables{}, "page_poison=on init_on_free=1",
			protocol.FeaturePagePoison | protocol.FeatureInitOnFree,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := contentFeatures(c.keys, c.cmdline)
			if err != nil || got != c.want {
				t.Fatalf("%v, %v; want %v", got, err, c.want)
			}
		})
	}
	_, err := contentFeatures(fakeVariables{"init_on_free": unreadable}, "")
	if !errors.Is(err, errUnreadable) {
		t.Fatalf("error %v", err)
	}
}

func TestLockdown(t *testing.T) {
	for text, want := range map[string]string{
		"none integrity [confidentiality]\n": "confidentiality",
		"none [integrity] confidentiality\n": "integrity",
		"[none] integrity confidentiality\n": "",
		"none [":                             "",
		"":                                   "",
	} {
		if got := lockdown(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
