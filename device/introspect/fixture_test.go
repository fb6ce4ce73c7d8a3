// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"os"
	"testing"
	"time"

	ppages "github.com/fbpp-project/fbpp/device/introspect/pages"
	"github.com/fbpp-project/fbpp/device/introspect/physmem"
)

func TestZZFixture(t *testing.T) {
	dir := os.Getenv("FIX")
	f, err := os.Open(dir + "/ram0")
	if err != nil {
		t.Skip()
	}
	defer f.Close()
	info, _ := f.Stat()
	mem, err := physmem.New([]physmem.Region{{Size: uint64(info.Size()), Source: physmem.FD(f.Fd())}})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	k, err := Locate(t.Context(), mem, Options{})
	t.Log(time.Since(start))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", k.layout)
	t.Log(k.Release, k.symbols)
	t.Log(k.Content())
	t.Log(k.Ticks())
	t.Log(k.sections())
	t.Log(k.Check())
	for range 3 {
		start = time.Now()
		var pages uint64
		c, err := k.Scan(t.Context(), ScanOptions{Free: func(b []Block) error {
			for _, b := range b {
				pages += 1 << b.Order
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		d := time.Since(start)
		t.Log(d, c.Read, float64(d)/float64(c.Read), pages, c.Basis, c.Refused, c.Elsewhere)
		for _, z := range c.Zones {
			t.Log(z.Zone)
			t.Log(z.Blocks)
			for class, n := range z.Classes {
				t.Logf("%-10s %+v", ppages.Class(class), n)
			}
		}
	}
}
