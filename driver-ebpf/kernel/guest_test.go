// SPDX-License-Identifier: Apache-2.0

//go:build guest

package kernel

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
)

func mustPeek(t *testing.T) *Peek {
	t.Helper()
	p, err := OpenPeek()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestSymbolsAndMemory(t *testing.T) {
	p := mustPeek(t)
	banner, err := p.Symbol("linux_banner")
	if err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 32)
	err = p.Read(banner, text)
	if err != nil || !strings.HasPrefix(string(text), "Linux version ") {
		t.Fatalf("%q, %v", text, err)
	}
	if _, err := p.Symbol("no_such_symbol_anywhere"); !errors.Is(err, ErrNoSymbol) {
		t.Errorf("error %v, want ErrNoSymbol", err)
	}
	if _, err := p.Symbol(strings.Repeat("x", 64)); !errors.Is(err, ErrNoSymbol) {
		t.Errorf("error %v, want ErrNoSymbol", err)
	}
	if err := p.Read(8, text); err == nil {
		t.Error("read user memory at 8")
	}
	if err := p.Read(banner, make([]byte, peekMax+1)); err == nil {
		t.Error("read more than there is room for")
	}
}

// With hidden symbols the error must not say that the symbol does not exist.
func TestHiddenSymbolsAreNotReportedAsAbsent(t *testing.T) {
	const file = "/proc/sys/kernel/kptr_restrict"
	was, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.WriteFile(file, was, 0); err != nil {
			t.Error(err)
		}
	}()
	p := mustPeek(t)
	for value, want := range map[string]error{"0": nil, "1": nil, "2": ErrHidden} {
		if err := os.WriteFile(file, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Symbol("linux_banner"); !errors.Is(err, want) {
			t.Errorf("kptr_restrict=%s: error %v, want %v", value, err, want)
		}
	}
}

func TestFunctionKnowsItsSize(t *testing.T) {
	p := mustPeek(t)
	addr, err := p.Symbol("seq_printf")
	if err != nil {
		t.Fatal(err)
	}
	name, size, err := p.Function(addr)
	if err != nil || name != "seq_printf" || size < 16 || size > 4096 {
		t.Fatalf("%s, %d bytes, %v", name, size, err)
	}
	if _, _, err := p.Function(addr + 4); err == nil {
		t.Error("the middle of a function is taken for its beginning")
	}
}

func TestEachThreadHasItsOwnTask(t *testing.T) {
	p := mustPeek(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	first, err1 := p.CurrentTask()
	again, err2 := p.CurrentTask()
	other := make(chan uint64)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		task, err := p.CurrentTask()
		if err != nil {
			t.Error(err)
		}
		other <- task
	}()
	err := errors.Join(err1, err2)
	if err != nil || first == 0 || first != again || first == <-other {
		t.Fatalf("%#x, %#x, %v", first, again, err)
	}
}
