// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/preflight"
	"github.com/fbpp-project/fbpp/driver-ebpf/walk"
)

// checkReport is what --check prints.
type checkReport struct {
	Status   string `json:"status"`
	Reason   string `json:"reason,omitempty"`
	Release  string `json:"release"`
	RAMBytes uint64 `json:"ram_bytes"`
	Features string `json:"features"`
	MaxOrder uint8  `json:"max_order"`
	Cache    string `json:"cache,omitempty"`
	Hook     string `json:"hook,omitempty"`
	Lockdown string `json:"lockdown,omitempty"`
}

// printCheck prints the result of --check. It returns found.Err, so that a guest
// that cannot report has exit status 1.
func printCheck(w io.Writer, found *preflight.Result, asJSON bool) error {
	hello := found.Guest.Hello
	report := checkReport{
		Status:   found.Guest.Status.String(),
		Release:  hello.Release,
		RAMBytes: hello.RAMBytes,
		Features: hello.Features.String(),
		MaxOrder: hello.MaxOrder,
		Lockdown: found.Lockdown,
	}
	if found.Err != nil {
		report.Reason = found.Err.Error()
	}
	if found.CacheErr != nil {
		report.Cache = found.CacheErr.Error()
	}
	if found.Snapshot != nil {
		report.Hook = found.Snapshot.Hook().String()
	}
	if asJSON {
		return errors.Join(json.NewEncoder(w).Encode(report), found.Err)
	}
	for _, line := range []struct {
		name  string
		value any
	}{
		{"status", report.Status},
		{"reason", report.Reason},
		{"release", report.Release},
		{"ram", fmt.Sprint(report.RAMBytes>>20, " MiB")},
		{"features", report.Features},
		{"max order", report.MaxOrder},
		{"cache", report.Cache},
		{"hook", report.Hook},
		{"lockdown", report.Lockdown},
	} {
		fmt.Fprintf(w, "%-9s %v\n", line.name, line.value) // w remembers errors: [cli.Output]
	}
	return found.Err
}

// snapshotReport is what --once prints.
type snapshotReport struct {
	Records   uint64 `json:"records"`
	TookUS    int64  `json:"took_us"` // from the first step to the end of the last
	WalkUS    int64  `json:"walk_us"` // the part of it with a lock held
	HoldMaxUS int64  `json:"hold_max_us"`
	Holds     uint32 `json:"holds"`
	Restarts  uint32 `json:"restarts"`
	Bytes     uint64 `json:"bytes"`
}

// printSnapshot takes a snapshot with the default budget, and prints its figures.
func printSnapshot(w io.Writer, found *preflight.Result, asJSON bool) error {
	s := found.Snapshot
	if s == nil {
		return fmt.Errorf("take a snapshot: %v: %w", found.Guest.Status, found.Err)
	}
	var report snapshotReport
	s.Begin()
	start := time.Now()
	for state := walk.More; state != walk.Done; {
		var err error
		if state, err = s.Step(walk.Budget{}); err != nil {
			return err
		}
		if state == walk.More {
			continue
		}
		report.TookUS = time.Since(start).Microseconds()
		for p := s.Records(); len(p) != 0; p = p[protocol.RecordSize:] {
			record := protocol.Record(binary.LittleEndian.Uint64(p))
			report.Bytes += 1 << record.Order() << found.Guest.PageShift
		}
		s.Release()
	}
	stats := s.Stats()
	report.Records, report.Holds, report.Restarts = stats.Records, stats.Holds, stats.Restarts
	report.WalkUS, report.HoldMaxUS = stats.WalkTime.Microseconds(), stats.HoldMax.Microseconds()
	if asJSON {
		return json.NewEncoder(w).Encode(report)
	}
	const line = "%d free blocks, %d MiB, in %d µs; %d holds of %d µs in all, the longest %d µs\n"
	_, err := fmt.Fprintf(w, line, report.Records, report.Bytes>>20, report.TookUS,
		report.Holds, report.WalkUS, report.HoldMaxUS)
	return err
}
