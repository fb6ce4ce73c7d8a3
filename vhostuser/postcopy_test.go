// SPDX-License-Identifier: Apache-2.0

package vhostuser_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/vhostuser"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

const page = vhosttest.PageSize

// pagerVariable is an environment variable. With it the test program serves page faults
// instead of running tests.
const pagerVariable = "VHOSTUSER_TEST_PAGER"

// pager serves the faults of a block. It runs in a process of its own. Descriptor 3 is
// the userfaultfd, 4 the block's file. It reports each fault on 6, and then waits on 5
// until the test has run the garbage collector.
func pager(base string) error {
	at, err := strconv.ParseUint(base, 0, 64)
	if err != nil {
		return err
	}
	collected, faulted := os.NewFile(5, "collected"), os.NewFile(6, "faulted")
	var heldUp error
	contents := func(off uint64) []byte {
		if _, err := faulted.Write([]byte{0}); err != nil {
			heldUp = err
		}
		ready := []unix.PollFd{{Fd: 5, Events: unix.POLLIN}}
		if n, _ := unix.Poll(ready, 15000); n == 0 {
			heldUp = errors.New("the process stands still while a page is missing")
		} else if _, err := collected.Read(make([]byte, 1)); err != nil {
			heldUp = err
		}
		return arrived(off)
	}
	return errors.Join(vhosttest.ServeFaults(3, 4, at, contents, 5*time.Second), heldUp)
}

// arrived returns the content of the page at off once it has arrived.
func arrived(off uint64) []byte {
	p := make([]byte, page)
	copy(p, fmt.Sprintf("page at %#x", off))
	return p
}

// postcopyVM returns a vm at the destination of a migration. Its rings are not started.
// The pages of its third block have not arrived.
func postcopyVM(t *testing.T, e *echo, o vhosttest.Options) (*vm, *vhosttest.Postcopy) {
	t.Helper()
	v := newVM(t, serve(t, &e.Device), o, 1<<20, 1<<20, 1<<20)
	if !v.f.Protocol.Has(wire.ProtocolPageFault) {
		t.Skip("the kernel gives this process no userfaultfd of any kind")
	}
	for _, b := range v.g.Blocks[:2] {
		v.g.Read(b.Addr, b.Size()) // a read allocates the pages: they are present from now on
	}
	p, err := v.f.Advise()
	must(t, err)
	t.Cleanup(p.Close)
	must(t, p.Listen())
	must(t, v.f.SetFeatures(virtioFeatures))
	must(t, p.SetMemory(v.g))
	return v, p
}

func TestPagesArriveAfterTheDeviceRuns(t *testing.T) {
	for _, tt := range []struct {
		name    string
		without wire.ProtocolFeatures
	}{
		{"with memory slots", 0},
		{"with a memory table", 1 << wire.ProtocolConfigureMemSlots},
		{"without REPLY_ACK", 1 << wire.ProtocolReplyAck},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEcho()
			v, p := postcopyVM(t, e, vhosttest.Options{Without: tt.without})
			missing := v.g.Blocks[2]
			base, uffd := p.Base(missing)
			stop := startPager(t, base, uffd, missing.FD)
			must(t, v.f.StartRings(v.queues...))
			v.echo(1, "in memory that is there")
			for n := range uint64(8) {
				in := vhosttest.Buffer{Addr: missing.Addr + 4*n*page + 5, Len: 2 * page}
				out := vhosttest.Buffer{Addr: missing.Addr + (4*n+2)*page + 9, Len: 2*page - 9, Write: true}
				_, err := v.queues[0].Add(in, out)
				must(t, err)
				must(t, v.queues[0].Kick.Raise())
				_, err = v.queues[0].Wait(20 * time.Second)
				must(t, err)
				want := slices.Concat(arrived(4*n*page), arrived((4*n+1)*page))[5:]
				if got := v.g.Read(out.Addr, page); !bytes.Equal(got, want[:page]) {
					t.Fatalf("got %q", got[:20])
				}
				// The rest of the pages that the device wrote has the content that arrived.
				if got := v.g.Read(out.Addr-9, 9); string(got) != "page at 0" {
					t.Fatalf("before it is %q", got)
				}
			}
			stop()
			must(t, p.End())
			v.echo(0, "as before")
			must(t, v.f.Stop(v.queues...))
		})
	}
}

