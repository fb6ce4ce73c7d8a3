// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/control"
)

// cache sets the policy for cold page cache, or changes nothing if policy is empty. It
// returns the state after it.
func cache(ctx context.Context, c *control.Client, policy string) (device.Status, error) {
	if policy == "" {
		return c.Status(ctx)
	}
	return c.SetCache(ctx, policy)
}

// cacheLine describes what becomes of cold page cache.
func cacheLine(s device.Status) string {
	switch {
	case s.Cache != device.CacheLast:
		return string(s.Cache)
	case s.Connected && !s.Ordered:
		return "last, but this QEMU sends it as any memory: it takes no order"
	}
	return "last"
}
