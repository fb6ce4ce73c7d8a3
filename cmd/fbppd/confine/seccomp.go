// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"runtime"

	"github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"
)

// allowed are the allowed system calls: those that Go's runtime makes at any time,
// that package vhostuser makes when a frontend connects, and that the control and
// agent sockets need. None of them opens, creates or executes a file by its path,
// makes or connects a socket, or accesses another process.
var allowed = [...]string{
	// Go's runtime: threads, signals, time, memory
	"exit", "exit_group", "futex", "getpid", "gettid", "tgkill", "sched_yield",
	"sched_getaffinity", "set_robust_list", "rseq", "membarrier",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall",
	"nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres", "gettimeofday",
	"munmap", "mremap", "madvise", "mincore", "getrandom",

	// Go's poller, and descriptors that are open
	"epoll_ctl", "epoll_pwait", "epoll_create1", "ppoll", "eventfd2", "pipe2",
	"read", "write", "readv", "writev", "pread64", "pwrite64", "preadv2", "lseek",
	"close", "fcntl", "dup", "dup3", "fstat",

	// sockets that listen or are connected
	"accept4", "recvmsg", "recvfrom", "sendmsg", "sendto", "shutdown",
	"getsockopt", "setsockopt", "getsockname", "getpeername",

	// guest memory, the dirty log, inflight regions, the hint window, postcopy
	"memfd_create", "ftruncate", "fallocate", "fstatfs", "userfaultfd",

	// at the end: the sockets are removed (Landlock says where)
	"unlinkat",
}

// onSome are allowed calls that only some architectures have, or that have another name there.
var onSome = map[string][]string{
	"amd64": {"arch_prctl", "epoll_wait", "poll", "lstat", "stat", "newfstatat", "unlink"},
	"arm64": {"fstatat"},
}

// restricted are calls that are allowed with some arguments only.
func restricted() []seccomp.NameWithConditions {
	const (
		cloneThread = unix.CLONE_THREAD
		// Go's runtime names its memory (prctl(2), PR_SET_VMA).
		setVMA = unix.PR_SET_VMA
		// include/uapi/linux/userfaultfd.h. uffdNew is for /dev/userfaultfd.
		uffdNew        = 0xaa00
		uffdAPI        = 0xc018aa3f
		uffdRegister   = 0xc020aa00
		uffdUnregister = 0x8010aa01
		uffdWake       = 0x8010aa02
	)
	when := func(
		name string, arg uint32, op seccomp.Operation, value uint64,
	) seccomp.NameWithConditions {
		condition := seccomp.Condition{Argument: arg, Operation: op, Value: value}
		return seccomp.NameWithConditions{
			Name: name, Conditions: []seccomp.Condition{condition},
		}
	}
	cs := []seccomp.NameWithConditions{
		when("clone", 0, seccomp.BitsSet, cloneThread), // threads, not processes
		when("prctl", 0, seccomp.Equal, setVMA),
		when("mmap", 2, seccomp.BitsNotSet, unix.PROT_EXEC), // no new code
		when("mprotect", 2, seccomp.BitsNotSet, unix.PROT_EXEC),
	}
	for _, request := range []uint64{uffdNew, uffdAPI, uffdRegister, uffdUnregister, uffdWake} {
		cs = append(cs, when("ioctl", 1, seccomp.Equal, request))
	}
	return cs
}

// filter installs the filter in all threads. action is for calls that are not
// allowed.
func filter(action seccomp.Action) error {
	// no_new_privs is set for this thread, which must also install the filter.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	names := append(allowed[:len(allowed):len(allowed)], onSome[runtime.GOARCH]...)
	return seccomp.LoadFilter(seccomp.Filter{
		NoNewPrivs: true,
		Flag:       seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{
			DefaultAction: action,
			Syscalls: []seccomp.SyscallGroup{
				{Action: seccomp.ActionAllow, Names: names, NamesWithCondtions: restricted()},
				// These calls fail with an error, whatever action says, as their
				// callers have a fallback: the C library, where Go uses it, from
				// clone3 to clone, and package vhostuser from /dev/userfaultfd.
				{Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS), Names: []string{"clone3"}},
				{Action: seccomp.ActionErrno | seccomp.Action(unix.EACCES), Names: []string{"openat"}},
			},
		},
	})
}
