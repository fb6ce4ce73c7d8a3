// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/driver-ebpf/dma"
)

// Errors that callers tell apart.
var (
	// ErrNoSymbol says that the kernel has no such symbol.
	ErrNoSymbol = errors.New("no such kernel symbol")
	// ErrHidden says that the kernel hides where its symbols are, or whether
	// they exist: kptr_restrict is 2, or CAP_SYSLOG is missing.
	ErrHidden = errors.New("kptr_restrict hides kernel symbols")
)

// Layout of struct peek in bpf/peek.bpf.c.
const (
	peekAddress = 0
	peekTask    = 8
	peekNameLen = 16
	peekSize    = 20
	peekName    = 24
	peekBytes   = peekName + 64
	peekMax     = 2048
)

// Peek reads the kernel's symbols and memory. It is safe for concurrent use.
type Peek struct {
	objs peekObjects

	mu   sync.Mutex // guards mem, which every call uses
	mem  *dma.Region
	data []byte
}

// OpenPeek loads the programs. The caller closes the result.
func OpenPeek() (_ *Peek, err error) {
	p := &Peek{}
	if err := loadPeekObjects(&p.objs, nil); err != nil {
		return nil, fmt.Errorf("load peek programs: %w", err)
	}
	p.mem, err = dma.Map(p.objs.Peek)
	if err != nil {
		p.objs.Close()
		return nil, err
	}
	p.data = p.mem.Bytes()
	return p, nil
}

// Close unloads the programs.
func (p *Peek) Close() error { return errors.Join(p.mem.Close(), p.objs.Close()) }

// Symbol returns the address of a kernel symbol, or an error that wraps
// [ErrNoSymbol] or [ErrHidden].
func (p *Peek) Symbol(name string) (uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(name) >= peekBytes-peekName {
		return 0, fmt.Errorf("look up %s: name is too long: %w", name, ErrNoSymbol)
	}
	field := p.data[peekName:peekBytes]
	clear(field)
	copy(field, name)
	binary.NativeEndian.PutUint32(p.data[peekNameLen:], uint32(len(name)+1))
	ret, err := p.run(p.objs.FindSymbol)
	if err == nil {
		err = symbolError(ret)
	}
	if err != nil {
		return 0, fmt.Errorf("look up %s: %w", name, err)
	}
	return binary.NativeEndian.Uint64(p.data[peekAddress:]), nil
}

// symbolError returns the error for a result of bpf_kallsyms_lookup_name()
// (kernel/bpf/syscall.c).
func symbolError(ret int32) error {
	switch ret {
	case 0:
		return nil
	case -int32(unix.EPERM):
		return ErrHidden
	case -int32(unix.ENOENT):
		return ErrNoSymbol
	}
	return fmt.Errorf("bpf_kallsyms_lookup_name: error %d", ret)
}

// Read fills buf with the kernel's memory at the address.
func (p *Peek) Read(addr uint64, buf []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(buf) > peekMax {
		return fmt.Errorf("read %d bytes of kernel memory: more than %d", len(buf), peekMax)
	}
	binary.NativeEndian.PutUint64(p.data[peekAddress:], addr)
	binary.NativeEndian.PutUint32(p.data[peekSize:], uint32(len(buf)))
	if ret, err := p.run(p.objs.ReadMemory); err != nil || ret != 0 {
		return errors.Join(fmt.Errorf("read kernel memory at %#x: error %d", addr, ret), err)
	}
	copy(buf, p.data[peekBytes:])
	return nil
}

// Function returns the size of the function that begins at the address, and
// its name.
func (p *Peek) Function(addr uint64) (name string, size uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	binary.NativeEndian.PutUint64(p.data[peekAddress:], addr)
	ret, err := p.run(p.objs.Describe)
	if err != nil || ret < 0 {
		return "", 0, errors.Join(fmt.Errorf("describe address %#x: error %d", addr, ret), err)
	}
	text, _, _ := bytes.Cut(p.data[peekBytes:peekBytes+256], []byte{0})
	return parseDescription(string(text))
}

// parseDescription parses what the kernel prints for %pS: name+0xoffset/0xsize.
func parseDescription(text string) (name string, size uint64, err error) {
	name, rest, ok := strings.Cut(text, "+")
	var offset uint64
	if ok {
		_, err = fmt.Sscanf(rest, "0x%x/0x%x", &offset, &size)
	}
	if !ok || err != nil || offset != 0 {
		return "", 0, fmt.Errorf("%q is not the beginning of a function", text)
	}
	return name, size, nil
}

// CurrentTask returns the address of the calling thread's task_struct, which identifies the
// thread in every pid namespace. The caller has to lock its goroutine to the thread.
func (p *Peek) CurrentTask() (uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ret, err := p.run(p.objs.CurrentTask); err != nil || ret != 0 {
		return 0, errors.Join(fmt.Errorf("find the current task: error %d", ret), err)
	}
	return binary.NativeEndian.Uint64(p.data[peekTask:]), nil
}

func (p *Peek) run(prog *ebpf.Program) (int32, error) {
	ret, err := prog.Run(&ebpf.RunOptions{})
	return int32(ret), err
}
