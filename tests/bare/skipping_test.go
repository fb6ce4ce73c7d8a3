// SPDX-License-Identifier: Apache-2.0

package bare

import (
	"testing"

	"github.com/fbpp-project/fbpp/device/protocol"
	"github.com/fbpp-project/fbpp/tests/vm"
	"github.com/fbpp-project/fbpp/vhostuser"
)

// skipping is a postcopy migration in which the source skips some memory.
type skipping struct {
	*postcopy
	here, there  *peeker // the backends of the source and of the destination
	link         *link
	module       uint64 // the start of the tested memory: 0, or that of the memory module
	capabilities []string
}

func withModule(memory string) func(c *vm.Config) {
	return func(c *vm.Config) {
		c.Options = []string{"-m", "64M,slots=2,maxmem=1G", "-object", memory + ",id=more,size=64M"}
		c.Devices = []string{"pc-dimm,id=dimm,memdev=more"}
	}
}

// windowFeatures are those of the backends that answer with memory that is free, and
// with an order.
const windowFeatures = protocol.WindowFeatureOutcome | protocol.WindowFeatureClasses |
	protocol.WindowFeatureNeeds

// newSkipping makes two machines, each with a backend. A driver runs on the source.
func newSkipping(
	t testing.TB, inModule bool, change func(*vm.Config), capabilities []string,
) *skipping {
	t.Helper()
	s := &skipping{capabilities: append([]string{"postcopy-ram"}, capabilities...)}
	if inModule {
		s.module = module
	}
	if change == nil {
		change = func(*vm.Config) {}
	}
	s.start(t, change, change)
	return s
}

// newSkippingTo makes two machines that may differ, for a migration with capabilities.
func newSkippingTo(
	t testing.TB, capabilities []string, source, destination func(*vm.Config),
) *skipping {
	t.Helper()
	s := &skipping{capabilities: capabilities}
	s.start(t, source, destination)
	return s
}

// start starts the machines, and fills the tested memory.
func (s *skipping) start(t testing.TB, source, destination func(*vm.Config)) {
	t.Helper()
	uffd, err := vhostuser.OpenUserfault()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { uffd.Close() })
	s.here = startPeeker(t, windowFeatures, vhostuser.WithUserfault(uffd))
	s.there = startPeeker(t, windowFeatures, vhostuser.WithUserfault(uffd))
	configFor := func(p *peeker, change func(*vm.Config)) vm.Config {
		c := config(p.socket)
		c.Device["hint-timeout"] = "60000"
		change(&c)
		return c
	}
	m := start(t, configFor(s.here, source))
	m.fill(s.at(filled), filledSize, 0x5a)
	m.startDriver(low)
	m.awaitSees(s.here, low)
	dst := startIncoming(t, configFor(s.there, destination))
	s.postcopy = &postcopy{t: t, m: m, dst: dst}
	s.dst.awaitConnectedTo(s.there)
	s.link = startLink(t)
}

// at moves an address into the tested memory.
func (s *skipping) at(addr uint64) uint64 { return s.module + addr }

// begin begins to migrate through the link, and waits until that is under way.
func (s *skipping) begin() {
	s.t.Helper()
	s.connect()
	s.awaitStatus(s.m, "active")
}

// connect begins to migrate through the link.
func (s *skipping) connect() {
	s.t.Helper()
	var states []map[string]any
	for _, c := range s.capabilities {
		states = append(states, map[string]any{"capability": c, "state": true})
	}
	for _, m := range []*machine{s.m, s.dst} {
		m.execute("migrate-set-capabilities", map[string]any{"capabilities": states})
	}
	s.m.execute("migrate-set-parameters", map[string]any{
		"max-bandwidth": slowly, "max-postcopy-bandwidth": slowly / 4,
	})
	s.dst.execute("migrate-incoming", map[string]any{"uri": "unix:" + s.link.far})
	s.m.execute("migrate", map[string]any{"uri": "unix:" + s.link.near})
}
