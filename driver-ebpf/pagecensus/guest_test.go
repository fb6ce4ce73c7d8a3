// SPDX-License-Identifier: Apache-2.0

//go:build guest

package pagecensus

import (
	"errors"
	"os"
	"regexp"
	"runtime/debug"
	"strconv"
	"testing"

	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/driver-ebpf/pagerun"
	"github.com/fbpp-project/fbpp/driver-ebpf/pagerun/pageruntest"
)

// mustCounter loads the committed object, and says to it that the kernel has that version.
func mustCounter(t *testing.T, version uint32) (*Counter, error) {
	t.Helper()
	spec, err := loadCensus()
	if err != nil {
		t.Fatal(err)
	}
	constants := pageruntest.MustConstants(t)
	constants["kernel_version"] = uint64(version)
	return Load(t.Context(), pagerun.NewTurn(),
		pageruntest.Loader(spec, censusProgCountPages, constants))
}

// meminfo returns a line of /proc/meminfo in pages.
func meminfo(t *testing.T, name string) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^` + name + `: +([0-9]+) kB$`).FindSubmatch(text)
	if found == nil {
		t.Fatalf("%s is not in\n%s", name, text)
	}
	kib, err := strconv.ParseInt(string(found[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10 / int64(os.Getpagesize())
}

// What a process allocates of a class is what is counted more, and it agrees with the kernel's
// own counters.
func TestCensusAgreesWithTheKernel(t *testing.T) {
	version, err := features.LinuxVersionCode()
	if err != nil {
		t.Fatal(err)
	}
	c, err := mustCounter(t, version)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	lines := map[string]string{
		"free": "MemFree", "slab": "Slab", "table": "PageTables", "anonymous": "AnonPages",
		"shmem": "Shmem", "hugetlb": "Hugetlb",
	}
	said := func() map[string]int64 {
		kernel := make(map[string]int64)
		for name, line := range lines {
			kernel[name] = meminfo(t, line)
		}
		return kernel
	}
	count := func() map[string]int64 {
		t.Helper()
		r, err := c.Count(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d runs in %d us, the longest in %d us", r.Runs, r.TookUS, r.RunMaxUS)
		pages := make(map[string]int64)
		for name, class := range map[string]int{
			"free": 1, "slab": 4, "table": 5, "anonymous": 7, "shmem": 10, "hugetlb": 11,
		} {
			pages[name] = int64(r.Counts[class][0])
		}
		pages["file"], pages["unknown"] = int64(r.Counts[9][0]), int64(r.Counts[0][0])
		return pages
	}
	// What counting itself allocates is there then, and this program gives nothing back while
	// the test compares.
	count()
	debug.FreeOSMemory()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	// Other processes go on: the count lies between what the kernel says before and after it.
	earlier, before, later := said(), count(), said()
	t.Logf("counted %v, the kernel says %v and %v", before, earlier, later)
	// Free pages of CPUs are unknown to the program, and the kernel counts them as free or not.
	// To the kernel's counter large objects are slab, too. They have no mark before Linux 6.18.
	// Pages that are not yet on a list of the LRU have no known use.
	slack := map[string]int64{
		"free": 4096, "slab": 2048, "table": 256, "anonymous": 512, "shmem": 512, "hugetlb": 0,
	}
	for name := range lines {
		n, first, second := before[name], earlier[name], later[name]
		if n < min(first, second)-slack[name] || n > max(first, second)+slack[name] {
			t.Errorf("%d pages are %s, the kernel says %d and %d", n, name, first, second)
		}
	}
	want := int64(allocated / os.Getpagesize())
	for _, memory := range []struct {
		class        string
		flag, advice int
	}{
		{"anonymous", unix.MAP_PRIVATE, unix.MADV_NOHUGEPAGE},
		{"anonymous", unix.MAP_PRIVATE, unix.MADV_HUGEPAGE},
		{"shmem", unix.MAP_SHARED, unix.MADV_NORMAL},
	} {
		mem := mustAllocate(t, memory.flag, memory.advice)
		with := count()
		if err := unix.Munmap(mem); err != nil {
			t.Fatal(err)
		}
		more := with[memory.class] - before[memory.class]
		if more < want-256 || more > want+1024 {
			t.Errorf("%d pages more are %s with advice %d, want about %d", more, memory.class,
				memory.advice, want)
		}
	}
}

// allocated is how much memory the census has to find.
const allocated = 64 << 20

// mustAllocate returns memory that is there.
func mustAllocate(t *testing.T, flag, advice int) []byte {
	t.Helper()
	const prot = unix.PROT_READ | unix.PROT_WRITE
	mem, err := unix.Mmap(-1, 0, allocated, prot, flag|unix.MAP_ANONYMOUS)
	if err == nil {
		err = errors.Join(unix.Madvise(mem, advice), unix.Madvise(mem, unix.MADV_POPULATE_WRITE))
	}
	if err != nil {
		t.Fatal(err)
	}
	return mem
}

// A kernel whose marks are not known is not counted by guess.
func TestUnknownKernelIsRefused(t *testing.T) {
	const version69 = 6<<16 | 9<<8
	version, err := features.LinuxVersionCode()
	if err != nil {
		t.Fatal(err)
	}
	c, err := mustCounter(t, version69)
	if err == nil {
		c.Close()
	}
	known := version >= 6<<16|12<<8
	if known != (err == nil) || !known && !errors.Is(err, pagerun.ErrKernel) {
		t.Errorf("Linux %#x as 6.9: error %v", version, err)
	}
}
