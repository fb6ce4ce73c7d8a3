// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/tests/vm"
)

// record is one migration that was run, or that was not to be run to its end.
type record struct {
	run
	Error string `json:"error,omitempty"` // why there are no figures

	PrepareMS   int64     `json:"prepare_ms"` // what the method needs before the migration
	SetupMS     int64     `json:"setup_ms"`
	TotalMS     int64     `json:"total_ms"`
	DowntimeMS  int64     `json:"downtime_ms"`
	Transferred int64     `json:"transferred_bytes"`
	Normal      int64     `json:"normal_pages"`
	Zero        int64     `json:"zero_pages"`
	Skipped     int64     `json:"skipped_pages"`
	FreePages   int64     `json:"free_pages"` // on the guest's free lists just before
	Syncs       int64     `json:"dirty_syncs"`
	SourceCPUMS int64     `json:"source_cpu_ms"` // of QEMU, emulated CPUs included
	Resident    int64     `json:"destination_resident_bytes"`
	HintStatus  string    `json:"hint_status,omitempty"`
	Exchange    *vm.Hints `json:"free_page_hints,omitempty"` // as query-migrate has it
	FloorBytes  int64     `json:"floor_bytes,omitempty"`     // known where free pages were left out
	Verified    uint64    `json:"verified_pages"`
	Mismatched  uint64    `json:"mismatched_pages"`
}

// failed tells whether something went wrong that a reader has to know.
func (r *record) failed() bool { return r.Error != "" || r.Mismatched != 0 }

// setFigures takes over what QEMU says. free is what the guest had free.
func (r *record) setFigures(m *vm.Migration, free int64) {
	r.SetupMS, r.TotalMS, r.DowntimeMS = m.SetupTime, m.TotalTime, m.Downtime
	r.Transferred, r.Normal, r.Zero = m.RAM.Transferred, m.RAM.Normal, m.RAM.Duplicate
	r.Syncs, r.FreePages = m.RAM.SyncCount, free
	if r.HintStatus = m.HintStatus(); r.HintStatus != "" {
		r.Exchange = m.Hints
		r.Skipped = m.Hints.Skipped
	}
	if r.Method == fbpp && r.Transport == stream {
		f := m.Floor(free)
		r.FloorBytes = f.Bytes()
	}
}

// origin is where and with what the figures were made.
type origin struct {
	Command  string `json:"command"`
	Commit   string `json:"commit"` // of the checkout, "+" after it with changes
	QEMU     string `json:"qemu"`
	Kernel   string `json:"guest_kernel"`
	Accel    string `json:"accelerator"`
	Host     string `json:"host_kernel"`
	CPU      string `json:"cpu"`
	CPUs     int    `json:"cpus"`
	MemoryMB int    `json:"memory_mib"`
}

// hostKernel returns the release of the host's kernel.
func hostKernel() string {
	var uts unix.Utsname
	if unix.Uname(&uts) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(uts.Release[:])
}

// cpuModel returns the first model name of /proc/cpuinfo.
func cpuModel(cpuinfo string) string {
	for line := range strings.Lines(cpuinfo) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// commit returns the revision of the checkout, with "+" after it when there are
// changes.
func commit(ctx context.Context, root string) string {
	out, err := exec.CommandContext(ctx, "git", "-C", root, "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
