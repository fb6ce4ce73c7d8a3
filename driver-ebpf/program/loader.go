// SPDX-License-Identifier: Apache-2.0

package program

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/protocol/bundle"
)

// LoadLimit is how long a child may take. A load takes three seconds of an emulated processor, and
// on a busy host a guest gets a tenth of one. What a hostile object can use is bounded by childCPU.
const LoadLimit = time.Minute

// self is the agent's own program, also after its file was replaced.
const self = "/proc/self/exe"

// Loader loads programs in child processes. Its fields do not change. It is safe for
// concurrent use.
type Loader struct {
	Limits Limits
	// Maps are those that the agent shares with the program, by name. The memory in them
	// is not the object's to choose.
	Maps map[string]*ebpf.Map
	// Constants are what the program is told of this kernel, by the variable's name.
	Constants map[string]uint64
	// Log is told where the time of a load goes. It may be nil.
	Log *zap.Logger
	// KernelCheck returns what the policy wants of the kernel's check of signatures. Nil
	// stands for nothing.
	KernelCheck func() (KernelCheck, error)

	command []string // instead of self with ChildArg, for tests
}

// Load loads the object of an offer. The caller closes the result. An error that is the
// kernel's has its log: see VerifierLog.
func (l *Loader) Load(
	ctx context.Context, o *protocol.Offer, object []byte,
) (*ebpf.Program, error) {
	if err := bundle.CheckObject(o, object); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, LoadLimit)
	defer cancel()
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	defer theirs.Close()
	names, maps, err := l.share()
	defer func() { _ = closeAll(maps) }() // duplicates: nothing is lost with them
	if err != nil {
		return nil, err
	}
	r := request{Kind: o.Kind, Limits: l.Limits, Constants: l.Constants,
		Maps: names, Object: object}
	if l.KernelCheck != nil {
		// A file that is no certificate must not keep other programs from being loaded.
		if r.KernelCheck, err = l.KernelCheck(); err != nil && r.KernelCheck.Required {
			return nil, err
		} else if err != nil && l.Log != nil {
			l.Log.Warn("certificates for the kernel are left out", zap.Error(err))
		}
	}
	cmd, diagnosis, err := l.child(ctx, &r, append([]*os.File{theirs}, maps...))
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("it took longer than %v", LoadLimit)
		}
		return nil, fmt.Errorf("the loader ended without an answer: %w%s", err, diagnosis.first())
	}
	theirs.Close() // or a child that says nothing would never be heard of
	if err := ours.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	took := time.Since(begun)
	a, prog, err := readAnswer(ours, contracts[o.Kind].of)
	if err != nil {
		return nil, err
	}
	if l.Log != nil {
		a.Times.log(l.Log, took, cmd.ProcessState)
	}
	if a.Error != "" {
		return nil, &refusedError{a.Error, a.Log}
	}
	return prog, nil
}

// share duplicates the descriptors of the maps. The caller closes them, also after an error.
func (l *Loader) share() (names []string, files []*os.File, err error) {
	for name, m := range l.Maps {
		fd, err := unix.FcntlInt(uintptr(m.FD()), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, files, fmt.Errorf("share map %s: %w", name, err)
		}
		names, files = append(names, name), append(files, os.NewFile(uintptr(fd), name))
	}
	return names, files, nil
}

// child prepares the process.
func (l *Loader) child(
	ctx context.Context, r *request, files []*os.File,
) (*exec.Cmd, *beginning, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, nil, fmt.Errorf("encode what to load: %w", err)
	}
	command := l.command
	if command == nil {
		command = []string{self, ChildArg}
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = []string{"GOTRACEBACK=none", "GOMEMLIMIT=256MiB"}
	cmd.Stdin, cmd.ExtraFiles, cmd.WaitDelay = bytes.NewReader(text), files, time.Second
	diagnosis := &beginning{}
	cmd.Stderr = diagnosis
	return cmd, diagnosis, nil
}

func closeAll(files []*os.File) error {
	var errs []error
	for _, f := range files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

func socketPair() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	file := os.NewFile(uintptr(fds[0]), "socket")
	theirs = os.NewFile(uintptr(fds[1]), "socket")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err == nil {
		return conn.(*net.UnixConn), theirs, nil // a unix socket, by its family
	}
	theirs.Close()
	return nil, nil, fmt.Errorf("open the socket: %w", err)
}

// beginning keeps the beginning of what a child prints: the rest is a stack trace.
type beginning struct{ text []byte }

// Write implements io.Writer.
func (b *beginning) Write(p []byte) (int, error) {
	b.text = append(b.text, p[:min(len(p), 256-len(b.text))]...)
	return len(p), nil
}

// first returns the first line after a colon, or "".
func (b *beginning) first() string {
	line, _, _ := strings.Cut(string(b.text), "\n")
	if line == "" {
		return ""
	}
	return ": " + line
}
