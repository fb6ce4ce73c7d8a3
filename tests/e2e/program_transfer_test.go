// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/driver-ebpf/agent"
	"github.com/fbpp-project/fbpp/tests/lab"
)

// partBytes is what a DATA event has of an object, where the agent's buffers are as large as
// they are.
const partBytes = agent.ProgramBuffer - protocol.DataHead

// largest is the walk's object, padded to the most bytes that the standard policy takes.
func (o *owner) largest() []byte {
	const most = 256 << 10
	return append(o.object, bytes.Repeat([]byte{1}, most-len(o.object))...)
}

// A guest moves while it has half of an object. Its walk goes on. At a host that does not offer
// the object nothing comes of it, and at one that does, the transfer goes on where it was left.
func TestMigrationInTheMiddleOfATransfer(t *testing.T) {
	o := mustOwner(t)
	here := startMiser(t)
	m := boot(t, setup{noAgent: true, files: o.files, socket: here.socket})
	err := m.vm.Spawn(m.ctx, agentName, lab.AgentPath, "--program-policy=/policy.json",
		"--program-accepted=/accepted.json", "--log-level=debug")
	if err != nil {
		t.Fatal(err)
	}
	for here.device.Status().Session == nil {
		time.Sleep(time.Millisecond)
	}
	m.setup.socket, m.config.Backend = "", "" // all other hosts have an fbppd
	dst, backend := m.destination()
	program := o.sign(o.largest(), 2, nil)
	here.push(t, program)

	if err := m.vm.StartMigration(m.ctx, dst, 0); err != nil {
		t.Fatal(err)
	}
	m.awaitHints("ok")
	here.requireFetching(t, program)
	m.arrive(dst, backend)
	m.requireSound()
	m.awaitSession()
	before := m.partsCame()
	if s, err := m.backend.Control.Status(m.ctx); err != nil || len(s.Programs) != 0 {
		t.Errorf("a host that offers nothing says %+v, %v", s.Programs, err)
	}

	m.requireArrivalAt("ok", program, driver.AtNow) // by the built-in walk
	m.awaitProgram(program, "active")
	after := m.partsCame()
	parts := (len(program.Object) + partBytes - 1) / partBytes
	t.Logf("%d of %d parts came before the migration, %d in all", before, parts, after)
	// A slow host may deliver a part twice.
	if before == 0 || before >= parts || after < parts || after >= parts+before {
		t.Errorf("the transfer did not go on: %d parts, then %d of %d", before, after, parts)
	}
	m.requireMigration("ok")
	m.awaitProgram(program, "active")
}

// partsCame returns how many parts of objects the agent has logged.
func (m *machine) partsCame() int {
	m.t.Helper()
	said, err := m.agentOutput()
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.Count(said, `{"event": "data`)
}
