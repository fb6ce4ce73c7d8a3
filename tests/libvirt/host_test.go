// SPDX-License-Identifier: Apache-2.0

package libvirt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/guest/ctl"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// qemuUser is the user of Debian's package libvirt-daemon-system, as which QEMU runs,
// and its number there.
const (
	qemuUser   = "libvirt-qemu"
	qemuUserID = 64055
)

// host is one libvirtd with namespaces of its own.
type host struct {
	t      *testing.T
	name   string
	folder string // has the host's etc, run, var and bin
	pid    string // of process 1 there
	log    bytes.Buffer
	orders *net.UnixListener // where QEMUs connect the guest's order channel
}

// startHosts starts two hosts, whose networks are connected. They end with the test.
func startHosts(t *testing.T, ctx context.Context) (a, b *host) {
	t.Helper()
	dir, err := os.MkdirTemp("", "fbpp-lv-") // short, for the names of sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // it is QEMU's way to the guest's files
		t.Fatal(err)
	}
	a = newHost(t, filepath.Join(dir, "a"), "fbpp-a", 1)
	b = newHost(t, filepath.Join(dir, "b"), "fbpp-b", 2)
	a.start()
	b.start()
	command(t, ctx, "ip", "link", "add", "lan", "netns", a.pid, "type", "veth",
		"peer", "name", "lan", "netns", b.pid)
	for i, h := range []*host{a, b} {
		h.mustRun(ctx, "ip", "address", "add", fmt.Sprintf("10.0.0.%d/24", i+1), "dev", "lan")
		h.mustRun(ctx, "ip", "link", "set", "lan", "up")
		h.mustRun(ctx, "ip", "route", "add", "224.0.0.0/4", "dev", "lan") // the guest's network
	}
	for _, h := range []*host{a, b} {
		h.await("libvirtd to answer", ctx, func() bool {
			_, err := h.run(ctx, "virsh", "uri")
			return err == nil
		})
	}
	return a, b
}

