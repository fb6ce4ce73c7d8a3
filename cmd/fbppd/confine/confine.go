// SPDX-License-Identifier: Apache-2.0

// Package confine takes away from a process what a vhost-user backend does not need
// once its sockets are open. An attacker who takes over the process, from the guest
// or from the frontend, has the guest's memory and the open sockets and files, but
// can open no files, run no other programs and reach no network.
//
// A step that the kernel does not support is reported, and is no error.
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

// Sandbox says whether the process gives up files and privileges.
type Sandbox string

// The values of Sandbox.
const (
	SandboxNone Sandbox = "none"
	// SandboxLandlock drops all capabilities and sets no_new_privs. It makes the
	// process not dumpable, so that other processes of the same user and core dumps
	// do not get its memory. Of the file system it leaves only the right to remove
	// files in Options.Removable.
	SandboxLandlock Sandbox = "landlock"
)

// Seccomp says what happens at a system call that is not allowed.
type Seccomp string

// The values of Seccomp.
const (
	SeccompNone  Seccomp = "none"  // there is no filter
	SeccompLog   Seccomp = "log"   // the kernel logs the call and makes it
	SeccompErrno Seccomp = "errno" // the call fails with EPERM
	SeccompKill  Seccomp = "kill"  // the process is killed
)

// Options say what to do. The zero value does nothing.
type Options struct {
	Sandbox Sandbox
	Seccomp Seccomp
	// Removable are the folders in which the process may still remove files.
	Removable []string
}

// Report lists the steps in words for a log.
type Report struct {
	InForce []string
	Missing []string // steps that failed, mostly for lack of support in the kernel
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

// Process confines all threads of the calling process, for good. The only error is
// that of o.Check.
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

// restrictFiles applies Landlock. It also sets no_new_privs. Where the kernel
// supports it, it also forbids TCP, signals to other processes and abstract
// sockets of other processes.
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
