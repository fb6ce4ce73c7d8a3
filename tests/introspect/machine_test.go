// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/guest/ctl"
	"github.com/fbpp-project/fbpp/tests/introspect/pageview"
	"github.com/fbpp-project/fbpp/tests/introspect/qemuram"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// machine describes the guest of a test.
type machine struct {
	series  guest.Series
	nodes   []int // memory of each NUMA node in MiB; one: no NUMA
	cpu     string
	append  []string // words of the kernel's command line
	options []string // words of QEMU's
	kinds   []string // of pages to make; see guestview
	accel   string   // further properties
}

// allKinds are the kinds of pages that a guest is asked to make.
var allKinds = []string{"anon", "thp", "shmem", "hugetlb", "ksm", "file", "swap", "fragment"}

// subject is a guest that runs, or is paused.
type subject struct {
	machine
	vm      *vm.VM
	release string
	loaded  string // what it said of the kinds
	ram     qemuram.Files
	token   [pageview.TokenSize]byte
}

// patience ends a step of a guest that hangs. It asserts no speed.
const patience = 5 * time.Minute

// mustBoot boots a guest and makes its pages. It is closed with the test.
func mustBoot(t *testing.T, m machine) *subject {
	t.Helper()
	config := mustConfig(t, m)
	var s *subject
	err := vm.RetryBoot(config.Accel, func(err error) { t.Logf("again: %v", err) }, func() error {
		ctx, cancel := context.WithTimeoutCause(t.Context(), patience, vm.ErrHung)
		defer cancel()
		v, err := vm.Start(ctx, config)
		if err != nil {
			return err
		}
		s = &subject{machine: m, vm: v}
		if s.release, err = v.Boot(ctx); err != nil {
			v.Close()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.vm.Diagnosis())
		}
		s.vm.Close()
	})
	if s.ram, err = qemuram.Open(s.vm.PID()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.ram.Close() })
	rand.Read(s.token[:])
	s.mustDo(t, ctl.Request{Op: ctl.OpStart, Name: "view",
		Args: append([]string{"/guestview", hex.EncodeToString(s.token[:])}, m.kinds...)})
	s.loaded = s.mustTell(t, "load")
	return s
}

// mustConfig describes the guest to QEMU.
func mustConfig(t *testing.T, m machine) vm.Config {
	t.Helper()
	kernel, err := parts.kernel(t.Context(), m.series)
	if err != nil {
		t.Fatal(err)
	}
	files := guest.NewInitramfs(parts.init, kernel)
	files["guestview"] = parts.view
	archive, err := files.WriteTo(parts.dir)
	if err != nil {
		t.Fatal(err)
	}
	c := vm.Config{
		QEMU: qemu, Accel: parts.accel, AccelWith: m.accel, CPU: m.cpu, Kernel: kernel,
		Initramfs: archive,
		Append:    m.append, Options: m.options,
	}
	for node, mib := range m.nodes {
		c.MemoryMiB += mib
		id := backingName(node)
		c.Memory = append(
			c.Memory,
			fmt.Sprintf("memory-backend-memfd,id=%s,size=%dM,share=on", id, mib),
		)
		if len(m.nodes) > 1 {
			c.Options = append(c.Options, "-numa", fmt.Sprintf("node,memdev=%s,cpus=%d", id, node))
		} else {
			c.Options = append(c.Options, "-machine", "memory-backend="+id)
		}
	}
	c.CPUs = max(2, len(m.nodes))
	for i, disk := range []string{"file", "swap"} {
		path := filepath.Join(t.TempDir(), disk)
		content := make([]byte, 32<<20)
		rand.Read(content[:16<<20])
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		c.Options = append(
			c.Options,
			"-drive",
			fmt.Sprintf("file=%s,format=raw,if=none,id=disk%d", path, i),
		)
		c.Devices = append(
			c.Devices,
			fmt.Sprintf("virtio-blk-pci,drive=disk%d,addr=0x%x", i, 0x10+i),
		)
	}
	return c
}

// backingName is the id of a node's memory.
func backingName(node int) string { return fmt.Sprintf("ram%d", node) }

func (s *subject) mustDo(t *testing.T, r ctl.Request) ctl.Reply {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	reply, err := s.vm.Guest.Do(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

// mustTell gives an order to the guest's program.
func (s *subject) mustTell(t *testing.T, order string) string {
	t.Helper()
	return s.mustDo(t, ctl.Request{Op: ctl.OpTell, Name: "view", Line: order}).Output
}

// mustRun runs a program in the guest, and returns what it printed.
func (s *subject) mustRun(t *testing.T, args ...string) string {
	t.Helper()
	r := s.mustDo(t, ctl.Request{Op: ctl.OpRun, Args: args})
	if r.Exit != 0 {
		t.Fatalf("%q ended with %d: %s", args, r.Exit, r.Output)
	}
	return r.Output
}

// mustQMP runs a command of QEMU's monitor.
func (s *subject) mustQMP(t *testing.T, command string, args, result any) {
	t.Helper()
	if err := s.vm.Execute(t.Context(), command, args, result); err != nil {
		t.Fatal(err)
	}
}
