// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/fbpp-project/fbpp/device/introspect/pages"
)

// mustAgreeOnAge compares how many pages the host calls active with the kernel's own count
// of them. With generations that is the two newest of each list, by debugfs; without, the
// pages that kpageflags calls active. The host also counts pages that were active once
// (PG_workingset), which neither tells, so its count is a little higher.
func (s *subject) mustAgreeOnAge(t *testing.T, v *view, seen map[uint64]pages.Page) {
	t.Helper()
	host, cold := 0, 0
	for _, p := range seen {
		if p.Attr&pages.Active != 0 {
			host++
		}
		if p.Heat() == pages.Cold {
			cold++
		}
	}
	guest, err := newestGenerations(v.files["lru_gen"])
	if err != nil {
		t.Fatal(err)
	}
	by := "generations"
	if guest == 0 {
		guest, by = activeFlags(v.files["kpageflags"]), "flags"
	}
	t.Logf("by %s the guest has %d active pages, the host sees %d, and %d cold ones",
		by, guest, host, cold)
	if off := host - guest; guest == 0 || cold == 0 || max(off, -off) > 128+guest/20 {
		t.Errorf("by %s the guest has %d active pages, the host sees %d, and %d cold ones",
			by, guest, host, cold)
	}
}

// newestGenerations returns the pages in the two newest generations of all lists, as the
// kernel's file lru_gen says (mm/vmscan.c, lru_gen_seq_show).
func newestGenerations(file []byte) (int, error) {
	total, last, before := 0, 0, 0
	lines := bufio.NewScanner(bytes.NewReader(file))
	for lines.Scan() {
		var seq, age, anonymous, files int
		n, _ := fmt.Sscan(lines.Text(), &seq, &age, &anonymous, &files)
		if n == 4 { // of a list, the oldest first
			before, last = last, anonymous+files
			continue
		}
		total += before + last
		before, last = 0, 0
	}
	if len(file) == 0 {
		return 0, fmt.Errorf("read lru_gen: it is empty")
	}
	return total + before + last, lines.Err()
}

// activeFlags returns how many pages kpageflags calls active.
func activeFlags(file []byte) (n int) {
	const kpfActive = 1 << 6
	head := uint64(0)
	for ; len(file) >= 8; file = file[8:] {
		flags := binary.LittleEndian.Uint64(file)
		if flags&kpfTail == 0 {
			head = flags
		}
		if head&kpfActive != 0 && head&kpfLRU != 0 {
			n++
		}
	}
	return n
}
