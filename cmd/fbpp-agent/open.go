// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"

	"go.uber.org/zap"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/agent"
	"github.com/fbpp-project/fbpp/driver-ebpf/preflight"
	"github.com/fbpp-project/fbpp/driver-ebpf/serialport"
	"github.com/fbpp-project/fbpp/driver-ebpf/transport"
	"github.com/fbpp-project/fbpp/driver-ebpf/virtio"
)

// opener opens the way to the host: the device, or the serial port where the kernel does
// not let the agent have the device.
type opener struct {
	lg        *zap.Logger
	found     *preflight.Result
	device    string
	eventSize int
	reached   bool // the device was open once: then it is only gone for a while
}

// open is called for each attempt.
func (o *opener) open() (agent.ClosingTransport, error) {
	if o.found.Lockdown != "" { // the device is not even touched
		t, err := o.port(nil)
		if !errors.Is(err, os.ErrNotExist) {
			return t, err
		}
		return nil, fmt.Errorf("kernel lockdown is at %s, so the device cannot be used: %w",
			o.found.Lockdown, err)
	}
	bdf, err := transport.Find(o.device)
	if err != nil {
		return nil, err
	}
	t, err := transport.Open(bdf, o.found.Memory(), o.eventSize,
		o.lg.With(zap.String("device", bdf)))
	if err == nil {
		o.reached = true
		return t, nil
	}
	if o.reached || o.found.Guest.Status == protocol.StatusOK && !errors.Is(err, virtio.ErrNoUIO) {
		return nil, err
	}
	p, portErr := o.port(err)
	if portErr != nil {
		return nil, errors.Join(err, portErr)
	}
	return p, nil
}

// port opens the serial port. err is why the device cannot be opened, or nil under lockdown.
func (o *opener) port(err error) (agent.ClosingTransport, error) {
	status, reason := o.found.Unreachable(err)
	p, err := serialport.Open(serialport.Obstacle{Status: status, Reason: reason})
	if err != nil {
		return nil, err
	}
	o.lg.Info("the host is reached by its serial port", zap.String("why", reason))
	return p, nil
}
