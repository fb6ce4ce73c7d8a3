// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/vhostuser/vhosttest"
	"github.com/fbpp-project/fbpp/vhostuser/wire"
)

// nobody is the id of a user without privileges on every Linux.
const nobody = 65534

// TestPostcopyConfined plays the destination of a postcopy migration. fbppd has its
// default confinement, and the host the default of vm.unprivileged_userfaultfd.
func TestPostcopyConfined(t *testing.T) {
	exe := mustBuild(t)
	modes := []struct {
		name string
		user int
		log  string
	}{{"as a user without privileges", os.Getuid(), "user_mode_only"}}
	if os.Getuid() == 0 {
		modes[0].user = nobody
		if _, err := os.Stat("/dev/userfaultfd"); err == nil {
			modes = append(modes, modes[0])
			modes[1].name, modes[1].user = "as a user who may open /dev/userfaultfd", 0
			modes[1].log = `"user_mode_only": false`
		}
	}
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			d := mustStartAs(t, exe, mode.user, "--seccomp=kill", "--log-level=debug")
			v := mustArrive(t, d.vhost)
			v.exchange()
			v.fe.Close()
			if err := d.cmd.Process.Signal(unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := d.cmd.Wait(); err != nil {
				t.Fatalf("it ended with %v", err)
			}
			if !strings.Contains(d.log.String(), mode.log) {
				t.Errorf("no %q in the log", mode.log)
			}
		})
	}
}

// mustStartAs is mustStart as another user, with a folder and a copy of fbppd that
// this user can read.
func mustStartAs(t *testing.T, exe string, uid int, args ...string) *daemon {
	t.Helper()
	dir := must(os.MkdirTemp("", "fbppd"))(t) // other users cannot enter t.TempDir
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	own := filepath.Join(dir, "fbppd")
	if err := os.WriteFile(own, must(os.ReadFile(exe))(t), 0o755); err != nil {
		t.Fatal(err)
	}
	var attr *syscall.SysProcAttr
	if uid != os.Getuid() {
		if err := os.Chown(dir, uid, uid); err != nil {
			t.Fatal(err)
		}
		attr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	return mustStartIn(t, dir, attr, own, args...)
}

// mustArrive starts a device at the destination of a postcopy migration. The pages
// of its rings and of the event's buffer only arrive when the device touches them.
func mustArrive(t *testing.T, path string) *vm {
	t.Helper()
	v := newVM(t)
	v.dial(path)
	if !v.fe.Protocol.Has(wire.ProtocolPageFault) {
		t.Fatal("fbppd does not offer PAGEFAULT")
	}
	must(v.eventq.Add(vhosttest.Buffer{Addr: v.event, Len: protocol.EventSize, Write: true}))(t)
	missing := make(map[uint64][]byte)
	for _, addr := range []uint64{v.eventq.Desc, v.eventq.Avail, v.eventq.UsedRing, v.event} {
		missing[addr] = must(v.guest.Punch(addr, vhosttest.PageSize))(t)
	}
	p := must(v.fe.Advise())(t)
	t.Cleanup(p.Close)
	v.check(p.Listen())
	v.check(v.fe.SetFeatures(1 << wire.FeatureVersion1))
	v.check(p.SetMemory(v.guest))
	started := make(chan error, 1)
	go func() { started <- v.fe.StartRings(v.eventq, v.reportq) }()
	for len(missing) > 0 {
		addr := must(p.Fault(patience))(t)
		if missing[addr] == nil {
			t.Fatalf("fault at %#x", addr)
		}
		v.check(p.Place(addr, missing[addr]))
		delete(missing, addr)
	}
	v.check(<-started)
	if e := v.next(); e.Type != protocol.EventChanged {
		t.Fatalf("first event %v, want EventChanged", e)
	}
	v.check(p.End())
	v.send(helloMessage(protocol.StatusOK, ""))
	return v
}
