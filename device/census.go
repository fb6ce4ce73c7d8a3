// SPDX-License-Identifier: Apache-2.0

package device

import (
	"context"
	"errors"

	"github.com/fbpp-project/fbpp/device/census"
)

// ErrNoMemory says that no guest has shared its memory.
var ErrNoMemory = errors.New("there is no guest memory: QEMU is not connected, " +
	"or the guest has not started the device's driver")

// Census counts what the guest uses its memory for. It takes a while, and can be
// called at any time, also during a migration.
func (d *Device) Census(ctx context.Context) (*census.Census, error) {
	d.mu.Lock()
	m := d.memory
	if m != nil {
		m.Retain()
	}
	d.mu.Unlock()
	if m == nil {
		return nil, ErrNoMemory
	}
	defer m.Release()
	return d.census.Take(ctx, m)
}
