// SPDX-License-Identifier: Apache-2.0

package writes

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/fbpp-project/fbpp/tests/stock/relay"
)

// Process watches a process whose program was [Inject]ed. It is a relay.Watch.
type Process struct {
	// PID is the process id.
	PID int
	// Orders and Answers are its standard input and output.
	Orders  io.Writer
	Answers *bufio.Reader
}

var _ relay.Watch = (*Process)(nil)

// Begin implements relay.Watch.
func (p *Process) Begin() error {
	if _, err := io.WriteString(p.Orders, "forget\n"); err != nil {
		return fmt.Errorf("watch process: %w", err)
	}
	answer, err := p.Answers.ReadString('\n')
	if err != nil {
		return fmt.Errorf("watch process: %w", err)
	}
	if answer = strings.TrimSpace(answer); answer != "ok" {
		return fmt.Errorf("watch process: %s", answer)
	}
	return nil
}

const pageSize = 4096

// Written implements relay.Watch.
func (p *Process) Written(inode uint64) ([]uint64, error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", p.PID))
	if err != nil {
		return nil, fmt.Errorf("find shared memory: %w", err)
	}
	pagemap, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", p.PID))
	if err != nil {
		return nil, fmt.Errorf("look for written pages: %w", err)
	}
	defer pagemap.Close()
	var offsets []uint64
	for line := range strings.Lines(string(maps)) {
		var start, end, offset, file uint64
		var mode, dev string
		_, err := fmt.Sscanf(line, "%x-%x %s %x %s %d", &start, &end, &mode, &offset, &dev, &file)
		if err != nil {
			return nil, fmt.Errorf("find shared memory in %q: %w", line, err)
		}
		if file != inode || mode != "rw-s" {
			continue
		}
		ranges, err := scan(pagemap.Fd(), start, end)
		if err != nil {
			return nil, fmt.Errorf("look for written pages: %w", err)
		}
		for _, r := range ranges {
			for addr := r.Start; addr < r.End; addr += pageSize {
				offsets = append(offsets, offset+addr-start)
			}
		}
	}
	slices.Sort(offsets)
	return slices.Compact(offsets), nil
}