// startPager starts a pager for a block. At each fault the garbage collector runs here.
// The function that it returns waits until the pager has ended.
func startPager(t *testing.T, base uint64, uffd, block int) func() {
	t.Helper()
	collectedR, collectedW, err := os.Pipe()
	must(t, err)
	faultedR, faultedW, err := os.Pipe()
	must(t, err)
	go func() {
		defer collectedW.Close()
		defer faultedR.Close()
		for b := make([]byte, 1); ; {
			if _, err := faultedR.Read(b); err != nil {
				return // the pager has ended
			}
			runtime.GC()
			if _, err := collectedW.Write(b); err != nil {
				return
			}
		}
	}()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%#x", pagerVariable, base))
	cmd.Stderr = os.Stderr
	for _, fd := range []int{uffd, block} {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		must(t, err)
		f := os.NewFile(uintptr(dup), "for the pager")
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	cmd.ExtraFiles = append(cmd.ExtraFiles, collectedR, faultedW)
	defer collectedR.Close()
	defer faultedW.Close()
	must(t, cmd.Start())
	return func() { must(t, cmd.Wait()) }
}

func TestRingThatHasYetToArrive(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{}, 1<<20, 1<<20)
	q := v.queues[0]
	in, out := v.request("was available at the source")
	_, err := q.Add(in, out)
	must(t, err)
	contents := make(map[uint64][]byte)
	for _, addr := range []uint64{q.Desc, q.Avail, q.UsedRing, in.Addr, out.Addr} {
		contents[addr], err = v.g.Punch(addr, page)
		must(t, err)
	}
	p, err := v.f.Advise()
	must(t, err)
	defer p.Close()
	must(t, p.Listen())
	must(t, v.f.SetFeatures(virtioFeatures))
	must(t, p.SetMemory(v.g))
	started := background(none(func() error { return v.f.StartRings(q) }))
	for len(contents) > 0 {
		addr, err := p.Fault(10 * time.Second)
		must(t, err)
		if contents[addr] == nil {
			t.Fatalf("fault at %#x", addr)
		}
		must(t, p.Place(addr, contents[addr]))
		delete(contents, addr)
	}
	_, err = started()
	must(t, err)
	v.answer(0, out, "was available at the source")
	must(t, p.End())
}

func TestDeviceStopsWhilePagesAreMissing(t *testing.T) {
	for _, tt := range []struct {
		name string
		then func(v *vm)
	}{
		{"when the ring is stopped", func(v *vm) {
			base, err := v.f.StopRing(v.queues[0])
			must(v.t, err)
			if base != 0 {
				v.t.Errorf("base %d", base)
			}
		}},
		{"when the ring is disabled", func(v *vm) { must(v.t, v.f.Enable(v.queues[0], false)) }},
		{"when the frontend leaves", func(v *vm) { v.f.Close() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEcho()
			v, p := postcopyVM(t, e, vhosttest.Options{})
			must(t, v.f.StartRings(v.queues...))
			missing := v.g.Blocks[2]
			_, err := v.queues[0].Add(vhosttest.Buffer{Addr: missing.Addr, Len: 1})
			must(t, err)
			must(t, v.queues[0].Kick.Raise())
			addr, err := p.Fault(10 * time.Second)
			must(t, err)
			if addr != missing.Addr {
				t.Errorf("fault at %#x", addr)
			}
			tt.then(v)
			v.f.Close()
			eventually(t, "disconnected", func() bool {
				return slices.Contains(e.recorded(), "disconnected")
			})
			// No page was allocated where one is missing.
			var st unix.Stat_t
			must(t, unix.Fstat(missing.FD, &st))
			if st.Blocks != 0 {
				t.Errorf("%d blocks of memory appeared", st.Blocks)
			}
		})
	}
}

func TestFrontendLeavesWhileARingIsMissing(t *testing.T) {
	e := newEcho()
	v, p := postcopyVM(t, e, vhosttest.Options{})
	q := v.queues[0]
	_, err := v.g.Punch(q.UsedRing, page)
	must(t, err)
	v.f.AckAll = false
	must(t, v.f.Send(wire.SetVringNum, 0, wire.VringState{Num: 8}.AppendTo(nil)))
	must(t, v.f.Send(wire.SetVringAddr, 0, q.Addr(0).AppendTo(nil)))
	_, err = p.Fault(10 * time.Second)
	must(t, err)
	v.f.Close()
	eventually(t, "disconnected", func() bool { return slices.Contains(e.recorded(), "disconnected") })
}

