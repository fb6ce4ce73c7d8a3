// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Info is what the guest's kernel says about its memory, in pages of [PageSize].
type Info struct {
	Total  int64 `json:"total"`  // MemTotal: what the page allocator manages
	Free   int64 `json:"free"`   // MemFree, which leaves out the per-CPU lists
	Buddy  int64 `json:"buddy"`  // on the buddy lists: those that a walk can find
	Blocks int64 `json:"blocks"` // number of free blocks on the buddy lists, not pages
}

// ReadInfo reads /proc/meminfo and /proc/buddyinfo.
func ReadInfo() (Info, error) {
	meminfo, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return Info{}, err
	}
	buddyinfo, err := os.ReadFile("/proc/buddyinfo")
	if err != nil {
		return Info{}, err
	}
	var i Info
	if i.Total, err = parseMeminfo(string(meminfo), "MemTotal"); err != nil {
		return i, err
	}
	if i.Free, err = parseMeminfo(string(meminfo), "MemFree"); err != nil {
		return i, err
	}
	base, blocks, err := parseBuddyinfo(string(buddyinfo))
	i.Buddy, i.Blocks = base*int64(perBase()), blocks
	return i, err
}

// parseMeminfo returns a field of /proc/meminfo, which is in KiB, in pages.
func parseMeminfo(text, field string) (int64, error) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == field+":" && f[2] == "kB" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil || kib < 0 {
				return 0, fmt.Errorf("parse meminfo: %q", strings.TrimSpace(line))
			}
			return kib / (PageSize / 1024), nil
		}
	}
	return 0, fmt.Errorf("parse meminfo: no field %s", field)
}

// parseBuddyinfo adds up the free blocks of all zones, in base pages. A line is
// "Node 0, zone   Normal   1   0 ...", a count per order from 0 on.
func parseBuddyinfo(text string) (pages, blocks int64, err error) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 5 || f[0] != "Node" || f[2] != "zone" {
			return 0, 0, fmt.Errorf("parse buddyinfo: %q", strings.TrimSpace(line))
		}
		for order, count := range f[4:] {
			n, err := strconv.ParseInt(count, 10, 32)
			if err != nil || n < 0 || order > 20 {
				return 0, 0, fmt.Errorf("parse buddyinfo: order %d of %q", order, strings.TrimSpace(line))
			}
			pages, blocks = pages+n<<order, blocks+n
		}
	}
	return pages, blocks, nil
}
