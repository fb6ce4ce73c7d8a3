// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// QEMU arms the dirty log by clearing it, chunk by chunk. Only KVM's log changes
// its behaviour by that, but QEMU traces each chunk with every accelerator. The
// trace shows that every chunk is cleared before the guest is asked.
func TestEveryChunkIsArmedBeforeTheGuestIsAsked(t *testing.T) {
	const (
		blockMiB = 192
		chunkMiB = 8 // 2^11 pages
	)
	m := boot(t, setup{
		memoryMiB: 2 * blockMiB,
		memory:    []string{memfd("low", blockMiB), memfd("high", blockMiB)},
		options: []string{"-machine", "max-ram-below-4g=192M",
			"-numa", "node,cpus=0,memdev=low", "-numa", "node,cpus=1,memdev=high",
			"-global", "migration.x-clear-bitmap-shift=11",
			"-trace", "migration_bitmap_clear_dirty",
			"-trace", "free_page_hints_ask", "-trace", "free_page_hints_done"},
	})
	source := m.vm
	requireHints(t, m.migrate(), "ok")
	said := source.Messages()
	arming, rest, asked := strings.Cut(said, "free_page_hints_ask ")
	exchange, _, answered := strings.Cut(rest, "free_page_hints_done ")
	if !asked || !answered {
		t.Fatalf("no trace of the exchange:\n%s", said)
	}
	before, during := clearedChunks(t, arming), clearedChunks(t, exchange)
	for _, block := range []string{"low", "high"} {
		for start := uint64(0); start < blockMiB<<20; start += chunkMiB << 20 {
			if !before[chunk{block, start}] {
				t.Errorf("the chunk at %#x of %q is not armed when the guest is asked", start, block)
			}
		}
	}
	for c := range during {
		t.Errorf("the log of the chunk at %#x of %q is cleared while the guest looks", c.start, c.block)
	}
}

// chunk is the part of a RAMBlock that QEMU clears in the log with one call.
type chunk struct {
	block string
	start uint64
}

var cleared = regexp.MustCompile(`migration_bitmap_clear_dirty rb (\S+) start 0x([0-9a-f]+) `)

// clearedChunks returns the chunks that a trace says were cleared.
func clearedChunks(t *testing.T, trace string) map[chunk]bool {
	t.Helper()
	chunks := make(map[chunk]bool)
	for _, line := range cleared.FindAllStringSubmatch(trace, -1) {
		start, err := strconv.ParseUint(line[2], 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		chunks[chunk{line[1], start}] = true
	}
	return chunks
}
