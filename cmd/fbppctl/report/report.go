// SPDX-License-Identifier: Apache-2.0

package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/fbpp-project/fbpp/device"
)

// Version is that of the document. A reader refuses others.
const Version = 1

// Report is what an operator sends in. Its JSON is docs/schema/report.json. Each string in it
// is of a fixed set, or went through [Release], but for the CPU's model.
type Report struct {
	Version int    `json:"version"`
	FBPP    string `json:"fbpp"` // what made the report: fbppctl's version
	Host    Host   `json:"host"`
	QEMU    QEMU   `json:"qemu"`
	VM      VM     `json:"vm"`
	// Measured are the migrations that were made for this report, in order.
	Measured []Migration `json:"measured"`
	// History are the VM's own migrations, the newest last.
	History []Past `json:"history"`
}

// Host is the machine that the VM is on.
type Host struct {
	CPU         string `json:"cpu"`
	CPUs        int    `json:"cpus"`
	MemoryBytes uint64 `json:"memory_bytes"`
	Kernel      string `json:"kernel"`
}

// QEMU is the program that runs the VM. Its members are empty where nobody could be asked.
type QEMU struct {
	Version     string `json:"version"`
	Series      string `json:"series"`      // which build of the patch series; empty if it has none
	Accelerator string `json:"accelerator"` // kvm or tcg
	// DirtyTracking is how written pages are found: dirty-log, dirty-ring, tcg, or unknown.
	DirtyTracking string `json:"dirty_tracking"`
}

// VM is the virtual machine.
type VM struct {
	Kernel      string   `json:"kernel"` // of the guest
	CPUs        int      `json:"cpus"`
	MemoryBytes uint64   `json:"memory_bytes"`
	Memory      []Memory `json:"memory"` // the backends
	// FreePageHint says that its balloon has free-page-hint.
	FreePageHint bool     `json:"free_page_hint"`
	Sources      []string `json:"sources"` // whom fbppd asks
	Cache        string   `json:"cache"`   // what becomes of cold page cache
}

// Memory is a memory backend, in QEMU's words.
type Memory struct {
	Type      string `json:"type"` // memfd, file, ram, epc or other
	SizeBytes uint64 `json:"size_bytes"`
	Shared    bool   `json:"shared"`
	Prealloc  bool   `json:"prealloc"`
	// HugePageBytes is the size of its huge pages. 0: it has none, or does not say.
	HugePageBytes uint64 `json:"huge_page_bytes"`
}

// Method is by what a migration learned of free memory.
type Method string

// The methods.
const (
	Stock        Method = "stock"
	FreePageHint Method = "free-page-hint"
	FBPP         Method = "fbpp"
	Both         Method = "fbpp and free-page-hint"
)

// Methods returns all methods, in the order of tables.
func Methods() []Method { return []Method{Stock, FreePageHint, FBPP, Both} }

// methodOf names a migration of a VM that asks both ways or neither.
func methodOf(hints, balloon bool) Method {
	switch {
	case hints && balloon:
		return Both
	case hints:
		return FBPP
	case balloon:
		return FreePageHint
	}
	return Stock
}

// Migration is one that was measured.
type Migration struct {
	Method Method `json:"method"`
	// Gbit is the most that it was let send, in Gbit/s. 0: as much as it could.
	Gbit             float64 `json:"gbit"`
	Result           string  `json:"result"` // completed, failed, cancelled, or too-slow
	Hints            string  `json:"hints"`  // what query-migrate calls free-page-hints.status
	SkippedBytes     uint64  `json:"skipped_bytes"`
	TransferredBytes uint64  `json:"transferred_bytes"`
	Passes           uint64  `json:"passes"`
	TotalMS          uint64  `json:"total_ms"`
	SetupMS          uint64  `json:"setup_ms"`
	DowntimeMS       uint64  `json:"downtime_ms"`
	ExchangeUS       uint64  `json:"exchange_us"` // from the question to the last bit cleared
}

// Past is a migration that the VM made by itself, without the time that it ended at.
type Past struct {
	Result           string `json:"result"`
	Hints            string `json:"hints"`
	SkippedBytes     uint64 `json:"skipped_bytes"`
	TransferredBytes uint64 `json:"transferred_bytes"`
	TotalMS          uint64 `json:"total_ms"`
	DowntimeMS       uint64 `json:"downtime_ms"`
	Cache            string `json:"cache"`
	Order            string `json:"order"`
	Hybrid           string `json:"hybrid"`
	DroppedBytes     uint64 `json:"dropped_bytes"`
}

// PastOf takes over what fbppd noted.
func PastOf(all []device.Migration) []Past {
	past := make([]Past, 0, len(all))
	for _, m := range all {
		past = append(past, Past{
			Result: m.Result, Hints: m.Hints, SkippedBytes: m.SkippedBytes,
			TransferredBytes: m.TransferredBytes, TotalMS: m.TotalMS, DowntimeMS: m.DowntimeMS,
			Cache: m.Cache, Order: m.Order, Hybrid: m.Hybrid, DroppedBytes: m.DroppedBytes,
		})
	}
	return past
}

// number and flavour are the parts of a release that say nothing of who built it. Other
// parts may: a kernel's name can hold that of a host or a company.
var (
	number  = regexp.MustCompile(`^[0-9]+(\.[0-9]+)*`)
	flavour = regexp.MustCompile(`^(rc\d+|rt\d*|deb\d+|bpo|el\d+(_\d+)?|fc\d+|amd64|x86_64|cloud|` +
		`generic|default|kvm|azure|aws|gcp|pve|arch\d*|lts)$`)
	between = regexp.MustCompile(`[-+~ .]`)
)

// Release returns what can be published of a kernel's release, such as 6.12.43-deb13-amd64 of
// 6.12.43+deb13-amd64-build7: its number, and what distributions call their kernels.
func Release(s string) string {
	s = strings.TrimPrefix(s, "Linux ")
	parts := []string{number.FindString(s)}
	if parts[0] == "" {
		return "unknown"
	}
	for _, word := range between.Split(s[len(parts[0]):], -1) {
		if flavour.MatchString(word) {
			parts = append(parts, word)
		}
	}
	return strings.Join(parts, "-")
}

// Join puts the migrations of an earlier report of the same VM before those of this one, such
// as one that was made when its balloon had free-page-hint. before is that report's JSON.
// It is an error if that report is of something else.
func (r *Report) Join(before []byte) error {
	var other Report
	if err := json.Unmarshal(before, &other); err != nil {
		return fmt.Errorf("read the earlier report: %w", err)
	}
	switch {
	case other.Version != Version:
		return fmt.Errorf("the earlier report has version %d, not %d", other.Version, Version)
	case other.Host != r.Host || other.QEMU != r.QEMU || other.VM.MemoryBytes != r.VM.MemoryBytes:
		return errors.New("the earlier report is of another host, QEMU, or size of memory")
	}
	r.Measured = slices.Concat(other.Measured, r.Measured)
	return nil
}
