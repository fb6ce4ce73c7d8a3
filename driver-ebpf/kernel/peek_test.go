// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"testing"
)

func TestErrorsOfSymbolLookups(t *testing.T) {
	for ret, want := range map[int32]error{0: nil, -1: ErrHidden, -2: ErrNoSymbol} {
		if err := symbolError(ret); !errors.Is(err, want) {
			t.Errorf("%d: error %v, want %v", ret, err, want)
		}
	}
	err := symbolError(-22)
	if err == nil || errors.Is(err, ErrNoSymbol) || errors.Is(err, ErrHidden) {
		t.Errorf("error %v: an error of another kind says nothing of the symbol", err)
	}
}

func TestDescriptionOfAFunction(t *testing.T) {
	name, size, err := parseDescription("frag_show+0x0/0xc0")
	if err != nil || name != "frag_show" || size != 0xc0 {
		t.Fatalf("%s, %d, %v", name, size, err)
	}
	for _, text := range []string{
		"", "0xffffffff81000000", "frag_show+0x4/0xc0", "frag_show+0x0", "+/",
	} {
		if name, size, err := parseDescription(text); err == nil {
			t.Errorf("%q is taken for %s of %d bytes", text, name, size)
		}
	}
}

func FuzzParseDescription(f *testing.F) {
	f.Add("frag_show+0x0/0xc0 [module]")
	f.Fuzz(func(t *testing.T, text string) {
		if _, _, err := parseDescription(text); err == nil && text == "" {
			t.Fatal("nothing is a function")
		}
	})
}
