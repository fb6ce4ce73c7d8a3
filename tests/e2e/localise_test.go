// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/fbpp-project/fbpp/cmd/fbppctl/localise"
	"github.com/fbpp-project/fbpp/device/census"
	"github.com/fbpp-project/fbpp/device/placement"
	"github.com/fbpp-project/fbpp/tests/guest"
)

// Linux moves the pages that fbppctl localise tells it to. The host of the tests may have one node
// only, so this runs on a machine of its own that has two.
func TestMemoryMovesBetweenNodesOfAMachine(t *testing.T) {
	const pkg = "github.com/fbpp-project/fbpp/cmd/fbppctl/localise"
	dir := filepath.Join(parts.Root, "build", "guest")
	binary, err := guest.BuildTest(t.Context(), pkg, guestTag, dir)
	if err != nil {
		t.Fatal(err)
	}
	m := boot(t, setup{
		memoryMiB: 512, memory: []string{memfd("low", 256), memfd("high", 256)},
		options: []string{"-numa", "node,cpus=0,memdev=low", "-numa", "node,cpus=1,memdev=high"},
		noAgent: true, noIntegrity: true, files: map[string]string{inGuest(pkg): binary},
	})
	runInGuest(t, m, inGuest(pkg))
}

// A guest's memory is brought to a node of the host: what is hot, other and cold, and nothing that
// is free. Nothing is allocated by that, and the guest may run meanwhile.
func TestMemoryOfAGuestIsLocalised(t *testing.T) {
	m := boot(t, setup{})
	m.integrity("pause")
	m.fillFree() // so that free pages are allocated
	m.integrity("resume")
	for _, paused := range []bool{false, true} {
		if paused {
			m.execute("stop")
		}
		before := m.census()
		r := m.localise("--node=0")
		after := m.census()
		all := r.Total()
		held := all.Moved + all.There + all.Left
		t.Logf("paused %v: %+v; %d bytes are allocated", paused, r, before.TouchedBytes)
		if r.Why != "" || all.Left > held/100 || r.Free == 0 || held > before.MemoryBytes-r.Free ||
			r.Classes[placement.Hot] == (localise.Counts{}) {
			t.Errorf("the result is %+v", r)
		}
		// Nearly all of what is not free was touched. A guest that runs uses more of it meanwhile.
		if (held+r.Free)*10 < before.TouchedBytes*9 {
			t.Errorf("%d bytes were looked at and %d are free, of %d that are allocated", held,
				r.Free, before.TouchedBytes)
		}
		if paused && after.TouchedBytes != before.TouchedBytes {
			t.Errorf("%d bytes are allocated, and were %d", after.TouchedBytes, before.TouchedBytes)
		}
	}
	m.execute("cont")
	requireHints(t, m.migrate(), "ok")
	m.requireSound()
}

func (m *machine) census() *census.Census {
	m.t.Helper()
	c, err := m.backend.Control.Census(m.ctx)
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

func (m *machine) localise(args ...string) (r localise.Result) {
	m.t.Helper()
	args = append([]string{"--json", "--control-path=" + m.backend.ControlPath, "localise"}, args...)
	out, err := exec.CommandContext(m.ctx, parts.FBPPCtl, args...).Output()
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	if err != nil {
		m.t.Fatalf("fbppctl localise: %v\n%s", err, out)
	}
	return r
}
