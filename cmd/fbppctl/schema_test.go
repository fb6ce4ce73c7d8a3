// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/fbpp-project/fbpp/cmd/cli"
	"github.com/fbpp-project/fbpp/cmd/fbppctl/localise"
	"github.com/fbpp-project/fbpp/cmd/fbppctl/report"
	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/census"
	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/introspect/pages"
	"github.com/fbpp-project/fbpp/device/observer"
	"github.com/fbpp-project/fbpp/device/placement"
	"github.com/fbpp-project/fbpp/device/source"
)

// mustSchema reads a schema of docs/schema.
func mustSchema(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	schema, err := c.Compile(filepath.Join("..", "..", "docs", "schema", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// validate checks each line of what was printed.
func validate(t *testing.T, schema *jsonschema.Schema, printed string) {
	t.Helper()
	if printed == "" {
		t.Error("nothing was printed")
	}
	for line := range strings.Lines(printed) {
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
		if err == nil {
			err = schema.Validate(value)
		}
		if err != nil {
			t.Errorf("%s is not as documented: %v", line, err)
		}
	}
}

// fullStatus is a status with all that a status can have.
func fullStatus() device.Status {
	ended := time.Unix(1, 0)
	return device.Status{
		Enabled: true, Connected: true, DriverState: "refuses", Cache: device.CacheDrop,
		Hot:       device.HotWritten,
		CacheDrop: &device.CacheDropping{MostBytes: 1 << 30, MostMS: 200, Why: "it refuses"},
		Driver:    &driver.Identity{Release: "Linux 6.1", Reason: "page_poison is on", RAMBytes: 1 << 30},
		Session:   &driver.Session{Nonce: "00000000000012ab", Kinds: []string{"walk"}, MaxSize: 1},
		Programs: []driver.Program{{
			Digest: strings.Repeat("ab", 32), Kind: "walk", Version: 3, State: "refused",
			Reason: "why", Log: "a line", At: driver.AtNow, Name: "walk", Size: 20000,
			KeyID: strings.Repeat("12", 8), Expires: &ended, WithdrawalPending: true,
		}},
		Sources: []string{"driver", "introspect"},
		Kernel:  &observer.Status{Release: "6.1", Why: "it relies on its free pages"},
		Last: &device.Exchange{
			Ended: ended, Status: "ok", Why: "why", Source: "driver", Records: 1, Ranges: 1,
			OrderSource: "introspect", DroppedBytes: 1 << 20,
			Phases: []device.Phase{{Name: "walk"}}, Details: []source.Detail{{Name: "holds"}},
		},
		Migration: &device.Migration{Ended: ended, Result: "completed", Hints: "ok", Cache: "drop",
			Order: "used", Hybrid: "switched", DroppedBytes: 1 << 20},
		Requests: map[string]uint64{"ok": 1},
	}
}

// What is printed as JSON is as docs/schema says, and has no other members.
func TestFullDocumentsKeepTheirSchemas(t *testing.T) {
	full := fullStatus()
	class := []census.Class{{Class: pages.Free}}
	counted := &census.Census{Release: "6.1", Classes: class,
		Zones:   []census.Zone{{Name: "DMA", Classes: class}},
		Program: &census.Program{Digest: strings.Repeat("ab", 32), Runs: 2, RunMaxUS: 3}}
	asJSON := &target{asJSON: true, host: "/run/fbpp"}
	var out strings.Builder
	for _, tc := range []struct {
		schema string
		print  func() error
	}{
		{"status", func() error { return asJSON.show(&out, full, nil) }},
		{"program", func() error {
			return errors.Join(asJSON.printPrograms(&out, full, false),
				asJSON.printPrograms(&out, device.Status{}, true))
		}},
		{"history", func() error { return asJSON.show(&out, full.Migration, nil) }},
		{"census", func() error { return asJSON.show(&out, counted, nil) }},
		{"estimate", func() error { return asJSON.show(&out, counted.Estimate(1, 10), nil) }},
		{"localise", func() error {
			r := &localise.Result{Node: 1, Free: 1, OnDisk: 1, Seconds: 0.5, Why: "why",
				Classes: map[placement.Class]localise.Counts{placement.Hot: {Moved: 1}, placement.Cold: {}}}
			return asJSON.show(&out, r, nil)
		}},
		{"report", func() error {
			doc := newReport(full, []device.Migration{*full.Migration})
			doc.VM.Memory = []report.Memory{{Type: "memfd"}}
			doc.Measured = []report.Migration{{Method: report.Both, Result: "too-slow", Gbit: 2.5}}
			return asJSON.show(&out, doc, nil)
		}},
		{"watch", func() error {
			now := seen{Time: time.Now(), Status: &full}
			return errors.Join(asJSON.showSeen(&out, now),
				asJSON.showSeen(&out, seen{Time: time.Now(), Error: "gone"}))
		}},
		{"list", func() error {
			return asJSON.printList(&out, []machine{
				{name: "a", status: full}, {name: "b", err: errSilent},
			})
		}},
		{"check", func() error {
			if err := asJSON.showReady(&out, readiness{Ready: true, Reasons: []string{}}); err != nil {
				return err
			}
			if err := asJSON.showReady(&out, readinessOf(full)); !errors.As(err, new(cli.StatusError)) {
				return errors.New("one that is not ready is no error")
			}
			return nil
		}},
	} {
		t.Run(tc.schema, func(t *testing.T) {
			out.Reset()
			if err := tc.print(); err != nil {
				t.Fatal(err)
			}
			validate(t, mustSchema(t, tc.schema), out.String())
		})
	}
}

// What commands say of an idle device keeps the schemas, too.
func TestCommandsKeepTheirSchemas(t *testing.T) {
	dir, _ := mustHost(t, "vm1")
	for command, schema := range map[string]string{
		"status": "status", "enable": "status",
		"cache": "status", "disable": "status", "list": "list", "check": "check",
	} {
		args := []string{"--run-dir=" + dir, "--json", command}
		if command != "list" {
			args = append(args, "--vm=vm1")
		}
		var out strings.Builder
		err := run(t.Context(), args, &out)
		if command == "check" && errors.As(err, new(cli.StatusError)) {
			err = nil
		}
		if err != nil {
			t.Errorf("%s: %v", command, err)
		}
		validate(t, mustSchema(t, schema), out.String())
	}
}
