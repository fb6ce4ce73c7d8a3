// SPDX-License-Identifier: Apache-2.0

package stock

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/guest/ctl"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// What ends a test and a boot that hang. They assert no speed.
const (
	hangTimeout = 10 * time.Minute
	bootTimeout = 90 * time.Second
)

// machine is a guest of Debian's QEMU.
type machine struct {
	t   *testing.T // the test or subtest that uses it now
	ctx context.Context
	*vm.VM
}

// device is a vhost-user device of a guest.
type device struct {
	name    string // "blk", of vhost-user-blk-pci
	socket  string
	more    string // further properties
	chardev string // further options of the connection
}

// withDevices returns the configuration of a guest with the devices.
func withDevices(series guest.Series, devices ...device) vm.Config {
	c := parts.configs[series]
	c.Accel = parts.accel
	if c.Accel == vm.TCG {
		// QEMU 7.2 sometimes corrupts the flags if an interrupt follows cmpxchg16b.
		// The kernel's allocator uses this instruction if the processor has it.
		c.Options = append(c.Options, "-cpu", "max,-erms,-fsrm,-cx16")
	}
	for _, d := range devices {
		c.Options = append(c.Options, "-chardev",
			fmt.Sprintf("socket,id=%s,path=%s%s", d.name, d.socket, d.chardev))
		c.Devices = append(c.Devices,
			fmt.Sprintf("vhost-user-%s-pci,id=%s0,chardev=%s%s", d.name, d.name, d.name, d.more))
	}
	return c
}

// boot starts a guest that ends with the test.
func boot(t *testing.T, c vm.Config) *machine {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), hangTimeout)
	t.Cleanup(cancel)
	m := &machine{t: t, ctx: ctx}
	lost := func(err error) { t.Logf("the guest died while it booted, once more: %v", err) }
	err := vm.RetryBoot(c.Accel, lost, func() error {
		ctx, cancel := context.WithTimeoutCause(ctx, bootTimeout, vm.ErrHung)
		defer cancel()
		v, err := vm.Start(ctx, c)
		if err != nil {
			return err
		}
		m.VM = v
		if _, err := v.Boot(ctx); err != nil {
			v.Close()
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if m.t.Failed() {
			m.t.Logf("where the guest was last: %s", m.Diagnosis())
		}
		m.Close()
	})
	return m
}

// in makes m report failures to a subtest until that ends.
func (m *machine) in(t *testing.T) {
	outer := m.t
	m.t = t
	t.Cleanup(func() { m.t = outer })
}

// run runs a program in the guest and returns what it printed.
func (m *machine) run(args ...string) string {
	m.t.Helper()
	out, err := m.Run(m.ctx, args...)
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

// spawn starts a program in the guest's background.
func (m *machine) spawn(name string, args ...string) {
	m.t.Helper()
	if err := m.Spawn(m.ctx, name, args...); err != nil {
		m.t.Fatal(err)
	}
}

// order sends a request about a background program to the guest.
func (m *machine) order(r ctl.Request) ctl.Reply {
	m.t.Helper()
	reply, err := m.Guest.Do(m.ctx, r)
	if err != nil {
		m.t.Fatal(err)
	}
	return reply
}

// execute runs a monitor command that needs no arguments.
func (m *machine) execute(command string) {
	m.t.Helper()
	m.executeWith(command, nil)
}

// executeWith runs a monitor command.
func (m *machine) executeWith(command string, args any) {
	m.t.Helper()
	if err := m.Execute(m.ctx, command, args, nil); err != nil {
		m.t.Fatalf("%v\n%s", err, m.Diagnosis())
	}
}
