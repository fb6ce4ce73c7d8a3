// SPDX-License-Identifier: Apache-2.0

package device

import (
	"context"
	"time"

	"github.com/fbpp-project/fbpp/device/census"
	"github.com/fbpp-project/fbpp/device/observer"
)

// ErrNoMemory says that no guest has shared its memory.
var ErrNoMemory = observer.ErrNoMemory

// Census counts what the guest uses its memory for. It takes a while, and can be
// called at any time, also during a migration.
func (d *Device) Census(ctx context.Context) (*census.Census, error) {
	begun := time.Now()
	k, release, err := d.observer.Kernel(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	found := time.Since(begun)
	c, err := d.census.Take(ctx, k)
	if err != nil {
		return nil, err
	}
	c.FoundUS = found.Microseconds()
	return c, nil
}
