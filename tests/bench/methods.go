// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// modules are what the guest's kernel needs to know.
func (m method) modules() []string {
	switch m {
	case stock, fbpp, fbppDrop, fbppSample, introspect, introspectLast, introspectWritten:
		return nil
	}
	return []string{"virtio_balloon"}
}

// configure adds the device of the method to the VM.
func (m method) configure(c *vm.Config, backend *vm.Backend) {
	switch m {
	case fbpp, fbppSample, introspect, introspectLast, introspectWritten:
		c.Backend = backend.Socket
	case fbppDrop: // with time to drop all that is cold
		c.Backend = backend.Socket
		c.Device = map[string]string{"hint-timeout": "60000"}
	case balloon1, balloon4:
		c.Devices = append(c.Devices, "virtio-balloon-pci")
	case freePageHint:
		c.Options = append(c.Options, "-object", "iothread,id=hinting")
		c.Devices = append(c.Devices, "virtio-balloon-pci,free-page-hint=on,iothread=hinting")
	case freeReporting:
		c.Devices = append(c.Devices, "virtio-balloon-pci,free-page-reporting=on")
	}
}

// options are those of the method's fbppd.
func (m method) options() []string {
	switch m {
	case introspect:
		return []string{"--source=introspect"}
	case introspectLast:
		return []string{"--source=introspect", "--cache=last"}
	case introspectWritten:
		return []string{"--source=introspect", "--hot=written"}
	case fbppDrop:
		return []string{"--source=guest", "--cache=drop", "--cache-drop-max=64GiB",
			"--cache-drop-time=10s"}
	}
	return []string{"--source=guest"}
}

// begin starts the method's program in the guest, if there is one.
func (m method) begin(ctx context.Context, e *end) error {
	if m.introspects() {
		return e.backend.AwaitKernel(ctx)
	}
	if !m.asks() {
		return nil
	}
	var more []string
	if m == fbppSample {
		more = []string{"--program-policy=" + policyPath, "--program-accepted=/tmp/accepted.json"}
	}
	if err := e.vm.Spawn(ctx, "agent", append([]string{lab.AgentPath}, more...)...); err != nil {
		return err
	}
	if state, err := e.backend.AwaitDriver(ctx); err != nil || state != "ready" {
		return fmt.Errorf("start the agent: its state is %q (%v)\n%s", state, err, e.backend.Log())
	}
	return nil
}

// prepare does the method's work between the load and the migration. The time that it
// takes is measured on its own.
func (m method) prepare(ctx context.Context, e *end, s sizes) error {
	switch m {
	case balloon1, balloon4:
		return inflate(ctx, e.vm, s.Balloons[m])
	case freeReporting:
		return awaitReporting(ctx, e.vm)
	case fbppSample:
		return sample(ctx, e.backend)
	}
	return nil
}

// methodTimeout bounds the wait for a guest to give its memory back.
const methodTimeout = 5 * time.Minute

// inflate inflates the balloon until the guest has keepMiB of memory left.
func inflate(ctx context.Context, v *vm.VM, keepMiB int) error {
	ctx, cancel := context.WithTimeout(ctx, methodTimeout)
	defer cancel()
	target := int64(keepMiB) << 20
	if err := v.Execute(ctx, "balloon", map[string]any{"value": target}, nil); err != nil {
		return err
	}
	for {
		var b struct{ Actual int64 }
		if err := v.Execute(ctx, "query-balloon", nil, &b); err != nil {
			return err
		}
		if b.Actual <= target {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("inflate the balloon: it left the guest %d MiB, not %d: %w",
				b.Actual>>20, keepMiB, ctx.Err())
		}
	}
}

// settled is how long no report must come until free page reporting counts as done. Linux
// waits two seconds before it reports.
const settled = 5 * time.Second

// awaitReporting waits until the guest has reported its free pages: until QEMU's resident
// memory no longer shrinks.
func awaitReporting(ctx context.Context, v *vm.VM) error {
	ctx, cancel := context.WithTimeout(ctx, methodTimeout)
	defer cancel()
	const noise = 1 << 20
	lowest, since := int64(1)<<62, time.Now()
	for time.Since(since) < settled {
		u, err := readUsage(v.PID())
		if err != nil {
			return err
		}
		if u.resident < lowest-noise {
			lowest, since = u.resident, time.Now()
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("wait for free page reporting: %w", ctx.Err())
		}
	}
	return nil
}
