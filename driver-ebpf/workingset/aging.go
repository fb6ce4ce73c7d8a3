// SPDX-License-Identifier: Apache-2.0

package workingset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lists are the kernel's lists of pages, by the files that show and control them.
type lists struct {
	enabled string // what the kernel's generations may use
	control string // shows the lists, and ages them
}

func debugfs() lists {
	return lists{"/sys/kernel/mm/lru_gen/enabled", "/sys/kernel/debug/lru_gen"}
}

// Bits of the file enabled: generations are in use, and the kernel looks into page tables for what
// was used. Without the latter it knows only when it is short of memory.
const (
	inUse    = 0x1
	walks    = 0x2
	required = inUse | walks
)

// maxLists bounds the text that lists them: 16,384 lists or more, of the groups of processes and
// the nodes that they are on. The rest is not aged: pages of its two newest generations count as
// used, whenever that was. Older ones do not, even if they were used, unless the kernel marked them
// as referenced since the first look. That does no harm, as it is a hint only.
const maxLists = 4 << 20

// Why the pages that were used cannot be found.
var (
	errNoGenerations = errors.New("the kernel has no multi-generational LRU (CONFIG_LRU_GEN)")
	errOff           = errors.New("the kernel's multi-generational LRU is off")
	errNoDebugfs     = errors.New("debugfs is not mounted at /sys/kernel/debug")
	errLocked        = errors.New("kernel lockdown keeps the agent from the lists of pages")
	errNoList        = errors.New("no list of pages could be aged")
)

// check says why the lists cannot be aged, or nil.
func (l lists) check() error {
	text, err := os.ReadFile(l.enabled)
	if errors.Is(err, os.ErrNotExist) {
		return errNoGenerations
	} else if err != nil {
		return fmt.Errorf("look for generations of pages: %w", err)
	}
	bits, err := strconv.ParseUint(strings.TrimSpace(string(text)), 0, 32)
	if err != nil {
		return fmt.Errorf("look for generations of pages: %w", err)
	}
	if bits&required != required {
		return fmt.Errorf("%w: %s is %#x, and has to have %#x", errOff, l.enabled, bits, required)
	}
	f, err := os.OpenFile(l.control, os.O_RDWR, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return errNoDebugfs
	case errors.Is(err, unix.EPERM):
		return errLocked
	case err != nil:
		return fmt.Errorf("look for the lists of pages: %w", err)
	}
	return f.Close()
}

// age begins a new generation on each list, and moves to the one before what was used since the
// last one. A list can go with its group of processes meanwhile.
func (l lists) age(ctx context.Context) error {
	if err := l.check(); err != nil { // it may have been switched off
		return err
	}
	f, err := os.OpenFile(l.control, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxLists))
	if err != nil {
		return fmt.Errorf("read the lists of pages: %w", err)
	}
	aged := 0
	var first error
	for _, list := range parseLists(string(text)) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		// With swap or without, and also what the kernel expects to be unused.
		order := fmt.Sprintf("+ %d %d %d 1 1\n", list.group, list.node, list.newest)
		if _, err := f.WriteString(order); err == nil {
			aged++
		} else if first == nil {
			first = err
		}
	}
	if aged == 0 {
		return errors.Join(errNoList, first)
	}
	return nil
}

// list is a list of pages: those of a group of processes on a node.
type list struct{ group, node, newest uint64 }

// parseLists reads the text of the file control (mm/vmscan.c, lru_gen_seq_show): a line for a
// group, one for each of its nodes, and one for each generation, the newest last.
func parseLists(text string) (all []list) {
	var now list
	known := false // a node of a group
	end := func() {
		if known {
			all = append(all, now)
		}
		known = false
	}
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		number := words[0]
		if number == "memcg" || number == "node" {
			number = words[1]
		}
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			continue
		}
		switch words[0] {
		case "memcg":
			end()
			now.group = n
		case "node":
			end()
			now.node = n
		default:
			now.newest, known = n, true
		}
	}
	end()
	return all
}
