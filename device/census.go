// SPDX-License-Identifier: Apache-2.0

package device

import (
	"context"
	"time"

	"github.com/fbpp-project/fbpp/device/census"
	"github.com/fbpp-project/fbpp/device/driver"
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

// GuestCensus has the guest count its pages by the program of the kind census that it has in
// use. It fails with [driver.ErrNoProgramOfKind] where it has none, and as [driver.Source.Count]
// does. It may be called at any time, but a migration goes first.
func (d *Device) GuestCensus(ctx context.Context) (*census.Census, error) {
	r, err := d.driver.Count(ctx)
	if err != nil {
		return nil, err
	}
	identity := d.driver.Identity()
	if identity == nil {
		identity = new(driver.Identity) // it went after it had answered
	}
	return census.FromGuest(&r, identity.Release, identity.ContentMatters()), nil
}
