// SPDX-License-Identifier: Apache-2.0

package ops

import (
	"encoding/json"
	"flag"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	grafana "github.com/grafana/grafana-foundation-sdk/go/dashboard"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/driver"
)

var pictureAt = flag.String("picture", "", "draw the dashboard into the `FILE`")

// acted is a device whose VM migrates again and again, with made-up figures.
type acted struct {
	*device.Device
	size   uint64 // of what it sends, in MiB
	asked  atomic.Uint64
	failed uint64 // which of its requests the driver does not answer
}

// Status implements control.Device. A migration has ended at each third call.
func (a *acted) Status() device.Status {
	n := a.asked.Add(1) / 3
	s := a.Device.Status()
	s.Connected, s.DriverState = true, "ready"
	s.Driver = &driver.Identity{Release: "Linux 6.12"}
	wave := (n*7 + a.size) % 5 // so that the figures change
	s.Requests["ok"] = n
	if n >= a.failed {
		s.Requests["ok"], s.Requests["driver-timeout"] = n-1, 1
	}
	s.Last = &device.Exchange{Ended: time.Now(), Status: "ok", FreeBytes: (9*a.size + 400*wave) << 20,
		Phases: []device.Phase{
			{Name: "wakeup", Microseconds: 300 + a.size + 90*wave},
			{Name: "walk", Microseconds: 2*a.size + 400*wave},
			{Name: "transfer", Microseconds: 500 + a.size + 50*wave},
		}}
	s.Migration = &device.Migration{Ended: time.Now(), Result: "completed", Hints: "ok",
		SkippedBytes: s.Last.FreeBytes, TransferredBytes: (a.size + 70*wave) << 20,
		TotalMS: a.size + 120*wave, DowntimeMS: 20 + 9*wave}
	return s
}

// Each query of the dashboard returns data of a host whose machines migrate.
func TestDashboardShowsData(t *testing.T) {
	d, err := loadDashboard(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	host := t.TempDir()
	for name, size := range map[string]uint64{"db1": 900, "web1": 301, "web2": 453} {
		mustServe(t, host, name, &acted{Device: device.New(device.Options{}), size: size, failed: 3})
	}
	web := mustScrape(t, host)
	var took time.Duration // as soon as there are data
	if *pictureAt != "" {
		took = 90 * time.Second
	}
	var from, to time.Time
	var data [][]series
	for begun := time.Now(); ; time.Sleep(500 * time.Millisecond) { // go test's timeout bounds it
		from, to = begun, time.Now()
		missing := ""
		if data, missing, err = d.ask(t.Context(), web, from, to); err != nil {
			t.Fatal(err)
		}
		if missing == "" && time.Since(begun) > took {
			break
		}
		if time.Since(begun) > time.Minute+took {
			t.Fatalf("no data of %s", missing)
		}
	}
	if *pictureAt != "" {
		if err := os.WriteFile(*pictureAt, []byte(d.picture(data, from, to)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// The dashboard is one by Grafana's own types: no member is missing, unknown or of another kind,
// those of the panels' options included.
func TestDashboardIsOneByGrafanasTypes(t *testing.T) {
	text, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	plugins.RegisterDefaultPlugins()
	//lint:ignore SA1019 the newer kind of dashboards is none for Grafana before 12
	var strict, d grafana.Dashboard
	// Without a fault the library's error is a list of none, which is not nil.
	if err := strict.UnmarshalJSONStrict(text); err != nil && err.Error() != "" {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	if err := d.Validate(); err != nil && err.Error() != "" {
		t.Fatal(err)
	}
	if len(d.Panels) == 0 || d.Panels[0].Panel == nil {
		t.Error("it has no panels")
	}
}
