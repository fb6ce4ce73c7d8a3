// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fbpp-project/fbpp/tests/vm"
)

// A backend that connects during incoming postcopy cannot wait for missing pages. If
// it read one, a zero page would take its place for good. So QEMU does not use such a
// backend until postcopy has ended.
func TestBackendThatComesDuringIncomingPostcopy(t *testing.T) {
	for _, tc := range []struct {
		name    string
		plug    bool // the destination's device is plugged in while it runs
		cannot  bool // the backend cannot wait for pages
		enough  bool // precopy completes the migration
		before  func(p *postcopy)
		advised func(p *postcopy) // called when the stream has begun
		running func(p *postcopy) // called when the destination runs, without most of its memory
		ended   func(p *postcopy)
	}{
		{name: "when it is advised", advised: (*postcopy).comes},
		{name: "which does not come", enough: true, advised: (*postcopy).comes},
		{name: "when the machine runs", running: (*postcopy).comes},
		{name: "and the driver starts", running: func(p *postcopy) {
			p.comes()
			p.dst.startDriver(low)
		}},
		{name: "and goes again", running: func(p *postcopy) {
			p.comes()
			p.b.Kill()
			p.comes()
		}},
		{name: "with the device", plug: true, running: func(p *postcopy) {
			p.comes()
			p.dst.plugChardev(p.r.socket)
			if err := p.dst.plugDevice(); err != nil {
				p.t.Fatal(err)
			}
		}},
		{name: "back", before: (*postcopy).takesPart, running: func(p *postcopy) {
			p.b.Kill()
			p.heard = p.r.heard.Load()
			p.comes()
		}},
		{name: "back, as it was stopped", before: (*postcopy).takesPart, running: func(p *postcopy) {
			p.stops()
			p.dst.execute("stop", nil)
			p.dst.execute("cont", nil)
			p.resumes()
		}},
		{name: "back, as it was stopped when it was advised", before: func(p *postcopy) {
			p.takesPart()
			p.stops()
		}, advised: (*postcopy).resumes},
		{
			name:    "back, as it was stopped at the switch",
			before:  (*postcopy).takesPart,
			advised: (*postcopy).stops,
			running: (*postcopy).resumes,
		},
		{
			name:    "back, as it was stopped at the end",
			before:  (*postcopy).takesPart,
			running: (*postcopy).stops,
			ended:   (*postcopy).resumes,
		},
		{
			name:   "early, and the driver starts anew",
			before: (*postcopy).takesPart,
			running: func(p *postcopy) {
				p.dst.await("the backend takes part", func() bool {
					return strings.Contains(p.b.Log(), "POSTCOPY_LISTEN")
				})
				p.dst.startDriver(low)
			},
		},
		{name: "on the source", advised: func(p *postcopy) {
			p.source.Kill()
			p.restart(p.source)
		}, running: func(p *postcopy) {
			p.source.Kill()
			p.restart(p.source)
			p.comes()
		}},
		{name: "and cannot wait for pages", cannot: true, before: func(p *postcopy) {
			// The backend is connected, and QEMU drops it when postcopy is permitted.
			p.takesPart()
		}, advised: func(p *postcopy) { p.heard = p.r.heard.Load() }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPostcopy(t, tc.plug, tc.cannot)
			if tc.before != nil {
				tc.before(p)
			}
			p.begin()
			if tc.advised != nil {
				tc.advised(p)
			}
			p.alone()
			if !tc.enough {
				p.switchOver()
			}
			if tc.running != nil {
				tc.running(p)
			}
			p.alone()
			p.end()
			if tc.ended != nil {
				tc.ended(p)
			}
			if tc.plug { // no driver starts it
				p.dst.await("the handshake", func() bool { return p.r.heard.Load() > handshake })
			} else {
				p.dst.awaitStarted(p.b)
			}
			p.requireWhole()
		})
	}
}

// postcopy is a migration in which little memory arrives before the destination runs.
type postcopy struct {
	t         testing.TB
	m, dst    *machine
	source, b *vm.Backend // the backends of the source and of the destination
	r         *relay      // before b
	there     bool        // b runs
	heard     int64       // messages QEMU may have sent to b; -1: b takes part in the migration
}

// handshake is a number of messages that QEMU reaches in the handshake with a backend:
// more than half of them, and not all.
const handshake = 12

// filled is where the memory with content begins, and filledSize its size in bytes.
const (
	filled     = 16 << 20
	filledSize = 32 << 20
)

