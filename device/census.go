// SPDX-License-Identifier: Apache-2.0

package device

import (
	"context"
	"time"

	"github.com/fbpp-project/fbpp/device/census"
	"github.com/fbpp-project/fbpp/device/observer"
)

// ErrNoMemory says that no frontend has shared a guest's memory.
var ErrNoMemory = observer.ErrNoMemory

// Census counts the guest's pages by what they are used for, as the host sees
// them. It reads the descriptor of every page, which takes a while. It may be
// called at any time, also during a migration. It fails with ErrNoMemory, when it
// finds no Linux kernel, and when ctx ends.
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
