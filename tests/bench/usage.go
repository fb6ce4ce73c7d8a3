// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// usage is what a process has used so far.
type usage struct {
	cpu      time.Duration // of all its threads, the emulated CPUs among them
	resident int64         // bytes in memory now
}

// tick is the unit of times in /proc/PID/stat: USER_HZ, which is 100 on every
// architecture that Go and QEMU share.
const tick = time.Second / 100

// readUsage reads /proc/PID/stat and /proc/PID/status.
func readUsage(pid int) (usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return usage{}, err
	}
	cpu, err := parseCPU(string(stat))
	if err != nil {
		return usage{}, err
	}
	resident, err := parseResident(string(status))
	return usage{cpu: cpu, resident: resident}, err
}

// parseCPU adds utime and stime, fields 14 and 15. The second field, the name
// in parentheses, may hold anything.
func parseCPU(stat string) (time.Duration, error) {
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(f) < 13 {
		return 0, fmt.Errorf("parse process times: %q", stat)
	}
	var sum time.Duration
	for _, text := range f[11:13] {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("parse process times: %w", err)
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}

// parseResident returns VmRSS, which has shared memory in it.
func parseResident(status string) (int64, error) { return parseMemory(status, "VmRSS:") }

// parseMemory returns one kind of memory, in bytes.
func parseMemory(status, kind string) (int64, error) {
	for line := range strings.Lines(status) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == kind {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("parse resident memory: %w", err)
			}
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("parse resident memory: no %s", strings.TrimSuffix(kind, ":"))
}
