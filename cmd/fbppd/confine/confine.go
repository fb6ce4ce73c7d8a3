// SPDX-License-Identifier: Apache-2.0

// Package confine takes from a process what a vhost-user backend does not need
// once its sockets are open. Who takes over the process through a hole in it,
// from the guest or from the frontend, has the guest's memory and the open
// sockets, and no more: no files, no other programs, no network.
//
// Each step is taken where the kernel has it. What is not in force is
// reported, and is no error.
package confine

import (
	"fmt"
	"time"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// Sandbox says what becomes of the process's files and privileges.
type Sandbox string

// The values of Sandbox.
const (
	SandboxNone Sandbox = "none"
	// SandboxLandlock drops all capabilities, forbids to gain privileges by
	// executing a file, hides the process's memory from others of the same user
	// and from core dumps, and leaves of the file system only that sockets can
	// be removed.
	SandboxLandlock Sandbox = "landlock"
)

// Seccomp says what happens at a system call that is not on the list.
type Seccomp string

// The values of Seccomp.
const (
	SeccompNone  Seccomp = "none"
	SeccompLog   Seccomp = "log"   // it is logged by the kernel and made
	SeccompErrno Seccomp = "errno" // it fails with EPERM
	SeccompKill  Seccomp = "kill"  // the process is killed
)

// Options say what to do. The zero value does nothing.
type Options struct {
	Sandbox Sandbox
	Seccomp Seccomp
	// Removable are the folders in which the process will still remove files.
	Removable []string
}

// Report says what came of it, in words for a log.
type Report struct {
	InForce []string
	Missing []string // the kernel does not have it
}

func (r *Report) add(name string, err error) {
	if err != nil {
		r.Missing = append(r.Missing, fmt.Sprintf("%s (%v)", name, err))
		return
	}
	r.InForce = append(r.InForce, name)
}

// actions are the values of Seccomp that install a filter.
var actions = map[Seccomp]seccomp.Action{
	SeccompLog:   seccomp.ActionLog,
	SeccompErrno: seccomp.ActionErrno,
	SeccompKill:  seccomp.ActionKillProcess,
}

// Check returns an error if o has an unknown value.
func (o Options) Check() error {
	switch o.Sandbox {
	case "", SandboxNone, SandboxLandlock:
	default:
		return fmt.Errorf("sandbox %q is neither landlock nor none", o.Sandbox)
	}
	if _, ok := actions[o.Seccomp]; !ok && o.Seccomp != "" && o.Seccomp != SeccompNone {
		return fmt.Errorf("seccomp %q is none of errno, kill, log and none", o.Seccomp)
	}
	return nil
}

// Process confines the calling process, all threads of it, for good. An error
// is that of o.Check.
func Process(o Options) (Report, error) {
	var r Report
	if err := o.Check(); err != nil {
		return r, err
	}
	if o.Sandbox == SandboxLandlock {
		// The log's clock needs /etc/localtime, which Go reads at first use.
		_, _ = time.Now().Zone()
		r.add("no capabilities", cap.NewSet().SetProc())
		r.add("not dumpable", unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
		r.add("landlock", restrictFiles(o.Removable))
	}
	if action, ok := actions[o.Seccomp]; ok {
		r.add("seccomp", filter(action))
	}
	return r, nil
}

// restrictFiles also sets no_new_privs, and where the kernel has it takes away
// TCP, and signals and abstract sockets outside of the process.
func restrictFiles(removable []string) error {
	if _, err := ll.LandlockGetABIVersion(); err != nil {
		return fmt.Errorf("not in this kernel: %w", err)
	}
	var rules []landlock.Rule
	if len(removable) > 0 {
		rules = append(rules, landlock.PathAccess(ll.AccessFSRemoveFile, removable...))
	}
	return landlock.V11.BestEffort().Restrict(rules...)
}
