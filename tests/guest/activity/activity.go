// SPDX-License-Identifier: Apache-2.0

// Package activity reports the context switches and CPU time of a program in the
// guest. Tests use it to check that an agent costs nothing while no migration runs.
package activity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Activity is the sum over all threads of a program, since their start.
type Activity struct {
	Threads  int    `json:"threads"`
	Switches uint64 `json:"switches"` // times that a thread gave up the CPU, or lost it
	Ticks    uint64 `json:"ticks"`    // CPU time in units of 10 ms
}

// Find returns the id of the process with this command name, as in /proc/PID/comm.
func Find(command string) (pid int, err error) {
	comms, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return 0, err
	}
	for _, path := range comms {
		name, err := os.ReadFile(path)
		if err != nil || strings.TrimSpace(string(name)) != command {
			continue // ended meanwhile, or another program
		}
		stat, err := os.ReadFile(filepath.Join(filepath.Dir(path), "stat"))
		if err != nil || ended(string(stat)) {
			continue
		}
		return strconv.Atoi(filepath.Base(filepath.Dir(path)))
	}
	return 0, fmt.Errorf("find %s: no such program runs", command)
}

// ended says whether /proc/PID/stat is that of a process that has ended, and that nobody has waited
// for. The guest's init waits for none but its own.
func ended(stat string) bool {
	return strings.HasPrefix(stat[strings.LastIndexByte(stat, ')')+1:], " Z")
}

// Read adds up the threads of the process with this command name.
func Read(command string) (Activity, error) {
	var a Activity
	pid, err := Find(command)
	if err != nil {
		return a, err
	}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*", pid))
	if err != nil {
		return a, err
	}
	for _, task := range tasks {
		if err := a.add(task); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return a, fmt.Errorf("read the activity of %s: %w", command, err)
		}
	}
	return a, nil
}

// add adds the thread with the folder task, /proc/PID/task/TID.
func (a *Activity) add(task string) error {
	status, err := os.ReadFile(filepath.Join(task, "status"))
	if err != nil {
		return err
	}
	stat, err := os.ReadFile(filepath.Join(task, "stat"))
	if err != nil {
		return err
	}
	switches, err := parseSwitches(string(status))
	if err != nil {
		return err
	}
	ticks, err := parseTicks(string(stat))
	if err != nil {
		return err
	}
	a.Threads++
	a.Switches += switches
	a.Ticks += ticks
	return nil
}

// parseSwitches adds the two kinds of context switches in /proc/PID/status.
func parseSwitches(status string) (sum uint64, err error) {
	found := 0
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		if key == "voluntary_ctxt_switches" || key == "nonvoluntary_ctxt_switches" {
			n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
			if err != nil {
				return 0, err
			}
			sum += n
			found++
		}
	}
	if found != 2 {
		return 0, fmt.Errorf("%d counts of context switches", found)
	}
	return sum, nil
}

// parseTicks adds utime and stime, fields 14 and 15 of /proc/PID/stat. The
// second field is a name in parentheses and may hold anything.
func parseTicks(stat string) (uint64, error) {
	end := strings.LastIndexByte(stat, ')')
	fields := strings.Fields(stat[end+1:])
	if end < 0 || len(fields) < 13 {
		return 0, fmt.Errorf("%d fields after the name", len(fields))
	}
	user, err := strconv.ParseUint(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseUint(fields[12], 10, 64)
	return user + system, err
}