// newPostcopy makes two machines. The destination's backend does not run yet. With
// plug the destination has no device, and with cannot the backend cannot wait for
// pages.
func newPostcopy(t testing.TB, plug, cannot bool) *postcopy {
	t.Helper()
	p := &postcopy{t: t, source: startFBPPD(t), b: startFBPPD(t)}
	p.b.Kill()
	p.r = startRelay(t, p.b.Socket, passAll)
	if cannot {
		p.r.hidden.Store(1 << 8) // VHOST_USER_PROTOCOL_F_PAGEFAULT
	}
	c := config(p.source.Socket)
	c.Devices = []string{"pcie-root-port,id=port0,addr=0x11"}
	if plug {
		c.Backend = ""
	}
	p.m = start(t, c)
	p.m.fill(filled, filledSize, 0x5a)
	if !plug {
		p.m.startDriver(low)
		p.m.awaitStarted(p.source)
		c.Backend = p.r.socket
	}
	p.dst = startIncoming(t, c)
	return p
}

// comes starts the destination's backend.
func (p *postcopy) comes() {
	p.t.Helper()
	p.restart(p.b)
	p.there = true
}

// stops stops the destination's backend with SIGSTOP.
func (p *postcopy) stops() {
	p.t.Helper()
	p.dst.setTimeout(300)
	p.b.Signal(syscall.SIGSTOP)
}

// resumes continues the destination's backend after QEMU has given it up.
func (p *postcopy) resumes() {
	p.t.Helper()
	p.dst.awaitSaid(saysSilent, 1)
	p.heard = p.r.heard.Load()
	p.dst.setTimeout(20000)
	p.b.Signal(syscall.SIGCONT)
}

func (p *postcopy) restart(b *vm.Backend) {
	p.t.Helper()
	if err := b.Restart(p.m.ctx); err != nil {
		p.t.Fatal(err)
	}
}

// takesPart starts a backend that can wait for pages, and is connected.
func (p *postcopy) takesPart() {
	p.t.Helper()
	p.comes()
	p.dst.awaitConnected(p.b)
	p.dst.await("the handshake is over", func() bool { return p.r.heard.Load() > handshake })
	p.heard = -1
}

// slowly is a bandwidth at which no migration completes, in bytes per second.
const slowly = 1 << 20

// begin begins to migrate, with postcopy permitted, and waits until that is under way.
func (p *postcopy) begin() {
	p.t.Helper()
	p.launch()
	p.awaitStatus(p.dst, "active")
	p.awaitStatus(p.m, "active")
}

// launch begins to migrate, with postcopy permitted.
func (p *postcopy) launch() {
	p.t.Helper()
	for _, m := range []*machine{p.m, p.dst} {
		m.execute("migrate-set-capabilities", map[string]any{"capabilities": []map[string]any{
			{"capability": "postcopy-ram", "state": true},
		}})
	}
	p.m.execute("migrate-set-parameters", map[string]any{"max-postcopy-bandwidth": slowly})
	if err := p.m.StartMigration(p.m.ctx, p.dst.VM, slowly); err != nil {
		p.t.Fatal(err)
	}
}

// switchOver switches to postcopy, and waits until the destination runs.
func (p *postcopy) switchOver() {
	p.t.Helper()
	p.m.execute("migrate-start-postcopy", nil)
	p.awaitStatus(p.m, "postcopy-active")
	if err := p.dst.Arrive(p.dst.ctx); err != nil {
		p.t.Fatal(err)
	}
}

// end lets the rest of the memory arrive.
func (p *postcopy) end() {
	p.t.Helper()
	p.m.execute("migrate-set-parameters", map[string]any{
		"max-bandwidth": 1 << 40, "max-postcopy-bandwidth": 0,
	})
	p.awaitStatus(p.m, "completed")
	p.awaitStatus(p.dst, "completed")
}

func (p *postcopy) awaitStatus(m *machine, status string) {
	p.t.Helper()
	m.await("the migration is "+status, func() bool {
		figures, err := m.QueryMigrate(m.ctx)
		if err != nil || figures.Status != status && figures.Ended() {
			p.t.Fatalf("the migration is %+v, not %s: %v\n%s", figures, status, err, p.dst.Messages())
		}
		return figures.Status == status
	})
}

// alone watches for a while that QEMU does not use the destination's backend.
func (p *postcopy) alone() {
	p.t.Helper()
	if p.heard < 0 || !p.there {
		return
	}
	time.Sleep(500 * time.Millisecond) // QEMU connects, and checks several times
	if n := p.r.heard.Load() - p.heard; n != 0 {
		p.t.Fatalf("QEMU said %d messages to a backend that it should leave alone", n)
	}
	if mapped(p.t, p.b) != 0 {
		p.t.Fatal("the backend has guest memory before all of it has arrived")
	}
}

// requireWhole checks that the memory with content has arrived.
func (p *postcopy) requireWhole() {
	p.t.Helper()
	p.dst.requireRuns()
	var memory [2][]byte
	for i, m := range []*machine{p.m, p.dst} {
		file := filepath.Join(p.t.TempDir(), "memory")
		m.execute("pmemsave", map[string]any{"val": filled, "size": filledSize, "filename": file})
		var err error
		if memory[i], err = os.ReadFile(file); err != nil {
			p.t.Fatal(err)
		}
	}
	if !bytes.Equal(memory[0], memory[1]) {
		p.t.Fatal("the destination has other memory than the source")
	}
}
