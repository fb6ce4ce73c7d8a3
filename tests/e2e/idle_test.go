// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/guest"
	"github.com/fbpp-project/fbpp/tests/guest/activity"
	"github.com/fbpp-project/fbpp/tests/lab"
)

// The agent has to be idle for the whole of one idleTime, so a poll with a shorter
// period is found. The Go runtime itself wakes up about once a minute
// (runtime.sysmon), and for a while after work. Therefore the test looks several
// times.
const (
	idleTime  = 5 * time.Second
	idleLooks = 6
)

// While no migration runs, no thread of the agent runs, neither before the first
// migration nor after one.
func TestIdleAgentDoesNothing(t *testing.T) {
	for _, series := range guest.OldestAndNewest() {
		t.Run(string(series), func(t *testing.T) {
			m := boot(t, setup{series: series})
			for _, when := range []string{"before the first migration", "after it"} {
				m.requireIdle(when)
				requireHints(t, m.migrate(), "ok")
				m.awaitDriver()
			}
			m.requireSound()
		})
	}
}

// requireIdle waits for one idleTime in which no thread of the agent runs.
func (m *machine) requireIdle(when string) {
	m.t.Helper()
	seen := []activity.Activity{m.activity()}
	for i := range idleLooks {
		time.Sleep(idleTime)
		seen = append(seen, m.activity())
		if seen[i+1] == seen[i] {
			m.t.Logf("%s: %d threads, no context switch and no CPU time in %v",
				when, seen[i].Threads, idleTime)
			return
		}
	}
	m.t.Fatalf("%s, the agent never rests for %v: %+v", when, idleTime, seen)
}

// activity returns the agent's context switches and CPU time so far.
func (m *machine) activity() activity.Activity {
	m.t.Helper()
	out, err := m.vm.Run(m.ctx, "/init", "activity", filepath.Base(lab.AgentPath))
	if err != nil {
		m.t.Fatal(err)
	}
	var a activity.Activity
	if err := json.Unmarshal([]byte(out), &a); err != nil {
		m.t.Fatal(err)
	}
	return a
}