// newHost makes the files of a host.
func newHost(t *testing.T, folder, name string, number int) *host {
	t.Helper()
	h := &host{t: t, name: name, folder: folder}
	h.write("etc/hosts", "127.0.0.1 localhost\n10.0.0.1 fbpp-a\n10.0.0.2 fbpp-b\n")
	for _, file := range []string{"passwd", "group"} {
		text, err := os.ReadFile("/etc/" + file)
		if err != nil {
			t.Fatal(err)
		}
		var kept strings.Builder
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(line, qemuUser+":") {
				kept.WriteString(line)
			}
		}
		more := map[string]string{"passwd": fmt.Sprintf(":%d::/var/lib/libvirt:/usr/sbin/nologin\n",
			qemuUserID), "group": ":\n"}[file]
		h.write("etc/"+file, fmt.Sprintf("%s%s:x:%d%s", &kept, qemuUser, qemuUserID, more))
	}
	h.write("etc/libvirt/libvirtd.conf", fmt.Sprintf(`listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
auth_unix_rw = "none"
host_uuid = "00000000-0000-4000-8000-%012d"
log_level = 3
`, number))
	// docs/libvirt.md has no word of these: they are for hosts that are containers, and
	// for disks that both hosts have under one name.
	h.write("etc/libvirt/qemu.conf", `security_driver = "none"
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "file"
dynamic_ownership = 0
remember_owner = 0
`)
	h.install("contrib/libvirt/fbpp", "etc/libvirt/hooks/qemu.d/fbpp", 0o755)
	h.install("contrib/fbppd@.service", "etc/systemd/system/fbppd@.service", 0o644)
	h.write("etc/systemd/system/fbppd@.service.d/override.conf",
		"[Service]\nUser="+qemuUser+"\nGroup="+qemuUser+"\n")
	h.install("tests/libvirt/systemctl.sh", "bin/systemctl", 0o755)
	h.write("bin/logger", "#!/bin/sh\nexec cat >>/var/log/fbpp-hook.log\n")
	for name, program := range map[string]string{
		"fbppd": parts.FBPPD, "fbppctl": parts.FBPPCtl, "qemu-system-x86_64": parts.QEMU,
	} {
		h.install(program, "bin/"+name, 0o755)
	}
	if err := os.Chmod(filepath.Join(folder, "bin/logger"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"run", "var/log"} {
		if err := os.MkdirAll(filepath.Join(folder, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	address := &net.UnixAddr{Name: h.path("run/orders.sock"), Net: "unix"}
	if h.orders, err = net.ListenUnix("unix", address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.orders.Close() })
	if err := os.Chmod(h.path("run/orders.sock"), 0o777); err != nil {
		t.Fatal(err)
	}
	return h
}

// path returns where a file of the host is for the test.
func (h *host) path(file string) string { return filepath.Join(h.folder, file) }

// write makes a file of the host.
func (h *host) write(file, text string) {
	h.t.Helper()
	err := os.MkdirAll(filepath.Dir(h.path(file)), 0o755)
	if err == nil {
		err = os.WriteFile(h.path(file), []byte(text), 0o644)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// install copies a file of the checkout, or one with an absolute path.
func (h *host) install(source, file string, mode os.FileMode) {
	h.t.Helper()
	if !filepath.IsAbs(source) {
		source = filepath.Join(parts.Root, source)
	}
	text, err := os.ReadFile(source)
	if err != nil {
		h.t.Fatal(err)
	}
	h.write(file, string(text))
	if err := os.Chmod(h.path(file), mode); err != nil {
		h.t.Fatal(err)
	}
}

// start starts the host's processes. All of them end with process 1 there, and that ends
// with the test, however it ends.
func (h *host) start() {
	h.t.Helper()
	cmd := exec.Command("unshare", "--mount", "--net", "--uts", "--pid", "--fork",
		"--kill-child", "--mount-proc", "--",
		filepath.Join(parts.Root, "tests/libvirt/host.sh"), h.folder, h.name)
	cmd.Stdout, cmd.Stderr = &h.log, &h.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL=C")
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := errors.Join(cmd.Process.Kill(), cmd.Wait()); h.t.Failed() {
			h.t.Logf("%s: %v\nlibvirtd said: %s\nthe hook said: %s\nfbppd said: %s", h.name, err,
				&h.log, h.read("var/log/fbpp-hook.log"), h.read("var/log/fbppd.log"))
		}
	})
	children := fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid)
	h.await("its process 1", h.t.Context(), func() bool {
		text, err := os.ReadFile(children)
		h.pid = strings.TrimSpace(string(text))
		return err == nil && h.pid != ""
	})
}

// read returns a file of the host, or "".
func (h *host) read(file string) string {
	text, err := os.ReadFile(h.path(file))
	if err != nil {
		return ""
	}
	return string(text)
}

// run runs a command on the host, and returns what it printed.
func (h *host) run(ctx context.Context, words ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{
		"--target=" + h.pid, "--mount", "--net", "--uts", "--pid", "--"}, words...)...)
	cmd.Env = append(os.Environ(), "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL=C")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %q: %w: %s%s", h.name, words, err, &stdout, &stderr)
	}
	return stdout.String(), nil
}

// mustRun is run for commands that have to work.
func (h *host) mustRun(ctx context.Context, words ...string) string {
	h.t.Helper()
	said, err := h.run(ctx, words...)
	if err != nil {
		h.t.Fatal(err)
	}
	return said
}

// await waits until done says so.
func (h *host) await(what string, ctx context.Context, done func() bool) {
	h.t.Helper()
	for !done() {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			h.t.Fatalf("%s: wait for %s: %v", h.name, what, context.Cause(ctx))
		}
	}
}

// guest returns the guest of the QEMU that has connected its order channel. With only
// this channel a VM can run programs in the guest.
func (h *host) guest(ctx context.Context) (*vm.VM, error) {
	stop := context.AfterFunc(ctx, func() { h.orders.SetDeadline(time.Now()) })
	defer func() {
		stop()
		h.orders.SetDeadline(time.Time{})
	}()
	conn, err := h.orders.Accept()
	if err != nil {
		return nil, fmt.Errorf("%s: wait for QEMU to connect: %w", h.name,
			errors.Join(err, context.Cause(ctx)))
	}
	return &vm.VM{Guest: ctl.NewClient(conn)}, nil
}

func command(t *testing.T, ctx context.Context, words ...string) {
	t.Helper()
	if said, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v: %s", words, err, said)
	}
}
