// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/control"
)

func cacheCommand(t *target) *cobra.Command {
	return &cobra.Command{
		Use: "cache [send|last]", Short: "show what becomes of cold page cache, or set it",
		ValidArgs: []string{string(device.CacheSend), string(device.CacheLast)},
		Args: cobra.MatchAll(cobra.MaximumNArgs(1), func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return new(device.CachePolicy).Set(args[0])
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.showStatus(cmd, func(c *control.Client, ctx context.Context) (device.Status, error) {
				if len(args) == 0 {
					return c.Status(ctx)
				}
				return c.SetCache(ctx, args[0])
			})
		},
	}
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
