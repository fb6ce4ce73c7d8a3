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

// idleTime is how long an agent is watched that has nothing to do.
const idleTime = 5 * time.Second

// An agent with no migration sleeps: no thread of it runs, neither before its
// first migration nor after one. The Go runtime looks up once a minute
// (runtime.sysmon), so of two watches in a row one may see that.
func TestIdleAgentDoesNothing(t *testing.T) {
	for _, series := range guest.AllSeries() {
		t.Run(string(series), func(t *testing.T) {
			m := boot(t, setup{series: series})
			for _, when := range []string{"before the first migration", "after it"} {
				// What it does when it has just started is not idling: wait
				// until a second passes without a switch.
				for before := m.activity(); ; {
					time.Sleep(time.Second)
					now := m.activity()
					if now.Switches == before.Switches {
						break
					}
					before = now
				}
				if !m.watchIdle(when) && !m.watchIdle(when) {
					t.Errorf("%s, the agent never rests", when)
				}
				requireHints(t, m.migrate(), "ok")
				m.awaitDriver()
			}
			m.requireSound()
		})
	}
}

// watchIdle watches the agent for idleTime and says whether it did nothing.
func (m *machine) watchIdle(when string) bool {
	m.t.Helper()
	before := m.activity()
	time.Sleep(idleTime)
	after := m.activity()
	m.t.Logf("%s: %d threads, %d context switches and %d ms of CPU time in %v", when, after.Threads,
		after.Switches-before.Switches, (after.Ticks-before.Ticks)*10, idleTime)
	return after.Switches == before.Switches && after.Ticks == before.Ticks
}

// activity asks what the agent has used so far.
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
