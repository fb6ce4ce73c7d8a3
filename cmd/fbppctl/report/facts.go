// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Monitor runs commands of QMP. The context bounds each.
type Monitor interface {
	Execute(ctx context.Context, command string, args, result any) error
}

// ThisHost describes the machine that the program runs on.
func ThisHost() Host {
	cpuinfo, _ := os.ReadFile("/proc/cpuinfo") // "unknown" without it
	var info unix.Sysinfo_t
	_ = unix.Sysinfo(&info) // fails for a bad address only
	h := Host{
		CPU: cpuModel(string(cpuinfo)), CPUs: runtime.NumCPU(), Kernel: "unknown",
		MemoryBytes: uint64(info.Totalram) * uint64(info.Unit),
	}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		h.Kernel = Release(unix.ByteSliceToString(uts.Release[:]))
	}
	return h
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

// series matches how a build of the patch series calls itself.
var series = regexp.MustCompile(`\bfbpp-?[0-9a-f.]{8,}(-tests)?`)

// object is a line of qom-list.
type object struct{ Name, Type string }

// list returns the objects and properties below a path. One that is missing has none.
func list(ctx context.Context, m Monitor, path string) []object {
	var all []object
	if m.Execute(ctx, "qom-list", map[string]any{"path": path}, &all) != nil {
		return nil
	}
	return all
}

// get reads a property, and leaves value as it is where the object has none of this name.
func get(ctx context.Context, m Monitor, path, property string, value any) {
	_ = m.Execute(ctx, "qom-get", map[string]any{"path": path, "property": property}, value)
}

// findDevice returns the path of a VM's device of a type, or "".
func findDevice(ctx context.Context, m Monitor, kind string) string {
	for _, folder := range []string{"/machine/peripheral", "/machine/peripheral-anon"} {
		for _, o := range list(ctx, m, folder) {
			if strings.HasPrefix(o.Type, "child<"+kind) {
				return folder + "/" + o.Name
			}
		}
	}
	return ""
}

// Describe asks a QEMU for what the report says of it and of its VM. ring tells whether it has
// a dirty ring; nil: that is not known.
func (r *Report) Describe(ctx context.Context, m Monitor, ring *bool) error {
	var version struct {
		QEMU    struct{ Major, Minor, Micro int }
		Package string
	}
	if err := m.Execute(ctx, "query-version", nil, &version); err != nil {
		return fmt.Errorf("ask QEMU for its version: %w", err)
	}
	var kvm struct{ Enabled bool }
	if err := m.Execute(ctx, "query-kvm", nil, &kvm); err != nil {
		return fmt.Errorf("ask QEMU for its accelerator: %w", err)
	}
	var memory struct {
		Base    uint64 `json:"base-memory"`
		Plugged uint64 `json:"plugged-memory"`
	}
	if err := m.Execute(ctx, "query-memory-size-summary", nil, &memory); err != nil {
		return fmt.Errorf("ask QEMU for the size of memory: %w", err)
	}
	var cpus []json.RawMessage
	if err := m.Execute(ctx, "query-cpus-fast", nil, &cpus); err != nil {
		return fmt.Errorf("ask QEMU for the processors: %w", err)
	}
	v := version.QEMU
	r.QEMU = QEMU{
		Version: fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Micro),
		Series:  series.FindString(version.Package),
	}
	r.QEMU.Accelerator, r.QEMU.DirtyTracking = tracking(kvm.Enabled, ring)
	r.VM.CPUs, r.VM.MemoryBytes = len(cpus), memory.Base+memory.Plugged
	r.VM.Memory = backends(ctx, m)
	if path := findDevice(ctx, m, "virtio-balloon"); path != "" {
		get(ctx, m, path, "free-page-hint", &r.VM.FreePageHint)
	}
	return nil
}

func tracking(kvm bool, ring *bool) (accelerator, how string) {
	switch {
	case !kvm:
		return "tcg", "tcg"
	case ring == nil:
		return "kvm", "unknown"
	case *ring:
		return "kvm", "dirty-ring"
	}
	return "kvm", "dirty-log"
}

// backends returns the VM's memory backends, without their names and files.
func backends(ctx context.Context, m Monitor) []Memory {
	all := []Memory{}
	for _, o := range list(ctx, m, "/objects") {
		kind, found := strings.CutPrefix(o.Type, "child<memory-backend-")
		if !found {
			continue
		}
		b := Memory{Type: strings.TrimSuffix(kind, ">")}
		switch b.Type {
		case "memfd", "file", "ram", "epc":
		default:
			b.Type = "other"
		}
		path := "/objects/" + o.Name
		var huge bool
		get(ctx, m, path, "size", &b.SizeBytes)
		get(ctx, m, path, "share", &b.Shared)
		get(ctx, m, path, "prealloc", &b.Prealloc)
		if get(ctx, m, path, "hugetlb", &huge); huge {
			get(ctx, m, path, "hugetlbsize", &b.HugePageBytes)
			b.HugePageBytes = max(b.HugePageBytes, 2<<20) // 0 is the system's default size
		}
		all = append(all, b)
	}
	return all
}
