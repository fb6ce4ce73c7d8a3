// SPDX-License-Identifier: Apache-2.0

package coldcache

import (
	"cmp"
	"slices"
)

// worthwhile returns the groups that have enough cold cache of their own, in the order in
// which to drop it: each before the one around it, and the largest first. What a group has
// of its own includes the cache of groups that are gone. It is seen best when those within it
// have no cold cache. In all each group comes after the one around it.
func worthwhile(all []group) []group {
	type candidate struct {
		group
		own    uint64 // cold cache that belongs to no group within
		height int    // how many levels of groups are within
	}
	candidates := make([]candidate, len(all))
	for i, g := range all {
		candidates[i] = candidate{group: g, own: g.figures.cold}
	}
	for i, g := range slices.Backward(all) {
		if g.around < 0 {
			continue
		}
		c := &candidates[g.around]
		c.own = less(c.own, g.figures.cold)
		c.height = max(c.height, candidates[i].height+1)
	}
	candidates = slices.DeleteFunc(candidates, func(c candidate) bool {
		return c.protected || c.figures.soiled || c.own < 2*leastAtOnce // half is asked for
	})
	slices.SortStableFunc(candidates, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.height, b.height), cmp.Compare(b.own, a.own))
	})
	ordered := make([]group, len(candidates))
	for i := range candidates {
		ordered[i] = candidates[i].group
	}
	return ordered
}