func TestMemoryIsUsedWhenTheFrontendKnowsItsAddress(t *testing.T) {
	e := newEcho()
	v, p := postcopyVM(t, e, vhosttest.Options{})
	must(t, v.f.StartRings(v.queues...))
	more, err := v.g.AddBlock(v.g.End(), 1<<16)
	must(t, err)
	must(t, p.AddBlock(more))
	must(t, v.f.Barrier())
	if slices.Contains(e.recorded(), "memory 4") {
		t.Error("the table is used before it was acknowledged")
	}
	must(t, p.Acknowledge(wire.AddMemReg, 0))
	must(t, v.f.Barrier())
	if !slices.Contains(e.recorded(), "memory 4") {
		t.Errorf("the table is not used: %q", e.recorded())
	}
	// The frontend refuses the answer to this block: the backend forgets the block.
	worse, err := v.g.AddBlock(v.g.End(), 1<<16)
	must(t, err)
	must(t, p.AddBlock(worse))
	must(t, p.Acknowledge(wire.AddMemReg, 1))
	must(t, v.f.Barrier())
	if slices.Contains(e.recorded(), "memory 5") {
		t.Error("a table that was refused is used")
	}
	must(t, v.f.RemoveBlock(more))
	v.echo(0, "goes on")
	must(t, p.AddBlock(worse))
	must(t, v.f.RemoveBlock(worse))
	must(t, p.Acknowledge(wire.AddMemReg, 0))
	must(t, p.End())
	v.echo(0, "goes on")
}

func TestPostcopyOutOfOrderIsRefused(t *testing.T) {
	e := newEcho()
	v := newVM(t, serve(t, &e.Device), vhosttest.Options{})
	if !v.f.Protocol.Has(wire.ProtocolPageFault) {
		t.Skip("the kernel gives this process no userfaultfd of any kind")
	}
	var refused *vhosttest.Refused
	expect := func(what string, err error) {
		t.Helper()
		if !errors.As(err, &refused) {
			t.Errorf("%s: %v", what, err)
		}
	}
	expect("listen before advise", v.f.Confirm(wire.PostcopyListen, nil))
	p, err := v.f.Advise()
	must(t, err)
	defer p.Close()
	expect("end before listen", p.End())
	_, err = v.f.Advise()
	expect("a second advise", err)
	v.start()
	expect("listen with memory", p.Listen())
	v.echo(0, "goes on")

	v = newVM(t, serve(t, &newEcho().Device), vhosttest.Options{})
	p, err = v.f.Advise()
	must(t, err)
	defer p.Close()
	must(t, p.Listen())
	expect("a second listen", p.Listen())
	expect("an acknowledgement of nothing", v.f.Confirm(wire.SetMemTable, wire.U64(0).AppendTo(nil)))
	expect("an acknowledgement of nothing", v.f.Confirm(wire.AddMemReg, wire.U64(0).AppendTo(nil)))
	must(t, p.End())
	v.start()
	v.echo(0, "after a postcopy without memory")

	v = newVM(t, serve(t, &newEcho().Device), vhosttest.Options{Without: 1 << wire.ProtocolPageFault})
	_, err = v.f.Advise()
	expect("advise without the feature", err)
}

// nobody is the number of an unprivileged user on every Linux system.
const nobody = 65534

// TestPostcopyWithoutPrivileges runs the tests above as an unprivileged user. By the
// default of vm.unprivileged_userfaultfd such a user may only open a userfaultfd with
// UFFD_USER_MODE_ONLY.
func TestPostcopyWithoutPrivileges(t *testing.T) {
	if os.Getuid() == nobody {
		return // this is the process that the test started
	}
	cmd := exec.Command("/proc/self/exe", "-test.v",
		"-test.run=Pages|RingThatHas|FrontendLeavesWhileARing|MemoryIsUsed|OutOfOrder")
	cmd.Dir = "/"
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("--- SKIP")) ||
		bytes.Count(out, []byte("--- PASS")) < 8 {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestPostcopyIsSwitchedOff(t *testing.T) {
	e := newEcho()
	v := newVM(t, serveWith(t, &e.Device, zap.NewNop(), vhostuser.WithoutPostcopy()),
		vhosttest.Options{})
	if v.f.Protocol.Has(wire.ProtocolPageFault) {
		t.Error("PAGEFAULT is offered")
	}
}
