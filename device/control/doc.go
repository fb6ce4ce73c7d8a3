// SPDX-License-Identifier: Apache-2.0

// Package control is the operator's interface to a running device: HTTP with JSON
// bodies over a unix socket. It has the server and a client.
//
//	GET /v1/status    device.Status
//	PUT /v1/enabled   {"enabled": bool}; answers with the new device.Status
//	PUT /v1/cache     {"cache": "send", "last" or "drop"}; answers with the new device.Status
//	GET /v1/watch     one device.Status per line, now and after changes
//	GET /v1/history   the outcomes of the newest migrations, the newest last
//	POST /v1/programs?at=now|migration       takes a program file (package bundle)
//	DELETE /v1/programs/{digest}             has the guest take a program out of use
//	GET /v1/census    a census.Census: what the guest uses its memory for. With
//	                  ?from=guest it is the guest that counts, by a program of the host
//	POST /v1/sample   {"interval_ms": 10000}: a device.WorkingSet, which the guest finds by
//	                  a program of the host in that time
//	GET /v1/placement where the guest's memory is, and its ranges by how soon they are
//	                  worth moving: a placement.Memory, and placement.Ranges a line
//	GET /metrics      Prometheus text format
//
// The permissions of the socket decide who may connect. A client can switch the
// optimisation on or off, set the policy for the guest's page cache, learn what the guest
// uses its memory for, and offer it programs, which it takes as its own policy says, no
// more.
package control

import (
	"context"
	"time"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/census"
	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/placement"
)

// Device is what the server needs of a device.
type Device interface {
	Status() device.Status
	Changed() <-chan struct{}
	SetEnabled(on bool)
	SetCache(policy string) error
	Census(ctx context.Context) (*census.Census, error)
	GuestCensus(ctx context.Context) (*census.Census, error)
	SampleWorkingSet(ctx context.Context, interval time.Duration) (*device.WorkingSet, error)
	Placement(
		ctx context.Context, begin func(*placement.Memory) error, each func(placement.Ranges) error,
	) error
	History() []device.Migration
	PushProgram(file []byte, at driver.When) error
	WithdrawProgram(digest string) error
}

var _ Device = (*device.Device)(nil)

// setEnabled is the body of PUT /v1/enabled.
type setEnabled struct {
	Enabled *bool `json:"enabled"`
}
