// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/guest/ctl"
	"github.com/fbpp-project/fbpp/tests/lab"
	"github.com/fbpp-project/fbpp/tests/vm"
)

// fault is the kill of one or more processes during a migration.
type fault struct {
	name string
	// strike kills processes of the host. If it is nil, a program in the guest
	// kills the agent, because the host could not do so at an exact time.
	strike func(m *machine, destination *vm.Backend)
	// repair starts what was killed again, on the destination. nil: nothing to do.
	repair   func(m *machine)
	statuses []string // how the hints may end
}

func faults() []fault {
	killSource := func(m *machine, _ *vm.Backend) { m.backend.Kill() }
	killDestination := func(_ *machine, b *vm.Backend) { b.Kill() }
	return []fault{
		{"fbppd of the source", killSource, nil, []string{"ok", "no-backend"}},
		{"fbppd of the source, which comes back", func(m *machine, _ *vm.Backend) {
			m.backend.Kill()
			m.restartBackend()
		}, nil, []string{"ok", "no-backend"}},
		{"fbppd of the destination", killDestination, (*machine).restartBackend, []string{"ok"}},
		{"both", func(m *machine, b *vm.Backend) {
			m.backend.Kill()
			b.Kill()
		}, (*machine).restartBackend, []string{"ok", "no-backend"}},
		{"the agent", nil, (*machine).restartAgent, []string{"ok", "no-driver", "driver-timeout"}},
	}
}

// Whichever process is killed, and at whatever time, the migration completes and
// the guest's memory is right. A process that was started again serves the next
// migration.
func TestKilledAtRandomInstants(t *testing.T) {
	const perRound = time.Minute // a round that takes so long hangs
	n := rounds(12, 1000)
	r := random(t)
	m := boot(t, setup{
		memoryMiB: 256, poolPages: 4096, timeout: hangTimeout + time.Duration(n)*perRound,
	})
	if _, err := m.vm.Fill(m.ctx, 96); err != nil {
		t.Fatal(err)
	}
	all, began := m.ctx, time.Now()
	seen := make(map[string]int)
	for i := range n {
		round, cancel := context.WithTimeout(all, perRound)
		m.ctx = round
		whole := m.migrate()
		requireHints(t, whole, "ok")
		m.requireSound()
		m.awaitDriver()

		f, after := faults()[i%len(faults())], instant(r, whole)
		figures := m.migrateWith(f, after)
		if !slices.Contains(f.statuses, figures.HintStatus()) {
			t.Fatalf("%s was killed after %v: hints ended with %q", f.name, after, figures.HintStatus())
		}
		seen[f.name+": "+figures.HintStatus()]++
		m.requireSound()
		if f.repair != nil {
			f.repair(m)
		}
		m.awaitDriver()
		cancel()
		m.closers = m.closers[len(m.closers)-2:] // those of earlier hosts have nothing left to close
		if done := i + 1; done%25 == 0 || done == n {
			left := time.Since(began) / time.Duration(done) * time.Duration(n-done)
			t.Logf("%d of %d killed, about %v left", done, n, left.Round(time.Second))
		}
	}
	m.ctx = all
	requireHints(t, m.migrate(), "ok")
	m.requireSound()
	for name, count := range seen {
		t.Logf("%4d × %s", count, name)
	}
}

// instant picks the time of a kill, counted from the start of a migration that
// takes as long as whole did. Half of the kills fall into the setup or shortly
// after it: the guest is asked then, which takes a small part of a migration. The
// others fall anywhere in the migration, or shortly after its end.
func instant(r *rand.Rand, whole *vm.Migration) time.Duration {
	until := whole.TotalTime + whole.TotalTime/4
	if r.IntN(2) == 0 {
		until = whole.SetupTime + whole.SetupTime/2
	}
	return time.Duration(r.Int64N(until*int64(time.Millisecond) + 1))
}

// killerName is the program in the guest that kills the agent.
const killerName = "killer"

// migrateWith migrates the guest, with a fault at this time after the beginning.
func (m *machine) migrateWith(f fault, after time.Duration) *vm.Migration {
	m.t.Helper()
	dst, backend := m.destination()
	if f.strike == nil {
		// A dead agent is not worth the usual 20 s. fbppd says so in nine tenths of it.
		m.setDevice("hint-timeout", 6000)
		err := m.vm.Spawn(m.ctx, killerName,
			"/init", "kill", filepath.Base(lab.AgentPath), after.String())
		if err != nil {
			m.t.Fatal(err)
		}
		if _, err := m.vm.Tell(m.ctx, killerName, ""); err != nil {
			m.t.Fatal(err)
		}
	}
	if err := m.vm.StartMigration(m.ctx, dst, 0); err != nil {
		m.t.Fatal(err)
	}
	if f.strike != nil {
		time.Sleep(after)
		f.strike(m, backend)
	}
	return m.arrive(dst, backend)
}

func (m *machine) restartBackend() {
	m.t.Helper()
	if err := m.backend.Restart(m.ctx); err != nil {
		m.t.Fatal(err)
	}
}

// restartAgent starts another agent when the agent has been killed.
func (m *machine) restartAgent() {
	m.t.Helper()
	if _, err := m.vm.Guest.Do(m.ctx, ctl.Request{Op: ctl.OpWait, Name: killerName}); err != nil {
		m.t.Fatal(err)
	}
	m.waitAgent()
	m.startAgent()
}
