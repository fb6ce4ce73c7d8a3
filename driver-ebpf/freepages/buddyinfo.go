// SPDX-License-Identifier: Apache-2.0

package freepages

import (
	"bytes"
	"fmt"
	"strconv"
)

// Zone is a line of /proc/buddyinfo.
type Zone struct {
	Node int
	Name string
	Free []uint64 // blocks by order
}

// ParseBuddyinfo reads the text of /proc/buddyinfo.
func ParseBuddyinfo(text []byte) ([]Zone, error) {
	var zones []Zone
	for line := range bytes.Lines(text) {
		fields := bytes.Fields(line)
		if len(fields) < 5 || string(fields[0]) != "Node" || string(fields[2]) != "zone" {
			return nil, fmt.Errorf("parse buddyinfo: line %q", line)
		}
		node, err := strconv.Atoi(string(bytes.TrimSuffix(fields[1], []byte(","))))
		if err != nil {
			return nil, fmt.Errorf("parse buddyinfo: node of %q: %w", line, err)
		}
		zone := Zone{Node: node, Name: string(fields[3])}
		for _, field := range fields[4:] {
			n, err := strconv.ParseUint(string(field), 10, 64)
			if err != nil {
				return nil, fmt.Errorf("parse buddyinfo: count in %q: %w", line, err)
			}
			zone.Free = append(zone.Free, n)
		}
		zones = append(zones, zone)
	}
	return zones, nil
}

// countBlocks returns the number of free blocks in all zones and orders.
func countBlocks(zones []Zone) (blocks uint64) {
	for _, zone := range zones {
		for _, n := range zone.Free {
			blocks += n
		}
	}
	return blocks
}
