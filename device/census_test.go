// SPDX-License-Identifier: Apache-2.0

package device_test

import (
	"errors"
	"testing"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/introspect"
)

func TestACensusNeedsAGuestThatItKnows(t *testing.T) {
	_, err := device.New(device.Options{}).Census(t.Context())
	if !errors.Is(err, device.ErrNoMemory) {
		t.Errorf("without a frontend: %v, want ErrNoMemory", err)
	}
	m := mustBoot(t, device.Options{})
	_, err = m.dev.Census(t.Context())
	if !errors.Is(err, introspect.ErrNotFound) && !errors.Is(err, introspect.ErrUnproven) {
		t.Errorf("memory without a kernel: %v, want that none was found", err)
	}
	m.fe.Close()
	m.mustDisconnect()
	if _, err := m.dev.Census(t.Context()); !errors.Is(err, device.ErrNoMemory) {
		t.Errorf("after the frontend: %v, want ErrNoMemory", err)
	}
}
