// SPDX-License-Identifier: Apache-2.0

package kernelsig

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// ErrUnsupported says that the kernel does not check who signed a program.
var ErrUnsupported = errors.New("this kernel checks no signatures of programs, as Linux 6.18 does")

// Why the kernel does not take a signature.
var (
	ErrUnknown  = errors.New("the kernel finds no certificate of the owner for the signature")
	ErrRejected = errors.New("the kernel finds that something else was signed")
)

// logSize is how much the verifier may say, in bytes.
const logSize = 1 << 20

// Program is what Load hands to the kernel.
type Program struct {
	Installer *Installer
	Maps      map[string]*ebpf.Map // those that the installer names, at least
	Signature []byte
	// Certificates are the owner's. The key of one of them has to have signed, or one whose
	// certificate such a key has issued: the kernel follows these, if the signature has them.
	Certificates []Certificate
}

// Load has the kernel check the signature of the installer, and runs it. The error wraps
// [ErrUnknown] or [ErrRejected] where the signature is not good, and an [ebpf.VerifierError] where
// the kernel says in a log what is wrong with the program. The caller closes the result.
func Load(p *Program) (*ebpf.Program, error) {
	context := make([]byte, p.Installer.context)
	for i, name := range p.Installer.Maps {
		m := p.Maps[name]
		if m == nil {
			return nil, fmt.Errorf("load the program: it has no map %q", name)
		}
		put32(context[contextMaps+4*i:], uint32(m.FD()))
	}
	installer, err := p.installer()
	if err != nil {
		return nil, err
	}
	defer installer.Close()
	load := func() (*ebpf.Program, error) { return run(installer, context) }
	prog, why := again(load)
	if why == nil {
		return prog, nil
	}
	log := make([]byte, logSize) // once more, for the reason
	put32(context[contextLogLevel:], 1)
	put32(context[contextLogSize:], logSize)
	binary.LittleEndian.PutUint64(context[contextLog:], uint64(address(log)))
	if prog, err = again(load); err == nil {
		return prog, nil
	}
	// A log that is too long is an error of its own. The first one says more.
	text, _, _ := bytes.Cut(log, []byte{0})
	if lines := linesOf(text); len(lines) > 0 {
		return nil, &ebpf.VerifierError{Cause: why, Log: lines}
	}
	return nil, why
}

// again repeats what the verifier breaks off because of a signal, of which Go's runtime sends some.
func again[T any](do func() (T, error)) (result T, err error) {
	for range 5 {
		if result, err = do(); !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	return result, err
}

// installer has the kernel check the signature.
func (p *Program) installer() (*ebpf.Program, error) {
	fd := -1
	err := withKeyring(p.Certificates, func(keyring int) (err error) {
		fd, err = again(func() (int, error) {
			return loadSigned(p.Installer.Bytes, p.Signature, keyring)
		})
		switch {
		case errors.Is(err, unix.ENOKEY):
			return ErrUnknown
		case errors.Is(err, unix.EKEYREJECTED):
			return ErrRejected
		}
		return err
	})
	switch {
	case err == nil:
		return ebpf.NewProgramFromFD(fd)
	case fd >= 0:
		err = errors.Join(err, unix.Close(fd))
	}
	return nil, fmt.Errorf("have the kernel check the signature: %w", err)
}

// run has an installer load its program.
func run(installer *ebpf.Program, context []byte) (*ebpf.Program, error) {
	result, err := installer.Run(&ebpf.RunOptions{Context: context})
	if err != nil {
		return nil, fmt.Errorf("run the installer: %w", err)
	}
	if fd := int32(result); fd >= 0 {
		return ebpf.NewProgramFromFD(int(fd))
	}
	return nil, fmt.Errorf("bpf: %w", unix.Errno(-int32(result)))
}

// linesOf splits the verifier's log. Lines about relocations have an empty one after them.
func linesOf(log []byte) (lines []string) {
	for line := range strings.Lines(string(log)) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}
