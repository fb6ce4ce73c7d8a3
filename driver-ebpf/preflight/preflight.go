// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"strings"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/agent"
	"github.com/fbpp-project/fbpp/driver-ebpf/coldcache"
	"github.com/fbpp-project/fbpp/driver-ebpf/dma"
	"github.com/fbpp-project/fbpp/driver-ebpf/freepages"
	"github.com/fbpp-project/fbpp/driver-ebpf/kernel"
	"github.com/fbpp-project/fbpp/driver-ebpf/walk"
)

const lockdownFile = "/sys/kernel/security/lockdown"

// anyVariable is a variable that every kernel has (init/version.c).
const anyVariable = "linux_banner"

// Result is the result of the preflight. Guest.Status says whether the guest reports. If it
// does, Snapshot is loaded; otherwise it is nil.
type Result struct {
	Guest    agent.Guest
	Snapshot *freepages.Snapshot
	Err      error // behind a status other than OK: the reason at full length
	CacheErr error // why cache cannot be dropped, where the status is OK; or nil
	// Lockdown is the mode of kernel lockdown, or "". With any, user space drives no PCI
	// device, so the agent needs the serial port.
	Lockdown string

	peek    *kernel.Peek
	dropper *coldcache.Dropper
}

// ErrNoProgram says that the guest waits for a program of the host.
var ErrNoProgram = errors.New("no program is built in: one of the host is awaited")

// Options of Run. The zero value is usable.
type Options struct {
	// NoBuiltIn loads no program: the snapshot can walk when one of the host was loaded. The
	// status is then UNSUPPORTED, and the error ErrNoProgram.
	NoBuiltIn bool
	Log       *zap.Logger // may be nil
}

// Walker returns the snapshot for the agent, or nil if there is none that can walk.
func (r *Result) Walker() walk.Walker {
	if r.Snapshot == nil || !r.Snapshot.CanWalk() {
		return nil
	}
	return r.Snapshot
}

// Dropper returns who drops cache for the agent, or nil if nobody can.
func (r *Result) Dropper() agent.CacheDropper {
	if r.dropper == nil {
		return nil
	}
	return r.dropper
}

// Memory returns the region with the walker's records, or nil if there is none.
func (r *Result) Memory() *dma.Region {
	if r.Snapshot == nil {
		return nil
	}
	return r.Snapshot.Memory()
}

// Close unloads the eBPF programs.
func (r *Result) Close() error {
	var errs []error
	if r.Snapshot != nil {
		errs = append(errs, r.Snapshot.Close())
	}
	if r.peek != nil {
		errs = append(errs, r.peek.Close())
	}
	return errors.Join(errs...)
}

// Run examines the guest, and loads the snapshot program if the guest can and may report. It is
// no error if the guest may not: the status says why. The caller closes the result.
func Run(o Options) (*Result, error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	r := &Result{}
	if err := r.describe(); err != nil {
		return nil, err
	}
	status, err := r.prepare(o)
	if status != protocol.StatusOK {
		r.Guest.Status, r.Err = status, err
		r.Guest.Hello.Reason = reason(err)
	} else if r.dropper, err = coldcache.Open(); err != nil {
		r.CacheErr = fmt.Errorf("cache is not dropped: %w", err)
		r.Guest.Hello.Reason = reason(r.CacheErr)
	} else {
		r.Guest.Hello.Features |= protocol.FeatureDropCache
	}
	return r, nil
}

// describe fills in the fields of Guest that do not depend on the status.
func (r *Result) describe() error {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return os.NewSyscallError("uname", err)
	}
	ram, err := agent.RAMBytes()
	if err != nil {
		return err
	}
	r.Guest.PageShift = uint8(bits.TrailingZeros(uint(os.Getpagesize())))
	system := unix.ByteSliceToString(uts.Sysname[:])
	r.Guest.Hello.Release = system + " " + unix.ByteSliceToString(uts.Release[:])
	r.Guest.Hello.RAMBytes = ram
	return nil
}

// prepare loads the programs. The error is why the status is not OK.
func (r *Result) prepare(o Options) (protocol.Status, error) {
	if text, err := os.ReadFile(lockdownFile); err == nil {
		r.Lockdown = lockdown(string(text))
	}
	if r.Lockdown != "" && r.Lockdown != "integrity" {
		return protocol.StatusLockdown, r.lockdownErr()
	}
	peek, err := kernel.OpenPeek()
	if err != nil {
		o.Log.Debug("load eBPF programs", zap.Error(err))
		return refusal(err, os.Geteuid() == 0)
	}
	r.peek = peek
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return protocol.StatusFailed, err
	}
	// Only if this symbol is found can the absence of another one be trusted.
	if _, err := peek.Symbol(anyVariable); errors.Is(err, kernel.ErrHidden) {
		err = fmt.Errorf("%w: sysctl kernel.kptr_restrict=1", kernel.ErrHidden)
		return protocol.StatusUnsupported, err
	} else if err != nil {
		err = fmt.Errorf("find variables of the kernel (KALLSYMS_ALL?): %w", err)
		return protocol.StatusUnsupported, err
	}
	features, err := contentFeatures(peek, string(cmdline))
	if err != nil {
		return protocol.StatusFailed, err
	}
	r.Guest.Hello.Features = features
	if features&protocol.FeaturePagePoison != 0 {
		// [FBPP-HELLO-1]
		return protocol.StatusContentMatters, errors.New("page_poison or debug_pagealloc is on")
	}
	snapshot, err := freepages.Load(peek, freepages.Options{Log: o.Log, NoProgram: o.NoBuiltIn})
	if err != nil {
		return protocol.StatusUnsupported, err
	}
	r.Snapshot = snapshot
	r.Guest.Hello.MaxOrder = uint8(snapshot.MaxOrder())
	if o.NoBuiltIn {
		return protocol.StatusUnsupported, ErrNoProgram
	}
	return protocol.StatusOK, nil
}

func (r *Result) lockdownErr() error { return fmt.Errorf("kernel lockdown is at %s", r.Lockdown) }

// Unreachable returns what HELLO says where the guest could report, but not through the
// device. err is why the device cannot be opened; nil where lockdown forbids it.
func (r *Result) Unreachable(err error) (protocol.Status, string) {
	if r.Lockdown != "" {
		return protocol.StatusLockdown, reason(r.lockdownErr())
	}
	return protocol.StatusUnsupported, reason(err)
}

// refusal returns the status and error for eBPF programs that could not be loaded. If the
// process lacks the permission, that is not the kernel's fault. The library's error then blames
// RLIMIT_MEMLOCK, which is wrong since Linux 5.11.
func refusal(err error, root bool) (protocol.Status, error) {
	var errno unix.Errno
	switch {
	case !errors.Is(err, os.ErrPermission) || !errors.As(err, &errno):
		return protocol.StatusUnsupported, err
	case !root:
		return protocol.StatusFailed, fmt.Errorf("root is needed: %w", errno)
	}
	err = fmt.Errorf("eBPF is refused (CAP_BPF, CAP_PERFMON, seccomp?): %w", errno)
	return protocol.StatusFailed, err
}

// lockdown returns the mode of kernel lockdown, which is in brackets in the file's text, or ""
// if there is none. With confidentiality eBPF programs cannot read kernel memory. With
// integrity already, user space cannot drive a PCI device.
func lockdown(text string) string {
	_, rest, _ := strings.Cut(text, "[")
	mode, _, ok := strings.Cut(rest, "]")
	if !ok || mode == "none" {
		return ""
	}
	return mode
}
