// SPDX-License-Identifier: Apache-2.0

package localise

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// nodesWithMemory lists the nodes of this machine that have memory.
func nodesWithMemory(t *testing.T) (nodes []int) {
	t.Helper()
	text, err := os.ReadFile("/sys/devices/system/node/has_memory")
	if os.IsNotExist(err) {
		return []int{0} // a kernel without NUMA
	}
	if err != nil {
		t.Fatal(err)
	}
	for part := range strings.SplitSeq(strings.TrimSpace(string(text)), ",") {
		first, last, is := strings.Cut(part, "-")
		if !is {
			last = first
		}
		from, err1 := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if err1 != nil || err2 != nil {
			t.Fatalf("nodes with memory: %q", text)
		}
		for n := from; n <= to; n++ {
			nodes = append(nodes, n)
		}
	}
	return nodes
}
