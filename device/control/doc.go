// SPDX-License-Identifier: Apache-2.0

// Package control is how an operator talks to a running device: HTTP with JSON
// bodies over a unix socket, and the client for it.
//
//	GET /v1/status    device.Status
//	PUT /v1/enabled   {"enabled": bool}; answers with the new device.Status
//	GET /v1/watch     a device.Status a line, now and at every change
//	GET /v1/history   what became of the newest migrations, the newest last
//	GET /v1/census    a census.Census: what the guest uses its memory for
//	GET /metrics      Prometheus text format
//
// Who may connect to the socket may switch the optimisation off, and learn what
// the guest uses its memory for, no more: the socket's permissions decide.
package control

import (
	"context"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/census"
)

// Device is what the server needs of a device.
type Device interface {
	Status() device.Status
	Changed() <-chan struct{}
	SetEnabled(on bool)
	Census(ctx context.Context) (*census.Census, error)
	History() []device.Migration
}

var _ Device = (*device.Device)(nil)

// setEnabled is the body of PUT /v1/enabled.
type setEnabled struct {
	Enabled *bool `json:"enabled"`
}
