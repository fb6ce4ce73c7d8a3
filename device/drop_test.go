// SPDX-License-Identifier: Apache-2.0

package device_test

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/device/source"
)

// dropped is a report whose trailer counts dropped cache.
func dropped(generation uint64, pages, us uint32) []byte {
	p := last(generation, protocol.MakeRecord(512, 9))
	t := p[len(p)-8:]
	binary.LittleEndian.PutUint32(t, pages)
	binary.LittleEndian.PutUint32(t[4:], us)
	return p
}

func dropping() device.Options {
	return device.Options{
		Cache: device.CacheDrop, Drop: source.Drop{Bytes: 100<<20 + 1, Time: 30 * time.Millisecond},
	}
}

func TestTheGuestIsAskedToDropCacheByPolicy(t *testing.T) {
	m := mustBoot(t, dropping())
	m.hello(protocol.StatusOK, protocol.FeatureDropCache)
	want := device.CacheDropping{MostBytes: 100<<20 + 1, MostMS: 30, Possible: true}
	if got := m.dev.Status().CacheDrop; got == nil || *got != want {
		t.Fatalf("the status says %+v, want %+v", got, want)
	}
	for _, us := range []uint32{0, 1, 1 << 31} { // the last is longer than the exchange
		m.request(patience)
		e := m.expectEvent(protocol.EventReportFree)
		if !e.DropsCache() || e.DropMiB != 100 || e.DropMS != 30 {
			t.Fatalf("event %v", e)
		}
		m.post(dropped(e.Generation, 3, us))
		if status, ranges := m.answer(); status != protocol.AnswerOK || len(ranges) != 1 {
			t.Fatalf("%v with %d ranges", status, len(ranges))
		}
		x := m.dev.Status().Last
		if x.DroppedBytes != 3<<12 || us > 0 && x.Phase("drop") == 0 || x.Phase("drop") > patience {
			t.Errorf("%+v", x)
		}
	}
	if err := m.dev.SetCache("last"); err != nil {
		t.Fatal(err)
	}
	if got := m.dev.Status().CacheDrop; got != nil {
		t.Errorf("with another policy the status says %+v", got)
	}
	m.request(patience)
	e := m.expectEvent(protocol.EventReportFree)
	if e.Flags != 0 || e.DropMiB != 0 || e.DropMS != 0 {
		t.Errorf("with another policy the guest gets %v", e)
	}
	m.post(dropped(e.Generation, 0, 0))
	if status, _ := m.answer(); status != protocol.AnswerOK || m.dev.Status().Last.DroppedBytes != 0 {
		t.Errorf("%v, %+v", status, m.dev.Status().Last)
	}
}

// A driver that does not say that it can is not asked, and the status says why.
func TestDriverThatCannotDropCache(t *testing.T) {
	for name, tc := range map[string]struct {
		options device.Options
		say     func(*machine)
		why     string
	}{
		"no driver":       {dropping(), func(*machine) {}, "no driver"},
		"one that is old": {dropping(), func(m *machine) { m.hello(protocol.StatusOK, 0) }, "a reason"},
		"one that refuses": {dropping(), func(m *machine) {
			m.hello(protocol.StatusLockdown, protocol.FeatureDropCache)
		}, "refuses"},
		"one that is not asked": {
			device.Options{Cache: device.CacheDrop, Source: device.PolicyIntrospect},
			func(m *machine) { m.hello(protocol.StatusOK, protocol.FeatureDropCache) }, "--source",
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := mustBoot(t, tc.options)
			tc.say(m)
			c := m.dev.Status().CacheDrop
			if c == nil || c.Possible || !strings.Contains(c.Why, tc.why) {
				t.Errorf("the status says %+v, want %q", c, tc.why)
			}
			if name != "one that is old" {
				return
			}
			m.request(patience)
			if e := m.expectEvent(protocol.EventReportFree); e.Flags != 0 || e.DropMiB != 0 {
				t.Errorf("it gets %v", e)
			}
		})
	}
}

// [FBPP-DROP-4]
func TestMoreDroppedCacheThanWasAskedFor(t *testing.T) {
	m := mustBoot(t, dropping())
	m.hello(protocol.StatusOK, protocol.FeatureDropCache)
	const most = 100 << 20 >> 12 // pages
	for pages, want := range map[uint32]protocol.AnswerStatus{
		most: protocol.AnswerOK, most + 1: protocol.AnswerBadReport, 1<<32 - 1: protocol.AnswerBadReport,
	} {
		m.request(patience)
		m.post(dropped(m.expectEvent(protocol.EventReportFree).Generation, pages, 1))
		if status, _ := m.answer(); status != want {
			t.Errorf("%d pages: %v, want %v", pages, status, want)
		}
		if want != protocol.AnswerOK {
			m.expectEvent(protocol.EventCancel)
		}
	}
	m.mustExchange()
}

// [FBPP-DROP-3]
func TestCacheThatNobodyAskedToDrop(t *testing.T) {
	m := mustBoot(t, device.Options{})
	m.hello(protocol.StatusOK, protocol.FeatureDropCache)
	for _, counts := range [][2]uint32{{1, 0}, {0, 1}} {
		m.request(patience)
		m.post(dropped(m.expectEvent(protocol.EventReportFree).Generation, counts[0], counts[1]))
		m.expect(protocol.AnswerBadReport)
		m.expectEvent(protocol.EventCancel)
	}
	m.mustExchange()
}
