// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// HostMemoryMiB returns how much memory this machine can give to guests, in
// MiB: MemAvailable of /proc/meminfo.
func HostMemoryMiB() (int, error) {
	meminfo, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	return availableMiB(string(meminfo))
}

func availableMiB(meminfo string) (int, error) {
	for line := range strings.Lines(meminfo) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemAvailable:" {
			kib, err := strconv.Atoi(f[1])
			if err != nil {
				return 0, fmt.Errorf("parse /proc/meminfo: %w", err)
			}
			return kib / 1024, nil
		}
	}
	return 0, errors.New("/proc/meminfo has no MemAvailable")
}
