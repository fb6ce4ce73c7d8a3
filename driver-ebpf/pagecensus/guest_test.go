// SPDX-License-Identifier: Apache-2.0

//go:build guest && amd64

package pagecensus

import (
	"errors"
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/driver-ebpf/kernel"
)

// mustCounter loads the committed object.
func mustCounter(t *testing.T, version uint32) (*Counter, error) {
	t.Helper()
	peek, err := kernel.OpenPeek()
	if err != nil {
		t.Fatal(err)
	}
	defer peek.Close()
	base, err := readBase(peek)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := loadCensus()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(spec.Variables["vmemmap"].Set(base),
		spec.Variables["kernel_version"].Set(version)); err != nil {
		t.Fatal(err)
	}
	return Load(t.Context(), NewTurn(), func(shared map[string]*ebpf.Map) (*ebpf.Program, error) {
		objects, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
			MapReplacements: shared,
		})
		if err != nil {
			return nil, err
		}
		defer objects.Close()
		return objects.DetachProgram(censusProgCountPages), nil
	})
}

func readBase(peek *kernel.Peek) (uint64, error) {
	at, err := peek.Symbol("vmemmap_base")
	if err != nil {
		return 0, err
	}
	var p [8]byte
	if err := peek.Read(at, p[:]); err != nil {
		return 0, err
	}
	c := Counter{mem: p[:]}
	return c.u64(0), nil
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
	return kib / 4
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
	count := func() (pages map[string]int64, kernel map[string]int64) {
		t.Helper()
		r, err := c.Count(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d runs in %d us, the longest in %d us", r.Runs, r.TookUS, r.RunMaxUS)
		pages, kernel = make(map[string]int64), make(map[string]int64)
		for name, class := range map[string]int{
			"free": 1, "slab": 4, "table": 5, "anonymous": 7, "shmem": 10, "hugetlb": 11,
		} {
			pages[name] = int64(r.Counts[class][0])
		}
		pages["file"], pages["unknown"] = int64(r.Counts[9][0]), int64(r.Counts[0][0])
		for name, line := range map[string]string{
			"free": "MemFree", "slab": "Slab", "table": "PageTables", "anonymous": "AnonPages",
			"shmem": "Shmem",
		} {
			kernel[name] = meminfo(t, line)
		}
		kernel["hugetlb"] = meminfo(t, "Hugetlb")
		t.Logf("counted %v, the kernel says %v", pages, kernel)
		return pages, kernel
	}
	count() // what counting itself allocates is there then
	before, said := count()
	// Free pages of CPUs are unknown to the program, and the kernel counts them as free or not.
	// To the kernel's counter large objects are slab, too. They have no mark before Linux 6.18.
	// Pages that are not yet on a list of the LRU have no known use. A huge page of ours may come
	// between the count and what the kernel says.
	slack := map[string]int64{
		"free": 4096, "slab": 2048, "table": 256, "anonymous": 2048, "shmem": 512, "hugetlb": 0,
	}
	for name, n := range said {
		if diff := before[name] - n; diff > slack[name] || diff < -slack[name] {
			t.Errorf("%d pages are %s, the kernel says %d", before[name], name, n)
		}
	}
	const bytes = 64 << 20
	const prot = unix.PROT_READ | unix.PROT_WRITE
	for name, flags := range map[string]int{
		"anonymous": unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_POPULATE,
		"shmem":     unix.MAP_SHARED | unix.MAP_ANONYMOUS | unix.MAP_POPULATE,
	} {
		mem, err := unix.Mmap(-1, 0, bytes, prot, flags)
		if err != nil {
			t.Fatal(err)
		}
		with, _ := count()
		if err := unix.Munmap(mem); err != nil {
			t.Fatal(err)
		}
		if more := with[name] - before[name]; more < bytes/4096-256 || more > bytes/4096+1024 {
			t.Errorf("%d pages more are %s, want about %d", more, name, bytes/4096)
		}
	}
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
	if known := version >= 6<<16|12<<8; known != (err == nil) || !known && !errors.Is(err, ErrKernel) {
		t.Errorf("Linux %#x as 6.9: error %v", version, err)
	}
}
