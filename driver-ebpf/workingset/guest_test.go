// SPDX-License-Identifier: Apache-2.0

//go:build guest

package workingset

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fbpp-project/fbpp/driver-ebpf/pagerun"
	"github.com/fbpp-project/fbpp/driver-ebpf/pagerun/pageruntest"
)

// mustSampler loads the committed object, with these variables.
func mustSampler(t *testing.T, constants map[string]uint64) *Sampler {
	t.Helper()
	spec, err := loadSampler()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Load(t.Context(), pagerun.NewTurn(),
		pageruntest.Loader(spec, samplerProgSamplePages, constants))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// mustSwitchOn switches generations on, if they are off as on Debian 12, until the test ends.
func mustSwitchOn(t *testing.T) {
	t.Helper()
	path := debugfs().enabled
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if debugfs().check() == nil {
		return
	}
	if err := os.WriteFile(path, []byte("7"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(path, bytes.TrimSpace(before), 0); err != nil {
			t.Error(err)
		}
	})
}

// mustSwitchOffDAMON ends DAMON's own look at all memory, which Debian's 7.3 begins at boot, until
// the test ends. It takes away the marks of use that it finds, mostly those of huge pages.
func mustSwitchOffDAMON(t *testing.T) {
	t.Helper()
	const path = "/sys/module/damon_stat/parameters/enabled"
	before, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return // before Linux 6.17
	}
	if err == nil {
		err = os.WriteFile(path, []byte("N"), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(path, bytes.TrimSpace(before), 0); err != nil {
			t.Error(err)
		}
	})
}

// A kernel that does not use its generations is refused, and says how to change that.
func TestGenerationsHaveToBeOn(t *testing.T) {
	path := debugfs().enabled
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	if err := debugfs().check(); !errors.Is(err, errOff) {
		t.Errorf("switched off: %v", err)
	}
	if err := os.WriteFile(path, bytes.TrimSpace(before), 0); err != nil {
		t.Fatal(err)
	}
}

// Bits that are not a page's generation are found out, and not taken for one.
func TestOtherBitsAreNoGeneration(t *testing.T) {
	mustSwitchOn(t)
	constants := pageruntest.MustConstants(t)
	right := constants["generation_shift"]
	for _, shift := range []uint64{right - 1, right + 1, right + 2} {
		constants["generation_shift"] = shift
		_, err := mustSampler(t, constants).Sample(t.Context(), 0, func(_ uint64, _, _ []byte) error {
			return nil
		})
		if !errors.Is(err, errBits) {
			t.Errorf("bit %d, and not %d: %v", shift, right, err)
		}
	}
}

// memory is how much memory each part of the test has.
const memory = 32 << 20

// Memory that is used while the sampler waits is hot. What was written before and is not used is
// not, be it of small pages or of huge ones.
func TestUsedPagesAreHot(t *testing.T) {
	mustSwitchOn(t)
	mustSwitchOffDAMON(t)
	s := mustSampler(t, pageruntest.MustConstants(t))
	used, usedHuge := mustAllocate(t, unix.MADV_NOHUGEPAGE), mustAllocate(t, unix.MADV_HUGEPAGE)
	locked := mustAllocate(t, unix.MADV_NOHUGEPAGE)
	if err := unix.Mlock(locked); err != nil {
		t.Fatal(err)
	}
	idle, idleHuge := mustAllocate(t, unix.MADV_NOHUGEPAGE), mustAllocate(t, unix.MADV_HUGEPAGE)
	hot := make(map[uint64][window / 8]byte)
	ended := make(chan error, 1)
	go func() {
		work, err := s.Sample(t.Context(), 3*time.Second, notes(hot).keep)
		t.Logf("%d runs, the longest of %v", work.Runs, work.Longest)
		ended <- err
	}()
	sum := byte(0)
	for more := true; more; {
		for at := 0; at < memory; at += os.Getpagesize() {
			sum += used[at] + usedHuge[at]
		}
		select {
		case err := <-ended:
			if err != nil {
				t.Fatal(err)
			}
			more = false
		default:
			time.Sleep(10 * time.Millisecond)
		}
	}
	if sum != 0 {
		t.Errorf("the memory has other contents: %d", sum)
	}
	for name, c := range map[string]struct {
		mem         []byte
		least, most int // percent
	}{
		"used":                              {used, 95, 100},
		"used, and huge":                    {usedHuge, 95, 100},
		"locked, of which nothing is known": {locked, 95, 100},
		"idle":                              {idle, 0, 5},
		"idle, and huge":                    {idleHuge, 0, 5},
	} {
		n, there := mustCount(t, addressOf(c.mem), len(c.mem), hot)
		if there != memory/os.Getpagesize() {
			t.Fatalf("%s: %d pages are there", name, there)
		}
		share := n * 100 / there
		t.Logf("%s: %d %% are hot", name, share)
		if share < c.least || share > c.most {
			t.Errorf("%s: %d %% are hot, want %d to %d", name, share, c.least, c.most)
		}
	}
}

