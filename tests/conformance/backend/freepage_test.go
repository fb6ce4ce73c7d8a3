// SPDX-License-Identifier: Apache-2.0

package backend_test

import (
	"context"
	"path/filepath"
	"testing"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/control"
	"github.com/fbpp-project/fbpp/tests/conformance/backend"
	"github.com/fbpp-project/fbpp/vhostuser/unixsock"
)

func TestFreePageDeviceKeepsAllRules(t *testing.T) {
	dev := device.New(device.Options{Logger: zap.NewNop(), WindowSize: 1 << 20})
	c := backend.Config{
		SocketPath: serve(t, dev.VhostUser()), Profile: backend.FreePage(),
		ControlPath: serveControl(t, dev),
	}
	// It ignores writes to its configuration, as its specification says.
	expect(t, c, []string{"VHU-CFG-6"},
		"ACCESS_PLATFORM", "PAGEFAULT", "userfaultfd", "DEVICE_STATE", "INFLIGHT_SHMFD",
		"RING_PACKED", "IN_ORDER", "own process", "writes no data", "serial port",
		"offer PEEK")
}

// serveControl serves the control socket of a device, and returns its path.
func serveControl(t *testing.T, d control.Device) string {
	t.Helper()
	ctl := filepath.Join(t.TempDir(), "control.sock")
	l, err := unixsock.Listen(ctl)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- control.Serve(ctx, l, d, zap.NewNop()) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve control: %v", err)
		}
	})
	return ctl
}
