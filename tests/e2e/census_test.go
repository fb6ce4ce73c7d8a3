// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"

	"github.com/fbpp-project/fbpp/device/census"
	"github.com/fbpp-project/fbpp/device/introspect/pages"
)

// The host counts a guest's pages without help from the guest. The agent runs
// only because it starts the device, upon which QEMU shares the guest's memory.
// fbppd runs in its sandbox.
func TestCensus(t *testing.T) {
	m := boot(t, setup{noIntegrity: true})
	before := m.memory()
	c, err := m.backend.Control.Census(m.ctx)
	if err != nil {
		t.Fatal(err)
	}
	after := m.memory()
	if !strings.HasPrefix(c.Release, string(m.setup.series)+".") {
		t.Errorf("the kernel is %q, want one of %s", c.Release, m.setup.series)
	}
	if c.ContentMatters {
		t.Error("the guest is said to rely on its free pages")
	}
	// The free pages on per-CPU lists are not marked as such in struct page.
	const slack = 4096
	low, high := min(before.Free, after.Free)-slack, max(before.Free, after.Free)+slack
	if free := int64(pagesOf(c, pages.Free)); free < low || free > high {
		t.Errorf("%d pages are free, the guest says %d and %d", free, before.Free, after.Free)
	}
	has := func(class pages.Class) bool { return pagesOf(c, class) != 0 }
	if !has(pages.Anonymous) || !has(pages.Reserved) || !has(pages.Slab) {
		t.Errorf("a guest without programs, kernel or objects: %+v", c.Classes)
	}
	if len(c.Zones) == 0 {
		t.Error("no zone")
	}
}

func pagesOf(c *census.Census, class pages.Class) uint64 {
	for _, of := range c.Classes {
		if of.Class == class {
			return of.Pages
		}
	}
	return 0
}