// Memory that is given back to the kernel is free in the next sample, and what is in use is not.
func TestFreePagesAreFound(t *testing.T) {
	mustSwitchOn(t)
	s := mustSampler(t, pageruntest.MustConstants(t))
	mem := mustAllocate(t, unix.MADV_NOHUGEPAGE)
	free := func() map[uint64][window / 8]byte {
		all := make(notes)
		_, err := s.Sample(t.Context(), 0, func(at uint64, _, free []byte) error {
			return all.keep(at, free, nil)
		})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	pages := memory / os.Getpagesize()
	frames := mustFrames(t, addressOf(mem), len(mem))
	before := countIn(frames, free())
	if err := unix.Madvise(mem, unix.MADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	after := countIn(frames, free())
	t.Logf("of %d pages %d are free, and then %d", len(frames), before, after)
	if len(frames) != pages || before > pages/100 || after < pages*9/10 {
		t.Errorf("of %d pages %d are free, and then %d", len(frames), before, after)
	}
}

// The agent's own program is hot, although it sleeps while it waits.
func TestOwnProgramIsHot(t *testing.T) {
	mustSwitchOn(t)
	mustSwitchOffDAMON(t)
	s := mustSampler(t, pageruntest.MustConstants(t))
	hot := make(map[uint64][window / 8]byte)
	if _, err := s.Sample(t.Context(), time.Second, notes(hot).keep); err != nil {
		t.Fatal(err)
	}
	parts, err := ownParts()
	if err != nil {
		t.Fatal(err)
	}
	there, found := 0, 0
	for _, p := range parts {
		n, of := mustCount(t, int64(p.start), int(p.end-p.start), hot)
		there, found = there+of, found+n
	}
	t.Logf("%d of %d pages are hot", found, there)
	if there == 0 || found < there*9/10 {
		t.Errorf("%d of %d pages are hot", found, there)
	}
}

// mustAllocate returns memory that is there.
func mustAllocate(t *testing.T, advice int) []byte {
	t.Helper()
	const prot = unix.PROT_READ | unix.PROT_WRITE
	mem, err := unix.Mmap(-1, 0, memory, prot, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err == nil {
		err = errors.Join(unix.Madvise(mem, advice), unix.Madvise(mem, unix.MADV_POPULATE_WRITE))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(mem) })
	return mem
}

// mustCount counts the pages of some memory that are there, and those of them that are hot.
func mustCount(
	t *testing.T, addr int64, length int, hot map[uint64][window / 8]byte,
) (n, there int) {
	t.Helper()
	frames := mustFrames(t, addr, length)
	return countIn(frames, hot), len(frames)
}

// mustFrames returns the page frames of some memory, as far as it is there.
func mustFrames(t *testing.T, addr int64, length int) (frames []uint64) {
	t.Helper()
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size := os.Getpagesize()
	entries := make([]byte, length/size*8)
	if _, err := f.ReadAt(entries, addr/int64(size)*8); err != nil {
		t.Fatal(err)
	}
	for ; len(entries) > 0; entries = entries[8:] {
		if entry := binary.NativeEndian.Uint64(entries); entry&present != 0 {
			frames = append(frames, entry&(1<<55-1))
		}
	}
	return frames
}

// countIn counts the frames whose bits are set.
func countIn(frames []uint64, all map[uint64][window / 8]byte) (n int) {
	for _, frame := range frames {
		window := all[frame&^(window-1)]
		at := frame % (uint64(len(window)) * 8)
		n += int(window[at/8] >> (at % 8) & 1)
	}
	return n
}
