// SPDX-License-Identifier: Apache-2.0

package e2e

import "testing"

// QEMU's monitor shows the running device, and the query does it no harm.
func TestMonitorShowsTheRunningDevice(t *testing.T) {
	m := boot(t, setup{})
	var status struct {
		Name  string `json:"name"`
		Vhost *struct {
			Queues int `json:"nvqs"`
		} `json:"vhost-dev"`
	}
	path := map[string]any{"path": "/machine/peripheral/fbpp0/virtio-backend"}
	if err := m.vm.Execute(m.ctx, "x-query-virtio-status", path, &status); err != nil {
		t.Fatal(err)
	}
	if status.Name != "virtio-fbpp" || status.Vhost == nil || status.Vhost.Queues != 2 {
		t.Errorf("the monitor shows %+v", status)
	}
	requireHints(t, m.migrate(), "ok")
	m.requireSound()
}
