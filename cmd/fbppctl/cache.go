// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/control"
)

func cacheCommand(t *target) *cobra.Command {
	return &cobra.Command{
		Use: "cache [send|last|drop]", Short: "show what becomes of cold page cache, or set it",
		ValidArgs: words(device.CachePolicies()),
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
	switch d := s.CacheDrop; {
	case s.Cache == device.CacheLast && s.Connected && !s.Ordered:
		return "last, but this QEMU sends it as any memory: it takes no order"
	case d != nil && d.Possible:
		return fmt.Sprintf("drop, at most %.1f MiB in %d ms", mib(d.MostBytes), d.MostMS)
	case d != nil:
		return "drop, but it is sent as any memory: " + d.Why
	}
	return string(s.Cache)
}

// words returns the policies as words.
func words(policies []device.CachePolicy) (words []string) {
	for _, p := range policies {
		words = append(words, string(p))
	}
	return words
}
